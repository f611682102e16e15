"""A board that was moved between samples of a hand-eye calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from calibration.hand_eye_fit import LEVER_M, OUTLIER_DEG, OUTLIER_MM, EnvIds, Problem, both, mean_pose, moved
from sim2real.types import Array

MOVED_RATIO = 1.5  # two positions of the board must explain the samples so much better than one
LEAST_SIDE = 4
MOST_CUTS = 40  # where a move is looked for; more samples are looked at in steps


def board_moved(problem: Problem, x: Array, y: Array) -> str:
    """Explain a board that was moved or rotated between samples, for good or for a while; empty if it was not.

    A run of samples is looked for that has the board elsewhere than the rest, then the camera is fitted together with
    both positions: only that keeps a move from being hidden in the camera.

    Args:
        problem: All samples, in the order they were taken.
        x: The camera of the fit with one position of the board [4, 4].
        y: That position [4, 4].
    """
    count = len(problem.arm)
    if count < 2 * LEAST_SIDE + 2:
        return ""
    rows = np.arange(count)
    first, last = _run_elsewhere(problem.arm @ x @ problem.board)
    run = (rows >= first) & (rows < last)
    if 2 * run.sum() > count:
        run = ~run  # the fewer samples are those elsewhere
    near, far = _two_poses(problem, x, y, run)
    whole = float(both(*problem.errors(x, y, rows)).mean())
    split = float(np.concatenate([both(*problem.errors(*fit, part)) for fit, part in near]).mean())
    between = np.linalg.inv(far[0]) @ far[1]
    mm = 1e3 * float(np.linalg.norm(between[:3, 3]))
    degrees = float(np.degrees(Rotation.from_matrix(between[:3, :3]).magnitude()))
    enough = mm > max(OUTLIER_MM, 2.0 * split) or degrees > max(OUTLIER_DEG, 2.0 * np.degrees(1e-3 * split / LEVER_M))
    if whole <= MOVED_RATIO * split or not enough:
        return ""
    when = f"before sample {last if first == 0 else first}"
    if 0 < first and last < count:
        when = f"from sample {first} to {last - 1}"
    return (
        f"the board (or the camera) seems to have moved by {mm:.0f} mm and {degrees:.1f}° {when}: take the samples "
        "again, or use those of one place only"
    )


def _run_elsewhere(poses: Array) -> tuple[int, int]:
    """First and last (excluded) of the samples whose board [N, 4, 4] is elsewhere than the others', if any is."""
    count = len(poses)
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    points = np.concatenate((poses[:, :3, 3], LEVER_M * (rotations.mean().inv() * rotations).as_rotvec()), axis=1)
    cuts = np.unique(np.linspace(0, count, min(count, MOST_CUTS) + 1).round().astype(int))
    best, chosen = np.inf, (0, count)
    for first in cuts:
        for last in cuts[cuts >= first + LEAST_SIDE]:
            rest = np.concatenate((points[:first], points[last:]))
            if len(rest) < LEAST_SIDE:
                continue
            off = sum(
                np.linalg.norm(part - np.median(part, axis=0), axis=1).sum() for part in (points[first:last], rest)
            )
            if off < best:
                best, chosen = float(off), (int(first), int(last))
    return chosen


def _two_poses(
    problem: Problem, x: Array, y: Array, run: NDArray[np.bool_]
) -> tuple[list[tuple[tuple[Array, Array], EnvIds]], tuple[Array, Array]]:
    """X with two positions of the board: (X, Y) and rows of each, and the two positions."""
    parts = [np.flatnonzero(~run), np.flatnonzero(run)]
    free = Problem(problem.arm, problem.board)
    poses = [mean_pose((problem.arm @ x @ problem.board)[part]) for part in parts]

    def off(step: Array) -> Array:
        left = []
        for index, part in enumerate(parts):
            fit = moved(x, poses[index], np.concatenate((step[:6], step[6 + 6 * index : 12 + 6 * index])))
            left.append(free.residuals(*fit, part))
        return np.concatenate(left)

    scale = max(float(np.median(np.abs(off(np.zeros(18))))), 1e-9)
    step = least_squares(off, np.zeros(18), loss="soft_l1", f_scale=scale).x
    fits = [moved(x, poses[i], np.concatenate((step[:6], step[6 + 6 * i : 12 + 6 * i]))) for i in (0, 1)]
    return list(zip(fits, parts, strict=True)), (fits[0][1], fits[1][1])
