"""The contract against the live robot: what its messages must show before, and while, a policy believes them.

NumPy only, and fed by whoever hears the robot. Every fault is one sentence that names it and the mend.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from sim2real.runtime.geometry import tilt_of
from sim2real.types import Array

WATCH_S = 1.0  # of states that an activation needs
WINDOW_S = 2.0  # of states that are judged
RATE_SHARE = 0.8  # of the policy's rate that states must reach: with less it acts on the same one twice too often
LONG_GAP_S = 0.1  # between two states; the safety filter holds from there on
LONG_GAPS = 3  # in a window, from which the robot would stutter
DELAY_S = 0.05  # between a state's stamp and its arrival
OTHER_CLOCK_S = 3600.0
MOST_DRIFT = 0.02
FROZEN_S = 0.3  # an estimate of a robot that moves changes in some bit
BEYOND = {"rad": 0.35, "m": 0.05}  # past a joint's limit: calibration and a soft stop; no arm is further out
FARTHEST_M = 1000.0
METRES = 30.0  # from the origin: further inside the envelope of no room
UNDER_FLOOR_M = 0.3
STILL_M_S = 0.5
MOST_TILT_RAD = math.radians(45.0)
AGREE_S = 0.4
AGREE_M, AGREE_SHARE = 0.25, 0.3
OBSTRUCTED_RAD = 1.4  # a joint so far from its command is stuck, or another one; slow servos lag by up to 0.90 rad


class Stream:
    """Times of the newest messages of one topic, WINDOW_S long.

    Args:
        topic: Its name, for sentences.
        rate_hz: The least rate, 1/s; states of the robot come at the policy's, sightings of a camera more slowly.
        delay_s: The longest time from stamp to arrival: a camera's image is older when it is understood.
    """

    def __init__(self, topic: str, rate_hz: float, delay_s: float = DELAY_S) -> None:
        self.topic, self.rate_hz, self.delay_s = topic, rate_hz, delay_s
        self._seen: deque[tuple[float, float]] = deque()
        self._values: bytes = b""
        self.changed_s = -math.inf

    def take(self, received_s: float, delay_s: float, values: Array) -> None:
        """Take in a message with a new stamp.

        Args:
            received_s: When it arrived, s; a clock that only goes forward.
            delay_s: This computer's time then, less the stamp, s.
            values: What it carries, to see whether it changes at all.
        """
        if self._seen and received_s < self._seen[-1][0]:
            self._seen.clear()  # another clock
        self._seen.append((received_s, delay_s))
        while received_s - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        bits = values.tobytes()
        if bits != self._values or received_s < self.changed_s:
            self._values, self.changed_s = bits, received_s

    @property
    def excess_s(self) -> float:
        """Age of the newest message when it arrived, or distance of its clock, beyond what is allowed, s."""
        return max(0.0, abs(self._seen[-1][1]) - self.delay_s) if self._seen else 0.0

    @property
    def frozen_s(self) -> float:
        """Time over which messages with new stamps brought the same values, s."""
        return self._seen[-1][0] - self.changed_s if self._seen else 0.0

    def figures(self) -> dict[str, float]:
        """Rate, jitter, longest gap, age and drift of the window; empty before the second message."""
        if len(self._seen) < 2:
            return {}
        received, delay = np.array(self._seen).T
        gaps, span = np.diff(received), received[-1] - received[0]
        moment = received - received.mean()
        return {
            "seen_s": float(span),
            "rate_hz": float(len(gaps) / span) if span else math.inf,
            "jitter_ms": float(1e3 * gaps.std()),
            "longest_gap_ms": float(1e3 * gaps.max()),
            "long_gaps": float((gaps > LONG_GAP_S).sum()),
            "delay_ms": float(1e3 * delay[np.abs(delay).argmin()]),
            "drift": float(moment @ delay / max(moment @ moment, 1e-9)),
        }

    def old(self) -> str:
        """Say that messages arrive too long after their stamps, or before them, or nothing."""
        late = min((delay for _, delay in self._seen), key=abs, default=0.0)
        if abs(late) > OTHER_CLOCK_S:
            return f"{self.topic} has stamps of another clock, {late:.3g} s from this computer's; stamp with its own"
        if late > self.delay_s:
            return (
                f"{self.topic} is {late:.2f} s old when it arrives, at most {self.delay_s:g} s are allowed; remove the "
                "delay, or synchronise the sender's clock with this computer's"
            )
        if late < -self.delay_s:
            return f"{self.topic} is stamped {-late:.2f} s in the future; synchronise the sender's clock (chrony)"
        return ""

    def problems(self) -> list[str]:
        """Name what speaks against believing this topic in time, worst first."""
        seen = self.figures()
        if not seen or seen["seen_s"] < WATCH_S:
            return [
                f"{self.topic}: {seen.get('seen_s', 0.0):.1f} s of it were seen; activate again after {WATCH_S:g} s"
            ]
        found = [old] if (old := self.old()) else []
        if abs(seen["drift"]) > MOST_DRIFT:
            found.append(
                f"{self.topic}: its clock drifts by {seen['drift']:.0%} against this computer's, or it queues up"
            )
        if seen["rate_hz"] < RATE_SHARE * self.rate_hz:
            found.append(
                f"{self.topic} comes at {seen['rate_hz']:.1f} Hz, {self.rate_hz:g} Hz are needed; raise its rate"
            )
        elif seen["long_gaps"] >= LONG_GAPS:
            found.append(
                f"{self.topic} comes with {seen['long_gaps']:.0f} gaps of up to {seen['longest_gap_ms']:.0f} ms in "
                f"{seen['seen_s']:.1f} s; the robot would stutter: relieve the computer or the network"
            )
        return found


class Agreement:
    """Compares how far a robot went with the velocity it says it has: units, axes and jumps."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, Array, Array]] = deque()
        self._integral, self._velocity = np.zeros(3), np.zeros(3)

    def take(self, stamp_s: float, pos: Array, velocity: Array) -> str:
        """Take in a position [3] m and a velocity [3] m/s of one frame; the fault, or nothing."""
        gap = stamp_s - self._past[-1][0] if self._past else 0.0
        if not 0.0 < gap < LONG_GAP_S:
            self._past.clear()
        else:
            self._integral = self._integral + 0.5 * gap * (velocity + self._velocity)
        self._velocity = velocity
        self._past.append((stamp_s, pos, self._integral))
        while stamp_s - self._past[0][0] > AGREE_S:
            self._past.popleft()
        _, before, integral = self._past[0]
        went, told = pos - before, self._integral - integral
        off = float(np.sqrt(((went - told) ** 2).sum()))
        if off <= AGREE_M + AGREE_SHARE * float(np.sqrt((told**2).sum())):
            return ""
        return (
            f"the positions went {_metres(went)} m in {stamp_s - self._past[0][0]:.2f} s, the velocities say "
            f"{_metres(told)}: one has another unit or frame, or the estimate jumped"
        )


