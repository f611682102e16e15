"""Streams a prepared motion through a driver and writes down what the robot did."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from robot_drivers.driver import RobotDriver
from robot_drivers.limits import DriverError
from sim2real.types import Array

FARTHEST_RAD = 0.6  # a joint so far from its command is stuck, or not the one that was meant
START_RAD = 0.1


def record(
    driver: RobotDriver,
    joints: Sequence[str],
    motion_s: Array,
    command: Array,
    out: Path,
    on_progress: Callable[[float, float], None] = lambda *_: None,
    farthest: float = FARTHEST_RAD,
) -> int:
    """Send ``command`` and write ``time, des_dof_pos.JOINT, dof_pos.JOINT`` rows as CSV.

    The driver must be connected and armed: that is the operator's decision, not this function's. On Ctrl-C, on an
    error and at the end the robot holds, and what was recorded is kept.

    Args:
        driver: An armed driver whose commands are joint positions.
        joints: Joint names of the columns.
        motion_s: [T] s.
        command: [T, J] rad.
        out: CSV file; written when the motion ends, under a temporary name that is then renamed. Left alone where
            nothing was recorded.
        on_progress: Called with seconds done and in all.
        farthest: rad between command and measurement at which the motion is broken off.

    Returns:
        Rows written.

    Raises:
        DriverError: The arm is not where the motion starts, a joint does not follow, or the driver fails.
    """
    rows: list[list[float]] = []
    try:
        here = _positions(driver, joints)
        gap = np.abs(here - command[0])
        if gap.max() > START_RAD:
            worst = int(gap.argmax())
            raise DriverError(
                f"'{joints[worst]}' is at {here[worst]:.3f} rad, the motion starts at {command[0, worst]:.3f}; make it "
                "from where the arm is, or move the arm"
            )
        begin = time.monotonic()
        for moment, wanted in zip(motion_s, command, strict=True):
            time.sleep(max(0.0, begin + moment - time.monotonic()))
            here = _positions(driver, joints)
            off = np.abs(here - wanted)
            if off.max() > farthest:
                worst = int(off.argmax())
                raise DriverError(f"'{joints[worst]}' is {off[worst]:.2f} rad from its command after {moment:.1f} s")
            sent = driver.command(dict(zip(joints, wanted.tolist(), strict=True)))
            rows.append([time.monotonic() - begin, *(sent[joint] for joint in joints), *here.tolist()])
            on_progress(float(moment), float(motion_s[-1]))
    except BaseException as error:
        with suppress(DriverError, OSError):  # a lost link cannot hold; what lost it is told
            driver.hold()
        _write(out, joints, rows)
        if isinstance(error, DriverError) and rows:
            raise DriverError(f"{error}; the {len(rows)} rows until then are in {out}") from error
        raise
    try:
        driver.hold()
    finally:
        _write(out, joints, rows)
    return len(rows)


def _positions(driver: RobotDriver, joints: Sequence[str]) -> Array:
    state = driver.read()
    known = dict(zip(state.joint_names, state.joint_pos.tolist(), strict=True))
    missing = [joint for joint in joints if joint not in known]
    if missing:
        raise DriverError(f"the driver reports no joints {missing}; it has {', '.join(state.joint_names) or 'none'}")
    return np.array([known[joint] for joint in joints])


def _write(out: Path, joints: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    if not rows:
        return  # an older recording is worth more than none
    temporary = out.with_name(out.name + ".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", *(f"des_dof_pos.{j}" for j in joints), *(f"dof_pos.{j}" for j in joints)])
        writer.writerows([f"{value:.6f}" for value in row] for row in rows)
    temporary.replace(out)
