"""Checks of a flight's arrays: units, axes, and whether pose and velocities belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sim2real.recordings.tables import LogError
from sim2real.runtime.geometry import quat_conjugate, quat_multiply, quat_to_matrix
from sim2real.types import Array

STANDARD_GRAVITY = 9.80665  # m/s², what "g" means to an accelerometer
LIFT_G = (0.5, 2.0)  # what the accelerometer of a flight shows in the middle: about one g
# Standard deviation about the axis that turns most. Real flights have 86 and 107, never under 18 in 5 s of them; in
# rad/s these are 1.5 and 1.9.
STILLEST_DEG_S = 3.0
AGAINST = -0.3  # correlation of effort and acceleration along z below which z points down
ALONG = 0.8  # of the specific force that points along z where z is up
TURN = np.array([1.0, -1.0, -1.0])  # forward-right-down to forward-left-up, and north-east-down to north-west-up
TURN_QUAT = np.array([1.0, -1.0, -1.0, 1.0])
TURNED = (
    "the axes are x forward, y right, z down and were turned to x forward, y left, z up: y and z of {names} change sign"
)


def check_lift(path: Path, acc: Array) -> None:
    """Refuse an accelerometer [T, 3] that is not in g or no flight's.

    Raises:
        LogError: Names unit or axis.
    """
    middle = float(np.median(np.sqrt((acc**2).sum(axis=1))))
    if not LIFT_G[0] <= middle <= LIFT_G[1]:
        metric = LIFT_G[0] <= middle / STANDARD_GRAVITY <= LIFT_G[1]
        hint = "this looks like m/s², divide by 9.80665" if metric else "is this the accelerometer of a flight?"
        raise LogError(f"{path}: the median length of 'acc' is {middle:.3g}, it must be g, near 1; {hint}")
    axes = np.median(acc, axis=0)
    if abs(axes[2]) < ALONG * middle:
        axis = "xyz"[int(np.abs(axes).argmax())]
        raise LogError(
            f"{path}: 'acc' shows {axes[0]:+.2f}, {axes[1]:+.2f}, {axes[2]:+.2f} g along x, y, z (medians), most along "
            f"{axis}; a drone that flies feels its lift along z. Turn the axes to x forward, y left, z up"
        )


def check_rate(path: Path, gyro: Array) -> None:
    """Refuse a gyro [T, 3] that turns less than anything that flies: it is not in deg/s, or no flight's.

    Raises:
        LogError: Says by how much it varies.
    """
    std = float(gyro.std(axis=0).max())
    if std < STILLEST_DEG_S:
        raise LogError(
            f"{path}: 'gyro' varies by {std:.3g} (standard deviation about the axis that turns most), a flight by "
            f"more than {STILLEST_DEG_S:g} deg/s; is it rad/s? Multiply it by 57.2958"
        )


def turned_imu(arrays: dict[str, Array]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """``acc`` and ``gyro`` with z up, and a remark where they had z down."""
    if float(np.median(arrays["acc"][:, 2])) > 0:
        return arrays, ()
    turned = {name: arrays[name] * TURN for name in ("acc", "gyro")}
    return arrays | turned, (TURNED.format(names="acc and gyro"),)


def turned_pose(arrays: dict[str, Array], effort: Array, time: Array) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Pose and velocities with z up, and a remark where they had z down.

    Args:
        arrays: ``pos``, ``vel``, ``quat`` and ``ang_vel``, in agreement with each other.
        effort: [T] sum of squared rotor speeds or motor commands, in any unit.
        time: [T] s.
    """
    # More effort accelerates along the body's z where that points up, against it where it points down.
    span = max(1, round(0.1 / float(np.median(np.diff(time)))))
    push = (arrays["vel"][span:] - arrays["vel"][:-span]) / (time[span:] - time[:-span])[:, None]
    along = (push * quat_to_matrix(arrays["quat"])[span // 2 : span // 2 + len(push), :, 2]).sum(axis=1)
    total = np.concatenate(([0.0], np.cumsum(effort)))
    mean = (total[span:] - total[:-span])[: len(along)] / span
    if mean.std() < 1e-9 or along.std() < 1e-9 or np.corrcoef(mean, along)[0, 1] > AGAINST:
        return arrays, ()
    turned = {name: arrays[name] * TURN for name in ("pos", "vel", "ang_vel")}
    turned["quat"] = arrays["quat"] * TURN_QUAT
    return arrays | turned, (TURNED.format(names="pos, vel, ang_vel and quat"),)


def unit_quaternions(path: Path, quat: Array) -> Array:
    """Quaternions [T, 4] of length 1.

    Raises:
        LogError: One is far from it.
    """
    norm = np.sqrt((quat**2).sum(axis=1))
    off = int(np.abs(norm - 1.0).argmax())
    if abs(norm[off] - 1.0) > 0.05:
        raise LogError(f"{path}: the quaternion in row {off} has length {norm[off]:.3f}, it must be 1")
    return quat / norm[:, None]


def check_motion(path: Path, time: Array, pos: Array, vel: Array, quat: Array, ang_vel: Array) -> None:
    """Refuse a pose that contradicts its velocities: another order, frame or unit.

    Raises:
        LogError: Says which contradict each other.
    """
    span = max(1, round(0.05 / float(np.median(np.diff(time)))))
    if len(time) <= 3 * span:
        return
    elapsed = (time[span:] - time[:-span])[:, None]

    def mean(values: Array) -> Array:
        return 0.5 * (values[span:] + values[:-span])

    def fraction(wanted: Array, got: Array) -> float:
        """Fraction of the motion that is explained; 1 is all."""
        total = float((wanted**2).sum())
        return 1.0 - float(((wanted - got) ** 2).sum()) / total if total > 1e-9 else 1.0

    def rate_of(order: Array) -> Array:
        step = quat_multiply(quat_conjugate(order[:-span]), order[span:])
        return 2.0 * np.where(step[:, 3:] < 0, -1.0, 1.0) * step[:, :3] / elapsed

    moved = fraction((pos[span:] - pos[:-span]) / elapsed, mean(vel))
    if moved < 0.3:
        raise LogError(
            f"{path}: 'vel' is not the rate of 'pos' ({moved:.0%} agree); both must be SI in the world frame"
        )
    agreement, swapped = (fraction(rate_of(order), mean(ang_vel)) for order in (quat, np.roll(quat, -1, axis=1)))
    if agreement < 0.3:
        hint = "the order is xyzw, this looks like wxyz" if swapped > 0.5 else "it must be rad/s in the body frame"
        raise LogError(f"{path}: 'ang_vel' is not the rate of 'quat' ({agreement:.0%} agree); {hint}")
    upright = float(np.median(quat_to_matrix(quat)[:, 2, 2]))
    if upright < 0:
        raise LogError(
            f"{path}: by 'quat' the drone flies on its back (z of body along z of world: {upright:+.2f}); quat turns "
            "the body frame (x forward, y left, z up) to the world frame (z up)"
        )
