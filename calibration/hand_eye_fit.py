"""The fit behind :mod:`calibration.hand_eye`: arm · X · board = Y over many samples."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from calibration.boards import Detection
from sim2real.errors import ConfigError
from sim2real.images.lens import project
from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Array, EnvIds

SOLVERS = {
    "tsai": cv2.CALIB_HAND_EYE_TSAI,
    "park": cv2.CALIB_HAND_EYE_PARK,
    "horaud": cv2.CALIB_HAND_EYE_HORAUD,
    "andreff": cv2.CALIB_HAND_EYE_ANDREFF,
    "daniilidis": cv2.CALIB_HAND_EYE_DANIILIDIS,
}
LEAST_SAMPLES = 4
FOLDS = 5
# A sample that is so many robust standard deviations off, and at least so far, is left out.
OUTLIER_DEVIATIONS, OUTLIER_MM, OUTLIER_DEG = 5.0, 3.0, 0.5
LEVER_M = 0.1  # a radian of rotation error counts as this where nothing better is known: the board's size
LEVERS_M = (0.02, 5.0)
MOST_STEPS = 40  # of a fit; good samples take 3 to 8, samples that fit nothing would wander on


class Problem:
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

    def closed_form(self, rows: EnvIds, solver: str) -> tuple[Array, Array]:
        """X by one of OpenCV's solvers, and the Y that fits it best.

        Raises:
            ConfigError: It finds none.
        """
        a, b = self.arm[rows], self.board[rows]
        rotation, place = cv2.calibrateHandEye(
            list(a[:, :3, :3]), list(a[:, :3, 3]), list(b[:, :3, :3]), list(b[:, :3, 3]), method=SOLVERS[solver]
        )
        x = np.eye(4)
        x[:3, :3], x[:3, 3] = rotation, np.ravel(place)
        if not np.isfinite(x).all() or np.linalg.det(x[:3, :3]) < 0.5:
            raise ConfigError(f"OpenCV's solver '{solver}' finds no camera pose; the samples do not fix one")
        return x, mean_pose(a @ x @ b)

    def best_closed_form(self, rows: EnvIds) -> tuple[Array, Array]:
        """X and Y of the solver whose median error is the smallest.

        Raises:
            ConfigError: None of them finds a camera.
        """
        starts = []
        for solver in SOLVERS:
            try:
                x, y = self.closed_form(rows, solver)
            except (ConfigError, cv2.error):
                continue
            starts.append((float(np.median(both(*self.errors(x, y, rows)))), x, y))
        if not starts:
            raise ConfigError("no solver finds a camera pose; take samples with more rotation about different axes")
        _, x, y = min(starts, key=lambda start: start[0])
        return x, y

    def solve(self, rows: EnvIds) -> tuple[Array, Array]:
        """X and Y that fit all samples best together, from the best of the five solvers; robust to single ones.

        Raises:
            ConfigError: No solver finds a camera.
        """
        x, y = self.best_closed_form(rows)
        self._weigh(x, y, rows)
        for first in (True, False) if self._detections is None else (True,):
            scale = max(float(np.median(np.abs(self.residuals(x, y, rows)))), 1e-9)
            robust = first or self._has_outliers(x, y, rows)
            at = (x, y)

            def off(step: Array, at: tuple[Array, Array] = at) -> Array:
                return self.residuals(*moved(at[0], at[1], step), rows)

            loss = "soft_l1" if robust else "linear"
            found = least_squares(off, np.zeros(12), loss=loss, f_scale=2.0 * scale, max_nfev=MOST_STEPS)
            x, y = moved(x, y, found.x)
        return x, y

    def _weigh(self, x: Array, y: Array, rows: EnvIds) -> None:
        """Rotations and positions count by how precise they are: maximum likelihood for what the samples show."""
        mm, degrees = self.errors(x, y, rows)
        lever = 1e-3 * np.median(mm) / max(np.radians(np.median(degrees)), 1e-9)
        self._lever = float(np.clip(lever, *LEVERS_M))

    def _has_outliers(self, x: Array, y: Array, rows: EnvIds) -> bool:
        return outlier(*self.errors(x, y, rows))[0] is not None

    def errors(self, x: Array, y: Array, rows: EnvIds) -> tuple[Array, Array]:
        """Errors of every sample: distance of the board from its fitted pose, mm, and rotation, degrees."""
        off = np.linalg.inv(y) @ self.arm[rows] @ x @ self.board[rows]
        mm = 1e3 * np.sqrt((off[:, :3, 3] ** 2).sum(axis=1))
        return mm, np.degrees(Rotation.from_matrix(off[:, :3, :3]).magnitude())

    def residuals(self, x: Array, y: Array, rows: EnvIds) -> Array:
        """Residuals of the fit, sample by sample: m and weighted rad, or px with corners given."""
        if self._detections is None or self._camera is None:
            off = np.linalg.inv(y) @ self.arm[rows] @ x @ self.board[rows]
            rotation = self._lever * Rotation.from_matrix(off[:, :3, :3]).as_rotvec()
            return np.concatenate((rotation, off[:, :3, 3]), axis=1).ravel()
        predicted = np.linalg.inv(self.arm[rows] @ x) @ y
        parts = []
        for row, pose in zip(rows, predicted, strict=True):
            seen = self._detections[int(row)]
            parts.append((project(self._camera, seen.points, pose) - seen.pixels).ravel() / np.sqrt(len(seen.pixels)))
        return np.concatenate(parts)

    def standard_deviations(self, x: Array, y: Array, rows: EnvIds) -> Array:
        """Standard deviations of X: rotation [3] rad, position [3] m along its parent's axes, clustered by sample."""
        self._weigh(x, y, rows)
        base = self.residuals(x, y, rows)
        step = 1e-6
        jacobian = np.stack(
            [(self.residuals(*moved(x, y, step * unit), rows) - base) / step for unit in np.eye(12)], axis=1
        )
        size = len(base) // len(rows) if self._detections is None else 0
        inverse = np.linalg.pinv(jacobian.T @ jacobian)
        if size:
            scores = (jacobian * base[:, None]).reshape(len(rows), size, 12).sum(axis=1)
            correction = len(rows) / max(len(rows) - 2, 1)
            covariance = inverse @ (scores.T @ scores) @ inverse * correction
        else:
            covariance = inverse * float(base @ base) / max(len(base) - 12, 1)
        return np.sqrt(np.clip(np.diag(covariance)[:6], 0.0, None))

    def held_out(self, rows: EnvIds, solver: str | None = None) -> tuple[float, float]:
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


def both(mm: Array, degrees: Array) -> Array:
    """Errors in position and in rotation as one, mm."""
    return mm + 1e3 * LEVER_M * np.radians(degrees)


def outlier(mm: Array, degrees: Array) -> tuple[int | None, str]:
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


def mean_pose(poses: Array) -> Array:
    """Mean rotation and median position of poses [N, 4, 4]."""
    mean = np.eye(4)
    mean[:3, :3] = Rotation.from_matrix(poses[:, :3, :3]).mean().as_matrix()
    mean[:3, 3] = np.median(poses[:, :3, 3], axis=0)
    return mean


def moved(x: Array, y: Array, step: Array) -> tuple[Array, Array]:
    """X and Y turned and shifted by twelve small numbers, along their parents' axes."""
    result = []
    for pose, part in ((x, step[:6]), (y, step[6:])):
        new = pose.copy()
        new[:3, :3] = Rotation.from_rotvec(part[:3]).as_matrix() @ pose[:3, :3]
        new[:3, 3] = pose[:3, 3] + part[3:]
        result.append(new)
    return result[0], result[1]
