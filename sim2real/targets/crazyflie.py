"""The target of Crazyflies: dynamics that others identified from real flights, see :mod:`sim2real.targets.drone`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim2real.runtime.geometry import quat_to_matrix, rotate
from sim2real.targets.base import State
from sim2real.targets.drone import AIRFRAMES, COMMAND_NAMES, CONDITIONS, STEP_S, SimulatedDrones
from sim2real.types import Array, Bools

COMMAND_PERIOD_S = 0.02
HOLD_AVERAGE_S = 2.0  # memory of what holding takes: a low battery needs more thrust than a full one
HOLD_RANGE = (0.75, 2.0)  # of the nominal: a strong battery; a full payload on a low one
# Landing, as a flight controller does it: a sink speed is held, with a fraction of the holding thrust.
LAND_SPEED = 0.5
LAND_GAIN = 0.4  # fraction of thrust per m/s
LAND_RANGE = (0.8, 1.25)


class Crazyflie:
    """The target ``crazyflie``: four airframes under four conditions.

    Args:
        robot: The robot model, for its name only.
        task: The task.
    """

    name = "crazyflie"
    variants = tuple(AIRFRAMES)
    commands = COMMAND_NAMES

    def __init__(self, robot: Any, task: Any) -> None:
        self.robot, self.task = robot, task

    def conditions(self) -> tuple[str, ...]:
        """Battery, payload and link."""
        return tuple(CONDITIONS)

    def start(self, task: Any, rng: np.random.Generator, n: int) -> State:
        """Sample the task's own starts, at any yaw."""
        return dict(task.start(rng, n))

    def make(self, variant: str, condition: str, n: int, seed: int) -> CrazyflieSim:
        """Make ``n`` drones; see :class:`sim2real.targets.base.Target`."""
        return CrazyflieSim(SimulatedDrones(variant, condition, n, seed))


class CrazyflieSim:
    """Simulated Crazyflies of one airframe under one condition.

    Args:
        drones: The dynamics.

    Attributes:
        drones: The argument.
        step_s, longest_catch_up_s: As of :class:`sim2real.targets.base.Paced`; it keeps up with any computer.
    """

    step_s = STEP_S
    longest_catch_up_s = math.inf

    def __init__(self, drones: SimulatedDrones) -> None:
        self.drones = drones
        self._hold = np.full(drones.count, drones.nominal_hover_command)

    @property
    def failed(self) -> Bools:
        """On the floor or turned over since the last reset [N]."""
        return self.drones.crashed

    def reset(self, start: State) -> None:
        """Start at ``pos``, ``quat`` and ``lin_vel``, with rotors at hover."""
        self.drones.reset(start["pos"], start["quat"], start["lin_vel"])
        self._hold[:] = self.drones.nominal_hover_command

    def command(self, command: Array) -> None:
        """Send thrust N, roll, pitch rad and yaw rate rad/s [N, 4]."""
        self.drones.command(command)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.drones.advance(seconds)

    def measured(self) -> dict[str, Array]:
        """State estimate of the on-board filter: late, biased and noisy."""
        return _named(*self.drones.estimate())

    def truth(self) -> dict[str, Array]:
        """The true state."""
        return _named(*self.drones.truth())

    def close(self) -> None:
        """There is nothing to free."""

    def hold_command(self) -> Array:
        """Level, with the thrust that flying has taken lately [N, 4]."""
        return self._level(np.ones(len(self._hold)))

    def land_command(self) -> Array:
        """Level and sinking slowly [N, 4]."""
        climb = self.drones.estimate()[2][:, 2]
        return self._level(np.clip(1.0 - LAND_GAIN * (LAND_SPEED + climb), *LAND_RANGE))

    def stop_command(self) -> Array:
        """Motors off [N, 4]."""
        return self._level(np.zeros(len(self._hold)))

    def remember(self, command: Array) -> None:
        """Average the thrust that pilots send."""
        hold = self._hold + COMMAND_PERIOD_S / HOLD_AVERAGE_S * (command[:, 0] - self._hold)
        nominal = self.drones.nominal_hover_command
        self._hold = np.clip(hold, HOLD_RANGE[0] * nominal, HOLD_RANGE[1] * nominal)

    def _level(self, fraction: Array) -> Array:
        command = np.zeros((len(self._hold), len(COMMAND_NAMES)))
        command[:, 0] = fraction * self._hold
        return command


def _named(pos: Array, quat: Array, lin_vel: Array, body_rate: Array) -> dict[str, Array]:
    return {"pos": pos, "quat": quat, "lin_vel": lin_vel, "ang_vel": rotate(quat_to_matrix(quat), body_rate)}
