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

from sim2real.deploy.messages import NEWEST, Channel, StateTime, check_needs, goal_parameter, position, subscribe_goal
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.signals import Signals
from sim2real.types import Array

ENTRIES = ("joint_pos", "joint_vel", "object_pos")  # what its topics tell of the state


class ArmAdapter:
    """Signals from joint states matched by name, commands as trajectories of one point, as ros2_control takes them.

    Parameter ``goal`` [x, y, z] m in the base frame; a PoseStamped on ``goal`` moves it. A policy whose signals need
    the object also reads a PoseStamped on ``object_pose``, base frame. Joint states need positions and velocities.

    Args:
        node: Where topics and parameters live.
        bundle: Policy and joints.
        signals: What the policy reads of the state.

    Raises:
        SpecError: A parameter's value is not usable, or the signals need what an arm's topics do not carry.
    """

    def __init__(self, node: Node, bundle: PolicyBundle, signals: Signals) -> None:
        self._node, self._measure, self._goal_spec = node, signals.measure, bundle.spec.goal
        self._joints = bundle.robot.actuators
        self._period_s = bundle.spec.control_dt
        check_needs(signals, ENTRIES, "arm")
        self._watches = "object_pos" in signals.needs
        self.provides = signals.specs
        if not node.has_parameter("goal"):
            node.declare_parameter("goal", [0.25, 0.0, 0.1], ParameterDescriptor(dynamic_typing=True))
        self._goal = goal_parameter(node.get_parameter("goal").value, self._goal_spec)
        self._time = StateTime(node)
        self._news = threading.Condition()
        self._states, self._sightings = Channel(), Channel()
        self._pos, self._vel = np.zeros(len(self._joints)), np.zeros(len(self._joints))
        self._object = np.zeros(3)
        self.refused = 0
        self._open: list[Any] = []

    def open(self) -> None:
        """Create subscriptions and the publisher."""
        node = self._node
        self._publisher = node.create_publisher(JointTrajectory, "joint_trajectory", NEWEST)
        self._open = [
            subscribe_goal(node, self._goal_spec, self._on_goal),
            node.create_subscription(JointState, "joint_states", self._on_joints, NEWEST),
        ]
        if self._watches:
            self._open.append(node.create_subscription(PoseStamped, "object_pose", self._on_object, NEWEST))

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

    def _on_object(self, message: PoseStamped) -> None:
        seen = position(message.pose)
        if seen is None:
            self.refused += 1
            return
        with self._news:
            if self._sightings.arrived(message.header.stamp, self._time.arrival(message.header.stamp)):
                self._object = seen

    def _on_joints(self, message: JointState) -> None:
        rows = {name: row for row, name in enumerate(message.name)}
        try:
            order = [rows[joint] for joint in self._joints]
            pos, vel = (np.array([values[row] for row in order]) for values in (message.position, message.velocity))
        except (KeyError, IndexError):  # a joint, or its velocity, is missing
            self.refused += 1
            return
        if not (np.isfinite(pos).all() and np.isfinite(vel).all()):
            self.refused += 1
            return
        with self._news:
            if self._states.arrived(message.header.stamp, self._time.arrival(message.header.stamp)):
                self._pos, self._vel = pos, vel
                self._news.notify_all()

    def wait_for_new(self, since_s: float, timeout_s: float) -> bool:
        """Wait until joint states have arrived at ``since_s`` or later."""
        with self._news:
            return self._news.wait_for(lambda: self._states.arrival_s >= since_s, timeout_s)

    def age_s(self) -> float:
        """Time since the last new stamp of the slower topic, s."""
        oldest = min(self._states.arrival_s, self._sightings.arrival_s) if self._watches else self._states.arrival_s
        return self._time.now() - oldest

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
        return self._measure({"joint_pos": pos, "joint_vel": vel, "object_pos": seen}, self._goal[None])

    def send(self, command: Array) -> None:
        """Publish joint positions [J] rad, to be reached within a control period."""
        point = JointTrajectoryPoint(positions=command.tolist())
        point.time_from_start.nanosec = round(1e9 * self._period_s)
        message = JointTrajectory(joint_names=list(self._joints), points=[point])
        self._publisher.publish(message)
