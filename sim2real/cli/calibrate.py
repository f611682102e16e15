"""Commands of calibration: board, camera, hand-eye, pose, latency."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sim2real.cli.board import takes_board
from sim2real.cli.calibrate_tables import show_camera, show_hand_eye, show_left_out, show_poses, show_verdict
from sim2real.cli.console import JsonFile, console, save_json
from sim2real.errors import ConfigError
from sim2real.files import must_be_writable

if TYPE_CHECKING:
    from calibration.boards import Board, Detection
    from calibration.find import Seen
    from calibration.hand_eye import HandEyeResult
    from sim2real.runtime.camera import CameraCalibration
    from sim2real.types import Array

app = typer.Typer(no_args_is_help=True, help="Calibrate a camera: its lens, where it is, how late it is.")

Source = Annotated[Path, typer.Argument(help="Folder of images, dataset of 'sim2real collect', one image, or a bag.")]
Topic = Annotated[str | None, typer.Option(help="Topic of the images in a bag.")]
CameraFile = Annotated[Path, typer.Option("--camera", help="Calibration that 'sim2real calibrate camera' wrote.")]


@app.command("board")
@takes_board
def board_command(pattern: Board, out: Annotated[Path, typer.Argument(help="File to write: .pdf or .png.")]) -> None:
    """Make a board to print at 100 %."""
    from calibration.sheet import described, paper_for

    pattern.print_to(out)
    width, height = (1e3 * side for side in pattern.size)
    paper = f" on {paper_for(pattern)[0]}" if out.suffix.lower() == ".pdf" else ""
    console.print(f"{out}: {described(pattern)[0]}; pattern {width:.1f} x {height:.1f} mm{paper}.")
    console.print("Print at 100 %, glue it flat, measure the ruler and a square.")


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
    from calibration.intrinsics import calibrate_camera
    from calibration.picture import save_picture
    from calibration.verdict import judge, refuse_two_cameras, refuse_useless

    must_be_writable(out)
    if opencv:
        window, fixed_aspect, keep_all = window or SAMPLE_WINDOW, True, True
    seen = _find(pattern, source, topic, window, SAMPLE_STOP_PX if opencv else STOP_PX)
    with console.status("fitting"):
        refuse_two_cameras(seen.found, seen.size, lens)  # type: ignore[arg-type]
        result = calibrate_camera(seen.found, seen.size, lens, fixed_aspect, keep_all, name)  # type: ignore[arg-type]
        verdict = judge(result, seen.found, seen.size, fixed_aspect)
    show_camera(result)
    show_verdict(verdict)
    save_json(
        json_file,
        result.summary()
        | {"without_board": seen.missed, "notes": list(seen.notes), "verdict": verdict.word}
        | {"reasons": list(verdict.reasons), "lenses_held_out_px": verdict.lenses},
    )
    refuse_useless(verdict)
    result.camera.save(out)
    picture = out.with_suffix(".png")
    save_picture(picture, result, seen.found, seen.images[0] if seen.images else None)
    console.print(f"Calibration: {out}, with a picture of it: {picture}")


@app.command("pose")
@takes_board
def pose_command(
    pattern: Board,
    source: Source,
    camera: CameraFile,
    topic: Topic = None,
    json_file: JsonFile = None,
) -> None:
    """Find the board's pose in each image: T_camera_board."""
    from calibration.find import fitting_poses
    from sim2real.runtime.camera import load_camera

    seen = _find(pattern, source, topic)
    keep, poses, errors, why = fitting_poses(load_camera(camera), seen)
    names = [seen.found[index].name for index in keep]
    show_poses(names, poses, errors)
    entries = zip(names, poses, errors, strict=True)
    save_json(json_file, {n: {"T_camera_board": pose.tolist(), "rms_px": float(error)} for n, pose, error in entries})
    if why:
        show_left_out(why)
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
    camera_frame: Annotated[
        str,
        typer.Option(help="Frame of the board's poses in a file of pairs: optical (z forwards), or link (x forwards)."),
    ] = "optical",
    out: Annotated[Path | None, typer.Option(help="Write the camera with its pose here; over --camera if not.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Find where the camera is, from poses of the arm and of a board."""
    from calibration.hand_eye import OPTICAL_FROM_LINK, hand_eye
    from sim2real.runtime.camera import load_camera

    if camera_frame not in ("optical", "link"):
        raise ConfigError(f"unknown --camera-frame '{camera_frame}'; it is optical or link")
    known, target = load_camera(camera) if camera else None, out or camera
    must_be_writable(target)
    arm, board, names, found = _samples(pattern, source, poses, known, setup == "eye-to-hand")
    if camera_frame == "link" and found is None:
        board = OPTICAL_FROM_LINK @ board
    with console.status("solving"):
        result = hand_eye(arm, board, setup, known if found else None, found)  # type: ignore[arg-type]
    show_hand_eye(result, names)
    save_json(json_file, result.summary(names))
    if result.warnings:
        console.print("Nothing was written.")
        raise typer.Exit(1)
    _save_pose(result, target, known)


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
    """Measure how much later than the joints the images are, and write it into the calibration."""
    import numpy as np

    from calibration.find import fitting_poses
    from calibration.latency import camera_latency, rotation_angle
    from sim2real.runtime.camera import load_camera

    known = load_camera(camera)
    must_be_writable(camera)
    time, position = _track(source, joints, joint)
    seen = _find(pattern, source, topic)
    keep, poses, _, misfits = fitting_poses(known, seen)
    show_left_out(misfits)
    late = camera_latency(time, position, np.array(seen.stamps)[keep], rotation_angle(poses))
    console.print(f"Images are {1e3 * late.seconds:.1f} ± {1e3 * late.std:.1f} ms later than the joints "
                  f"({len(poses)} images, {late.explained:.1%} of their motion explained)")  # fmt: skip
    replace(known, latency_s=late.seconds, latency_std_s=late.std).save(camera)
    save_json(json_file, {"latency_s": late.seconds, "std_s": late.std, "explained": late.explained})


def _find(
    board: Board, source: Path, topic: str | None = None, window: int | None = None, stop_px: float = 1e-4
) -> Seen:
    """Find the board in all images, and print what is to be noted about it."""
    from calibration.find import find_board

    with console.status("looking for the board"):
        seen = find_board(board, source, topic, window, stop_px)
    for note in seen.notes:
        console.print(f"[yellow]Note: {escape(note)}.")
    if seen.missed:
        count = len(seen.missed) + len(seen.found)
        console.print(f"No board in {len(seen.missed)} of {count} images: {', '.join(seen.missed[:8])}")
    return seen


def _track(source: Path, joints: Path | None, joint: str) -> tuple[Array, Array]:
    """Times [T] s and positions [T] rad of the joint that swings the board."""
    from sim2real.images.files import is_dataset, joint_track, read_joint_track

    if joints is not None:
        return read_joint_track(joints, joint)
    if not is_dataset(source):
        raise ConfigError(f"{source} says nothing of joints: give their recording with --joints (CSV)")
    return joint_track(source, joint)


def _samples(
    board: Board, source: Path, poses: Path | None, camera: CameraCalibration | None, to_hand: bool
) -> tuple[Array, Array, list[str], list[Detection] | None]:
    """T_base_ee and T_camera_board [N, 4, 4], names, and the board in the images where there are any."""
    from calibration.find import pose_samples
    from sim2real.images.files import is_dataset, read_pose_pairs, read_poses

    poses = source if poses is None and is_dataset(source) else poses
    if poses is None:
        arm, seen = read_pose_pairs(source)
        return arm, seen, [f"pair {index}" for index in range(len(arm))], None
    if camera is None:
        raise ConfigError("images need --camera, the calibration that 'sim2real calibrate camera' wrote")
    samples = pose_samples(read_poses(poses), _find(board, source), camera, to_hand)
    for note in samples.notes:
        console.print(f"[yellow]Note: {escape(note)}.")
    show_left_out(samples.misfits)
    if samples.lost:
        console.print(f"No board, or no image, for {len(samples.lost)} poses: {', '.join(samples.lost[:8])}")
    return samples.arm, samples.board, [detection.name for detection in samples.found], samples.found


def _save_pose(result: HandEyeResult, target: Path | None, camera: CameraCalibration | None) -> None:
    if target is None:
        console.print("Nothing was written: give --camera, whose calibration is completed, or --out or --json.")
        return
    result.save(target, camera)
    console.print(f"Calibration: {target}")
