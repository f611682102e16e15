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
# A sample that is so many robust standard deviations off, so many times the median sample, and at least so far, is left
# out. Few samples of a real arm have one at three times the median, and need it.
OUTLIER_DEVIATIONS, OUTLIER_RATIO, OUTLIER_MM, OUTLIER_DEG = 5.0, 4.0, 3.0, 0.5
LEVER_M = 0.1  # a radian of rotation error counts as this where nothing better is known: the board's size
LEVERS_M = (0.02, 5.0)
MOST_STEPS = 40  # of a fit; good samples take 3 to 8, samples that fit nothing would wander on
CORNER_PX = 0.5  # error of a corner at least, for how well it fixes a pose: no lens model is better over an image
MEDIAN_OF_CHI = 1.538  # median length of a standard normal vector in three dimensions


class Problem:
    """arm [N] · X · board [N] = Y, for whichever setup.

    Arm poses are not exact (a good arm is 1 to 5 mm and 0.1 to 0.5 degrees off), so errors of poses are minimised, not
    of corners. Corners tell how well each image fixes the board's pose: a small, distant or face-on board counts less.

    Args:
        arm: Poses of the arm, inverse for a camera that stands [N, 4, 4].
        board: T_camera_board [N, 4, 4].
        camera: With ``detections``: what took the images.
        detections: Corners of the board in every sample.
    """

    def __init__(
        self,
        arm: Array,
        board: Array,
        camera: CameraCalibration | None = None,
        detections: Sequence[Detection] | None = None,
    ) -> None:
        self.arm, self.board = arm, board
        self._covariance = np.zeros((len(board), 6, 6))
        if camera is not None and detections is not None:
            self._covariance = np.array(
                [pose_covariance(camera, seen, pose) for seen, pose in zip(detections, board, strict=True)]
            )
        self._weights = np.tile(np.diag([LEVER_M] * 3 + [1.0] * 3), (len(board), 1, 1))
        self._weakness = np.ones((2, len(board)))

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
        for first in (True, False):
            self._weigh(x, y, rows)
            scale = max(float(np.median(np.abs(self.residuals(x, y, rows)))), 1e-9)
            robust = first or self.outlier(x, y, rows)[0] is not None
            at = (x, y)

            def off(step: Array, at: tuple[Array, Array] = at) -> Array:
                return self.residuals(*moved(at[0], at[1], step), rows)

            loss = "soft_l1" if robust else "linear"
            found = least_squares(off, np.zeros(12), loss=loss, f_scale=2.0 * scale, max_nfev=MOST_STEPS)
            x, y = moved(x, y, found.x)
        return x, y

    def _weigh(self, x: Array, y: Array, rows: EnvIds) -> None:
        """Weigh rotations, positions and samples by how precise they are: maximum likelihood for what they show.

        The variance of a sample is that of its board's pose, from its corners, and one of the arm, the same in all.
        """
        mm, degrees = self.errors(x, y, rows)
        far, turned = 1e-3 * float(np.median(mm)), np.radians(float(np.median(degrees)))
        lever = float(np.clip(far / max(turned, 1e-9), *LEVERS_M))
        seen = np.einsum("nii->ni", self._covariance)
        shift = max(far / MEDIAN_OF_CHI, 1e-6)
        arm = np.repeat(np.square([shift / lever, shift]), 3)
        arm = np.maximum(arm - np.median(seen[rows], axis=0), 0.001 * arm)
        root = np.linalg.cholesky(np.linalg.inv(self._covariance + np.diag(arm)))
        self._weights = shift * root.transpose(0, 2, 1)
        of_seen, of_arm = seen.reshape(-1, 2, 3).sum(axis=2).T, arm.reshape(2, 3).sum(axis=1)
        self._weakness = np.sqrt(1.0 + of_seen / of_arm[:, None])

    def outlier(self, x: Array, y: Array, rows: EnvIds) -> tuple[int | None, str]:
        """The sample that fits worst, for how well its board is seen; see :func:`outlier`."""
        self._weigh(x, y, rows)
        mm, degrees = self.errors(x, y, rows)
        turn, place = self._weakness[:, rows]
        return outlier(mm / place, degrees / turn)

    def errors(self, x: Array, y: Array, rows: EnvIds) -> tuple[Array, Array]:
        """Errors of every sample: distance of the board from its fitted pose, mm, and rotation, degrees."""
        off = np.linalg.inv(y) @ self.arm[rows] @ x @ self.board[rows]
        mm = 1e3 * np.sqrt((off[:, :3, 3] ** 2).sum(axis=1))
        return mm, np.degrees(Rotation.from_matrix(off[:, :3, :3]).magnitude())

    def residuals(self, x: Array, y: Array, rows: EnvIds) -> Array:
        """Residuals of the fit, sample by sample, weighted: m."""
        off = np.linalg.inv(y) @ self.arm[rows] @ x @ self.board[rows]
        parts = np.concatenate((Rotation.from_matrix(off[:, :3, :3]).as_rotvec(), off[:, :3, 3]), axis=1)
        return np.asarray(np.einsum("nij,nj->ni", self._weights[rows], parts)).ravel()

    def standard_deviations(self, x: Array, y: Array, rows: EnvIds) -> Array:
        """Standard deviations of X: rotation [3] rad, position [3] m along its parent's axes, clustered by sample."""
        self._weigh(x, y, rows)
        base = self.residuals(x, y, rows)
        step = 1e-6
        jacobian = np.stack(
            [(self.residuals(*moved(x, y, step * unit), rows) - base) / step for unit in np.eye(12)], axis=1
        )
        inverse = np.linalg.pinv(jacobian.T @ jacobian)
        scores = (jacobian * base[:, None]).reshape(len(rows), 6, 12).sum(axis=1)
        covariance = inverse @ (scores.T @ scores) @ inverse * len(rows) / max(len(rows) - 2, 1)
        return np.sqrt(np.clip(np.diag(covariance)[:6], 0.0, None))

    def held_out(self, rows: EnvIds, solver: str | None = None) -> tuple[float, float]:
        """Root mean square errors of samples that the fit had not seen, mm and degrees; NaN with too few."""
        return root_mean_square(*self.held_out_errors(rows, solver))

    def held_out_errors(self, rows: EnvIds, solver: str | None = None) -> tuple[Array, Array]:
        """Errors [N] of samples by a fit that had not seen them, mm and degrees; NaN with too few."""
        none = np.full(len(rows), np.nan)
        folds = min(FOLDS, len(rows))
        if len(rows) - int(np.ceil(len(rows) / folds)) < LEAST_SAMPLES - 1:
            return none, none
        mm, degrees = none.copy(), none.copy()
        for fold in range(folds):
            held = rows[fold::folds]
            seen = np.setdiff1d(rows, held)
            try:
                x, y = self.closed_form(seen, solver) if solver else self.solve(seen)
            except (ConfigError, cv2.error):
                return none, none
            mm[fold::folds], degrees[fold::folds] = self.errors(x, y, held)
        return mm, degrees

    def misfit(self, other: Problem, rows: EnvIds, x: Array, y: Array) -> float:
        """Errors of samples that ``other``'s fit had not seen, in units of how well X, Y and the boards are known."""
        self._weigh(x, y, rows)
        turn, place = self._weakness[:, rows]
        mm, degrees = other.held_out_errors(rows)
        return float(np.prod(root_mean_square(mm / place, degrees / turn)))


