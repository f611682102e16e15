"""A picture of a camera's calibration: where the corners are off, and that straight lines are straight."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from calibration.boards import Detection
from calibration.intrinsics import IntrinsicsResult
from sim2real.images.lens import project
from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Array, Image

ARROW_FRACTION = 0.05  # of the image's width, for the longest residual


def undistorted(camera: CameraCalibration, pixels: Array) -> Array:
    """Pixels [N, 2] of a camera without lens and of the same matrix."""
    points = pixels[:, None]
    if camera.lens == "fisheye":
        moved = cv2.fisheye.undistortPoints(points, camera.matrix, camera.distortion, P=camera.matrix)
    else:
        moved = cv2.undistortPoints(points, camera.matrix, camera.distortion, P=camera.matrix)
    return np.asarray(moved, dtype=np.float64).reshape(-1, 2)


def without_lens(camera: CameraCalibration, image: Image) -> Image:
    """An image [H, W, 3] as a camera without lens sees it."""
    if camera.lens == "fisheye":
        return np.asarray(cv2.fisheye.undistortImage(image, camera.matrix, camera.distortion, Knew=camera.matrix))
    return np.asarray(cv2.undistort(image, camera.matrix, camera.distortion))


def save_picture(
    path: Path, result: IntrinsicsResult, detections: Sequence[Detection], shown: tuple[str, Image] | None
) -> None:
    """Write a PNG: residuals of all corners enlarged, and the lines of one view before and after undistortion.

    Args:
        path: File to write.
        result: The fit.
        detections: Corners it was given, one entry a view.
        shown: Name and image [H, W, 3] BGR of the view whose lines are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    camera = result.camera
    pairs = [(d, v) for d, v in zip(detections, result.views, strict=True) if not v.dropped]
    pixels = np.concatenate([d.pixels for d, _ in pairs])
    off = np.concatenate([d.pixels - project(camera, d.points, v.T_camera_board) for d, v in pairs])
    scale = ARROW_FRACTION * camera.width / max(float(np.percentile(np.linalg.norm(off, axis=1), 99)), 1e-6)
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.quiver(*pixels.T, *(scale * off).T, angles="xy", scale_units="xy", scale=1, width=0.0015, color="#c33")
    left.set_title(f"residuals, {scale:.0f} times enlarged; rms {camera.rms_px:.2f} px", fontsize=10)
    view = next((d for d, _ in pairs if shown and d.name == shown[0]), pairs[0][0])
    if shown is not None and view.name == shown[0]:
        right.imshow(cv2.cvtColor(without_lens(camera, shown[1]), cv2.COLOR_BGR2RGB), alpha=0.6)
    straight = undistorted(camera, view.pixels)
    for axis in (0, 1):
        for value in np.unique(view.points[:, axis].round(9)):
            line = np.isclose(view.points[:, axis], value)
            order = np.argsort(view.points[line, 1 - axis])
            right.plot(*view.pixels[line][order].T, "-", color="#c33", linewidth=0.8)
            right.plot(*straight[line][order].T, "-", color="#06c", linewidth=0.8)
    right.set_title(f"{view.name}: lines as seen (red) and without the lens (blue)", fontsize=10)
    for axes in (left, right):
        axes.set(xlim=(0, camera.width), ylim=(camera.height, 0), aspect="equal")
    figure.savefig(path, dpi=110)
