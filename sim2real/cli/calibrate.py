"""Commands of calibration: board, camera, hand-eye, pose, latency."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
import yaml
from rich.markup import escape
from rich.table import Table

from sim2real.cli.board import takes_board
from sim2real.cli.console import JsonFile, console, save_json
from sim2real.errors import ConfigError
from sim2real.files import must_be_writable, write_text

if TYPE_CHECKING:
    from calibration.boards import Board, Detection
    from calibration.find import Seen
    from calibration.hand_eye import HandEyeResult
    from calibration.intrinsics import IntrinsicsResult
    from sim2real.runtime.camera import CameraCalibration

app = typer.Typer(no_args_is_help=True, help="Calibrate a camera: its lens, where it is, how late it is.")

Source = Annotated[Path, typer.Argument(help="Folder of images, dataset of 'sim2real collect', one image, or a bag.")]
Topic = Annotated[str | None, typer.Option(help="Topic of the images in a bag.")]
CameraFile = Annotated[Path, typer.Option("--camera", help="Calibration that 'sim2real calibrate camera' wrote.")]


@app.command("board")
@takes_board
def board_command(pattern: Board, out: Annotated[Path, typer.Argument(help="File to write: .pdf or .png.")]) -> None:
    """Make a board to print at 100 %."""
    pattern.print_to(out)
    width, height = (1e3 * side for side in pattern.size)
    console.print(f"{out}: pattern {width:.1f} x {height:.1f} mm. Print at 100 %, glue it flat, measure a square.")


@app.command("camera")
@takes_board
def camera_command(
    pattern: Board,
    source: Source,
    out: Annotated[Path, typer.Option(help="Calibration to write (ROS camera_info YAML).")] = Path("camera.yaml"),
    lens: Annotated[str, typer.Option(help="pinhole, rational or fisheye.")] = "pinhole",
    fixed_aspect: Annotated[bool, typer.Option("--fixed-aspect", help="Hold fx = fy.")] = False,
    window: Annotated[
        int | None,
        typer.Option(min=1, help="Half the window of corner refinement, px; by the squares' size by default."),
    ] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Drop no view, however badly it fits.")] = False,
    opencv: Annotated[
        bool,
        typer.Option(
            "--opencv",
            help="As OpenCV's calibration sample: fx = fy, all views, one wide window (10 px; the sample has 11).",
        ),
    ] = False,
    topic: Topic = None,
    name: Annotated[str, typer.Option(help="Of the camera.")] = "camera",
    json_file: JsonFile = None,
) -> None:
    """Fit a camera's matrix and lens to views of a board."""
    from calibration.boards import SAMPLE_STOP_PX, SAMPLE_WINDOW, STOP_PX
    from calibration.find import WORST_PX
    from calibration.intrinsics import calibrate_camera

    must_be_writable(out)
    if opencv:
        window, fixed_aspect, keep_all = window or SAMPLE_WINDOW, True, True
    seen = _find(pattern, source, topic, window, SAMPLE_STOP_PX if opencv else STOP_PX)
    if seen.missed:
        count = len(seen.missed) + len(seen.found)
        console.print(f"No board in {len(seen.missed)} of {count} images: {', '.join(seen.missed[:8])}")
    result = calibrate_camera(seen.found, seen.size, lens, fixed_aspect, keep_all, name)  # type: ignore[arg-type]
    _print_camera(result)
    camera = result.camera
    if camera.rms_px > WORST_PX:
        raise ConfigError(
            f"the corners are {camera.rms_px:.1f} px off, {WORST_PX:.0f} are allowed; nothing was written. Check the "
            "board's kind, columns and rows, and the lens: --lens fisheye for a very wide one"
        )
    camera.save(out)
    save_json(
        json_file,
        {
            "fx": float(camera.matrix[0, 0]),
            "fy": float(camera.matrix[1, 1]),
            "cx": float(camera.matrix[0, 2]),
            "cy": float(camera.matrix[1, 2]),
            "distortion": camera.distortion.tolist(),
            "std": result.std.tolist(),
            "rms_px": camera.rms_px,
            "held_out_px": camera.held_out_px,
            "views": {v.name: {"rms_px": v.rms_px, "tilt_deg": v.tilt_deg, "dropped": v.dropped} for v in result.views},
            "without_board": seen.missed,
            "coverage": result.coverage.tolist(),
            "advice": list(result.advice),
            "notes": list(seen.notes),
        },
    )
    console.print(f"Calibration: {out}")


