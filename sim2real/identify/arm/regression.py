"""Regressions of measured joints on commanded and on modelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim2real.identify.arm.replay import SIM_DT, references
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.robots.servo import Servo
from sim2real.types import Array

GRID_S = 0.02
LAGS_S = np.arange(0.0, 0.42, 0.02)
WIDE_LAGS_S = np.arange(-0.6, 1.52, 0.02)  # of recordings whose stamps are wrong
EXCITED_RAD = 0.04  # standard deviation; quieter joints cannot be judged
STICKS_RAD = 0.12
STRAIGHT = 0.2  # a slope so near one is taken as one when the zero is judged


def on_grid(log: JointLog, values: Array) -> Array:
    """Columns [T, J] of a recording, interpolated to steps of ``GRID_S`` [K, J]."""
    grid = np.arange(0.0, log.time[-1], GRID_S)
    return np.stack([np.interp(grid, log.time, column) for column in values.T], axis=1)


def delayed(command: Array, measured: Array, wide: bool = False) -> Array:
    """Commands, late by the time under which they explain the measurements best.

    Args:
        command: [K, J] rad on the grid.
        measured: [K, J] rad on the grid.
        wide: Look among ``WIDE_LAGS_S``, and for joints that turn the way they are told to.
    """
    rows = np.arange(len(command))
    steps = [round(lag / GRID_S) for lag in (WIDE_LAGS_S if wide else LAGS_S)]
    late = [command[np.clip(rows - n, 0, len(command) - 1)] for n in steps]
    found = [_correlation(c, measured) for c in late]
    return late[int(np.argmax([(f if wide else np.abs(f)).max(axis=0).sum() for f in found]))]


def modelled(arm: Arm, logs: Sequence[JointLog], command: Sequence[Array]) -> list[Array]:
    """Positions [K, J] rad on the grid that the arm's servo model gives for the commands."""
    quantities = arm.nominal()
    low, high = quantities["low_stop"], quantities["high_stop"]
    known = [references(log, quantities["dead_time"], low, high, SIM_DT) for log in logs]
    steps = max(len(k) for k in known)
    reference = np.stack([np.pad(k, ((0, steps - len(k)), (0, 0)), mode="edge") for k in known])
    weight = [arm.chain.gravity_torque(np.clip(log.command, arm.chain.low, arm.chain.high)) for log in logs]
    grid = SIM_DT * np.arange(steps)
    gravity = np.stack(
        [np.stack([np.interp(grid, log.time, w) for w in ws.T], axis=1) for log, ws in zip(logs, weight, strict=True)]
    )
    # Friction keeps a joint where it began; that is taken from the measurement where it can be right.
    began = np.stack([log.position[0] for log in logs])
    start = np.where(np.abs(began - reference[:, 0]) < STICKS_RAD, began, reference[:, 0])
    wide = {name: np.tile(values, (len(logs), 1)) for name, values in quantities.items()}
    servo = Servo(wide, start, np.zeros_like(start), SIM_DT)
    track = np.empty((steps, *start.shape))
    for step in range(steps):
        servo.step(reference[:, step], gravity[:, step])
        track[step] = servo.position
    stride = round(GRID_S / SIM_DT)
    return [track[::stride, i][: len(c)] for i, c in enumerate(command)]


def _correlation(a: Array, b: Array) -> Array:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.outer(np.sqrt((a**2).sum(axis=0)), np.sqrt((b**2).sum(axis=0)))
    return (a.T @ b) / np.maximum(norm, 1e-9)


def motion_std(values: Sequence[Array]) -> Array:
    """Standard deviation [J] rad within the recordings in which a joint moves; 0 where it never does."""
    own = np.array([v.std(axis=0) for v in values])
    moves = own > EXCITED_RAD
    return np.sqrt((own**2 * moves).sum(axis=0) / np.maximum(moves.sum(axis=0), 1))


@dataclass(frozen=True)
class Regression:
    """Regression of every measured column m on every joint's prediction c [J, J].

    Variance explained, slope, offset, and their standard deviations.

    The offset is the one at the slope ``straight``; ``centre`` [J] rad is the mean of the predictions.
    """

    explained: Array
    slope: Array
    slope_std: Array
    offset: Array
    offset_std: Array
    straight: Array
    centre: Array

    def times(self, unit: Array) -> Regression:
        """The same with measured columns multiplied by ``unit`` [J]."""
        return replace(
            self,
            slope=self.slope * unit,
            slope_std=self.slope_std * unit,
            offset=self.offset * unit,
            offset_std=self.offset_std * unit,
            straight=self.straight * unit,
        )


def regressions(predicted: Sequence[Array], measured: Sequence[Array]) -> Regression:
    """Regress every measured column on every prediction, within the recordings [T, J]."""
    joints = predicted[0].shape[1]
    cc, cm, mm, rows = np.zeros(joints), np.zeros((joints, joints)), np.zeros(joints), 0.0
    gap = []  # of the means of every recording
    for c, m in zip(predicted, measured, strict=True):
        size = min(len(c), len(m))
        c, m = c[:size], m[:size]  # noqa: PLW2901
        gap.append((c.mean(axis=0), m.mean(axis=0), size))
        c, m = c - c.mean(axis=0), m - m.mean(axis=0)  # noqa: PLW2901
        cc, mm = cc + (c**2).sum(axis=0), mm + (m**2).sum(axis=0)
        cm += c.T @ m
        rows += size
    slope = cm / np.maximum(cc[:, None], 1e-9)
    explained = cm**2 / np.maximum(np.outer(cc, mm), 1e-12)
    # Neighbouring rows belong together: about one independent sample a second.
    seconds = max(rows * GRID_S, 1.0)
    left = np.maximum(mm[None] - slope**2 * cc[:, None], 0.0)
    slope_std = np.sqrt(left / np.maximum(cc[:, None], 1e-9) / seconds)
    # The zero is judged at the slope that a healthy or plainly scaled joint has, not at one that noise has bent.
    straight = np.where(np.abs(np.abs(slope) - 1.0) < STRAIGHT, np.sign(slope), slope)
    offsets = np.stack([m[None] - straight * c[:, None] for c, m, _ in gap])
    weights = np.array([size for *_, size in gap], dtype=np.float64)
    offset = np.average(offsets, axis=0, weights=weights)
    between = np.sqrt(np.average((offsets - offset) ** 2, axis=0, weights=weights) / len(gap))
    offset_std = np.sqrt(between**2 + left / max(rows, 1.0) / seconds)
    centre = np.average([c for c, *_ in gap], axis=0, weights=weights)
    return Regression(explained, slope, slope_std, offset, offset_std, straight, centre)


def command_correlation(command: Sequence[Array]) -> Array:
    """Correlation [J, J] of commands within the recordings."""
    return np.abs(_correlation(*(2 * [np.concatenate([c - c.mean(axis=0) for c in command])])))
