"""Are stamps right? Lag between commands and measurements, and the pace at which the servos explain the motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import fftconvolve, lfilter

from sim2real.identify.arm.regression import EXCITED_RAD, GRID_S, modelled, on_grid
from sim2real.identify.arm.replay import references
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.types import Array

SHIFTS = np.arange(-30, 76)  # steps of GRID_S
SLOWNESS_S = (0.0, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5)  # time constants of servos that nothing is known of
EARLY_S, LATE_S = 0.06, 0.04  # recordings of one arm differ by as much
CLEARLY = 0.5  # fraction of the unexplained motion that another lag may leave, to be the right one
TOLD = 2e-4  # fraction of a motion's variance; what leaves less unexplained is not refused
COPIED = 0.98  # fraction of moving rows that are equal to commands, from which they are copies

SCALES = np.geomspace(0.2, 5.0, 13)
PIECE_S, PIECES = 20.0, 4  # of the liveliest motion
PACE = 0.7  # fraction of the unexplained motion that another pace may leave, to be the right one
RATE_TOLERANCE = 0.1
ALIKE = 0.2  # logarithm of a ratio; paces nearer to each other are one
OTHER_SERVO = 2.2  # the lags of two servos of one kind differ by less


@dataclass(frozen=True)
class Lags:
    """Lag of every joint, and what is wrong with it.

    Attributes:
        lag_s: [J] s by which measurements follow commands; NaN of joints that hardly move.
        faults: By joint, in words; empty where all is well.
        recordings: A sentence for every recording whose lag alone is wrong, where the others are right.
    """

    lag_s: Array
    faults: tuple[str, ...]
    recordings: tuple[str, ...] = ()


def is_identified(arm: Arm) -> bool:
    """Tell whether the arm's servos were identified, or are only what its description says."""
    nominal, described = arm.nominal(), arm.described()
    return any(not np.array_equal(nominal[name], described[name]) for name in described)


def joint_lags(arm: Arm, logs: Sequence[JointLog]) -> Lags:
    """Judge lags by what a servo can do.

    Identified servos are asked themselves, with the dead time that ``robot.yaml`` allows. Others may be anything that
    answers late, then slowly: a dead time and a first-order lag.

    Args:
        arm: The robot; its bounds of ``dead_time`` say how late a servo may answer.
        logs: With joints in order, signs and scales right.
    """
    servos: Sequence[Array | None] = [None] * len(logs)
    if is_identified(arm):
        servos = modelled(arm, logs, [on_grid(log, log.command) for log in logs])
    parts = [_judged(arm, log, servo) for log, servo in zip(logs, servos, strict=True)]
    moves = np.array([_moves(log) for log in logs])
    weight = np.array([part[3] for part in parts]) * moves
    whole = [np.einsum("l...j,lj->...j", np.array([p[i] for p in parts]), weight) / np.maximum(weight.sum(0), 1e-12)
             for i in range(3)]  # fmt: skip
    plain, inside, outside = whole
    lag = np.where(weight.any(axis=0), [_nearest(column) for column in plain.T], np.nan)
    copies = _copied(arm, logs)
    faults = [copies[j] or _fault(arm, float(lag[j]), *_best(inside[:, j], outside[:, j])) for j in range(len(lag))]
    alone = []
    if not any(faults) and len(logs) > 1:
        for log, part, moving in zip(logs, parts, moves, strict=True):
            if moving.any():
                mean = [part[i][:, moving].mean(axis=1) for i in range(3)]
                at = _nearest(mean[0])
                if fault := _fault(arm, at, *_best(mean[1], mean[2])):
                    alone.append(f"{log.name}: {fault}")
    return Lags(lag, tuple(faults), tuple(alone))


def _judged(arm: Arm, log: JointLog, servo: Array | None) -> tuple[Array, Array, Array, Array]:
    """Unexplained fractions of one recording, by shift.

    Args:
        arm: The robot.
        log: The recording.
        servo: Where its identified servos would be [K, J] rad on the grid; None where they were not identified.

    Returns:
        Fractions [S, J] of held commands, of servos as they may be, and of servos with any dead time; variance [J].
    """
    middle = GRID_S * (np.arange(int(np.ceil(log.time[-1] / GRID_S)) + 1) + 0.5)
    measured = np.stack([np.interp(middle, log.time, column) for column in log.position.T], axis=1)
    nothing, far = np.zeros(len(log.joint_names)), np.full(len(log.joint_names), 1e9)
    held = references(log, nothing, -far, far, GRID_S)
    shift_s = GRID_S * SHIFTS[:, None]
    plain = unexplained(held, measured)
    latest = arm.servo["dead_time"].high + LATE_S
    if servo is not None:
        outside = unexplained(servo, on_grid(log, log.position))
        spare = latest - arm.nominal()["dead_time"]
        inside = np.where((shift_s >= -EARLY_S) & (shift_s <= spare), outside, 1.0)
        return plain, inside, outside, measured.var(axis=0)
    ways = np.array([plain if s == 0.0 else unexplained(_slowed(held, s), measured) for s in SLOWNESS_S])
    inside = np.where((shift_s > -0.5 * GRID_S) & (shift_s <= latest), ways, 1.0)
    return plain, inside.min(axis=0), ways.min(axis=0), measured.var(axis=0)


