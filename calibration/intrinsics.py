"""A camera's intrinsics from views of a board: fit, honest error, uncertainty, and what views are missing."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.boards import Detection
from sim2real.errors import ConfigError
from sim2real.images.lens import project
from sim2real.runtime.camera import LENSES, CameraCalibration, Lens
from sim2real.types import Array

_CRITERIA = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 300, 1e-12)
LEAST_VIEWS = 3
FOLDS = 5
# A view is left out when its error is so many times the median view's, and at least so large, px.
OUTLIER_RATIO, OUTLIER_PX = 4.0, 0.5
FISHEYE_SPANS = (np.pi, 0.8 * np.pi, 0.6 * np.pi, 1.3 * np.pi)  # of the image's width, rad, for a first guess
CELLS = (4, 4)  # rows and columns of the coverage map
LEAST_TILT_DEG = 30.0
LEAST_CORNERS_A_CELL = 5


@dataclass(frozen=True)
class View:
    """One view after the fit.

    Attributes:
        name: Of the image.
        rms_px: Of its corners.
        T_camera_board: [4, 4].
        tilt_deg: Between the board's normal and the optical axis.
        dropped: Why it took no part; empty where it did.
    """

    name: str
    rms_px: float
    T_camera_board: Array
    tilt_deg: float
    dropped: str = ""


@dataclass(frozen=True)
class IntrinsicsResult:
    """A camera, its views, and what to photograph next.

    Attributes:
        camera: The calibration.
        std: Standard deviation of fx, fy, cx, cy and the distortion.
        views: Those that took part and those that were dropped, in the given order.
        coverage: Corners seen in every part of the image [rows, columns].
        advice: What would make it better; empty where nothing is missing.
    """

    camera: CameraCalibration
    std: Array
    views: tuple[View, ...]
    coverage: NDArray[np.int64]
    advice: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Figures for a JSON file; lengths are px."""
        camera = self.camera
        return {
            "fx": float(camera.matrix[0, 0]),
            "fy": float(camera.matrix[1, 1]),
            "cx": float(camera.matrix[0, 2]),
            "cy": float(camera.matrix[1, 2]),
            "distortion": camera.distortion.tolist(),
            "std": self.std.tolist(),
            "rms_px": camera.rms_px,
            "held_out_px": camera.held_out_px,
            "views": {v.name: {"rms_px": v.rms_px, "tilt_deg": v.tilt_deg, "dropped": v.dropped} for v in self.views},
            "coverage": self.coverage.tolist(),
            "advice": list(self.advice),
        }


def calibrate_camera(
    detections: Sequence[Detection],
    size: tuple[int, int],
    lens: Lens = "pinhole",
    fixed_aspect: bool = False,
    keep_all: bool = False,
    name: str = "camera",
) -> IntrinsicsResult:
    """Fit a camera to views of a board.

    Args:
        detections: Corners, one entry a view.
        size: Width and height of the images, px.
        lens: Model of the lens.
        fixed_aspect: Hold fx = fy; not for fisheye lenses.
        keep_all: Drop no view, however badly it fits.
        name: Of the camera.

    Raises:
        ConfigError: Too few views, or views that fix no camera (all alike, or all face on).
    """
    if len(detections) < LEAST_VIEWS:
        raise ConfigError(
            f"the board was found in {len(detections)} images; at least {LEAST_VIEWS} are needed, 15 or more are good. "
            "Check columns, rows and the dictionary of the board"
        )
    if lens not in LENSES:
        raise ConfigError(f"unknown lens model '{lens}'; known: {', '.join(LENSES)}")
    used, dropped = list(range(len(detections))), dict[int, str]()
    while True:
        camera, poses, errors = _fit([detections[i] for i in used], size, lens, fixed_aspect)
        worst = int(errors.argmax())
        others = float(np.median(np.delete(errors, worst)))
        if keep_all or len(used) <= LEAST_VIEWS or errors[worst] < max(OUTLIER_RATIO * others, OUTLIER_PX):
            break
        dropped[used[worst]] = f"its error is {errors[worst]:.2f} px, the others' {others:.2f}"
        del used[worst]
    covariance = _covariance(camera, [detections[i] for i in used], poses, fixed_aspect)
    rms = _rms([detections[i] for i in used], errors)
    camera = replace(
        camera, covariance=covariance, rms_px=rms, name=name, date=datetime.date.today().isoformat(),
        held_out_px=held_out_px([detections[i] for i in used], size, lens, fixed_aspect),
    )  # fmt: skip
    fitted = dict(zip(used, zip(poses, errors, strict=True), strict=True))
    views = []
    for index, detection in enumerate(detections):
        pose, error = fitted[index] if index in fitted else board_pose(camera, detection)
        views.append(View(detection.name, float(error), pose, _tilt(pose), dropped.get(index, "")))
    coverage = _coverage([detections[i] for i in used], size)
    advice = _advice([view for view in views if not view.dropped], coverage)
    return IntrinsicsResult(camera, np.sqrt(np.diag(covariance)), tuple(views), coverage, advice)


