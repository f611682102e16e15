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

from sim2real.console import JsonFile, console, save_json
from sim2real.errors import ConfigError
from sim2real.files import write_text

if TYPE_CHECKING:
    from calibration.boards import Board, Detection
    from calibration.intrinsics import IntrinsicsResult

app = typer.Typer(no_args_is_help=True, help="Calibrate a camera: its lens, where it is, how late it is.")

KindOption = Annotated[str, typer.Option("--board", help="charuco, chessboard, or grid (ArUco or AprilTag markers).")]
Columns = Annotated[int, typer.Option(help="Inner corners (chessboard), squares (charuco) or markers (grid) in a row.")]
Rows = Annotated[int, typer.Option(help="The same in a column.")]
Square = Annotated[float, typer.Option(help="Side of a square (grid: of a marker), m, measured on the print.")]
Marker = Annotated[float, typer.Option(help="Side of a charuco board's marker, or gap between a grid's markers, m.")]
DictionaryName = Annotated[str, typer.Option(help="Of the markers: 5X5_250, APRILTAG_36h11, …")]
Legacy = Annotated[bool, typer.Option(help="A charuco board and its frame as OpenCV before 4.6 and MoveIt have them.")]
Source = Annotated[Path, typer.Argument(help="Folder of images, one image, or a bag (rosbag2, MCAP).")]
Topic = Annotated[str | None, typer.Option(help="Topic of the images in a bag.")]
CameraFile = Annotated[Path, typer.Option("--camera", help="Calibration that 'sim2real calibrate camera' wrote.")]


@app.command("board")
def board_command(
    out: Annotated[Path, typer.Argument(help="File to write: .pdf or .png.")],
    board: KindOption = "charuco",
    columns: Columns = 5,
    rows: Rows = 7,
    square: Square = 0.03,
    marker: Marker = 0.022,
    dictionary: DictionaryName = "5X5_250",
    legacy: Legacy = False,
) -> None:
    """Make a board to print at 100 %."""
    made = _board(board, columns, rows, square, marker, dictionary, legacy)
    made.print_to(out)
    width, height = (1e3 * side for side in made.size)
    console.print(f"{out}: pattern {width:.1f} x {height:.1f} mm. Print at 100 %, glue it flat, measure a square.")


@app.command("camera")
def camera_command(
    source: Source,
    out: Annotated[Path, typer.Option(help="Calibration to write (ROS camera_info YAML).")] = Path("camera.yaml"),
    board: KindOption = "charuco",
    columns: Columns = 5,
    rows: Rows = 7,
    square: Square = 0.03,
    marker: Marker = 0.022,
    dictionary: DictionaryName = "5X5_250",
    legacy: Legacy = False,
    lens: Annotated[str, typer.Option(help="pinhole, rational or fisheye.")] = "pinhole",
    fixed_aspect: Annotated[bool, typer.Option("--fixed-aspect", help="Hold fx = fy.")] = False,
    window: Annotated[
        int | None,
        typer.Option(help="Half the window of corner refinement, px; by the squares' size by default."),
    ] = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Drop no view, however badly it fits.")] = False,
    topic: Topic = None,
    name: Annotated[str, typer.Option(help="Of the camera.")] = "camera",
    json_file: JsonFile = None,
) -> None:
    """Fit a camera's matrix and lens to views of a board."""
    from calibration.intrinsics import calibrate_camera

    pattern = _board(board, columns, rows, square, marker, dictionary, legacy)
    found, missed, _, size = _detect(pattern, source, topic, window)
    if missed:
        console.print(f"No board in {len(missed)} of {len(missed) + len(found)} images: {', '.join(missed[:8])}")
    result = calibrate_camera(found, size, lens, fixed_aspect, keep_all, name)  # type: ignore[arg-type]
    _print_camera(result)
    result.camera.save(out)
    camera = result.camera
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
            "without_board": missed,
            "coverage": result.coverage.tolist(),
            "advice": list(result.advice),
        },
    )
    console.print(f"Calibration: {out}")


