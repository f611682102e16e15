"""The safety filter: the last thing between a policy's command and the robot. Always on, no switch.

It knows commands by their limits only, so it serves any robot. One call a control period.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim2real.runtime.live_check import envelope_fault
from sim2real.runtime.spec import RobotSpec
from sim2real.runtime.steering import Steering
from sim2real.types import Array

_DOWN_M_S, _DOWN_S = 0.15, 1.0  # a landing robot that sinks no faster for so long has landed


class SafetyState(enum.Enum):
    """States of the filter."""

    INACTIVE = "inactive"
    FLY = "fly"
    HOLD = "hold"
    LAND = "land"


@dataclass(frozen=True)
class SafetySettings:
    """Times and factors of the filter.

    Attributes:
        stale_s: Older data than this is not flown on: ten missed states at 100 Hz.
        land_after_s: Time in HOLD for want of data after which the robot lands.
        give_up_after_s: Time in HOLD outside the envelope, or with others on its topics, after which it lands.
        recover_ticks: Good control periods in a row before HOLD ends.
        hold_average_s: Memory of what holding really takes (a heavy drone needs more than the nominal thrust).
        hold_share: What holding may take at least and at most, as a share of the nominal: a light airframe with
            strong motors; a full payload on a low battery.
        land_ramp_after_s, land_ramp_per_s: A robot that has not come down after this time in LAND held with more
            than it needs: from then on the command sinks by this share a second, down to nothing.
        sink_m_s: Speed of landing with a state.
        still_m_s, brake_s: A robot that is deactivated brakes until it is this slow, at most for this time.
    """

    stale_s: float = 0.1
    land_after_s: float = 0.5
    give_up_after_s: float = 3.0
    recover_ticks: int = 5
    hold_average_s: float = 2.0
    hold_share: tuple[float, float] = (0.75, 2.0)
    land_ramp_after_s: float = 0.5
    land_ramp_per_s: float = 0.05
    sink_m_s: float = 0.5
    still_m_s: float = 0.3
    brake_s: float = 3.0


class SafetyFilter:
    """Limits, slew rates, hold and land.

    Args:
        robot: Limits, hold and land values, envelope.
        control_dt: Control period, s.
        settings: Times and factors.

    Attributes:
        state, reason: What the filter does now, and why.
        sent: The last command [A] that left the filter.
        is_blind: There was no state that is believed in the last step.
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
        self._steering = Steering.of(robot)
        self.is_blind = True
        self.activate(np.zeros(len(robot.commands)))
        self.deactivate()
        self._braking_s = math.inf

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
        self._good_ticks, self._starved_s, self._held_s, self._landing_s, self._down_s = 0, 0.0, 0.0, 0.0, 0.0
        self._braking_s = math.inf

    def deactivate(self) -> None:
        """Let nothing through but braking and hold, with the thrust it took lately and within the slew rates."""
        self.state, self.reason = SafetyState.INACTIVE, "not activated"
        self._braking_s = math.inf if self._steering is None else 0.0

    @property
    def is_holding(self) -> bool:
        """Tell whether the last command was what keeps the robot still, as far as is known."""
        return math.isinf(self._braking_s) and bool(np.array_equal(self.sent, np.clip(self._hold, *self._range())))

    def step(
        self,
        proposed: Array | None,
        age_s: float,
        signals: Mapping[str, Array],
        doubt: str = "",
        conflict: str = "",
    ) -> Array:
        """Decide what is sent in this control period.

        Args:
            proposed: The policy's command [A], or None when it could not be computed.
            age_s: Age of the data it was computed from; infinite without data. Data whose stamps stand
                still is as old as its last new stamp.
            signals: The measured signals by name, each [1, d], for the envelope and for braking.
            doubt: Why the signals are not to be believed, as if there were none; or nothing.
            conflict: Why the policy must not command now, though they are; or nothing.

        Returns:
            Command [A]; always finite, inside the limits and their slew rates. What stays where it is and began
            outside its limits goes no further out, and comes back as the policy asks.
        """
        self.is_blind = starved = bool(doubt) or not age_s <= self._settings.stale_s
        self._advance(doubt or self._trouble(proposed, age_s), conflict or self.outside(signals), starved)
        low, high = self._range()
        steered = None
        if not (starved or self._steering is None or self.state is SafetyState.FLY):
            steered = self._steer(signals)
        if self.state is SafetyState.FLY and proposed is not None:
            wanted = proposed
        elif steered is not None:
            wanted = steered
        elif self.state is SafetyState.LAND:
            self._landing_s += self._dt
            ramp = self._settings.land_ramp_per_s * max(0.0, self._landing_s - self._settings.land_ramp_after_s)
            wanted = np.where(self._loaded, self._hold * self._land_ratio * max(0.0, 1.0 - ramp), self._land)
            wanted = np.where(self._stays, self._hold, wanted)
        else:
            wanted = self._hold
        wanted = np.clip(wanted, low, high)
        self.sent = np.clip(np.clip(wanted, self.sent - self._slew, self.sent + self._slew), low, high)
        if self.state is SafetyState.FLY:
            self._hold = np.where(self._stays, self.sent, self._hold)
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

    def outside(self, signals: Mapping[str, Array]) -> str:
        """Name a signal that is beyond the robot's envelope, or nothing."""
        for name, limit in self._robot.envelope.items():
            if name in signals and not (norm := float(np.linalg.norm(signals[name]))) <= limit:
                return envelope_fault(name, norm, limit)
        return ""

    def _range(self) -> tuple[Array, Array]:
        """Limits, wider where the robot began outside them."""
        return np.minimum(self._low, self.sent), np.maximum(self._high, self.sent)

    def _steer(self, signals: Mapping[str, Array]) -> Array | None:
        """Brake, or land, by the state; None where that is not asked for, or not needed any more."""
        assert self._steering is not None
        velocity = signals.get("linear_velocity")
        if velocity is None or not np.isfinite(velocity).all():
            self._braking_s = math.inf
            return None
        if self.state is SafetyState.LAND:
            self._down_s = self._down_s + self._dt if velocity[0, 2] > -_DOWN_M_S else 0.0
            command = self._steering.command(self._hold, signals, -self._settings.sink_m_s)
            # What does not sink any more stands on the ground.
            return np.where(self._loaded, command * max(0.0, 1.0 - max(0.0, self._down_s - _DOWN_S)), command)
        if self.state is SafetyState.INACTIVE and math.isinf(self._braking_s):
            return None
        if self.state is SafetyState.INACTIVE:
            self._braking_s += self._dt
            slow = float(np.sqrt((velocity**2).sum())) < self._settings.still_m_s
            if slow or self._braking_s > self._settings.brake_s:
                self._braking_s = math.inf
                return None
        return self._steering.command(self._hold, signals, 0.0)

    def _advance(self, trouble: str, outside: str, starved: bool) -> None:
        if self.state is SafetyState.INACTIVE or self.state is SafetyState.LAND:
            if starved:
                self._braking_s = math.inf
            return
        self._starved_s = self._starved_s + self._dt if trouble and starved else 0.0
        self._held_s = self._held_s + self._dt if outside else 0.0
        trouble = trouble or outside
        self._good_ticks = 0 if trouble else self._good_ticks + 1
        if self._starved_s > self._settings.land_after_s or self._held_s > self._settings.give_up_after_s:
            self.state, self.reason = SafetyState.LAND, trouble
        elif trouble:
            self.state, self.reason = SafetyState.HOLD, trouble
        elif self.state is SafetyState.HOLD and self._good_ticks < self._settings.recover_ticks:
            self.reason = "waiting for steady data"
        else:
            self.state, self.reason = SafetyState.FLY, ""
