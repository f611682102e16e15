"""Hand-eye calibration: a camera on the hand (eye in hand) or beside the arm (eye to hand), from poses.

Names of transforms say what they do: ``T_base_camera`` takes points from the camera's frame to the base's.

    eye to hand:  T_base_ee · T_ee_board = T_base_camera · T_camera_board, the board on the hand
    eye in hand:  T_base_ee · T_ee_camera · T_camera_board = T_base_board, the board fixed

Both are solved as one problem, with inverse arm poses for a camera beside the arm.

Which of two poses is the arm's and which the board's cannot be checked in general: samples with both exchanged, or both
inverted, fit together just as well and give another transform. A camera that could not have seen the board is refused,
and what is unlikely is noted (:mod:`calibration.hand_eye_checks`); beyond that the order is the caller's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from calibration import hand_eye_checks as checks
from calibration.board_moved import board_moved
from calibration.boards import Detection
from calibration.hand_eye_fit import LEAST_SAMPLES, SOLVERS, EnvIds, Problem, both, root_mean_square
from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Array

Setup = Literal["eye-to-hand", "eye-in-hand"]

JOINT_FIT = "all samples together"
WEIGHED_FIT = "all samples together, weighed by how well their corners fix the board"
CLEARLY = 1.2  # weighing is right where its model is: samples not seen must speak clearly against it
# From camera_link (x forwards, y left, z up) to the optical frame (x right, y down, z forwards), REP 103.
OPTICAL_FROM_LINK = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class HandEyeResult:
    """Pose of the camera, with its uncertainty.

    Attributes:
        setup: As given.
        T_base_camera: [4, 4] for eye to hand, else None.
        T_ee_camera: [4, 4] for eye in hand, else None.
        T_board: The board in the hand's frame (eye to hand) or in the base frame (eye in hand) [4, 4].
        method: What the pose is from: the fit of all samples together, or another fit or one of OpenCV's solvers where
            that was nearer, in position and in rotation, to samples not seen.
        std_mm, std_deg: Standard deviations of the camera's position and orientation [3], along its parent's axes.
        held_out_mm, held_out_deg: Root mean square errors of all samples, each by a fit that had not seen it; those
            that were left out count as well. NaN with too few.
        kept_mm, kept_deg: The same of the samples that took part.
        residual_mm, residual_deg: Root mean square errors of all samples by the pose found, which saw them.
        per_solver: Held-out error of OpenCV's five solvers alone: name → (mm, degrees).
        dropped: Sample → why it took no part.
        warnings: What is wrong with the samples: with any of these the pose is not to be used.
        notes: What makes it worse than it could be, or looks odd.
    """

    setup: Setup
    T_base_camera: Array | None
    T_ee_camera: Array | None
    T_board: Array
    method: str
    std_mm: Array
    std_deg: Array
    held_out_mm: float
    held_out_deg: float
    kept_mm: float
    kept_deg: float
    residual_mm: float
    residual_deg: float
    per_solver: dict[str, tuple[float, float]]
    dropped: dict[int, str]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of the camera's transform."""
        return "T_base_camera" if self.T_base_camera is not None else "T_ee_camera"

    @property
    def board_label(self) -> str:
        """Name of the board's transform."""
        return "T_ee_board" if self.T_base_camera is not None else "T_base_board"

    @property
    def T_camera(self) -> Array:  # noqa: N802 (a transform)
        """The camera's pose in the frame that ``label`` names [4, 4]."""
        pose = self.T_base_camera if self.T_base_camera is not None else self.T_ee_camera
        assert pose is not None
        return pose

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Figures for a JSON file; a pose that is not to be used is not in it.

        Args:
            names: Of the samples.
        """
        return {
            **({} if self.warnings else {self.label: self.T_camera.tolist(), self.board_label: self.T_board.tolist()}),
            "method": self.method,
            "std_mm": self.std_mm.tolist(),
            "std_deg": self.std_deg.tolist(),
            "held_out_mm": self.held_out_mm,
            "held_out_deg": self.held_out_deg,
            "held_out_kept_mm": self.kept_mm,
            "held_out_kept_deg": self.kept_deg,
            "residual_mm": self.residual_mm,
            "residual_deg": self.residual_deg,
            "samples": len(names),
            "per_solver": {name: list(values) for name, values in self.per_solver.items()},
            "dropped": {names[index]: why for index, why in self.dropped.items()},
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }

    def save(self, path: Path, camera: CameraCalibration | None) -> None:
        """Write the calibration of ``camera`` completed with its pose, or the pose alone where there is none."""
        if camera is None:
            write_text(path, yaml.safe_dump({self.label: self.T_camera.tolist()}, sort_keys=False))
        elif self.T_base_camera is not None:
            replace(camera, T_base_camera=self.T_base_camera).save(path)
        else:
            replace(camera, T_ee_camera=self.T_ee_camera).save(path)


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
        T_camera_board: Poses of the board in the camera's frame [N, 4, 4], in the order they were taken.
        setup: Where the camera is.
        camera: With ``detections``: samples count by how well their corners fix the board's pose, unless that is
            clearly farther from samples not seen.
        detections: Corners of the board in every sample.

    Raises:
        ConfigError: Matrices that are no poses, lengths that are no metres, too few samples, or too little rotation
            between them.
    """
    if setup not in ("eye-to-hand", "eye-in-hand"):
        raise ConfigError(f"unknown setup '{setup}'; it is eye-to-hand or eye-in-hand")
    arm_given, rounded_arm = checks.whole_poses("T_base_ee", T_base_ee)
    board, rounded_board = checks.whole_poses("T_camera_board", T_camera_board)
    if len(arm_given) != len(board) or len(board) < LEAST_SAMPLES:
        raise ConfigError(
            f"{len(arm_given)} poses of the arm and {len(board)} of the board; as many of each are needed, at least "
            f"{LEAST_SAMPLES}, 15 or more are good"
        )
    to_hand = setup == "eye-to-hand"
    arm: Array = np.asarray(np.linalg.inv(arm_given), dtype=np.float64) if to_hand else arm_given
    checks.check_rotation(arm)
    problem = Problem(arm, board)
    weighed = Problem(arm, board, camera, detections) if detections is not None else problem
    whole = problem.solve(np.arange(len(arm)))
    x, y, keep, dropped = _fit(problem, weighed, *whole)
    if dropped:
        checks.check_rotation(arm[keep])
    per_solver = {name: problem.held_out(keep, name) for name in SOLVERS}
    fit, joint = problem, JOINT_FIT
    if detections is not None and weighed.misfit(weighed, keep, x, y) < CLEARLY * weighed.misfit(problem, keep, x, y):
        fit, joint = weighed, WEIGHED_FIT
        x, y = fit.solve(keep)
    method, kept = _best({joint: fit.held_out(keep)} | per_solver)
    if method in SOLVERS:
        x, y = problem.closed_form(keep, method)
    residual = root_mean_square(*problem.errors(x, y, np.arange(len(arm))))
    held = _with_dropped(kept, len(keep), *problem.errors(x, y, np.array(sorted(dropped), dtype=np.int64)))
    judged = kept if np.isfinite(kept).all() else root_mean_square(*problem.errors(x, y, keep))
    warning, unlikely = _judge(problem, whole, judged, arm_given)
    notes = [text for text in (rounded_arm, rounded_board, unlikely) if text]
    if not warning:
        notes += checks.noisy(*judged, len(dropped), len(arm))
        notes += checks.oddities(board, *((y, x) if to_hand else (x, y)))
    std = weighed.standard_deviations(x, y, keep)
    return HandEyeResult(
        setup, x if to_hand else None, None if to_hand else x, y, method, 1e3 * std[3:], np.degrees(std[:3]), *held,
        *kept, *residual, per_solver, dropped, (warning,) if warning else (), tuple(notes),
    )  # fmt: skip