def board_pose(camera: CameraCalibration, detection: Detection) -> tuple[Array, float]:
    """Pose of the board in the camera's frame, T_camera_board [4, 4], and its reprojection error (rms), px.

    Raises:
        ConfigError: The corners fix no pose.
    """
    if camera.lens == "fisheye":
        rays = cv2.fisheye.undistortPoints(detection.pixels[:, None], camera.matrix, camera.distortion)
        matrix, distortion = np.eye(3), None
    else:
        rays, matrix, distortion = detection.pixels[:, None], camera.matrix, camera.distortion
    try:
        found, rotation, translation = cv2.solvePnP(detection.points, rays, matrix, distortion, flags=cv2.SOLVEPNP_IPPE)
        if found:
            rotation, translation = cv2.solvePnPRefineLM(
                detection.points, rays, matrix, distortion, rotation, translation
            )
    except cv2.error as error:
        raise ConfigError(f"'{detection.name}': its corners fix no pose of the board ({error.err})") from error
    if not found:
        raise ConfigError(f"'{detection.name}': its corners fix no pose of the board")
    pose = _pose(rotation, translation)
    off = project(camera, detection.points, pose) - detection.pixels
    return pose, float(np.sqrt((off**2).sum(axis=1).mean()))


def _fit(
    views: Sequence[Detection], size: tuple[int, int], lens: Lens, fixed_aspect: bool
) -> tuple[CameraCalibration, list[Array], Array]:
    """Camera, poses and errors (px) of all views."""
    points = [view.points.astype(np.float32)[:, None] for view in views]
    pixels = [view.pixels.astype(np.float32)[:, None] for view in views]
    try:
        if lens == "fisheye":
            matrix, distortion, rotations, translations = _fit_fisheye(
                [view.points for view in views], [view.pixels for view in views], size
            )
        else:
            flags = cv2.CALIB_RATIONAL_MODEL if lens == "rational" else 0
            guess = np.eye(3) if fixed_aspect else None
            if fixed_aspect:
                flags |= cv2.CALIB_FIX_ASPECT_RATIO
            _, matrix, distortion, rotations, translations = cv2.calibrateCamera(
                points, pixels, size, guess, None, flags=flags, criteria=_CRITERIA
            )
    except cv2.error as error:
        raise ConfigError(
            f"these views fix no camera ({error.err}); photograph the board tilted, near and far, in all corners"
        ) from error
    count = LENSES[lens][1]
    camera = CameraCalibration(
        size[0], size[1], np.asarray(matrix), lens, np.asarray(distortion).ravel()[:count].copy()
    )
    poses = [_pose(rotation, translation) for rotation, translation in zip(rotations, translations, strict=True)]
    errors = []
    for view, pose in zip(views, poses, strict=True):
        off = project(camera, view.points, pose) - view.pixels
        errors.append(float(np.sqrt((off**2).sum(axis=1).mean())))
    return camera, poses, np.array(errors)


def _fit_fisheye(
    points: Sequence[Array], pixels: Sequence[Array], size: tuple[int, int]
) -> tuple[Array, Array, Sequence[Array], Sequence[Array]]:
    """Matrix, distortion and poses of the best of several first guesses.

    OpenCV's own guess fails on wide lenses, and from one that is far off the fit ends beside the best.

    Raises:
        cv2.error: No guess leads anywhere.
    """
    points, pixels = ([p.astype(np.float64).reshape(1, -1, p.shape[-1]) for p in a] for a in (points, pixels))
    flags = cv2.fisheye.CALIB_RECOMPUTE_EXTRINSIC + cv2.fisheye.CALIB_FIX_SKEW + cv2.fisheye.CALIB_USE_INTRINSIC_GUESS
    best, failed = None, cv2.error()
    for spans in FISHEYE_SPANS:
        focal = size[0] / spans
        matrix = np.array([[focal, 0, 0.5 * (size[0] - 1)], [0, focal, 0.5 * (size[1] - 1)], [0, 0, 1.0]])
        try:
            found = cv2.fisheye.calibrate(
                points, pixels, size, matrix, np.zeros((4, 1)), flags=flags, criteria=_CRITERIA
            )
        except cv2.error as error:
            failed = error
            continue
        if best is None or found[0] < best[0]:
            best = found
    if best is None:
        raise failed
    return best[1:]


def _rms(views: Sequence[Detection], errors: Array) -> float:
    counts = np.array([len(view.pixels) for view in views])
    return float(np.sqrt((counts * errors**2).sum() / counts.sum()))