def _nearest(left: Array) -> float:
    """Smallest shift (s) that leaves about the least [S] unexplained; periodic motions repeat themselves."""
    good = np.nonzero(left <= 1.1 * left.min() + 1e-6)[0]
    return float(GRID_S * SHIFTS[good[np.abs(SHIFTS[good]).argmin()]])


def _best(inside: Array, outside: Array) -> tuple[float, float, float]:
    """Least unexplained fractions, and the shift (s) of the least of all."""
    return float(inside.min()), float(outside.min()), float(GRID_S * SHIFTS[outside.argmin()])


def _fault(arm: Arm, lag_s: float, inside: float, outside: float, shift_s: float) -> str:
    if not inside > TOLD or not outside < CLEARLY * inside:
        return ""
    if lag_s < 0.0 or shift_s < 0.0:
        where = (
            f"come {-lag_s:.2f} s before their commands" if lag_s < 0.0 else f"follow commands by {lag_s:.2f} s only"
        )
        return f"measurements {where}, sooner than a servo answers: the stamps differ, or commands are of later rows"
    return (
        f"measurements follow commands by {lag_s:.2f} s, later than these servos can (dead time up to "
        f"{arm.servo['dead_time'].high:g} s): correct the stamps, or widen servo.dead_time in robot.yaml"
    )


def _copied(arm: Arm, logs: Sequence[JointLog]) -> list[str]:
    """A sentence for every joint whose measurements are its commands, of the same or of the next row."""
    found = []
    for joint in range(len(logs[0].joint_names)):
        text = ""
        for ahead, which in ((0, "their commands"), (1, "the commands of the next row")):
            equal, rows = 0, 0
            for log in logs:
                c, q = log.command[ahead:, joint], log.position[: len(log.time) - ahead, joint]
                moving = np.abs(np.gradient(c)) > 2.0 * arm.encoder_step
                equal += int((np.abs(c - q)[moving] <= arm.encoder_step).sum())
                rows += int(moving.sum())
            if rows > 1.0 / (1.0 - COPIED) and equal > COPIED * rows:
                text = f"measurements are {which}, not what an encoder read"
                break
        found.append(text)
    return found


def _slowed(held: Array, slowness_s: float) -> Array:
    """Commands [K, J] behind a first-order lag."""
    pole = float(np.exp(-GRID_S / slowness_s))
    return np.asarray(lfilter([1.0 - pole], [1.0, -pole], held - held[0], axis=0)) + held[0]