def _judge(
    problem: Problem, whole: tuple[Array, Array], judged: tuple[float, float], arm_given: Array
) -> tuple[str, str]:
    """Reason not to use the samples, empty where there is none; and what is unlikely.

    Args:
        problem: All samples.
        whole: X and Y of all samples.
        judged: Error of samples not seen, mm and degrees.
        arm_given: T_base_ee [N, 4, 4].
    """
    inverted = checks.inverted(problem, *whole)
    if inverted:
        return inverted, ""
    if judged[0] > checks.WORST_MM or judged[1] > checks.WORST_DEG:
        said = checks.hopeless(*judged)
        mistake = checks.mistake(arm_given, problem)
        return (f"{said}. {mistake}" if mistake else board_moved(problem, *whole) or f"{said}. {checks.CAUSES}"), ""
    refused, unlikely = checks.unseen(arm_given, problem.board)
    return refused or board_moved(problem, *whole), unlikely


def _fit(problem: Problem, weighed: Problem, x: Array, y: Array) -> tuple[Array, Array, EnvIds, dict[int, str]]:
    """X, Y, the samples that took part, and why the others did not: the worst is left out while it is far off.

    ``x`` and ``y`` are the fit of all samples; ``weighed`` knows how well each board is seen.
    """
    keep = np.arange(len(problem.arm))
    dropped: dict[int, str] = {}
    for _ in range(len(keep) // 4):
        worst, why = weighed.outlier(x, y, keep)
        if worst is None or len(keep) <= LEAST_SAMPLES:
            break
        dropped[int(keep[worst])] = why
        keep = np.delete(keep, worst)
        x, y = problem.solve(keep)
    return x, y, keep, dropped


def _best(fits: dict[str, tuple[float, float]]) -> tuple[str, tuple[float, float]]:
    """The first fit, or the one that is better than it in position and in rotation on samples not seen."""
    first = next(iter(fits))
    better = {name: held for name, held in fits.items() if held[0] < fits[first][0] and held[1] < fits[first][1]}
    name = min(better, key=lambda n: float(both(*np.array(better[n]))), default=first)
    return name, fits[name]


def _with_dropped(kept: tuple[float, float], count: int, mm: Array, degrees: Array) -> tuple[float, float]:
    """Root mean square errors of ``count`` samples and of those that were left out."""
    squares = [
        (count * mean**2 + float((off**2).sum())) / (count + len(off))
        for mean, off in zip(kept, (mm, degrees), strict=True)
    ]
    return float(np.sqrt(squares[0])), float(np.sqrt(squares[1]))
