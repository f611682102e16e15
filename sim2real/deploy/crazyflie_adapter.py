"""A Crazyflie's topics: ``pose`` and ``twist`` (or ``odom``) in, ``cmd_vel_legacy`` out."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from sim2real.deploy.crazyflie_messages import to_legacy
from sim2real.deploy.messages import NEWEST, check_needs, goal_parameter, goal_reader
from sim2real.deploy.messages import pose as read_pose
from sim2real.deploy.watch import Watch
from sim2real.errors import SpecError
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.geometry import quat_to_matrix, rotate, yaw_of
from sim2real.runtime.live_check import Agreement, attitude_fault, pose_fault
from sim2real.runtime.signals import Signals
from sim2real.types import Array

ENTRIES = ("pos", "quat", "lin_vel", "ang_vel")  # what its topics tell of the state
_SOURCES = ("pose_twist", "odom")


class CrazyflieAdapter:
    """Signals from pose and velocity messages, commands to ``cmd_vel_legacy``.

    Parameters: ``goal`` [x, y, z] m in the world frame, or [x, y, z, yaw] with a heading in rad: without one the
    drone holds the heading that it has at its first command; ``state_source``: ``pose_twist`` (PoseStamped on
    ``pose``; TwistStamped on ``twist``, linear in the world frame and angular in the body frame) or ``odom``
    (Odometry, twist in the child frame, REP 105); ``floor_m``, z of the floor. A PoseStamped on ``goal`` moves the
    goal, its heading too.

    Args:
        node: Where topics and parameters live.
        bundle: What runs; any policy of a robot that takes thrust, roll, pitch and yaw rate.
        signals: What the policy reads of the state.

    Raises:
        SpecError: A parameter's value is not usable, or the signals need what a drone's topics do not carry.
    """

    def __init__(self, node: Node, bundle: PolicyBundle, signals: Signals) -> None:
        self._node, self._measure, self._goal_spec = node, signals.measure, bundle.spec.goal
        check_needs(signals, ENTRIES, "drone")
        self.provides = signals.specs
        for name, default in (("goal", [0.0, 0.0, 1.0]), ("state_source", "pose_twist"), ("floor_m", 0.0)):
            if not node.has_parameter(name):
                # Any type is taken and checked below: [0, 0, 1] without points is an array of integers to ROS 2.
                node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True))
        goal = goal_parameter(node.get_parameter("goal").value, self._goal_spec)
        self._source = str(node.get_parameter("state_source").value)
        if self._source not in _SOURCES:
            raise SpecError(f"parameter 'state_source' is '{self._source}'; choose one of {', '.join(_SOURCES)}")
        self._floor = float(node.get_parameter("floor_m").value)
        self._farthest = bundle.robot.envelope.get("position_error", np.inf)
        self.watch = Watch(node, self._goal_spec.frame, lively=True)
        self._time = self.watch.time
        self._news = threading.Condition()
        rate = bundle.spec.control_rate_hz
        topics = ("odom",) if self._source == "odom" else ("pose", "twist")
        self._channels = [self.watch.channel(topic, rate) for topic in topics]
        self._pose = self._channels[0]
        self._agreement, self._disagrees = Agreement(), ""
        self._pos, self._quat = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
        self._lin_vel, self._ang_vel = np.zeros(3), np.zeros(3)
        if fault := self._goal_fault(goal):
            raise SpecError(f"parameter 'goal' is {goal.tolist()}: {fault}")
        self._goal = goal
        self._open: list[Any] = []

    def open(self) -> None:
        """Create subscriptions and the publisher."""
        node = self._node
        self._publisher = self.watch.commands(node.create_publisher(Twist, "cmd_vel_legacy", NEWEST))
        kind, self._read_goal = goal_reader(self._goal_spec)
        self.watch.listen(kind, "goal", self._on_goal, self._open)
        if self._source == "odom":
            self.watch.listen(Odometry, "odom", self._on_odom, self._open)
        else:
            # Callbacks run in this order when both have arrived: the pose begins a cycle, so it comes last.
            self.watch.listen(TwistStamped, "twist", self._on_twist, self._open)
            self.watch.listen(PoseStamped, "pose", self._on_pose, self._open)

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

    @property
    def remark(self) -> str:
        """Why the newest messages were refused; empty where they were not."""
        return "; ".join(f"{topic} refused: {why}" for topic, why in self.watch.newest.items())

    def begin(self) -> None:
        """Judge how the drone moves from now on: before, somebody may have carried it."""
        with self._news:
            self._agreement, self._disagrees = Agreement(), ""
        self.watch.begin()

    def faults(self) -> list[str]:
        """Name what is wrong with the pose of a drone that waits."""
        with self._news:
            fault = attitude_fault(self._quat, float(np.sqrt((self._lin_vel**2).sum())))
        return [fault] if fault else []

    def doubt(self) -> str:
        """Why the state is not to be believed: it stands still, or its parts contradict each other."""
        return self._disagrees or self.watch.frozen()

    def _goal_fault(self, goal: Array) -> str:
        if goal[2] < self._floor:
            return f"it lies under the floor at z = {self._floor:g} m"
        distance = float(np.sqrt(((goal[:3] - self._pos) ** 2).sum()))
        if np.isfinite(self._pose.arrival_s) and distance > self._farthest:
            return f"it is too far: {distance:.3g} m, more than {self._farthest:g} m; send goals on the way there"
        return ""

    def _on_goal(self, message: Any) -> None:
        goal: Any = self._read_goal(message)
        fault = "it is not finite, or no rotation" if goal is None else self._goal_fault(goal)
        if self.watch.believes("goal", message, fault):
            self._goal = goal

    def _take(self, topic: str, message: Any, pose: Any, twist: Any) -> bool:
        """Tell whether a message with this pose and twist is to be believed; None is what cannot be used."""
        fault = "it is not finite, or no rotation" if pose is None or twist is None else ""
        fault = fault or (pose_fault(pose[0], self._floor) if topic != "twist" else "")
        return self.watch.believes(topic, message, fault)

    def _on_pose(self, message: PoseStamped) -> None:
        pose: Any = read_pose(message.pose)
        if self._take("pose", message, pose, ()):
            with self._news:
                self._moved(message.header.stamp, pose, (self._lin_vel, self._ang_vel))

    def _moved(self, stamp: Any, pose: tuple[Array, Array], twist: tuple[Array, Array]) -> None:
        if self._pose.believed(stamp, self._time, np.concatenate(pose)):
            (self._pos, self._quat), (self._lin_vel, self._ang_vel) = pose, twist
            stamp_s = stamp.sec + 1e-9 * stamp.nanosec
            self._disagrees = self._agreement.take(stamp_s, self._pos, self._lin_vel)
            self._news.notify_all()

    def _on_twist(self, message: TwistStamped) -> None:
        twist: Any = _twist(message.twist)
        if self._take("twist", message, (), twist):
            with self._news:
                if self._channels[-1].believed(message.header.stamp, self._time, np.concatenate(twist)):
                    self._lin_vel, self._ang_vel = twist

    def _on_odom(self, message: Odometry) -> None:
        pose: Any = read_pose(message.pose.pose)
        twist: Any = _twist(message.twist.twist)
        if self._take("odom", message, pose, twist):
            with self._news:
                lin_vel = rotate(quat_to_matrix(pose[1][None]), twist[0][None])[0]
                self._moved(message.header.stamp, pose, (lin_vel, twist[1]))

    def wait_for_new(self, since_s: float, timeout_s: float) -> bool:
        """Wait until a pose has arrived at ``since_s`` or later."""
        with self._news:
            return self._news.wait_for(lambda: self._pose.arrival_s >= since_s, timeout_s)

    def age_s(self) -> float:
        """Time since the last new stamp of the slower topic, s."""
        return max(channel.age_s(self._time.now()) for channel in self._channels)

    def arrival_s(self) -> float:
        """Monotonic arrival time of the newest pose."""
        return self._pose.arrival_s

    def interval_s(self) -> float:
        """Mean time between poses, s; 0 while unknown."""
        return self._pose.interval_s

    def signals(self) -> dict[str, Array]:
        """Signals of the newest state relative to the goal."""
        with self._news:
            pos, quat = self._pos[None], self._quat[None]
            lin_vel, ang_vel = self._lin_vel[None], self._ang_vel[None]
        goal = np.where(np.isnan(self._goal), yaw_of(quat), self._goal)
        world_rate = rotate(quat_to_matrix(quat), ang_vel)
        state = {"pos": pos, "quat": quat, "lin_vel": lin_vel, "ang_vel": world_rate}
        return self._measure(state, goal[None])

    def send(self, command: Array) -> None:
        """Publish thrust (N), roll, pitch (rad), yaw rate (rad/s)."""
        if np.isnan(self._goal).any():
            with self._news:
                self._goal = np.where(np.isnan(self._goal), yaw_of(self._quat[None]), self._goal)
        legacy = to_legacy(*(float(value) for value in command))
        message = Twist()
        message.linear.x, message.linear.y, message.linear.z = legacy.linear_x, legacy.linear_y, legacy.linear_z
        message.angular.z = legacy.angular_z
        self._publisher.publish(message)


def _twist(twist: Any) -> tuple[Array, Array] | None:
    v, w = twist.linear, twist.angular
    lin_vel, ang_vel = np.array([v.x, v.y, v.z]), np.array([w.x, w.y, w.z])
    if not (np.isfinite(lin_vel).all() and np.isfinite(ang_vel).all()):
        return None
    return lin_vel, ang_vel