@app.command("pose")
def pose_command(
    source: Source,
    camera: CameraFile,
    board: KindOption = "charuco",
    columns: Columns = 5,
    rows: Rows = 7,
    square: Square = 0.03,
    marker: Marker = 0.022,
    dictionary: DictionaryName = "5X5_250",
    legacy: Legacy = False,
    topic: Topic = None,
    json_file: JsonFile = None,
) -> None:
    """Where the board is in each image: T_camera_board."""
    from calibration.intrinsics import board_pose
    from sim2real.camera import load_camera

    known = load_camera(camera)
    pattern = _board(board, columns, rows, square, marker, dictionary, legacy)
    found, missed, _, _ = _detect(pattern, source, topic)
    poses = {detection.name: board_pose(known, detection) for detection in found}
    table = Table("image", "x, y, z (m)", "rotation vector (rad)", "error (px)", title="T_camera_board")
    for name, (pose, error) in poses.items():
        table.add_row(name, _numbers(pose[:3, 3]), _numbers(_rotation_vector(pose)), f"{error:.2f}")
    console.print(table)
    if missed:
        console.print(f"No board in {', '.join(missed)}")
    content = {n: {"T_camera_board": pose.tolist(), "rms_px": error} for n, (pose, error) in poses.items()}
    save_json(json_file, content)
    if not found:
        raise ConfigError(f"the board was found in no image of {source}; check its columns, rows and dictionary")


