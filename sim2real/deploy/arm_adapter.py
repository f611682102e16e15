"""An arm's topics: ``joint_states`` (and ``object_pose``) in, ``joint_trajectory`` out."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from sim2real.deploy.messages import NEWEST, check_needs, goal_parameter, goal_reader, nearest_goal, position
from sim2real.deploy.watch import Watch
from sim2real.runtime.arm_signals import reach_of
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import recorded_goal
from sim2real.runtime.live_check import FROZEN_S, OBSTRUCTED_RAD, joint_fault
from sim2real.runtime.signals import Signals
from sim2real.types import Array

ENTRIES = ("joint_pos", "joint_vel", "object_pos")  # what its topics tell of the state
SLOPE_S = 0.02  # of the low pass over differentiated positions: an encoder step of 1.5 mrad at 100 Hz is 0.15 rad/s
_FRESH_S = 0.1
_REPEATS = 5  # messages with an old stamp, one after another, before that is said
_SIGHTING_HZ, _SIGHTING_S = 12.0, 0.3  # of a camera: the least rate, the longest time to understand an image
_SEEN_REACHES = 2.0  # an object further away than this many reaches of the arm was not seen
_MOVED_RAD = 0.1  # a command that moves so far shows in some bit of the joint states
_ANYWHERE = (0.25, 0.0, 0.1)  # a first goal of signals that do not know theirs


class ArmAdapter:
    """Signals from joint states matched by name, commands as trajectories of one point, as ros2_control takes them.

    Parameter ``goal`` [x, y, z] m in the base frame, by default the bundle's recorded one; a PoseStamped on ``goal``
    moves it. A policy whose signals need the object also reads a PoseStamped on ``object_pose``, base frame. Joint
    states need positions; a velocity that is missing, or NaN, is differentiated from these.

    Args:
        node: Where topics and parameters live.
        bundle: Policy and joints.
        signals: What the policy reads of the state.

    Attributes:
        provides, refused, watch: As of :class:`sim2real.deploy.adapters.Adapter`.
        remark: What is unusual about the messages that arrive; empty where nothing is.

    Raises:
        SpecError: A parameter's value is not usable, or the signals need what an arm's topics do not carry.
    """

    def __init__(self, node: Node, bundle: PolicyBundle, signals: Signals) -> None:
        self._node, self._signals, self._goal_spec = node, signals, bundle.spec.goal
        self._joints = bundle.robot.actuators
        self._period_s = bundle.spec.control_dt
        check_needs(signals, ENTRIES, "arm")
        self._watches = "object_pos" in signals.needs
        self.provides = signals.specs
        if not node.has_parameter("goal"):
            recorded = recorded_goal(bundle, signals)
            default = list(_ANYWHERE) if recorded is None else recorded.tolist()
            node.declare_parameter("goal", default, ParameterDescriptor(dynamic_typing=True))
        goal = goal_parameter(node.get_parameter("goal").value, self._goal_spec)
        self._goal = nearest_goal(node, signals, goal)
        node.get_logger().info(f"goal {self._goal.tolist()} {self._goal_spec.unit}, frame {self._goal_spec.frame}")
        commands = {command.name: command for command in bundle.robot.commands}
        self._limits = [commands[joint] for joint in self._joints]
        self._low, self._high = (np.array([getattr(c, end) for c in self._limits]) for end in ("low", "high"))
        chain = bundle.chain()
        self._farthest = np.inf if chain is None else _SEEN_REACHES * reach_of(chain, bundle.robot.ee)
        self.watch = Watch(node, self._goal_spec.frame, lively=False)
        self._time = self.watch.time
        self._news = threading.Condition()
        self._states = self.watch.channel("joint_states", bundle.spec.control_rate_hz)
        if self._watches:
            self._sightings = self.watch.channel("object_pose", _SIGHTING_HZ, delay_s=_SIGHTING_S)
        self._sent = self._sent_then = np.full(len(self._joints), np.nan)
        self._pos, self._vel = np.zeros(len(self._joints)), np.zeros(len(self._joints))
        self._stamp_s, self._derived = 0.0, np.zeros(len(self._joints), dtype=np.bool_)
        self._object = np.zeros(3)
        self._repeats = 0
        self._open: list[Any] = []

    def open(self) -> None:
        """Create subscriptions and the publisher."""
        node = self._node
        self._publisher = self.watch.commands(node.create_publisher(JointTrajectory, "joint_trajectory", NEWEST))
        kind, self._read_goal = goal_reader(self._goal_spec)
        self.watch.listen(kind, "goal", self._on_goal, self._open)
        self.watch.listen(JointState, "joint_states", self._on_joints, self._open)
        if self._watches:
            self.watch.listen(PoseStamped, "object_pose", self._on_object, self._open)

    def close(self) -> None:
        """Destroy subscriptions and the publisher; harmless when closed."""
        for subscription in self._open:
            self._node.destroy_subscription(subscription)
        if self._open:
            self._node.destroy_publisher(self._publisher)
        self._open = []

    @property
    def refused(self) -> int:
        """Messages not believed so far."""
        return self.watch.refused.total()

    def begin(self) -> None:
        """Forget commands: the next activation has its own."""
        self._sent = self._sent_then = np.full(len(self._joints), np.nan)
        self.watch.begin()

    def faults(self) -> list[str]:
        """Nothing more: joint states that cannot be this arm's are refused one by one."""
        return []

    def doubt(self) -> str:
        """Why the joint states are not to be believed: frozen while the command moves, or far from it."""
        if np.isnan(self._sent).any():
            return ""
        with self._news:
            off = np.abs(self._sent - self._pos)
            if self._states.stream.frozen_s < FROZEN_S or np.isnan(self._sent_then).any():
                self._sent_then = self._sent
        if np.abs(self._sent - self._sent_then).max() > _MOVED_RAD:
            return self.watch.frozen()
        if off.max() <= OBSTRUCTED_RAD:
            return ""
        return (
            f"'{self._joints[int(off.argmax())]}' is {off.max():.2f} from its command: it is blocked, or not the joint "
            "that was meant (swapped names?)"
        )

    @property
    def remark(self) -> str:
        """Tell what is unusual about the messages that arrive; empty where nothing is."""
        # Others may publish joints of their own on joint_states: what lacks ours matters where ours do not come.
        fresh = self.age_s() <= _FRESH_S
        remarks = [f"{name} refused: {why}" for name, why in self.watch.newest.items() if name == "goal" or not fresh]
        if self._repeats > _REPEATS:
            remarks.append("joint_states arrive, and their stamps stand still")
        if self._watches and np.isfinite(self._states.arrival_s) and not np.isfinite(self._sightings.arrival_s):
            remarks.append("joint_states arrive, object_pose does not")
        if self._derived.any():
            names = [joint for joint, derived in zip(self._joints, self._derived, strict=True) if derived]
            remarks.append(f"joint_states carry no velocity of {', '.join(names)}: positions are differentiated")
        return "; ".join(remarks)

    def _on_goal(self, message: Any) -> None:
        goal: Any = self._read_goal(message)
        fault = "" if goal is not None else "it is not finite numbers, as many as the policy's goal has"
        if self.watch.believes("goal", message, fault):
            self._goal = nearest_goal(self._node, self._signals, goal)

    def _on_object(self, message: PoseStamped) -> None:
        seen: Any = position(message.pose)
        fault = "it is not finite" if seen is None else ""
        if seen is not None and (distance := float(np.sqrt((seen**2).sum()))) > self._farthest:
            fault = f"the object is too far: {distance:.3g} m, more than {self._farthest:.2f} m; see to unit and frame"
        if not self.watch.believes("object_pose", message, fault):
            return
        with self._news:
            if self._sightings.believed(message.header.stamp, self._time, seen):
                self._object = seen

    def _on_joints(self, message: JointState) -> None:
        rows = {name: row for row, name in enumerate(message.name)}
        missing = [joint for joint in self._joints if rows.get(joint, len(message.position)) >= len(message.position)]
        if missing:
            if len(missing) == len(self._joints):  # nobody's business, as of a gripper's own driver
                self.watch.shared.add("joint_states")
            names = ", ".join(rows) or "nothing"
            self.watch.refuse("joint_states", f"they lack the position of {', '.join(missing)}; they name {names}")
            return
        order = [rows[joint] for joint in self._joints]
        pos = np.array(message.position)[order]
        has_velocity = len(message.velocity) == len(message.name)
        vel = np.array(message.velocity)[order] if has_velocity else np.full(len(order), np.nan)
        if not np.isfinite(pos).all() or np.isinf(vel).any():
            fault = "they are not finite"
        else:
            fault = joint_fault(self._joints, pos, self._low, self._high, [limit.unit for limit in self._limits])
        if not self.watch.believes("joint_states", message, fault):
            return
        stamp = message.header.stamp
        with self._news:
            is_first = not np.isfinite(self._states.arrival_s)
            self._repeats += 1
            if self._states.believed(stamp, self._time, pos):
                self._repeats = 0
                self._derived = np.isnan(vel)
                stamp_s = stamp.sec + 1e-9 * stamp.nanosec
                gap_s = stamp_s - self._stamp_s
                if is_first or gap_s <= 0.0:  # a new clock
                    slope = np.zeros(len(pos))
                else:
                    slope = self._vel + gap_s / (SLOPE_S + gap_s) * ((pos - self._pos) / gap_s - self._vel)
                self._pos, self._vel, self._stamp_s = pos, np.where(self._derived, slope, vel), stamp_s
                self._news.notify_all()

    def wait_for_new(self, since_s: float, timeout_s: float) -> bool:
        """Wait until joint states have arrived at ``since_s`` or later."""
        with self._news:
            return self._news.wait_for(lambda: self._states.arrival_s >= since_s, timeout_s)

    def age_s(self) -> float:
        """Time since the last new stamp of the slower topic, s."""
        return max(channel.age_s(self._time.now()) for channel in self.watch.channels)

    def arrival_s(self) -> float:
        """Monotonic arrival time of the newest joint states."""
        return self._states.arrival_s

    def interval_s(self) -> float:
        """Mean time between joint states, s; 0 while unknown."""
        return self._states.interval_s

    def signals(self) -> dict[str, Array]:
        """Signals of the newest state relative to the goal."""
        with self._news:
            pos, vel, seen = self._pos[None], self._vel[None], self._object[None]
        return self._signals.measure({"joint_pos": pos, "joint_vel": vel, "object_pos": seen}, self._goal[None])

    def send(self, command: Array) -> None:
        """Publish joint positions [J] rad, to be reached within a control period."""
        self._sent = command.copy()
        point = JointTrajectoryPoint(positions=command.tolist())
        point.time_from_start.nanosec = round(1e9 * self._period_s)
        message = JointTrajectory(joint_names=list(self._joints), points=[point])
        self._publisher.publish(message)
