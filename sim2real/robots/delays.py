"""Delays: commands on their way to the actuators, and readings that arrive late."""

from __future__ import annotations

import numpy as np

from sim2real.types import Array, EnvIds


class DelayLine:
    """Commands as the actuators receive them: held for one control period, late by a time a robot.

    Args:
        count: Number of robots N.
        size: Components of a command.
        control_dt: Control period, s.
        longest_s: Longest delay that will be asked for, s.
    """

    def __init__(self, count: int, size: int, control_dt: float, longest_s: float) -> None:
        self._dt = control_dt
        self._past = np.zeros((count, int(np.ceil(longest_s / control_dt)) + 3, size))
        self._rows = np.arange(count)

    def reset(self, env_ids: EnvIds, command: Array) -> None:
        """Pretend ``command`` [len(env_ids), size] had been sent forever."""
        self._past[env_ids] = command[:, None, :]

    def push(self, command: Array) -> None:
        """Send a new command [N, size] now."""
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = command

    def average(self, start_s: float, length_s: float, delay_s: Array) -> Array:
        """Mean command [N, size] received from ``start_s`` to ``start_s + length_s`` after the last push.

        ``length_s`` must not exceed the control period, so at most two commands take part.
        """
        end = start_s + length_s - delay_s
        index = np.maximum(np.floor(1.0 - end / self._dt), 0.0)
        boundary = -index * self._dt
        weight = np.clip((end - np.maximum(end - length_s, boundary)) / length_s, 0.0, 1.0)[:, None]
        newer = np.minimum(index.astype(np.int64), self._past.shape[1] - 2)
        return weight * self._past[self._rows, newer] + (1.0 - weight) * self._past[self._rows, newer + 1]


class LateReading:
    """Readings of the last control steps, interpolated at a delay a robot.

    Args:
        count: Number of robots N.
        size: Components of a reading.
        control_dt: Control period, s.
        longest_s: Longest delay that will be asked for, s.
    """

    def __init__(self, count: int, size: int, control_dt: float, longest_s: float) -> None:
        self._dt = control_dt
        self._past = np.zeros((count, int(np.ceil(longest_s / control_dt)) + 2, size))
        self._rows = np.arange(count)

    def reset(self, env_ids: EnvIds, reading: Array) -> None:
        """Pretend ``reading`` [len(env_ids), size] had been true forever."""
        self._past[env_ids] = reading[:, None, :]

    def push(self, reading: Array) -> None:
        """Take in the reading [N, size] of a new control step."""
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = reading

    def read(self, delay_s: Array) -> Array:
        """Reading [N, size] of ``delay_s`` [N] ago."""
        steps = delay_s / self._dt
        index = steps.astype(np.int64)
        late = (steps - index)[:, None]
        return (1.0 - late) * self._past[self._rows, index] + late * self._past[self._rows, index + 1]
