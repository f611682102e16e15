"""Torques or motor currents of recordings as rows of a linear model, and whether the columns are what they are called.

    effort = gain (Y pi + rotor inertia * acceleration) + viscous * velocity + coulomb * sign(velocity) + offset

Positions, velocities and efforts pass the same low-pass without delay, so that the model holds of what is left (Gautier
1997, "Dynamic Identification of Robots with Power Model"). Rows in and around which a joint hardly moves are left out
of that joint's: friction may be anything there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import minimum_filter1d
from scipy.optimize import lsq_linear
from scipy.signal import butter, sosfiltfilt

from sim2real.identify.arm.dynamics import Body, regressor
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import LogError
from sim2real.robots.arm import Arm
from sim2real.types import Array

CUTOFF_HZ = 8.0  # arms move at less than 3 Hz
SLOWEST_HZ = 20.0
EDGE_S = 0.3  # of a recording, where the filter has seen one side only
SLOW = 0.01  # of the speed limit; friction is not known of a joint that is slower
MOVES_S = 2.0
VELOCITY_FITS = 0.2
EXPLAINED, CLEARER = 0.5, 0.25  # fractions of a torque's variance: to be believed, and to be another's
PLAUSIBLE = {False: (0.25, 4.0), True: (0.03, 300.0)}  # torques over the description's; N·m/A of arms' motors and gears


@dataclass(frozen=True)
class Rows:
    """One motion.

    Attributes:
        log: The recording.
        loaded: It carried the payload.
        data: [T, J, 10 B + 4]: of the bodies' parameters, rotor inertia, viscous and Coulomb friction, and one.
        effort: [T, J] N·m or A.
        moves: [T, J], where the joint moves, and did and will for as long as the filter sees.
    """

    log: JointLog
    loaded: bool
    data: Array
    effort: Array
    moves: NDArray[np.bool_]


def rows_of(arm: Arm, bodies: list[Body], log: JointLog, loaded: bool) -> Rows:
    """Filter a recording and make its rows, four a period of the cut-off frequency.

    Raises:
        LogError: The recording is too slow, stands still, or its velocities are not those of its positions.
    """
    period, slow = log.period_s, SLOW * arm.chain.velocity
    if period > 1.0 / SLOWEST_HZ:
        raise LogError(
            f"{log.name} was recorded at {1.0 / period:.1f} Hz; torques of motion need {SLOWEST_HZ:g} Hz or more"
        )
    cutoff, grid = min(CUTOFF_HZ, 0.2 / period), np.arange(0.0, log.time[-1], period)
    low_pass = butter(4, cutoff, fs=1.0 / period, output="sos")

    def smooth(values: Array) -> Array:
        return sosfiltfilt(low_pass, values, axis=0)

    def on_grid(values: Array) -> Array:
        return np.stack([np.interp(grid, log.time, column) for column in values.T], axis=1)

    q = smooth(on_grid(log.position))
    dq = CubicSpline(grid, q)(grid, 1)
    _refuse_still(arm, log, dq, slow)
    if log.velocity is not None:
        given = smooth(on_grid(log.velocity))
        _refuse_velocity(arm, log, given, dq, slow)
        dq = given
    ddq = CubicSpline(grid, dq)(grid, 1)
    fast = np.abs(dq) > slow
    moves = minimum_filter1d(fast.astype(np.uint8), 2 * int(1.0 / cutoff / period) + 1, axis=0) > 0
    direction = smooth(np.sign(dq))
    every = max(1, int(0.25 / cutoff / period))
    edge = int(EDGE_S / period)
    at = np.arange(edge, len(grid) - edge, every)
    own = np.stack([ddq, dq, direction, np.ones_like(q)], axis=2)[at]
    data = np.concatenate([regressor(arm.chain, bodies, q[at], dq[at], ddq[at]), own], axis=2)
    assert log.effort is not None
    return Rows(log, loaded, data, smooth(on_grid(log.effort))[at], moves[at])


def _refuse_still(arm: Arm, log: JointLog, dq: Array, slow: Array) -> None:
    moving = (np.abs(dq) > slow).sum(axis=0) * log.period_s
    if moving.max() < MOVES_S:
        fastest = int((np.abs(dq) / slow).max(axis=0).argmax())
        raise LogError(
            f"{log.name} stands still: the fastest joint, '{arm.joints[fastest]}', reaches "
            f"{np.abs(dq[:, fastest]).max():.2g} rad/s, and none moves faster than {SLOW:.0%} of its limit for "
            f"{MOVES_S:g} s. Friction and inertia show in motion only: leave this recording out, or move every joint"
        )


def _refuse_velocity(arm: Arm, log: JointLog, given: Array, dq: Array, slow: Array) -> None:
    for joint, name in enumerate(arm.joints):
        rows = np.abs(dq[:, joint]) > slow[joint]
        if rows.sum() * log.period_s < MOVES_S:
            continue
        slope = float(given[rows, joint] @ dq[rows, joint] / (dq[rows, joint] @ dq[rows, joint]))
        if abs(slope - 1.0) > VELOCITY_FITS:
            what = "; it is degrees per second" if abs(slope / np.degrees(1.0) - 1.0) < VELOCITY_FITS else ""
            raise LogError(
                f"{log.name}: the velocity of '{name}' is {slope:.3g} times the change of its position{what}; correct "
                "the column, or leave velocities out: they are taken from the positions then"
            )


def refuse_columns(arm: Arm, rows: Sequence[Rows], described: Array, of_current: bool, insist: bool) -> None:
    """Refuse efforts of another joint, of the wrong sign, or in another unit, by what the description predicts.

    Args:
        arm: The robot.
        rows: All recordings.
        described: Parameters [10 B] of the description.
        of_current: Efforts are A.
        insist: The torque constants are given: take currents of any size.

    Raises:
        LogError: Names the joints, and by how much they differ.
    """
    joints = range(len(arm.joints))
    moving = [j for j in joints if any(r.moves[:, j].any() for r in rows)]
    found = {(of, by): _explained(rows, described, of, by) for of in moving for by in moving}
    other, turned = [], []
    for of in moving:
        by = max(moving, key=lambda k: max(found[of, k][:2]))
        own, best = max(found[of, of][:2]), max(found[of, by][:2])
        if best > EXPLAINED and best > own + CLEARER:
            other.append(f"'{arm.joints[of]}' follows the motion of '{arm.joints[by]}' ({best:.0%}, own {own:.0%})")
        elif found[of, of][1] > max(EXPLAINED, found[of, of][0] + CLEARER):
            turned.append(f"'{arm.joints[of]}' ({found[of, of][1]:.0%} explained turned, {found[of, of][0]:.0%} as is)")
    if other:
        raise LogError(f"efforts belong to other joints: {', '.join(other)}; correct the order of the columns")
    if turned:
        raise LogError(
            f"efforts have the wrong sign: {', '.join(turned)}; positive is what turns a joint forwards. Change the "
            "sign of these columns, or give --torque-constant JOINT=-VALUE"
        )
    sizes = [found[j, j][2] for j in moving if found[j, j][0] > EXPLAINED and found[j, j][2] > 0.0]
    size = float(np.median(sizes)) if sizes else 1.0
    size, (low, high) = (1.0 / size if of_current else size), PLAUSIBLE[of_current]
    if not (low <= size <= high or insist):
        what = f"{size:.3g} N·m/A, as the description's masses have it" if of_current else (
            f"{size:.3g} times those that the description's masses ask for")  # fmt: skip
        raise LogError(
            f"{'a motor would give' if of_current else 'torques are'} {what} (median of {len(sizes)} joints); is "
            "--effort-unit another one, or are these torques before the gear? --torque-constant insists"
        )


def _explained(rows: Sequence[Rows], described: Array, of: int, by: int) -> tuple[float, float, float]:
    """Fraction of one joint's effort that another's motion explains, as it is and turned; effort over prediction."""
    bodies = len(described)
    parts = []
    for r in rows:
        at = r.moves[:, by]
        weight = r.data[at, by, :bodies] @ described
        parts.append(np.column_stack([weight, r.data[at, by, bodies + 1 :], r.effort[at, of]]))
    whole = np.concatenate(parts)
    triangle: Array = np.asarray(np.linalg.qr(whole, mode="r"))
    total = float(((whole[:, -1] - whole[:, -1].mean()) ** 2).sum()) or 1.0
    free = ([0.0, 0.0, 0.0, -np.inf], np.inf)
    left = [lsq_linear(triangle[:, :4], sign * triangle[:, 4], free) for sign in (1.0, -1.0)]
    return 1.0 - 2.0 * left[0].cost / total, 1.0 - 2.0 * left[1].cost / total, float(left[0].x[0])
