"""Hard limits of commands and the watchdog over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

# The time over which a command may slew is the time since the last one, within these. The shortest keeps two
# commands that the network delivered together from being held up; the longest bounds the step after a pause.
SHORTEST_GAP_S = 0.005
LONGEST_GAP_S = 0.1


class DriverError(Exception):
    """A driver could not, or would not, do what was asked. The message names the cause and the next step."""


@dataclass(frozen=True)
class Limit:
    """Range of one command component and its largest change per second, in the component's unit."""

    low: float
    high: float
    slew_per_s: float


class CommandLimits:
    """Clamps commands to ranges and rates of change.

    Args:
        limits: Limit of every component by name.
        start: Value of every component before the first command.
    """

    def __init__(self, limits: Mapping[str, Limit], start: Mapping[str, float]) -> None:
        if set(limits) != set(start):
            raise ValueError(f"limits are of {sorted(limits)}, start values of {sorted(start)}")
        self._limits = dict(limits)
        self._start = dict(start)
        self.reset()

    def reset(self) -> None:
        """Forget past commands: the next one slews from the start values."""
        self._last = dict(self._start)
        self._last_s = -math.inf

    def apply(self, command: Mapping[str, float], now_s: float) -> dict[str, float]:
        """Clamp a command.

        Args:
            command: Every component by name.
            now_s: Monotonic time, s.

        Returns:
            The nearest command inside ranges and slew.

        Raises:
            DriverError: A component is missing, unknown or not finite; the state stays as it was.
        """
        if set(command) != set(self._limits):
            raise DriverError(f"a command needs exactly {sorted(self._limits)}, got {sorted(command)}")
        for name, value in command.items():
            if not math.isfinite(value):
                raise DriverError(f"command '{name}' is {value}; check the policy's input for missing values")
        gap = min(max(now_s - self._last_s, SHORTEST_GAP_S), LONGEST_GAP_S)
        sent = {}
        for name, limit in self._limits.items():
            value = min(max(command[name], limit.low), limit.high)
            change = limit.slew_per_s * gap
            sent[name] = min(max(value, self._last[name] - change), self._last[name] + change)
        self._last, self._last_s = sent, now_s
        return dict(sent)


class WatchdogStage(Enum):
    """Stages of a robot without commands."""

    IDLE = "idle"  # never commanded since the last reset
    OK = "ok"
    HOLD = "hold"
    LAND = "land"


class Watchdog:
    """Watches the time since the last command.

    Args:
        hold_after_s: Silence after which the robot holds.
        land_after_s: Silence after which it lands.
    """

    def __init__(self, hold_after_s: float = 0.2, land_after_s: float = 1.0) -> None:
        if not 0 < hold_after_s < land_after_s:
            raise ValueError(f"0 < hold_after_s < land_after_s, got {hold_after_s} and {land_after_s}")
        self._hold_after_s, self._land_after_s = hold_after_s, land_after_s
        self._fed_s: float | None = None

    def reset(self) -> None:
        """Back to idle."""
        self._fed_s = None

    def feed(self, now_s: float) -> None:
        """A valid command has arrived at monotonic time ``now_s``."""
        self._fed_s = now_s

    def stage(self, now_s: float) -> WatchdogStage:
        """Choose what to do at monotonic time ``now_s``."""
        if self._fed_s is None:
            return WatchdogStage.IDLE
        silence = now_s - self._fed_s
        if silence >= self._land_after_s:
            return WatchdogStage.LAND
        return WatchdogStage.HOLD if silence >= self._hold_after_s else WatchdogStage.OK
