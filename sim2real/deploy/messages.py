"""Reading ROS 2 messages that may be late, out of order or broken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray

from sim2real.errors import SpecError
from sim2real.runtime.geometry import rpy_to_quat, yaw_of
from sim2real.runtime.live_check import Stream
from sim2real.runtime.signals import KnowsGoals, Signals
from sim2real.runtime.spec import SignalSpec
from sim2real.types import Array

# Only the newest state and command matter; a lost command would be a missed control period, so reliable.
NEWEST = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
_POINT, _POINT_AND_HEADING = ("x", "y", "z"), ("x", "y", "z", "yaw")
_NEW_CLOCK_S = 1.0
_LONGEST_INTERVAL_S = 0.1  # what is longer is an interruption
_INTERVAL_GAIN = 0.05


class StateTime:
    """The clock on which states arrive and age: monotonic, or with ``use_sim_time`` the simulation's.

    In simulated time a state arrives at its stamp, however late the message: age does not depend on the computer.

    Args:
        node: Whose parameter ``use_sim_time`` decides.
    """

    def __init__(self, node: Node) -> None:
        simulated = node.has_parameter("use_sim_time") and bool(node.get_parameter("use_sim_time").value)
        self.simulated = simulated
        self._clock = node.get_clock() if simulated else None

    def now(self) -> float:
        """Time now, s."""
        return time.monotonic() if self._clock is None else 1e-9 * self._clock.now().nanoseconds

    def arrival(self, stamp: Any) -> float:
        """When a message with this stamp, which is here now, has arrived, s."""
        return time.monotonic() if self._clock is None else stamp.sec + 1e-9 * stamp.nanosec

    def delay(self, stamp: Any) -> float:
        """Time on the clock that stamps are of, less a stamp, s."""
        now = time.time() if self._clock is None else self.now()
        return now - (stamp.sec + 1e-9 * stamp.nanosec)


class Channel:
    """When the last message with a new stamp came, and how far such messages are apart.

    Args:
        stream: Judges the times; without it nobody asks for :meth:`age_s`.
    """

    def __init__(self, stream: Stream | None = None) -> None:
        self.stream = stream or Stream("", 0.0)
        self._stamp_s = -math.inf
        self.arrival_s = -math.inf
        self.interval_s = 0.0

    def arrived(self, stamp: Any, now: float) -> bool:
        """Tell whether the stamp is new: one a little back is out of order, one far back is of a new clock."""
        stamp_s = stamp.sec + 1e-9 * stamp.nanosec
        if self._stamp_s - _NEW_CLOCK_S < stamp_s <= self._stamp_s:
            return False
        if math.isfinite(self.arrival_s):
            gap = min(now - self.arrival_s, _LONGEST_INTERVAL_S)
            self.interval_s += (_INTERVAL_GAIN if self.interval_s else 1.0) * (gap - self.interval_s)
        self._stamp_s, self.arrival_s = stamp_s, now
        return True

    def believed(self, stamp: Any, clock: StateTime, values: Array) -> bool:
        """As :meth:`arrived`, and keep how old the message is by its stamp and whether ``values`` change."""
        now = clock.arrival(stamp)
        if not self.arrived(stamp, now):
            return False
        self.stream.take(now, clock.delay(stamp), values)
        return True

    def age_s(self, now: float) -> float:
        """Time since the last new stamp, and what that message was older than is allowed, s."""
        return now - self.arrival_s + self.stream.excess_s


def clock_message(stamp_s: float) -> Clock:
    """Time as a message: which state a command answers, by its stamp (see :mod:`sim2real.deploy.lockstep`)."""
    stamp_ns = round(1e9 * stamp_s)
    return Clock(clock=Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9))


def goal_parameter(value: Any, goal: SignalSpec) -> Array:
    """Read a goal [G] from a ROS parameter; a point without its heading leaves that NaN: the present one is meant.

    Raises:
        SpecError: It is not as many finite numbers as the policy's goal has.
    """
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape == (3,) and goal.components == _POINT_AND_HEADING and np.isfinite(numbers).all():
        return np.append(numbers, np.nan)
    if numbers.shape != (goal.size,) or not np.isfinite(numbers).all():
        what = f"{goal.size} finite numbers [{', '.join(goal.components)}] in {goal.unit}, frame {goal.frame}"
        raise SpecError(f"parameter 'goal' must be {what}; got {value!r}")
    return numbers


def goal_reader(goal: SignalSpec) -> tuple[Any, Callable[[Any], Array | None]]:
    """Type of message that carries a goal, and what reads it: [G], or None where it cannot be used.

    A point and a heading come as a PoseStamped, any other goal as a Float64MultiArray.
    """

    def point_and_heading(message: PoseStamped) -> Array | None:
        found = pose(message.pose)
        return None if found is None else np.append(found[0], yaw_of(found[1]))

    def numbers(message: Float64MultiArray) -> Array | None:
        values = np.array(message.data, dtype=np.float64)
        return values if values.shape == (goal.size,) and np.isfinite(values).all() else None

    if goal.components == _POINT:
        return PoseStamped, lambda message: position(message.pose)
    if goal.components == _POINT_AND_HEADING:
        return PoseStamped, point_and_heading
    return Float64MultiArray, numbers


def goal_message(goal: SignalSpec, values: Array) -> PoseStamped | Float64MultiArray:
    """Message that :func:`goal_reader` reads as the goal ``values`` [G]."""
    if goal.components not in (_POINT, _POINT_AND_HEADING):
        return Float64MultiArray(data=values.tolist())
    message = PoseStamped()
    message.header.frame_id = goal.frame
    place, turn = message.pose.position, message.pose.orientation
    place.x, place.y, place.z = values[:3].tolist()
    yaw = values[3] if len(values) > 3 else 0.0
    turn.x, turn.y, turn.z, turn.w = rpy_to_quat(np.array([0.0, 0.0, yaw])).tolist()
    return message


def nearest_goal(node: Node, signals: Signals, goal: Array) -> Array:
    """The goal [G] that a policy can go to, nearest to ``goal``; the log says where it is another one."""
    if not isinstance(signals, KnowsGoals):
        return goal
    nearest, reason = signals.nearest_goal(goal)
    if reason:
        node.get_logger().warning(
            f"goal {goal.tolist()} becomes {nearest.tolist()}: {reason}", throttle_duration_sec=5.0
        )
    return nearest


def check_needs(signals: Signals, entries: Collection[str], robot: str) -> None:
    """Compare what signals need of the state with what a robot's topics tell.

    Raises:
        SpecError: Something is missing.
    """
    missing = [name for name in signals.needs if name not in entries]
    if missing:
        raise SpecError(f"the policy's signals need {missing}, the topics of this {robot} tell {sorted(entries)}")


def pose(message: Any) -> tuple[Array, Array] | None:
    """Position [3] m and unit quaternion [4] xyzw of a Pose, or None where they are not finite or no rotation."""
    pos, q = position(message), message.orientation
    quat = np.array([q.x, q.y, q.z, q.w])
    norm = float(np.sqrt((quat * quat).sum()))
    if pos is None or not abs(norm - 1.0) < 1e-2:
        return None
    return pos, quat / norm


def position(pose: Any) -> Array | None:
    """Position [3] m of a Pose, or None where it is not finite."""
    p = pose.position
    pos = np.array([p.x, p.y, p.z])
    return pos if np.isfinite(pos).all() else None
