"""Tables of calibrations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from sim2real.cli.console import console

if TYPE_CHECKING:
    from calibration.hand_eye import HandEyeResult
    from calibration.intrinsics import IntrinsicsResult
    from calibration.verdict import Verdict
    from sim2real.types import Array


def show_poses(names: Sequence[str], poses: Array, errors: Array) -> None:
    """Print the board's pose [N, 4, 4] in every image, with its reprojection error [N] px."""
    table = Table("image", "x, y, z (m)", "rotation vector (rad)", "error (px)", title="T_camera_board")
    for name, pose, error in zip(names, poses, errors, strict=True):
        table.add_row(name, _numbers(pose[:3, 3]), _numbers(_rotation_vector(pose)), f"{error:.2f}")
    console.print(table)


def show_left_out(why: Mapping[str, str]) -> None:
    """Print which images or samples took no part, and why."""
    for name, reason in why.items():
        console.print(f"[yellow]Left out: {escape(name)}: {escape(reason)}")


def show_hand_eye(result: HandEyeResult, names: list[str]) -> None:
    """Print the camera's pose, its uncertainty, and what is to be noted."""
    pose = result.T_camera
    table = Table("", "value", "± (1σ)", title=result.label)
    table.add_row("x, y, z (m)", _numbers(pose[:3, 3]), f"{_numbers(result.std_mm, 2)} mm")
    table.add_row("rotation vector (rad)", _numbers(_rotation_vector(pose)), f"{_numbers(result.std_deg, 3)} °")
    held = f"{result.held_out_mm:.2f} mm, {result.held_out_deg:.3f} °"
    table.add_row("samples it had not seen", held, f"all {len(names)} samples")
    if result.dropped:
        kept = f"{result.kept_mm:.2f} mm, {result.kept_deg:.3f} °"
        table.add_row("  those that took part", kept, f"{len(names) - len(result.dropped)} samples")
    table.add_row(
        "samples it has seen", f"{result.residual_mm:.2f} mm, {result.residual_deg:.3f} °", f"all {len(names)}"
    )
    for solver, (mm, degrees) in result.per_solver.items():
        table.add_row(f"  OpenCV's {solver} alone", f"{mm:.2f} mm, {degrees:.3f} °", "")
    table.add_row("taken", result.method, "")
    table.add_row(f"{result.board_label}: x, y, z (m)", _numbers(result.T_board[:3, 3]), "")
    table.add_row("  rotation vector (rad)", _numbers(_rotation_vector(result.T_board)), "")
    console.print(table)
    show_left_out({names[index]: why for index, why in result.dropped.items()})
    for note in result.notes:
        console.print(f"[yellow]Warning: {escape(note)}.")
    for warning in result.warnings:
        console.print(f"[red]{escape(warning)}.")


def show_camera(result: IntrinsicsResult) -> None:
    """Print the calibration, its views, and what to photograph next."""
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
        console.print("  " + "".join(3 * shades[min(4, math.ceil(4 * count / most))] for count in row))
    for line in result.advice:
        console.print(f"[yellow]{line}")


def show_verdict(verdict: Verdict) -> None:
    """Print whether the calibration can be used, why it is not better, and how other lens models fit."""
    colour = {"good": "green", "usable": "yellow"}.get(verdict.word, "red")
    console.print(f"[bold {colour}]Verdict: {verdict.word}.")
    for reason in verdict.reasons:
        console.print(f"  {escape(reason)}")
    fits = ", ".join(f"{lens} {error:.3f} px" for lens, error in verdict.lenses.items())
    console.print(f"Views not seen, by lens model: {fits}", markup=False)


def _rotation_vector(pose: Any) -> Any:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(pose[:3, :3]).as_rotvec()


def _numbers(values: Any, digits: int = 4) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