@app.command("hand-eye")
def hand_eye_command(
    source: Annotated[Path, typer.Argument(help="Images (with --poses and --camera), or pairs of poses (JSON, YAML).")],
    setup: Annotated[str, typer.Option(help="eye-to-hand (camera stands) or eye-in-hand (camera on the hand).")],
    poses: Annotated[Path | None, typer.Option(help="T_base_ee by image: CSV, YAML or JSON.")] = None,
    camera: Annotated[Path | None, typer.Option(help="Calibration of the camera; completed with its pose.")] = None,
    board: KindOption = "charuco",
    columns: Columns = 5,
    rows: Rows = 7,
    square: Square = 0.03,
    marker: Marker = 0.022,
    dictionary: DictionaryName = "5X5_250",
    legacy: Legacy = False,
    out: Annotated[Path | None, typer.Option(help="Write the camera with its pose here; over --camera if not.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Find where the camera is, from poses of the arm and of a board."""
    from calibration.hand_eye import hand_eye
    from calibration.images import read_pose_pairs
    from calibration.intrinsics import board_pose
    from sim2real.camera import load_camera

    known = load_camera(camera) if camera else None
    if poses is None:
        arm, seen = read_pose_pairs(source)
        names, found = [f"pair {index}" for index in range(len(arm))], None
    else:
        if known is None:
            raise ConfigError("images need --camera, the calibration that 'sim2real calibrate camera' wrote")
        pattern = _board(board, columns, rows, square, marker, dictionary, legacy)
        arm, found = _posed(pattern, source, poses)
        names = [detection.name for detection in found]
        seen = np.array([board_pose(known, detection)[0] for detection in found])
    result = hand_eye(arm, seen, setup, known if found else None, found)  # type: ignore[arg-type]
    to_hand = result.T_base_camera is not None
    pose = result.T_base_camera if to_hand else result.T_ee_camera
    assert pose is not None
    label = "T_base_camera" if to_hand else "T_ee_camera"
    table = Table("", "value", "± (1σ)", title=label)
    table.add_row("x, y, z (m)", _numbers(pose[:3, 3]), f"{_numbers(result.std_mm, 2)} mm")
    table.add_row("rotation vector (rad)", _numbers(_rotation_vector(pose)), f"{_numbers(result.std_deg, 3)} °")
    held = f"{result.held_out_mm:.2f} mm, {result.held_out_deg:.3f} °"
    table.add_row("samples it had not seen", held, f"{len(names) - len(result.dropped)} samples")
    for solver, (mm, degrees) in result.per_solver.items():
        table.add_row(f"  OpenCV's {solver} alone", f"{mm:.2f} mm, {degrees:.3f} °", "")
    console.print(table)
    for index, why in result.dropped.items():
        console.print(f"[yellow]Left out: {escape(names[index])}: {why}")
    for warning in result.warnings:
        console.print(f"[red]{escape(warning)}")
    save_json(
        json_file,
        {
            label: pose.tolist(),
            "std_mm": result.std_mm.tolist(),
            "std_deg": result.std_deg.tolist(),
            "held_out_mm": result.held_out_mm,
            "held_out_deg": result.held_out_deg,
            "per_solver": {name: list(values) for name, values in result.per_solver.items()},
            "dropped": {names[index]: why for index, why in result.dropped.items()},
            "warnings": list(result.warnings),
        },
    )
    if result.warnings:
        console.print("Nothing was written.")
        raise typer.Exit(1)
    target = out or camera
    if target is None:
        console.print("Nothing was written: give --camera, whose calibration is completed, or --out or --json.")
        return
    if known is None:
        write_text(target, yaml.safe_dump({label: pose.tolist()}, sort_keys=False))
    else:
        placed = replace(known, T_base_camera=pose) if to_hand else replace(known, T_ee_camera=pose)
        placed.save(target)
    console.print(f"Calibration: {target}")


@app.command("latency")
def latency_command(
    source: Annotated[Path, typer.Argument(help="Bag with images of a board that one joint swings.")],
    joints: Annotated[Path, typer.Option(help="CSV: time, and the joint's position in rad; the images' clock.")],
    camera: CameraFile,
    joint: Annotated[str, typer.Option(help="Column of the joint that moves.")],
    board: KindOption = "charuco",
    columns: Columns = 5,
    rows: Rows = 7,
    square: Square = 0.03,
    marker: Marker = 0.022,
    dictionary: DictionaryName = "5X5_250",
    legacy: Legacy = False,
    topic: Topic = None,
    json_file: JsonFile = None,
) -> None:
    """How much later than the joints the images are; written into the calibration."""
    from calibration.intrinsics import board_pose
    from calibration.latency import camera_latency, turning
    from sim2real.camera import load_camera

    known = load_camera(camera)
    pattern = _board(board, columns, rows, square, marker, dictionary, legacy)
    found, _, stamps, _ = _detect(pattern, source, topic)
    poses = np.array([board_pose(known, detection)[0] for detection in found]).reshape(-1, 4, 4)
    time, position = _joint_track(joints, joint)
    if not len(poses):
        raise ConfigError(f"the board was found in no image of {source}")
    late = camera_latency(time, position, np.array(stamps), turning(poses))
    console.print(f"Images are {1e3 * late.seconds:.1f} ± {1e3 * late.std:.1f} ms later than the joints "
                  f"({len(poses)} images, {late.explained:.1%} of their motion explained)")  # fmt: skip
    replace(known, latency_s=late.seconds, latency_std_s=late.std).save(camera)
    save_json(json_file, {"latency_s": late.seconds, "std_s": late.std, "explained": late.explained})


def _board(kind: str, columns: int, rows: int, square: float, marker: float, dictionary: str, legacy: bool) -> Board:
    try:
        from calibration.boards import Board
    except ImportError as error:
        raise ConfigError(f"calibration needs OpenCV ({error}): pip install 'sim2real[vision]'") from error
    if kind not in ("charuco", "chessboard", "grid"):
        raise ConfigError(f"unknown board '{kind}'; it is charuco, chessboard or grid")
    return Board(kind, columns, rows, square, marker, dictionary, legacy)  # type: ignore[arg-type]


def _detect(
    board: Board, source: Path, topic: str | None = None, window: int | None = None
) -> tuple[list[Detection], list[str], list[float], tuple[int, int]]:
    """Detections, names of images without the board, stamps of the detections, and the images' size."""
    from calibration.images import read_images

    found, missed, stamps, size = [], [], [], (0, 0)
    with console.status("looking for the board"):
        for name, stamp, image in read_images(source, topic):
            size = (image.shape[1], image.shape[0])
            detection = board.detect(image, name, window)
            if detection is None:
                missed.append(name)
            else:
                found.append(detection)
                stamps.append(stamp)
    return found, missed, stamps, size


def _posed(board: Board, source: Path, poses: Path) -> tuple[Any, list[Detection]]:
    """T_base_ee [N, 4, 4] and the board in the image, of every image that has both."""
    from calibration.images import read_poses

    stands = read_poses(poses)
    found = [detection for detection in _detect(board, source)[0] if detection.name in stands]
    lost = sorted(set(stands) - {detection.name for detection in found})
    if lost:
        console.print(f"No board, or no image, for {len(lost)} poses: {', '.join(lost[:8])}")
    if not found:
        raise ConfigError(f"no image of {source} has both a pose in {poses} and a board; names must be the files'")
    return np.array([stands[detection.name] for detection in found]), found


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
        with path.open(newline="") as file:
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
