"""Fit of the table that a recorded arm presses on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sim2real.identify.arm.replay import MotionReplay, align, replay
from sim2real.identify.arm.table import LowestPoint, Table
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.types import Array

PRESSES_M = 0.006  # the simulated arm goes so much lower than the real one: more than gravity bends it
PRESSES_S = 1.0
EVERY = 5  # rows; the arm moves little in between
LEAST_MOTIONS = 2
ABOVE_M = (-0.002, 0.002, 0.006, 0.010)  # of the table, over the middle of the lowest points that press into it
STIFFNESSES = (500.0, 1000.0, 1500.0)  # N/m; stiffer ones tremble at a step of 10 ms
WORTH = 0.8  # of the squared error of motions that press; a table that leaves more is none


def fit_table(
    arm: Arm, logs: Sequence[JointLog], parameters: Mapping[str, Array], motions: Sequence[MotionReplay]
) -> Table | None:
    """Find the table that explains where the real arm stopped and the simulated one went on downwards.

    Args:
        arm: The robot.
        logs: Recordings.
        parameters: Servo quantities [J] by name, fitted.
        motions: Replays of ``logs`` without a table.

    Returns:
        The table; None where fewer than ``LEAST_MOTIONS`` motions show one, or none explains them.
    """
    lowest, pressed, heights = LowestPoint(arm), [], []
    for log, motion in zip(logs, motions, strict=True):
        measured, simulated = (lowest.heights(q[::EVERY]) for q in (motion.measured, motion.simulated))
        presses = simulated < measured - PRESSES_M
        if presses.sum() * EVERY * log.period_s > PRESSES_S:
            pressed.append((log, motion))
            heights.append(measured[presses])
    if len(pressed) < LEAST_MOTIONS:
        return None
    middle = float(np.median(np.concatenate(heights)))
    chosen = [log for log, _ in pressed]

    def loss(table: Table) -> float:
        return _squared(replay(arm, chosen, parameters, table))

    # Height first, at a middling stiffness; then stiffness, which the height hardly depends on.
    by_height = {height: loss(Table(height, STIFFNESSES[1])) for height in (middle + above for above in ABOVE_M)}
    height = min(by_height, key=lambda h: by_height[h])
    found = {Table(height, STIFFNESSES[1]): by_height[height]}
    found |= {table: loss(table) for table in (Table(height, k) for k in STIFFNESSES if k != STIFFNESSES[1])}
    best = min(found, key=lambda table: found[table])
    return best if found[best] < WORTH * _squared([motion for _, motion in pressed]) else None


def _squared(motions: Sequence[MotionReplay]) -> float:
    """Mean squared error over all rows of all motions, their time offsets taken out, rad²."""
    errors = [(align(motion).simulated - motion.measured).ravel() for motion in motions]
    return float((np.concatenate(errors) ** 2).mean())