def root_mean_square(mm: Array, degrees: Array) -> tuple[float, float]:
    """Root mean squares of errors in position and in rotation."""
    return float(np.sqrt((mm**2).mean())), float(np.sqrt((degrees**2).mean()))


def pose_covariance(camera: CameraCalibration, seen: Detection, pose: Array) -> Array:
    """Covariance [6, 6] of a board's pose [4, 4] from its corners: rotation, rad, and position, m, in its frame."""
    step = 1e-5
    base = project(camera, seen.points, pose)
    columns = []
    for unit in step * np.eye(6):
        change = np.eye(4)
        change[:3, :3], change[:3, 3] = Rotation.from_rotvec(unit[:3]).as_matrix(), unit[3:]
        columns.append(((project(camera, seen.points, pose @ change) - base) / step).ravel())
    jacobian = np.stack(columns, axis=1)
    variance = float(((base - seen.pixels) ** 2).sum()) / max(base.size - 6, 1)
    return np.asarray(np.linalg.pinv(jacobian.T @ jacobian) * max(variance, CORNER_PX**2))


def both(mm: Array, degrees: Array) -> Array:
    """Errors in position and in rotation as one, mm."""
    return mm + 1e3 * LEVER_M * np.radians(degrees)


def outlier(mm: Array, degrees: Array) -> tuple[int | None, str]:
    """The sample that fits worst, and why it should not take part; None where none is far from the others."""
    worst, why, most = None, "", 1.0
    for values, least, unit in ((mm, OUTLIER_MM, "mm"), (degrees, OUTLIER_DEG, "degrees")):
        middle = float(np.median(values))
        deviation = 1.4826 * float(np.median(np.abs(values - middle)))
        limit = max(middle + OUTLIER_DEVIATIONS * deviation, OUTLIER_RATIO * middle, least)
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
