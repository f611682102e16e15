"""Where a camera is: on the hand (eye in hand) or beside the arm (eye to hand), from poses of arm and board.

Names of transforms say what they do: ``T_base_camera`` takes points from the camera's frame to the base's.

    eye to hand:  T_base_ee · T_ee_board = T_base_camera · T_camera_board, the board on the hand
    eye in hand:  T_base_ee · T_ee_camera · T_camera_board = T_base_board, the board fixed

Both are solved as one problem, with inverse arm poses for a camera beside the arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from calibration.boards import Detection
from calibration.lens import project
from sim2real.camera import CameraCalibration
from sim2real.errors import ConfigError

Array = NDArray[np.float64]
Setup = Literal["eye-to-hand", "eye-in-hand"]

SOLVERS = {
    "tsai": cv2.CALIB_HAND_EYE_TSAI,
    "park": cv2.CALIB_HAND_EYE_PARK,
    "horaud": cv2.CALIB_HAND_EYE_HORAUD,
    "andreff": cv2.CALIB_HAND_EYE_ANDREFF,
    "daniilidis": cv2.CALIB_HAND_EYE_DANIILIDIS,
}
LEAST_SAMPLES = 4
FOLDS = 5
LEAST_ROTATION_DEG = 10.0
# A sample that is so many robust deviations off, and at least so far, is left out.
OUTLIER_DEVIATIONS, OUTLIER_MM, OUTLIER_DEG = 5.0, 3.0, 0.5
LEVER_M = 0.1  # a radian of rotation error counts as this where nothing better is known: the board's size
LEVERS_M = (0.02, 5.0)
MOVED_RATIO = 1.5  # two places of the board must explain the samples so much better than one
LEAST_SIDE = 4
INVERTED_RATIO = 3.0


@dataclass(frozen=True)
class HandEyeResult:
    """Where the camera is, and how sure that is.

    Attributes:
        setup: As given.
        T_base_camera: [4, 4] for eye to hand, else None.
        T_ee_camera: [4, 4] for eye in hand, else None.
        T_board: The board in the hand's frame (eye to hand) or in the base frame (eye in hand) [4, 4].
        std_mm, std_deg: Standard deviations of the camera's place and orientation, [3] each, along its parent's axes.
        held_out_mm, held_out_deg: Root mean square errors of samples that the fit had not seen.
        per_solver: Held-out error of OpenCV's five solvers alone: name → (mm, degrees).
        dropped: Sample → why it took no part.
        warnings: What looks wrong with the samples.
    """

    setup: Setup
    T_base_camera: Array | None
    T_ee_camera: Array | None
    T_board: Array
    std_mm: Array
    std_deg: Array
    held_out_mm: float
    held_out_deg: float
    per_solver: dict[str, tuple[float, float]]
    dropped: dict[int, str]
    warnings: tuple[str, ...]


def hand_eye(
    T_base_ee: Array,  # noqa: N803 (a transform's name says its direction)
    T_camera_board: Array,  # noqa: N803
    setup: Setup,
    camera: CameraCalibration | None = None,
    detections: Sequence[Detection] | None = None,
) -> HandEyeResult:
    """Find the camera.

    Args:
        T_base_ee: Poses of the end effector in the base frame [N, 4, 4].
        T_camera_board: Poses of the board in the camera's frame [N, 4, 4].
        setup: Where the camera is.
        camera: With ``detections``: the reprojection error of the board's corners is minimised in place of the
            error of the board's pose.
        detections: Corners of the board in every sample.

    Raises:
        ConfigError: Matrices that are no poses, too few samples, or too little rotation between them.
    """
    if setup not in ("eye-to-hand", "eye-in-hand"):
        raise ConfigError(f"unknown setup '{setup}'; it is eye-to-hand or eye-in-hand")
    for name, poses in (("T_base_ee", T_base_ee), ("T_camera_board", T_camera_board)):
        _check_poses(name, poses)
    if len(T_base_ee) != len(T_camera_board) or len(T_base_ee) < LEAST_SAMPLES:
        raise ConfigError(
            f"{len(T_base_ee)} poses of the arm and {len(T_camera_board)} of the board; as many of each are needed, at "
            f"least {LEAST_SAMPLES}, 15 or more are good"
        )
    arm: Array = _inverse(T_base_ee) if setup == "eye-to-hand" else T_base_ee
    _check_rotation(arm)
    problem = _Problem(arm, T_camera_board, camera, detections)
    everything = np.arange(len(arm))
    warnings = _suspicions(problem, everything)
    x, y = problem.solve(everything)
    dropped: dict[int, str] = {}
    keep = everything
    for _ in range(len(arm) // 4):
        away = problem.errors(x, y, keep)
        worst, why = _outlier(*away)
        if worst is None or len(keep) <= LEAST_SAMPLES:
            break
        dropped[int(keep[worst])] = why
        keep = np.delete(keep, worst)
        x, y = problem.solve(keep)
    if dropped:
        _check_rotation(arm[keep])
    std = problem.deviations(x, y, keep)
    held_mm, held_deg = problem.held_out(keep)
    per_solver = {name: problem.held_out(keep, name) for name in SOLVERS}
    to_hand = setup == "eye-to-hand"
    return HandEyeResult(
        setup, x if to_hand else None, None if to_hand else x, y, 1e3 * std[3:], np.degrees(std[:3]), held_mm, held_deg,
        per_solver, dropped, tuple(warnings),
    )  # fmt: skip


class _Problem:
    """arm [N] · X · board [N] = Y, for whichever setup."""

    def __init__(
        self,
        arm: Array,
        board: Array,
        camera: CameraCalibration | None,
        detections: Sequence[Detection] | None,
    ) -> None:
        self.arm, self.board, self._camera = arm, board, camera
        self._detections = detections if camera is not None else None
        self._lever = LEVER_M

    def closed_form(self, rows: NDArray[np.int64], solver: str) -> tuple[Array, Array]:
        """X by one of OpenCV's solvers, and the Y that fits it best."""
        a, b = self.arm[rows], self.board[rows]
        rotation, place = cv2.calibrateHandEye(
            list(a[:, :3, :3]), list(a[:, :3, 3]), list(b[:, :3, :3]), list(b[:, :3, 3]), method=SOLVERS[solver]
        )
        x = np.eye(4)
        x[:3, :3], x[:3, 3] = rotation, np.ravel(place)
        if not np.isfinite(x).all() or np.linalg.det(x[:3, :3]) < 0.5:
            raise ConfigError(f"OpenCV's solver '{solver}' finds no camera pose; the samples do not fix one")
        return x, _mean_pose(a @ x @ b)

    def solve(self, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """X and Y that fit all samples best together, from the best of the five solvers; robust to single ones."""
        starts = []
        for solver in SOLVERS:
            try:
                x, y = self.closed_form(rows, solver)
            except (ConfigError, cv2.error):
                continue
            mm, degrees = self.errors(x, y, rows)
            starts.append((float(np.median(mm + 1e3 * LEVER_M * np.radians(degrees))), x, y))
        if not starts:
            raise ConfigError("no solver finds a camera pose; take samples with more rotation about different axes")
        _, x, y = min(starts, key=lambda start: start[0])
        # Rotations and places count by how precise they are: maximum likelihood for what the samples show.
        mm, degrees = self.errors(x, y, rows)
        lever = 1e-3 * np.median(mm) / max(np.radians(np.median(degrees)), 1e-9)
        self._lever = float(np.clip(lever, *LEVERS_M))
        for first in (True, False) if self._detections is None else (True,):
            scale = max(float(np.median(np.abs(self._residuals(x, y, rows)))), 1e-9)
            robust = first or self._has_outliers(x, y, rows)
            at = (x, y)

            def off(step: Array, at: tuple[Array, Array] = at) -> Array:
                return self._residuals(*_moved(at[0], at[1], step), rows)

            loss = "soft_l1" if robust else "linear"
            found = least_squares(off, np.zeros(12), loss=loss, f_scale=2.0 * scale)
            x, y = _moved(x, y, found.x)
        return x, y

    def _has_outliers(self, x: Array, y: Array, rows: NDArray[np.int64]) -> bool:
        return _outlier(*self.errors(x, y, rows))[0] is not None

    def errors(self, x: Array, y: Array, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Of every sample: how far the board is from where it should be, mm, and how far it is turned, degrees."""
        off = np.linalg.inv(y) @ self.arm[rows] @ x @ self.board[rows]
        mm = 1e3 * np.sqrt((off[:, :3, 3] ** 2).sum(axis=1))
        return mm, np.degrees(Rotation.from_matrix(off[:, :3, :3]).magnitude())

    def _residuals(self, x: Array, y: Array, rows: NDArray[np.int64]) -> Array:
        if self._detections is None or self._camera is None:
            off = np.linalg.inv(y) @ self.arm[rows] @ x @ self.board[rows]
            turn = self._lever * Rotation.from_matrix(off[:, :3, :3]).as_rotvec()
            return np.concatenate((turn, off[:, :3, 3]), axis=1).ravel()
        predicted = np.linalg.inv(self.arm[rows] @ x) @ y
        parts = []
        for row, pose in zip(rows, predicted, strict=True):
            seen = self._detections[int(row)]
            parts.append((project(self._camera, seen.points, pose) - seen.pixels).ravel() / np.sqrt(len(seen.pixels)))
        return np.concatenate(parts)

    def deviations(self, x: Array, y: Array, rows: NDArray[np.int64]) -> Array:
        """Standard deviations of X: turn [3] rad and place [3] m along its parent's axes, clustered by sample."""
        base = self._residuals(x, y, rows)
        step = 1e-6
        jacobian = np.stack(
            [(self._residuals(*_moved(x, y, step * unit), rows) - base) / step for unit in np.eye(12)], axis=1
        )
        size = len(base) // len(rows) if self._detections is None else 0
        inverse = np.linalg.pinv(jacobian.T @ jacobian)
        if size:
            scores = (jacobian * base[:, None]).reshape(len(rows), size, 12).sum(axis=1)
            share = len(rows) / max(len(rows) - 2, 1)
            covariance = inverse @ (scores.T @ scores) @ inverse * share
        else:
            covariance = inverse * float(base @ base) / max(len(base) - 12, 1)
        return np.sqrt(np.clip(np.diag(covariance)[:6], 0.0, None))

    def held_out(self, rows: NDArray[np.int64], solver: str | None = None) -> tuple[float, float]:
        """Root mean square errors of samples that the fit had not seen, mm and degrees; NaN with too few."""
        folds = min(FOLDS, len(rows))
        if len(rows) - int(np.ceil(len(rows) / folds)) < LEAST_SAMPLES - 1:
            return float("nan"), float("nan")
        mm, degrees = [], []
        for fold in range(folds):
            held = rows[fold::folds]
            seen = np.setdiff1d(rows, held)
            try:
                x, y = self.closed_form(seen, solver) if solver else self.solve(seen)
            except (ConfigError, cv2.error):
                return float("nan"), float("nan")
            a, b = self.errors(x, y, held)
            mm.append(a)
            degrees.append(b)
        return tuple(float(np.sqrt((np.concatenate(part) ** 2).mean())) for part in (mm, degrees))  # type: ignore[return-value]


def _suspicions(problem: _Problem, rows: NDArray[np.int64]) -> list[str]:
    """Poses given the wrong way round, and a board that was moved between samples."""
    found = []

    def misfit(arm: Array, board: Array, part: NDArray[np.int64] = rows) -> float:
        other = _Problem(arm, board, None, None)
        try:
            x, y = other.solve(part)
        except ConfigError:
            return np.inf
        mm, degrees = other.errors(x, y, part)
        return float(np.median(mm + 1e3 * LEVER_M * np.radians(degrees)))

    arm, board = problem.arm, problem.board
    own = misfit(arm, board)
    wrong = {
        "the arm's poses look inverted, or the camera is on the other side (eye-in-hand instead of eye-to-hand, or the "
        "reverse): give T_base_ee, from the end effector to the base": misfit(_inverse(arm), board),
        "the board's poses look inverted: give T_camera_board, from the board to the camera": misfit(
            arm, _inverse(board)
        ),
    }
    text, best = min(wrong.items(), key=lambda item: item[1])
    if own > INVERTED_RATIO * best and own > OUTLIER_MM:
        found.append(f"{text} (median error {own:.1f} mm as given, {best:.1f} mm the other way)")
        return found
    if len(rows) >= 2 * LEAST_SIDE + 2:
        x, y = problem.solve(rows)
        whole = float(np.mean(problem.errors(x, y, rows)[0]))
        splits = []
        for at in range(LEAST_SIDE, len(rows) - LEAST_SIDE + 1):
            sides = [rows[:at], rows[at:]]
            places = arm @ x @ board
            away = [
                np.linalg.norm(places[side, :3, 3] - np.median(places[side, :3, 3], axis=0), axis=1) for side in sides
            ]
            splits.append((1e3 * float(np.concatenate(away).mean()), at))
        best_split, at = min(splits)
        middle = [np.median((arm @ x @ board)[side, :3, 3], axis=0) for side in (rows[:at], rows[at:])]
        moved = 1e3 * float(np.linalg.norm(middle[1] - middle[0]))
        if whole > MOVED_RATIO * best_split and moved > max(OUTLIER_MM, 2.0 * best_split):
            found.append(
                f"the board (or the camera) seems to have moved by {moved:.0f} mm before sample {at}: take the samples "
                "again, or use those of one side only"
            )
    return found


def _outlier(mm: Array, degrees: Array) -> tuple[int | None, str]:
    """The sample that fits worst, and why it should not take part; None where none is far from the others."""
    worst, why, most = None, "", 1.0
    for values, least, unit in ((mm, OUTLIER_MM, "mm"), (degrees, OUTLIER_DEG, "degrees")):
        middle = float(np.median(values))
        limit = max(middle + OUTLIER_DEVIATIONS * 1.4826 * float(np.median(np.abs(values - middle))), least)
        at = int(values.argmax())
        if values[at] / limit > most:
            worst, most = at, float(values[at] / limit)
            why = f"it is {values[at]:.1f} {unit} off, the median sample {middle:.1f}"
    return worst, why


def _check_poses(name: str, poses: Array) -> None:
    if poses.ndim != 3 or poses.shape[1:] != (4, 4):
        raise ConfigError(f"{name} is of shape {poses.shape}; it is a list of 4x4 matrices")
    for index, pose in enumerate(poses):
        rotation = pose[:3, :3]
        if not np.isfinite(pose).all() or np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
            raise ConfigError(f"{name}, sample {index}: not a pose; its rotation is not orthonormal or not finite")
        if np.linalg.det(rotation) < 0 or np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-6:
            raise ConfigError(f"{name}, sample {index}: not a pose; it mirrors, or its last row is not 0 0 0 1")


def _check_rotation(arm: Array) -> None:
    """Two axes of rotation at least are needed; about one, the camera's place along it is not fixed."""
    relative = np.linalg.inv(arm)[:, None, :3, :3] @ arm[None, :, :3, :3]
    upper = np.triu_indices(len(arm), 1)
    turns = Rotation.from_matrix(relative[upper]).as_rotvec()
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh(turns.T @ turns / len(turns)), 0.0))
    largest, second = np.degrees(spread[2]), np.degrees(spread[1])
    if largest < LEAST_ROTATION_DEG:
        raise ConfigError(
            f"too little rotation: the hand turns by {largest:.1f}° between samples; turn it by 30° and more"
        )
    if second < 0.5 * LEAST_ROTATION_DEG:
        raise ConfigError(
            f"too little rotation: all of it is about one axis ({largest:.0f}°, about others {second:.1f}°); turn the "
            "hand about a second axis too, or the camera's place is not fixed"
        )


def _inverse(poses: Array) -> Array:
    result: Array = np.asarray(np.linalg.inv(poses), dtype=np.float64)
    return result


def _mean_pose(poses: Array) -> Array:
    mean = np.eye(4)
    mean[:3, :3] = Rotation.from_matrix(poses[:, :3, :3]).mean().as_matrix()
    mean[:3, 3] = np.median(poses[:, :3, 3], axis=0)
    return mean


def _moved(x: Array, y: Array, step: Array) -> tuple[Array, Array]:
    """X and Y turned and shifted by twelve small numbers, along their parents' axes."""
    result = []
    for pose, part in ((x, step[:6]), (y, step[6:])):
        new = pose.copy()
        new[:3, :3] = Rotation.from_rotvec(part[:3]).as_matrix() @ pose[:3, :3]
        new[:3, 3] = pose[:3, 3] + part[3:]
        result.append(new)
    return result[0], result[1]
