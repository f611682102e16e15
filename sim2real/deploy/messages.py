"""Reading ROS 2 messages that may be late, out of order or broken."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from sim2real.errors import SpecError
from sim2real.types import Array

# Only the newest state and command matter; a lost command would be a missed control period, so reliable.
NEWEST = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
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
        self._clock = node.get_clock() if simulated else None

    def now(self) -> float:
        """Time now, s."""
        return time.monotonic() if self._clock is None else 1e-9 * self._clock.now().nanoseconds

    def arrival(self, stamp: Any) -> float:
        """When a message with this stamp, which is here now, has arrived, s."""
        return time.monotonic() if self._clock is None else stamp.sec + 1e-9 * stamp.nanosec


class Channel:
    """When the last message with a new stamp came, and how far such messages are apart."""

    def __init__(self) -> None:
        self._stamp_s = -math.inf
        self.arrival_s = -math.inf
        self.interval_s = 0.0

    def arrived(self, stamp: Any, now: float) -> bool:
        """Whether the stamp is new. One that goes back a little is out of order, one that goes back far a new clock."""
        stamp_s = stamp.sec + 1e-9 * stamp.nanosec
        if self._stamp_s - _NEW_CLOCK_S < stamp_s <= self._stamp_s:
            return False
        if math.isfinite(self.arrival_s):
            gap = min(now - self.arrival_s, _LONGEST_INTERVAL_S)
            self.interval_s += (_INTERVAL_GAIN if self.interval_s else 1.0) * (gap - self.interval_s)
        self._stamp_s, self.arrival_s = stamp_s, now
        return True


def clock_message(stamp_s: float) -> Clock:
    """Time as a message: which state a command answers, by its stamp (see :mod:`sim2real.deploy.lockstep`)."""
    stamp_ns = round(1e9 * stamp_s)
    return Clock(clock=Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9))


def goal_parameter(value: Any) -> Array:
    """A goal [3] m from a ROS parameter.

    Raises:
        SpecError: It is not three finite numbers.
    """
    try:
        goal = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        goal = np.empty(0)
    if goal.shape != (3,) or not np.isfinite(goal).all():
        raise SpecError(f"parameter 'goal' must be three finite numbers [x, y, z] in metres, got {value!r}")
    return goal


def position(pose: Any) -> Array | None:
    """Position [3] m of a Pose, or None where it is not finite."""
    p = pose.position
    pos = np.array([p.x, p.y, p.z])
    return pos if np.isfinite(pos).all() else None