@app.command("pose")
@takes_board
def pose_command(
    pattern: Board,
    source: Source,
    camera: CameraFile,
    topic: Topic = None,
    json_file: JsonFile = None,
) -> None:
    """Where the board is in each image: T_camera_board."""
    from calibration.find import fitting_poses
    from sim2real.runtime.camera import load_camera

    known = load_camera(camera)
    seen = _find(pattern, source, topic)
    keep, poses, errors, why = fitting_poses(known, seen)
    names = [seen.found[index].name for index in keep]
    table = Table("image", "x, y, z (m)", "rotation vector (rad)", "error (px)", title="T_camera_board")
    for name, pose, error in zip(names, poses, errors, strict=True):
        table.add_row(name, _numbers(pose[:3, 3]), _numbers(_rotation_vector(pose)), f"{error:.2f}")
    console.print(table)
    if seen.missed:
        console.print(f"No board in {', '.join(seen.missed)}")
    entries = zip(names, poses, errors, strict=True)
    save_json(json_file, {n: {"T_camera_board": pose.tolist(), "rms_px": float(error)} for n, pose, error in entries})
    if why:
        _left_out(why)
        raise typer.Exit(1)


@app.command("hand-eye")
@takes_board
def hand_eye_command(
    pattern: Board,
    source: Annotated[
        Path,
        typer.Argument(
            help="Images (with --poses and --camera), a dataset of 'sim2real collect --robot', or pairs of poses "
            "[T_base_ee, T_camera_board] (JSON, YAML). Keep that order: nothing can check it where both ways round "
            "would be possible poses."
        ),
    ],
    setup: Annotated[str, typer.Option(help="eye-to-hand (camera stands) or eye-in-hand (camera on the hand).")],
    poses: Annotated[Path | None, typer.Option(help="T_base_ee by image: CSV, YAML or JSON.")] = None,
    camera: Annotated[Path | None, typer.Option(help="Calibration of the camera; completed with its pose.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the camera with its pose here; over --camera if not.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Find where the camera is, from poses of the arm and of a board."""
    from calibration.hand_eye import hand_eye
    from sim2real.images.files import is_dataset, read_pose_pairs
    from sim2real.runtime.camera import load_camera

    known = load_camera(camera) if camera else None
    poses = source if poses is None and is_dataset(source) else poses
    target = out or camera
    must_be_writable(target)
    if poses is None:
        arm, board = read_pose_pairs(source)
        names, found = [f"pair {index}" for index in range(len(arm))], None
    else:
        if known is None:
            raise ConfigError("images need --camera, the calibration that 'sim2real calibrate camera' wrote")
        arm, board, found = _posed(pattern, source, poses, known)
        names = [detection.name for detection in found]
    with console.status("solving"):
        result = hand_eye(arm, board, setup, known if found else None, found)  # type: ignore[arg-type]
    _print_hand_eye(result, names)
    save_json(json_file, _hand_eye_figures(result, names))
    if result.warnings:
        console.print("Nothing was written.")
        raise typer.Exit(1)
    if target is None:
        console.print("Nothing was written: give --camera, whose calibration is completed, or --out or --json.")
        return
    if known is None:
        write_text(target, yaml.safe_dump({result.label: result.T_camera.tolist()}, sort_keys=False))
    else:
        replace(known, **{result.label: result.T_camera}).save(target)  # type: ignore[arg-type]
    console.print(f"Calibration: {target}")


@app.command("latency")
@takes_board
def latency_command(
    pattern: Board,
    source: Annotated[
        Path,
        typer.Argument(
            help="Bag or dataset ('sim2real collect --all') with images of a board that one joint swings irregularly."
        ),
    ],
    camera: CameraFile,
    joint: Annotated[str, typer.Option(help="The joint that moves.")],
    joints: Annotated[
        Path | None,
        typer.Option(help="CSV: time, and the joint's position in rad; the images' clock. Not for a dataset."),
    ] = None,
    topic: Topic = None,
    json_file: JsonFile = None,
) -> None:
    """How much later than the joints the images are; written into the calibration."""
    from calibration.find import fitting_poses
    from calibration.latency import camera_latency, turning
    from sim2real.images.files import is_dataset, joint_track
    from sim2real.runtime.camera import load_camera

    known = load_camera(camera)
    must_be_writable(camera)
    if joints is None and not is_dataset(source):
        raise ConfigError(f"{source} says nothing of joints: give their recording with --joints (CSV)")
    time, position = joint_track(source, joint) if joints is None else _joint_track(joints, joint)
    seen = _find(pattern, source, topic)
    keep, poses, _, why = fitting_poses(known, seen)
    _left_out(why)
    late = camera_latency(time, position, np.array(seen.stamps)[keep], turning(poses))
    console.print(f"Images are {1e3 * late.seconds:.1f} ± {1e3 * late.std:.1f} ms later than the joints "
                  f"({len(poses)} images, {late.explained:.1%} of their motion explained)")  # fmt: skip
    replace(known, latency_s=late.seconds, latency_std_s=late.std).save(camera)
    save_json(json_file, {"latency_s": late.seconds, "std_s": late.std, "explained": late.explained})


def _find(
    board: Board, source: Path, topic: str | None = None, window: int | None = None, stop_px: float = 1e-4
) -> Seen:
    """The board in all images; what is to be noted about it is printed."""
    from calibration.find import find_board

    with console.status("looking for the board"):
        seen = find_board(board, source, topic, window, stop_px)
    for note in seen.notes:
        console.print(f"[yellow]Note: {escape(note)}.")
    return seen


def _posed(board: Board, source: Path, poses: Path, camera: CameraCalibration) -> tuple[Any, Any, list[Detection]]:
    """T_base_ee and T_camera_board [N, 4, 4], and the board in the image, of every image that has both."""
    from calibration.find import fitting_poses
    from sim2real.images.files import read_poses

    stands = read_poses(poses)
    seen = _find(board, source)
    keep, boards, _, why = fitting_poses(camera, seen)
    _left_out(why)
    both = [(index, pose) for index, pose in zip(keep, boards, strict=True) if seen.found[index].name in stands]
    found = [seen.found[index] for index, _ in both]
    lost = sorted(set(stands) - {detection.name for detection in found})
    if lost:
        console.print(f"No board, or no image, for {len(lost)} poses: {', '.join(lost[:8])}")
    if not found:
        raise ConfigError(f"no image of {source} has both a pose in {poses} and a board; names must be the files'")
    return np.array([stands[d.name] for d in found]), np.array([pose for _, pose in both]), found


def _left_out(why: dict[str, str]) -> None:
    for name, reason in why.items():
        console.print(f"[yellow]Left out: {escape(name)}: {escape(reason)}")


def _print_hand_eye(result: HandEyeResult, names: list[str]) -> None:
    pose = result.T_camera
    table = Table("", "value", "± (1σ)", title=result.label)
    table.add_row("x, y, z (m)", _numbers(pose[:3, 3]), f"{_numbers(result.std_mm, 2)} mm")
    table.add_row("rotation vector (rad)", _numbers(_rotation_vector(pose)), f"{_numbers(result.std_deg, 3)} °")
    held = f"{result.held_out_mm:.2f} mm, {result.held_out_deg:.3f} °"
    table.add_row("samples it had not seen", held, f"{len(names) - len(result.dropped)} samples")
    for solver, (mm, degrees) in result.per_solver.items():
        table.add_row(f"  OpenCV's {solver} alone", f"{mm:.2f} mm, {degrees:.3f} °", "")
    table.add_row("taken", result.method, "")
    console.print(table)
    _left_out({names[index]: why for index, why in result.dropped.items()})
    for note in result.notes:
        console.print(f"[yellow]Warning: {escape(note)}.")
    for warning in result.warnings:
        console.print(f"[red]{escape(warning)}.")


def _hand_eye_figures(result: HandEyeResult, names: list[str]) -> dict[str, Any]:
    """For the JSON file. A pose that is not to be used is not in it."""
    return {
        **({} if result.warnings else {result.label: result.T_camera.tolist()}),
        "method": result.method,
        "std_mm": result.std_mm.tolist(),
        "std_deg": result.std_deg.tolist(),
        "held_out_mm": result.held_out_mm,
        "held_out_deg": result.held_out_deg,
        "per_solver": {name: list(values) for name, values in result.per_solver.items()},
        "dropped": {names[index]: why for index, why in result.dropped.items()},
        "warnings": list(result.warnings),
        "notes": list(result.notes),
    }


def _print_camera(result: IntrinsicsResult) -> None:
    camera = result.camera
    table = Table("", "value", "± (1σ)", title=f"{camera.lens} camera, {camera.width} x {camera.height}")
    for name, value, std in zip(
        ("fx", "fy", "cx", "cy"), camera.matrix[[0, 1, 0, 1], [0, 1, 2, 2]], result.std[:4], strict=True
    ):
        table.add_row(f"{name} (px)", f"{value:.2f}", f"{std:.2f}")
    table.add_row("distortion", _numbers(camera.distortion), _numbers(result.std[4:]))
    table.add_row("reprojection error (px)", f"{camera.rms_px:.4f}", "root mean square")
    table.add_row("  of views it had not seen", f"{camera.held_out_px:.4f}", "")
    console.print(table)
    views = Table("view", "error (px)", "tilt (°)", "")
    for view in sorted(result.views, key=lambda v: -v.rms_px):
        views.add_row(
            view.name, f"{view.rms_px:.3f}", f"{view.tilt_deg:.0f}", f"dropped: {view.dropped}" * bool(view.dropped)
        )
    console.print(views)
    shades = " ░▒▓█"
    most = max(int(result.coverage.max()), 1)
    console.print("Corners over the image (from above):")
    for row in result.coverage:
        console.print("  " + "".join(3 * shades[min(4, int(np.ceil(4 * count / most)))] for count in row))
    for line in result.advice:
        console.print(f"[yellow]{line}")


def _joint_track(path: Path, joint: str) -> tuple[Any, Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        track = np.array([[float(row["time"]), float(row[joint])] for row in rows])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: a column 'time' and a column '{joint}' of numbers are needed ({error})") from error
    if len(track) < 2 or not np.isfinite(track).all() or (np.diff(track[:, 0]) <= 0).any():
        raise ConfigError(f"{path}: times must ascend and every value be finite")
    return track[:, 0], track[:, 1]


def _rotation_vector(pose: Any) -> Any:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(pose[:3, :3]).as_rotvec()


def _numbers(values: Any, digits: int = 4) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
