"""Commands outside the joints' limits: another zero, or degrees in place of radians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim2real.errors import ConfigError
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.types import Array

if TYPE_CHECKING:
    from sim2real.identify.arm.check import JointCheck

BEYOND_RAD = 0.1  # past a limit by less is rounding
SOME, MOST = 0.05, 0.5  # fractions of rows so far outside that are worth a word, and that speak of another unit
WIDER = 1.2  # a motion so much wider than the joint's whole range is in another unit; another zero only shifts it


def beyond_limits(arm: Arm, recordings: Sequence[JointLog], label: str = "command") -> Array:
    """Fraction [J] of the rows whose commands (or ``label``) are outside the joints' limits."""
    angles = np.concatenate([getattr(log, label) for log in recordings])
    return np.mean((angles < arm.chain.low - BEYOND_RAD) | (angles > arm.chain.high + BEYOND_RAD), axis=0)


def remarks(arm: Arm, recordings: Sequence[JointLog]) -> list[str]:
    """Sentences about recordings that are odd, and can be read all the same."""
    said = []
    for log in recordings:
        if log.note:
            said.append(f"{log.name}: {log.note}")
        beyond = beyond_limits(arm, [log])
        if not (beyond > SOME).any():
            continue
        past = np.maximum(arm.chain.low - log.command, log.command - arm.chain.high).max(axis=0)
        joints = " and ".join(
            f"{arm.joints[j]} ({beyond[j]:.0%} of its rows, by up to {past[j]:.2f} rad)"
            for j in np.nonzero(beyond > SOME)[0]
        )
        ask = "are these degrees" if _is_other_unit(arm, log).any() else "is the zero another one"
        said.append(f"{log.name}: commands leave the limits of {joints}; {ask}, or are the limits in {arm.urdf.name}?")
    return said


def refuse_degrees(arm: Arm, recordings: Sequence[JointLog], found: JointCheck) -> None:
    """Refuse commands in degrees: a mapping corrects measurements only, and would make degrees of them.

    Raises:
        ConfigError: Commands are in another unit, and so are measurements, or these are as much smaller as radians are.
    """
    for log in recordings:
        unit, position = _is_other_unit(arm, log), beyond_limits(arm, [log], "position")
        for index, joint in enumerate(found.joints):
            if unit[index] and (position[index] > SOME or joint.has("command is degrees")):
                fraction = beyond_limits(arm, [log])[index]
                raise ConfigError(
                    f"{log.name}: {fraction:.0%} of the commands of '{arm.joints[index]}' are outside its limits, "
                    f"{arm.chain.low[index]:.2f} .. {arm.chain.high[index]:.2f} rad; convert degrees first (commands "
                    f"are not corrected, nor is a mapping written); if these are radians, widen the limits in "
                    f"{arm.urdf.name}"
                )


def _is_other_unit(arm: Arm, log: JointLog) -> Array:
    """Joints [J] whose commands are most likely not radians: wider than the joint, or most of them outside in most."""
    beyond = beyond_limits(arm, [log])
    wide = np.ptp(log.command, axis=0) > WIDER * (arm.chain.high - arm.chain.low)
    everywhere = (beyond > MOST).mean() > MOST
    return (beyond > SOME) & (wide | (everywhere & (beyond > MOST)))