def _window(rows: int) -> tuple[int, int]:
    """First and last of the measured rows by which all shifts are judged."""
    return min(int(SHIFTS[-1]), rows // 4), rows - min(-int(SHIFTS[0]), rows // 4)


def _moves(log: JointLog) -> Array:
    """Tell which joints [J] move in the judged rows: a move to the start says nothing about the lag."""
    command = on_grid(log, log.command)
    first, last = _window(len(command))
    return np.asarray(command[first:last].std(axis=0) > EXCITED_RAD)


def unexplained(predicted: Array, measured: Array) -> Array:
    """Fraction [S, J] of the measured variance that a prediction, late by each shift, leaves unexplained.

    All shifts are judged by the same measured rows, so that a shift gains nothing by leaving out a part of the motion.
    """
    rows = min(len(predicted), len(measured))
    first, last = _window(rows)
    m = measured[first:last] - measured[first:last].mean(axis=0)
    left = np.ones((len(SHIFTS), measured.shape[1]))
    # Sums over the window of every shift at once: products by convolution, squares as differences of running sums.
    c = predicted[:rows] - predicted[:rows].mean(axis=0)
    along = np.maximum(fftconvolve(c, m[::-1], mode="valid", axes=0), 0.0)  # a sign was judged before
    sums, squares = (
        running[last - first :] - running[: rows - last + first + 1]
        for running in (np.concatenate((np.zeros((1, c.shape[1])), np.cumsum(x, axis=0))) for x in (c, c * c))
    )
    size = (squares - sums**2 / (last - first)) * (m * m).sum(axis=0)
    begin = first - SHIFTS
    shown = (begin >= 0) & (begin < len(along))  # a short motion cannot show all
    left[shown] = np.where(size > 1e-12, 1.0 - along**2 / np.maximum(size, 1e-12), 1.0)[begin[shown]]
    return np.maximum(left, 0.0)


def pace(arm: Arm, logs: Sequence[JointLog]) -> tuple[float, str]:
    """Factor of the stamps, and a sentence about it: a fault where the factor is not 1, else a remark.

    Args:
        arm: The robot. Where its servos are not identified, only the robot's own rate is compared with the stamps'.
        logs: With joints in order, signs and scales right.
    """
    period = float(np.median([log.period_s for log in logs]))
    own = 1.0 / (period * arm.spec.control_rate_hz)
    other_rate = abs(1.0 / own - 1.0) > RATE_TOLERANCE
    if not other_rate and not is_identified(arm):
        return 1.0, ""
    pieces = _liveliest(logs)
    at_any_lag = _left(arm, pieces, 1.0)[1]
    left = {scale: _left(arm, pieces, scale)[0] for scale in ([1.0, own] if other_rate else [1.0])}
    best = min(left, key=lambda scale: left[scale])
    if is_identified(arm):
        free = {float(scale): _left(arm, pieces, float(scale))[0] for scale in SCALES}
        middle = min(free, key=lambda scale: free[scale])
        ratio = SCALES[1] / SCALES[0]
        free |= {float(s): _left(arm, pieces, float(s))[0] for s in middle * ratio ** np.array([-0.6, -0.3, 0.3, 0.6])}
        middle = min(free, key=lambda scale: free[scale])
        if abs(np.log(middle / best)) > ALIKE and free[middle] < PACE * left[best]:
            best, left[middle] = middle, free[middle]
    rows = f"rows are {period:.4f} s apart, the robot is controlled every {1.0 / arm.spec.control_rate_hz:.4f} s"
    # A lag that says as much as another pace: the pace is right. The robot's own rate is believed sooner than others.
    late = (at_any_lag < CLEARLY * left[best]) if best == own else (PACE * at_any_lag < left[best])
    if best != 1.0 and left[best] < PACE * left[1.0] and not late:
        by = f"{best:.2g} times too fast" if best > 1.0 else f"{1.0 / best:.2g} times too slow"
        hertz = f"{1.0 / (period * best):.3g} Hz"
        if best == own:
            return best, f"{rows}: by its stamps the motion is {by}, the servos say that the robot's rate is right"
        if not 1.0 / OTHER_SERVO < best < OTHER_SERVO:
            return best, f"{rows}: by its stamps the motion is {by}; the servos say that rows come at about {hertz}"
    if not other_rate:
        return 1.0, ""
    if best == 1.0 and left[1.0] < PACE * left[own]:
        return 1.0, f"{rows}; the motion is as fast as the servos make it, so the log has another rate and is in order"
    return 1.0, f"{rows}; whether its stamps are wrong cannot be told from this motion, a faster one shows it"


def _liveliest(logs: Sequence[JointLog]) -> list[JointLog]:
    """The pieces of ``PIECE_S`` in which commands move most."""
    pieces = []
    for log in logs:
        for start in np.arange(0.0, max(log.time[-1] - 0.5 * PIECE_S, 1e-9), PIECE_S):
            rows = slice(*np.searchsorted(log.time, (start, start + PIECE_S)))
            time = log.time[rows] - log.time[rows][0]
            pieces.append(replace(log, time=time, command=log.command[rows], position=log.position[rows],
                                  velocity=None, effort=None))  # fmt: skip
    return sorted(pieces, key=lambda piece: -float(np.abs(np.diff(piece.command, axis=0)).sum()))[:PIECES]


def _left(arm: Arm, pieces: Sequence[JointLog], scale: float) -> tuple[float, float]:
    """Median fractions of the moving joints' motion that the servo model leaves unexplained: at its own lag, at any."""
    scaled = [replace(piece, time=scale * piece.time) for piece in pieces]
    predicted = modelled(arm, scaled, [on_grid(piece, piece.command) for piece in scaled])
    measured = [on_grid(piece, piece.position) for piece in scaled]
    weight = np.array([m.var(axis=0) * _moves(p)
                       for m, p in zip(measured, scaled, strict=True)])  # fmt: skip
    left = np.array([unexplained(p, m) for p, m in zip(predicted, measured, strict=True)])
    moving = weight.any(axis=0)
    if not moving.any():
        return 1.0, 1.0
    pooled = np.einsum("lsj,lj->sj", left, weight)[:, moving] / weight.sum(axis=0)[moving]
    mean = np.median(pooled, axis=1)  # one joint that nothing explains says nothing about the pace
    return float(mean[SHIFTS == 0][0]), float(mean.min())
