"""The safety filter: the last thing between a policy's command and the robot. Always on, no switch.

It knows commands by their limits only, so it serves any robot. One call a control period.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim2real.runtime.spec import RobotSpec
from sim2real.types import Array


class SafetyState(enum.Enum):
    """States of the filter."""

    INACTIVE = "inactive"
    FLY = "fly"
    SLOW = "slow"
    HOLD = "hold"
    LAND = "land"


@dataclass(frozen=True)
class SafetySettings:
    """Times and factors of the filter.

    Attributes:
        stale_s: Older data than this is not flown on: ten missed states at 100 Hz.
        land_after_s: Time in HOLD for want of data after which the robot lands.
        recover_ticks: Good control periods in a row before HOLD ends.
        slow_factor: Share of a command's distance from hold that is kept while the estimate is out of its envelope.
        hold_average_s: Memory of what holding really takes (a heavy drone needs more than the nominal thrust).
        hold_share: What holding may take at least and at most, as a share of the nominal: a light airframe with
            strong motors; a full payload on a low battery.
        land_ramp_after_s, land_ramp_per_s: A robot that has not come down after this time in LAND held with more
            than it needs: from then on the command sinks by this share a second, down to nothing.
    """

    stale_s: float = 0.1
    land_after_s: float = 0.5
    recover_ticks: int = 5
    slow_factor: float = 0.3
    hold_average_s: float = 2.0
    hold_share: tuple[float, float] = (0.75, 2.0)
    land_ramp_after_s: float = 0.5
    land_ramp_per_s: float = 0.05


class SafetyFilter:
    """Limits, slew rates, hold and land.

    Args:
        robot: Limits, hold and land values, envelope.
        control_dt: Control period, s.
        settings: Times and factors.

    Attributes:
        state, reason: What the filter does now, and why.
        sent: The last command [A] that left the filter.
    """

    def __init__(self, robot: RobotSpec, control_dt: float, settings: SafetySettings = SafetySettings()) -> None:
        self._robot, self._dt, self._settings = robot, control_dt, settings
        self._low = np.array([c.low for c in robot.commands])
        self._high = np.array([c.high for c in robot.commands])
        self._slew = np.array([c.slew_per_s for c in robot.commands]) * control_dt
        # Commands without a hold value of their own (joint positions) stay where they were sent last.
        self._stays = np.array([c.hold is None for c in robot.commands])
        self._nominal_hold = np.array([c.hold or 0.0 for c in robot.commands])
        self._land = np.array([c.land or 0.0 for c in robot.commands])
        # Only commands that hold against a weight and land with less (a drone's thrust) depend on the robot's load.
        self._loaded = (self._land != self._nominal_hold) & (self._nominal_hold != 0.0)
        self._land_ratio = np.divide(self._land, self._nominal_hold, out=np.ones_like(self._land), where=self._loaded)
        self.activate(np.zeros(len(robot.commands)))
        self.deactivate()

    def activate(self, start: Array) -> None:
        """Allow the policy's commands from the next tick on.

        Args:
            start: Where the robot is now, as a command [A]; what stays where it is begins there.

        Raises:
            ValueError: ``start`` is not finite where it is needed.
        """
        if not np.isfinite(start[self._stays]).all():
            raise ValueError(f"the robot's position is not known: {start}")
        self.state, self.reason = SafetyState.FLY, ""
        self.sent: Array = np.where(self._stays, start, self._nominal_hold)
        self._hold = self.sent.copy()
        self._good_ticks, self._starved_s, self._landing_s = 0, 0.0, 0.0

    def deactivate(self) -> None:
        """Let nothing through but hold, with the thrust it took lately and within the slew rates."""
        self.state, self.reason = SafetyState.INACTIVE, "not activated"

    @property
    def is_holding(self) -> bool:
        """Tell whether the last command was what keeps the robot still, as far as is known."""
        return bool(np.array_equal(self.sent, np.clip(self._hold, self._low, self._high)))

    def step(self, proposed: Array | None, age_s: float, signals: Mapping[str, Array]) -> Array:
        """Decide what is sent in this control period.

        Args:
            proposed: The policy's command [A], or None when it could not be computed.
            age_s: Age of the data it was computed from; infinite without data. Data whose stamps stand
                still is as old as its last new stamp.
            signals: The measured signals by name, each [1, d], for the envelope.

        Returns:
            Command [A]; always finite, inside the limits and their slew rates.
        """
        trouble = self._trouble(proposed, age_s)
        outside = self._outside(signals)
        self._advance(trouble, outside, starved=not age_s <= self._settings.stale_s)
        if self.state in (SafetyState.FLY, SafetyState.SLOW) and proposed is not None:
            wanted = proposed
            if self.state is SafetyState.SLOW:
                kept = np.where(self._loaded, 1.0, self._settings.slow_factor)
                wanted = self._hold + kept * (proposed - self._hold)
        elif self.state is SafetyState.LAND:
            self._landing_s += self._dt
            ramp = self._settings.land_ramp_per_s * max(0.0, self._landing_s - self._settings.land_ramp_after_s)
            wanted = np.where(self._loaded, self._hold * self._land_ratio * max(0.0, 1.0 - ramp), self._land)
            wanted = np.where(self._stays, self._hold, wanted)
        else:
            wanted = self._hold
        within = np.clip(wanted, self._low, self._high)
        self.sent = np.clip(np.clip(within, self.sent - self._slew, self.sent + self._slew), self._low, self._high)
        if self.state in (SafetyState.FLY, SafetyState.SLOW):
            self._hold = np.where(self._stays, self.sent, self._hold)
        if self.state is SafetyState.FLY:
            gain = self._dt / self._settings.hold_average_s
            least, most = (share * self._nominal_hold for share in self._settings.hold_share)
            average = np.clip(self._hold + gain * (self.sent - self._hold), least, most)
            self._hold = np.where(self._loaded, average, self._hold)
        return self.sent.copy()

    def _trouble(self, proposed: Array | None, age_s: float) -> str:
        if not age_s <= self._settings.stale_s:
            return f"no new state for {age_s:.2f} s" if np.isfinite(age_s) else "no state yet"
        if proposed is None or not np.isfinite(proposed).all():
            return "the policy's command is not finite"
        return ""

    def _outside(self, signals: Mapping[str, Array]) -> str:
        for name, limit in self._robot.envelope.items():
            if name in signals and not float(np.linalg.norm(signals[name])) <= limit:
                return f"{name} is beyond {limit:g}"
        return ""

    def _advance(self, trouble: str, outside: str, starved: bool) -> None:
        if self.state is SafetyState.INACTIVE or self.state is SafetyState.LAND:
            return
        self._starved_s = self._starved_s + self._dt if trouble and starved else 0.0
        self._good_ticks = 0 if trouble else self._good_ticks + 1
        if self._starved_s > self._settings.land_after_s:
            self.state, self.reason = SafetyState.LAND, trouble
        elif trouble:
            self.state, self.reason = SafetyState.HOLD, trouble
        elif self.state is SafetyState.HOLD and self._good_ticks < self._settings.recover_ticks:
            self.reason = "waiting for steady data"
        elif outside:
            self.state, self.reason = SafetyState.SLOW, outside
        else:
            self.state, self.reason = SafetyState.FLY, ""
