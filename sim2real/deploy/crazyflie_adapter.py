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
from sim2real.deploy.messages import NEWEST, Channel, StateTime, check_needs, goal_parameter, listen, subscribe_goal
from sim2real.deploy.messages import pose as read_pose
from sim2real.errors import SpecError
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.geometry import quat_to_matrix, rotate, yaw_of
from sim2real.runtime.signals import Signals
from sim2real.types import Array

ENTRIES = ("pos", "quat", "lin_vel", "ang_vel")  # what its topics tell of the state
_SOURCES = ("pose_twist", "odom")


class CrazyflieAdapter:
    """Signals from pose and velocity messages, commands to ``cmd_vel_legacy``.

    Parameters: ``goal`` [x, y, z] m in the world frame, or [x, y, z, yaw] with a heading in rad: without one the
    drone holds the heading that it has at its first command; ``state_source``: ``pose_twist`` (PoseStamped on
    ``pose``; TwistStamped on ``twist``, linear in the world frame and angular in the body frame) or ``odom``
    (Odometry, twist in the child frame, REP 105). A PoseStamped on ``goal`` moves the goal, its heading too.

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
        for name, default in (("goal", [0.0, 0.0, 1.0]), ("state_source", "pose_twist")):
            if not node.has_parameter(name):
                # Any type is taken and checked below: [0, 0, 1] without points is an array of integers to ROS 2.
                node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True))
        goal = goal_parameter(node.get_parameter("goal").value, self._goal_spec)
        self._source = str(node.get_parameter("state_source").value)
        if self._source not in _SOURCES:
            raise SpecError(f"parameter 'state_source' is '{self._source}'; choose one of {', '.join(_SOURCES)}")
        self._goal = goal
        self._time = StateTime(node)
        self._news = threading.Condition()
        self._pose, self._twist = Channel(), Channel()
        self._pos, self._quat = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
        self._lin_vel, self._ang_vel = np.zeros(3), np.zeros(3)
        self.refused = 0
        self._open: list[Any] = []

    def open(self) -> None:
        """Create subscriptions and the publisher."""
        node = self._node
        self._publisher = node.create_publisher(Twist, "cmd_vel_legacy", NEWEST)
        self._open = [subscribe_goal(node, self._goal_spec, self._on_goal)]
        if self._source == "odom":
            listen(node, Odometry, "odom", self._on_odom, self._open)
        else:
            # Callbacks run in this order when both have arrived: the pose begins a cycle, so it comes last.
            listen(node, TwistStamped, "twist", self._on_twist, self._open)
            listen(node, PoseStamped, "pose", self._on_pose, self._open)

    def close(self) -> None:
        """Destroy subscriptions and the publisher; harmless when closed."""
        for subscription in self._open:
            self._node.destroy_subscription(subscription)
        if self._open:
            self._node.destroy_publisher(self._publisher)
        self._open = []

    def _on_goal(self, goal: Array | None) -> None:
        if goal is None:
            self.refused += 1
        else:
            self._goal = goal

    def _on_pose(self, message: PoseStamped) -> None:
        pose = read_pose(message.pose)
        if pose is None:
            self.refused += 1
            return
        with self._news:
            stamp = message.header.stamp
            if self._pose.arrived(stamp, self._time.arrival(stamp)):
                self._pos, self._quat = pose
                self._news.notify_all()

    def _on_twist(self, message: TwistStamped) -> None:
        twist = _twist(message.twist)
        if twist is None:
            self.refused += 1
            return
        with self._news:
            stamp = message.header.stamp
            if self._twist.arrived(stamp, self._time.arrival(stamp)):
                self._lin_vel, self._ang_vel = twist

    def _on_odom(self, message: Odometry) -> None:
        pose, twist = read_pose(message.pose.pose), _twist(message.twist.twist)
        if pose is None or twist is None:
            self.refused += 1
            return
        with self._news:
            stamp, now = message.header.stamp, self._time.arrival(message.header.stamp)
            if self._pose.arrived(stamp, now):
                self._twist.arrived(stamp, now)
                self._pos, self._quat = pose
                self._lin_vel = rotate(quat_to_matrix(pose[1][None]), twist[0][None])[0]
                self._ang_vel = twist[1]
                self._news.notify_all()

    def wait_for_new(self, since_s: float, timeout_s: float) -> bool:
        """Wait until a pose has arrived at ``since_s`` or later."""
        with self._news:
            return self._news.wait_for(lambda: self._pose.arrival_s >= since_s, timeout_s)

    def age_s(self) -> float:
        """Time since the last new stamp of the slower topic, s."""
        return self._time.now() - min(self._pose.arrival_s, self._twist.arrival_s)

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
