"""The robot's topics on the driver's side: which messages carry its state, and which its commands.

A drone's follow Crazyswarm2 (``cmd_vel_legacy`` in, ``pose`` and ``twist`` out), an arm's follow ros2_control
(``joint_trajectory`` in, ``joint_states`` out), so that the policy node meets the same names on theirs.
"""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from geometry_msgs.msg import Pose, PoseStamped, Twist, TwistStamped
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from robot_drivers.driver import DriverState
from sim2real.deploy.crazyflie_messages import from_legacy
from sim2real.deploy.messages import NEWEST

OnCommand = Callable[[dict[str, float]], None]


class Topics(Protocol):
    """Topics of one kind of robot.

    Attributes:
        commands: The subscription to its commands.
    """

    commands: Subscription

    def publish(self, state: DriverState, stamp: Any) -> None:
        """Publish a state estimate."""


def make_topics(node: Node, state: DriverState, on_command: OnCommand) -> Topics:
    """The topics of the robot that ``state`` is of: an arm has joints."""
    return ArmTopics(node, on_command) if state.joint_names else DroneTopics(node, on_command)


class DroneTopics:
    """``pose`` (frame world), ``twist`` (linear in the world frame, angular in the body frame), ``cmd_vel_legacy``."""

    def __init__(self, node: Node, on_command: OnCommand) -> None:
        self._on_command = on_command
        self._pose = node.create_publisher(PoseStamped, "pose", NEWEST)
        self._twist = node.create_publisher(TwistStamped, "twist", NEWEST)
        self.commands = node.create_subscription(Twist, "cmd_vel_legacy", self._on_message, NEWEST)

    def _on_message(self, message: Twist) -> None:
        linear, angular = message.linear, message.angular
        self._on_command(from_legacy(linear.x, linear.y, linear.z, angular.z))

    def publish(self, state: DriverState, stamp: Any) -> None:
        """Publish a state estimate; the pose last, so that whoever acts on it has the twist already."""
        twist, pose = TwistStamped(), PoseStamped()
        for message in (twist, pose):
            message.header.stamp, message.header.frame_id = stamp, "world"
        fill_twist(twist.twist, state)
        fill_pose(pose.pose, state)
        self._twist.publish(twist)
        self._pose.publish(pose)


class ArmTopics:
    """``joint_states``, ``object_pose`` (frame base) as a camera sees it, and ``joint_trajectory``.

    Of a trajectory the last point counts: position servos go there by themselves, within the driver's limits.
    """

    def __init__(self, node: Node, on_command: OnCommand) -> None:
        self._on_command = on_command
        self._joints = node.create_publisher(JointState, "joint_states", NEWEST)
        self._object = node.create_publisher(PoseStamped, "object_pose", NEWEST)
        self.commands = node.create_subscription(JointTrajectory, "joint_trajectory", self._on_message, NEWEST)

    def _on_message(self, message: JointTrajectory) -> None:
        if message.points and len(message.points[-1].positions) == len(message.joint_names):
            self._on_command(dict(zip(message.joint_names, message.points[-1].positions, strict=True)))
        else:  # a command without values is refused there, and counted
            self._on_command({})

    def publish(self, state: DriverState, stamp: Any) -> None:
        """Publish a state estimate; joints last, because a policy's cycle begins with them."""
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = stamp, "base"
        fill_pose(pose.pose, state)
        self._object.publish(pose)
        joints = JointState(name=list(state.joint_names))
        joints.header.stamp, joints.header.frame_id = stamp, "base"
        joints.position, joints.velocity = state.joint_pos.tolist(), state.joint_vel.tolist()
        joints.effort = state.joint_effort.tolist()
        self._joints.publish(joints)


def fill_pose(pose: Pose, state: DriverState) -> None:
    """Position and orientation of a state."""
    pose.position.x, pose.position.y, pose.position.z = (float(v) for v in state.pos)
    quat = pose.orientation
    quat.x, quat.y, quat.z, quat.w = (float(v) for v in state.quat)


def fill_twist(twist: Twist, state: DriverState) -> None:
    """Velocities of a state."""
    twist.linear.x, twist.linear.y, twist.linear.z = (float(v) for v in state.lin_vel)
    twist.angular.x, twist.angular.y, twist.angular.z = (float(v) for v in state.ang_vel)
