"""Commands far outside a joint's limits: most likely degrees in place of radians."""

from __future__ import annotations

from collections.abc import Sequence

from sim2real.errors import ConfigError
from sim2real.identify.arm.check import JointCheck
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.types import Array

MOST_FRACTION, BEYOND_RAD = 0.5, 0.1  # commands so often so far outside a joint's limits are worth a word


def remarks(arm: Arm, recordings: Sequence[JointLog]) -> list[str]:
    """Sentences about recordings that are odd, and can be read all the same."""
    said = []
    for log in recordings:
        if log.note:
            said.append(f"{log.name}: {log.note}")
        beyond = _beyond_limits(arm, log.command)
        worst = int(beyond.argmax())
        if beyond[worst] > MOST_FRACTION:
            said.append(f"{_outside(arm, log, worst, float(beyond[worst]))}; are these degrees?")
    return said


def refuse_degrees(arm: Arm, recordings: Sequence[JointLog], found: JointCheck) -> None:
    """Refuse commands in degrees: a mapping corrects measurements only, and would make degrees of them.

    Raises:
        ConfigError: Most commands of a joint are far outside its limits, and so are its measurements, or these are
            as much smaller as radians are.
    """
    for log in recordings:
        command, position = _beyond_limits(arm, log.command), _beyond_limits(arm, log.position)
        for index, joint in enumerate(found.joints):
            if command[index] > MOST_FRACTION and (position[index] > MOST_FRACTION or joint.has("command is degrees")):
                raise ConfigError(
                    f"{_outside(arm, log, index, float(command[index]))}; convert degrees first (commands are not "
                    f"corrected, nor is a mapping written); if these are radians, widen the limits in {arm.urdf.name}"
                )


def _beyond_limits(arm: Arm, angles: Array) -> Array:
    """Fraction [J] of the rows of ``angles`` [T, J] that are far outside the joints' limits."""
    beyond = (angles < arm.chain.low - BEYOND_RAD) | (angles > arm.chain.high + BEYOND_RAD)
    return beyond.mean(axis=0)


def _outside(arm: Arm, log: JointLog, joint: int, fraction: float) -> str:
    low, high = arm.chain.low[joint], arm.chain.high[joint]
    return (
        f"{log.name}: {fraction:.0%} of the commands of '{arm.joints[joint]}' are outside its limits, "
        f"{low:.2f} .. {high:.2f} rad"
    )