def held_out_px(views: Sequence[Detection], size: tuple[int, int], lens: Lens, fixed_aspect: bool) -> float:
    """Error of views whose camera was fitted to the others, px; their own poses are fitted."""
    folds = min(FOLDS, len(views))
    if len(views) - int(np.ceil(len(views) / folds)) < LEAST_VIEWS:
        return float("nan")
    errors = np.empty(len(views))
    for fold in range(folds):
        held = range(fold, len(views), folds)
        try:
            camera = _fit([v for i, v in enumerate(views) if i not in held], size, lens, fixed_aspect)[0]
        except ConfigError:
            return float("nan")
        for index in held:
            errors[index] = board_pose(camera, views[index])[1]
    return _rms(views, errors)


def _covariance(
    camera: CameraCalibration, views: Sequence[Detection], poses: Sequence[Array], fixed_aspect: bool
) -> Array:
    """Covariance [4 + D, 4 + D] of fx, fy, cx, cy and distortion; the poses are eliminated (Schur complement)."""
    count = 4 + len(camera.distortion)
    information = np.zeros((count, count))
    squared, rows = 0.0, 0
    for view, pose in zip(views, poses, strict=True):
        intrinsic, extrinsic = _jacobian(camera, view.points, pose)
        off = (project(camera, view.points, pose) - view.pixels).ravel()
        cross = intrinsic.T @ extrinsic
        information += intrinsic.T @ intrinsic - cross @ np.linalg.solve(extrinsic.T @ extrinsic, cross.T)
        squared, rows = squared + float(off @ off), rows + len(off)
    free = np.eye(count)
    if fixed_aspect:  # one focal length moves both
        free = np.delete(free, 1, axis=1)
        free[1, 0] = 1.0
    variance = squared / max(rows - 6 * len(views) - free.shape[1], 1)
    reduced = free.T @ information @ free
    scale = 1.0 / np.sqrt(np.diag(reduced))  # pixels beside sixth powers: the inverse needs them of one size
    inverse = scale[:, None] * np.linalg.inv(reduced * np.outer(scale, scale)) * scale
    return variance * free @ inverse @ free.T


def _jacobian(camera: CameraCalibration, points: Array, pose: Array) -> tuple[Array, Array]:
    """Jacobian of the pixels [2 N]: by fx, fy, cx, cy and distortion, and by the six of the pose."""
    rotation, translation = cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3]
    if camera.lens == "fisheye":
        full = cv2.fisheye.projectPoints(points[:, None], rotation, translation, camera.matrix, camera.distortion)[1]
        return full[:, :8], full[:, 8:14]
    full = cv2.projectPoints(points, rotation, translation, camera.matrix, camera.distortion)[1]
    return full[:, 6 : 10 + len(camera.distortion)], full[:, :6]


def _coverage(views: Sequence[Detection], size: tuple[int, int]) -> NDArray[np.int64]:
    pixels = np.concatenate([view.pixels for view in views])
    edges = [np.linspace(0, size[1], CELLS[0] + 1), np.linspace(0, size[0], CELLS[1] + 1)]
    return np.histogram2d(pixels[:, 1], pixels[:, 0], bins=edges)[0].astype(np.int64)


def _advice(views: Sequence[View], coverage: NDArray[np.int64]) -> tuple[str, ...]:
    advice = []
    rows = ("upper", "lower")
    columns = ("left", "right")
    half = (CELLS[0] // 2, CELLS[1] // 2)
    empty = [
        f"{rows[r]} {columns[c]}"
        for r in (0, 1)
        for c in (0, 1)
        if (coverage[r * (CELLS[0] - 1), c * (CELLS[1] - 1)] < LEAST_CORNERS_A_CELL)
        or coverage[r * half[0] : (r + 1) * half[0], c * half[1] : (c + 1) * half[1]].sum() < LEAST_CORNERS_A_CELL
    ]
    if empty:
        advice.append(f"no views reach the {', '.join(empty)} corner of the image: the lens is not known there")
    tilt = max(view.tilt_deg for view in views)
    if tilt < LEAST_TILT_DEG:
        advice.append(f"no view is tilted by more than {tilt:.0f}°: tilt the board by {LEAST_TILT_DEG:.0f}° and more")
    distances = np.array([view.T_camera_board[2, 3] for view in views])
    if distances.max() < 1.3 * distances.min():
        advice.append("all views are from the same distance: hold the board nearer and farther")
    if len(views) < 10:
        advice.append(f"{len(views)} views are few: 15 or more")
    return tuple(advice)


def _tilt(pose: Array) -> float:
    return float(np.degrees(np.arccos(min(1.0, abs(pose[2, 2])))))


def _pose(rotation: Array, translation: Array) -> Array:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(np.asarray(rotation))[0], np.asarray(translation).ravel()
    return pose