def joint_fault(names: Sequence[str], pos: Array, low: Array, high: Array, units: Sequence[str]) -> str:
    """Tell why joint positions cannot be an arm's, or nothing.

    Args:
        names: Joints.
        pos: Measured [J].
        low: Lower limits of commands [J]; a joint may stand a little outside.
        high: Upper limits [J].
        units: Of every joint, rad or m.
    """
    beyond = np.array([BEYOND.get(unit, math.inf) for unit in units])
    outside = np.nonzero((pos < low - beyond) | (pos > high + beyond))[0]
    if not len(outside):
        return ""
    worst = int(outside[np.argmax(np.abs(pos[outside]))])
    where = f"'{names[worst]}' at {pos[worst]:.4g} is outside {low[worst]:.3g} .. {high[worst]:.3g} {units[worst]}"
    if units[worst] == "m":
        return f"{where}: these look like millimetres, or its zero is wrong"
    turning = np.array([unit == "rad" for unit in units])
    if np.abs(pos[turning]).max() <= 360.0 and np.abs(pos[turning]).max() > 2.0 * math.pi:
        return f"{where}: these look like degrees, or LeRobot's -100 to 100; send radians"
    return f"{where}: no arm is there; correct its zero or its unit, or bring the joint back by hand"


def pose_fault(pos: Array, floor_m: float) -> str:
    """Tell why a position [3] m in the world frame cannot be a drone's, or nothing."""
    farthest = float(np.abs(pos).max())
    if farthest > FARTHEST_M:
        return f"it lies {farthest:.3g} m from the origin; positions are in metres, near the robot's own origin"
    if pos[2] < floor_m - UNDER_FLOOR_M:
        return (
            f"it lies at z = {pos[2]:.2f} m, under the floor at {floor_m:g} m: z points up (ENU), not down (NED); "
            "or set the parameter floor_m"
        )
    return ""


def attitude_fault(quat: Array, speed_m_s: float) -> str:
    """Tell why an attitude [4] xyzw cannot be that of a drone at rest, or nothing."""
    tilt = float(tilt_of(quat))
    if tilt < MOST_TILT_RAD or speed_m_s > STILL_M_S:
        return ""
    said = f"the attitude is {math.degrees(tilt):.0f} degrees from upright, and the robot is still"
    if tilt_of(quat[[1, 2, 3, 0]]) < MOST_TILT_RAD:
        return f"{said}: the quaternion is in the order wxyz; ROS messages name x, y, z and w"
    return f"{said}: set it upright, or correct the estimator's frame"


def envelope_fault(name: str, norm: float, limit: float) -> str:
    """Say that a signal is beyond what is trusted."""
    hint = "; are positions in millimetres?" if norm > METRES and name == "position_error" else ""
    return f"{name} is {norm:.4g}, beyond {limit:g}{hint}"


def _metres(vector: Array) -> str:
    return "[" + ", ".join(f"{value:.2f}" for value in vector) + "]"
