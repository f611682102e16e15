"""Latency of a camera against the joints' stamps, from a board that a joint moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from sim2real.errors import ConfigError
from sim2real.types import Array

EARLIEST_S, LATEST_S = -0.05, 0.5  # what a camera can be: stamped on arrival, or a little before the joints
# Where the motion is compared: also beyond, so that one that repeats is seen, and one that is later than that.
FROM_S, TO_S = -0.5, 1.0
GRID_S = 0.005
EDGE_S = 2 * GRID_S
# An offset elsewhere explains the motion as well if it leaves at most twice as much unexplained, or hardly anything.
APART_S, AS_WELL, HARDLY = 0.02, 2.0, 1e-3
LARGEST_STD_S = 0.01
ADVICE = "swing one joint irregularly (a chirp, never the same way twice) by 0.3 rad, slower than 0.5 Hz"
LEAST_IMAGES = 20
LEAST_SPEED_RAD_S = 0.1
BLOCKS = 8  # pieces of the recording that count as independent
MOST_UNEXPLAINED = 0.2  # of the motion's variance that may stay unexplained


@dataclass(frozen=True)
class Latency:
    """An image's stamp minus the stamp of the joint position that it shows.

    Attributes:
        seconds, std: Offset and its standard deviation, s.
        explained: Fraction of the image motion's variance that the joint explains, 0 to 1.
    """

    seconds: float
    std: float
    explained: float


def camera_latency(joint_time: Array, joint_pos: Array, image_time: Array, board_angle: Array) -> Latency:
    """Find the offset at which the joint explains what the camera saw.

    Args:
        joint_time: [T] s, ascending, on the same clock as the images' stamps.
        joint_pos: [T] rad, one joint that moves irregularly, slower than 0.5 Hz, while the others stand still.
        image_time: [N] s.
        board_angle: How far the board is turned in every image [N] rad, about any fixed axis and in any direction:
            see :func:`turning`.

    Raises:
        ConfigError: Too few images, no motion, a joint that does not explain what is seen, a motion that repeats, an
            offset beyond -0.05 to 0.5 s, or one that is not known to 10 ms.
    """
    inside = (image_time > joint_time[0] + TO_S) & (image_time < joint_time[-1] + FROM_S)
    if inside.sum() < LEAST_IMAGES:
        raise ConfigError(
            f"{int(inside.sum())} images lie within the joint's recording, {LEAST_IMAGES} are needed; record for longer"
        )
    image_time, board_angle = image_time[inside], board_angle[inside]
    speed = np.abs(np.gradient(joint_pos, joint_time))
    if np.quantile(speed, 0.9) < LEAST_SPEED_RAD_S:
        raise ConfigError(f"the joint hardly moves ({np.quantile(speed, 0.9):.2f} rad/s); {ADVICE}")

    def misfit(offset: float, rows: NDArray[np.bool_] | slice = slice(None)) -> float:
        moved = np.interp(image_time[rows] - offset, joint_time, joint_pos)
        design = np.stack((moved, np.ones_like(moved)), axis=1)
        left = np.linalg.lstsq(design, board_angle[rows], rcond=None)[1]
        return float(left[0]) if len(left) else 0.0

    grid = np.arange(FROM_S, TO_S + GRID_S, GRID_S)

    def best(rows: NDArray[np.bool_] | slice = slice(None)) -> float:
        start = float(grid[int(np.argmin([misfit(x, rows) for x in grid]))])
        found = minimize_scalar(
            misfit, bounds=(start - GRID_S, start + GRID_S), args=(rows,), method="bounded", options={"xatol": 1e-6}
        )
        return float(found.x)

    offset = best()
    variance = float(((board_angle - board_angle.mean()) ** 2).sum())
    explained = 1.0 - misfit(offset) / variance
    if explained < 1.0 - MOST_UNEXPLAINED:
        raise ConfigError(
            f"the joint explains only {explained:.0%} of what the board does; move this joint alone, and check that "
            "both stamps are of one clock"
        )
    left = np.array([misfit(x) for x in grid])
    valleys = np.flatnonzero((left[1:-1] <= left[:-2]) & (left[1:-1] <= left[2:])) + 1
    others = [float(grid[i]) for i in valleys if left[i] < AS_WELL * misfit(offset) + HARDLY * variance]
    others = [other for other in others if abs(other - offset) > APART_S]
    if others:
        raise ConfigError(
            f"the motion repeats: {1e3 * offset:.0f} ms explain it as well as {1e3 * others[0]:.0f} ms; {ADVICE}"
        )
    if not EARLIEST_S + EDGE_S <= offset <= LATEST_S - EDGE_S:
        raise ConfigError(
            f"the images would be {1e3 * offset:.0f} ms later than the joints; {1e3 * EARLIEST_S:.0f} to "
            f"{1e3 * LATEST_S:.0f} ms are possible. Check that both stamps are of one clock; if they are, {ADVICE}"
        )
    blocks = np.arange(len(image_time)) * BLOCKS // len(image_time)
    without = np.array([best(blocks != block) for block in range(BLOCKS)])  # jackknife (Efron 1982)
    std = float(np.sqrt((BLOCKS - 1) / BLOCKS * ((without - without.mean()) ** 2).sum()))
    if std > LARGEST_STD_S:
        raise ConfigError(
            f"the latency is {1e3 * offset:.0f} ms give or take {1e3 * std:.0f} ms, which is of no use; record for "
            f"longer, and {ADVICE}"
        )
    return Latency(offset, std, float(explained))


def rotation_angle(T_camera_board: Array) -> Array:  # noqa: N803 (a transform's name says its direction)
    """Rotation angle [N] rad of a board about the axis it rotates about most, from its poses [N, 4, 4]."""
    from scipy.spatial.transform import Rotation  # noqa: PLC0415

    rotations = Rotation.from_matrix(T_camera_board[:, :3, :3])
    relative = (rotations.mean().inv() * rotations).as_rotvec()
    axis = np.linalg.svd(relative - relative.mean(axis=0), full_matrices=False)[2][0]
    return relative @ axis
