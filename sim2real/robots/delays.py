"""Delays: commands on their way to the actuators, and readings that arrive late."""

from __future__ import annotations

import numpy as np

from sim2real.runtime.columns import Column, column, columns, floor, joined, larger, whole, within
from sim2real.types import Array, EnvIds


class _Past:
    """The last ``length`` rows [N, size] that were pushed, the newest first."""

    def __init__(self, length: int, count: int, size: int) -> None:
        self._rows = np.zeros((length, count, size))
        self._newest, self.length = 0, length
        self._all = np.arange(count)

    def reset(self, env_ids: EnvIds, values: Array) -> None:
        self._rows[:, env_ids] = values

    def push(self, values: Array) -> None:
        self._newest = (self._newest - 1) % self.length
        self._rows[self._newest] = values

    def mix(self, index: Column, newer: Column, older: Column) -> Array:
        """``newer`` times the rows pushed ``index`` pushes ago, and ``older`` times those before [N, size]."""
        first, second = (self._newest + index) % self.length, (self._newest + index + 1) % self.length
        if isinstance(index, int):
            pairs = zip(columns(self._rows[first]), columns(self._rows[second]), strict=True)
            return joined([newer * a + older * b for a, b in pairs], (1,))
        return newer[:, None] * self._rows[first, self._all] + older[:, None] * self._rows[second, self._all]


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
        self._past = _Past(int(np.ceil(longest_s / control_dt)) + 3, count, size)

    def reset(self, env_ids: EnvIds, command: Array) -> None:
        """Pretend ``command`` [len(env_ids), size] had been sent forever."""
        self._past.reset(env_ids, command)

    def push(self, command: Array) -> None:
        """Send a new command [N, size] now."""
        self._past.push(command)

    def average(self, start_s: float, length_s: float, delay_s: Array) -> Array:
        """Mean command [N, size] received from ``start_s`` to ``start_s + length_s`` after the last push.

        ``length_s`` must not exceed the control period, so at most two commands take part.
        """
        end = start_s + length_s - column(delay_s)
        index = larger(floor(1.0 - end / self._dt), 0.0)
        weight = within((end - larger(end - length_s, -index * self._dt)) / length_s, 0.0, 1.0)
        return self._past.mix(whole(within(index, 0.0, self._past.length - 2.0)), weight, 1.0 - weight)


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
        self._past = _Past(int(np.ceil(longest_s / control_dt)) + 2, count, size)

    def reset(self, env_ids: EnvIds, reading: Array) -> None:
        """Pretend ``reading`` [len(env_ids), size] had been true forever."""
        self._past.reset(env_ids, reading)

    def push(self, reading: Array) -> None:
        """Take in the reading [N, size] of a new control step."""
        self._past.push(reading)

    def read(self, delay_s: Array) -> Array:
        """Reading [N, size] of ``delay_s`` [N] ago."""
        steps = column(delay_s) / self._dt
        index = whole(steps)
        late = steps - index
        return self._past.mix(index, 1.0 - late, late)
