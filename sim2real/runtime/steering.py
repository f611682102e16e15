"""Braking and landing by the measured velocity, for robots that take thrust and attitude. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim2real.runtime.spec import RobotSpec
from sim2real.types import Array

GRAVITY = 9.81
GAIN = 2.0  # 1/s, of velocity to acceleration; stable with 100 ms of delay
MOST_LEAN_RAD = 0.35
MOST_LIFT = 0.3  # of the thrust that carries
NEEDED = ("thrust", "roll", "pitch")


class Steering:
    """A proportional controller of velocity on top of the robot's attitude loop; it needs no position and no goal.

    Args:
        robot: Whose commands.
    """

    def __init__(self, robot: RobotSpec) -> None:
        names = [command.name for command in robot.commands]
        self._thrust, self._roll, self._pitch = (names.index(name) for name in NEEDED)

    @classmethod
    def of(cls, robot: RobotSpec) -> Steering | None:
        """Steering of a robot, or None where it does not fly by thrust and attitude."""
        return cls(robot) if set(NEEDED) <= {command.name for command in robot.commands} else None

    def command(self, hold: Array, signals: Mapping[str, Array], climb_m_s: float) -> Array:
        """Command [A] that brings the robot to rest over ground and to ``climb_m_s``.

        Args:
            hold: Command that carries it, level.
            signals: ``linear_velocity`` [1, 3] m/s in the heading frame and, if there, ``up`` [1, 3].
            climb_m_s: Wanted vertical speed, m/s.
        """
        velocity = signals["linear_velocity"][0]
        upright = float(signals["up"][0, 2]) if "up" in signals else 1.0
        lean = np.clip(GAIN * velocity[:2] / GRAVITY, -MOST_LEAN_RAD, MOST_LEAN_RAD)
        lift = 1.0 + np.clip(GAIN * (climb_m_s - velocity[2]) / GRAVITY, -MOST_LIFT, MOST_LIFT)
        command = hold.copy()
        # Positive pitch flies forward, positive roll to the right.
        command[self._pitch], command[self._roll] = -lean[0], lean[1]
        command[self._thrust] = hold[self._thrust] * lift / max(upright, 0.7)
        return command
