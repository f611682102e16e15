"""One simulated robot's services and topics in an evaluation over ROS 2, and the episode being recorded."""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from sim2real.deploy.messages import NEWEST, goal_message
from sim2real.errors import Sim2RealError
from sim2real.runtime.geometry import quat_to_matrix, rotate
from sim2real.tasks.success import within
from sim2real.types import Array, Bools


def namespace_of(variant: str) -> str:
    """ROS 2 namespace of a variant: small letters, digits and underscores."""
    return "/" + re.sub(r"[^a-z0-9_]", "_", f"{'' if variant[:1].isalpha() else 'v'}{variant.lower()}")


class Late:
    """Late cycles and all cycles of the active policy node and of the driver node, from their diagnostics."""

    def __init__(self) -> None:
        self.policy, self.driver = (0, 0), (0, 0)
        self._newest: dict[str, tuple[int, int]] = {}

    def on_policy(self, message: DiagnosticArray) -> None:
        """The policy node counts from its activation on."""
        values = {item.key: item.value for item in message.status[0].values}
        if "late" in values:
            name = message.status[0].name.rpartition("/")[2]
            self._newest[name] = (int(values["late"]), int(values["cycles"]))

    def on_driver(self, message: DiagnosticArray) -> None:
        """The driver node counts from its start on; time that its robot lost counts as well, in cycles of 10 ms."""
        values = {item.key: item.value for item in message.status[0].values}
        lost = round(100 * float(values.get("lost_s", 0.0)))
        self.driver = (int(values["late"]) + lost, int(values["cycles"]) + int(values["late"]))

    def end(self, policy: str) -> None:
        """Add the episode that ``policy`` ends now."""
        late, cycles = self._newest.pop(policy, (0, 0))
        self.policy = (self.policy[0] + late, self.policy[1] + cycles)


class Namespace:
    """One variant's clients, and the episode being recorded.

    Args:
        node: The score keeper's node.
        variant: Of the target; :func:`namespace_of` it is the namespace.
        policies: Names of the policy nodes.
        case: Robot and task.

    Attributes:
        track: Stamp s, and the true pose and velocities [13], of every state since the start, in order.
        repeated: Whether the newest stamp came twice: time stands still.
        crashed: Whether the target says it has crashed.
        late: Late cycles.
    """

    def __init__(self, node: Node, variant: str, policies: Sequence[str], case: Any) -> None:
        self.variant, self._case, self.stays = variant, case, case.robot.fixed_base
        prefix = namespace_of(variant)
        self.arm = node.create_client(SetBool, f"{prefix}/arm")
        self.reset = node.create_client(Trigger, f"{prefix}/reset")
        self.driver_parameters = node.create_client(SetParameters, f"{prefix}/driver/set_parameters")
        self.change_state = {p: node.create_client(ChangeState, f"{prefix}/{p}/change_state") for p in policies}
        self.track: list[tuple[float, Array]] = []
        self.repeated = self.crashed = False
        self.late = Late()
        self._goal = np.zeros((1, case.task.goal.size))
        self._begun_s: float | None = None
        kind = type(goal_message(case.task.goal, self._goal[0]))
        self._goals = node.create_publisher(kind, f"{prefix}/goal", QoSProfile(depth=1))
        create = node.create_subscription
        create(Odometry, f"{prefix}/ground_truth/odom", self._on_truth, QoSProfile(depth=1000))
        create(Bool, f"{prefix}/ground_truth/failed", self._on_failed, NEWEST)
        create(DiagnosticArray, f"{prefix}/diagnostics", self.late.on_policy, 10)
        create(DiagnosticArray, f"{prefix}/driver_diagnostics", self.late.on_driver, 10)

    def clients(self) -> list[Client]:
        """Every service that must be there before the first episode."""
        return [self.arm, self.reset, self.driver_parameters, *self.change_state.values()]

    def _on_truth(self, message: Odometry) -> None:
        stamp, pose, twist = message.header.stamp, message.pose.pose, message.twist.twist
        p, q, v, w = pose.position, pose.orientation, twist.linear, twist.angular
        stamp_s = stamp.sec + 1e-9 * stamp.nanosec
        if self.track and stamp_s <= self.track[-1][0]:
            self.repeated = True
            return
        self.repeated = False
        self.track.append((stamp_s, np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w, v.x, v.y, v.z, w.x, w.y, w.z])))

    def _on_failed(self, message: Bool) -> None:
        self.crashed = bool(message.data)

    def send_goal(self, goal: Array) -> None:
        """Tell the policy where to go, [1, G]."""
        self._goal = goal
        self._goals.publish(goal_message(self._case.task.goal, goal[0]))

    def begin(self) -> None:
        """The episode begins now, whether or not what is tracked moves."""
        self._begun_s = self.track[-1][0]

    def begun_s(self) -> float | None:
        """Stamp of the begin; where none was told, of the last truth before the robot moved, or None until then."""
        if self._begun_s is None:
            for before, after in zip(self.track, self.track[1:], strict=False):
                if not np.array_equal(before[1][:3], after[1][:3]):
                    self._begun_s = before[0]
                    break
        return self._begun_s

    def run_s(self) -> float:
        """Time since the episode began."""
        begun_s = self.begun_s()
        return self.track[-1][0] - begun_s if begun_s is not None else 0.0

    def wait_at_start(self) -> None:
        """Forget the last episode."""
        self.track.clear()
        self.repeated, self._begun_s = False, None

    def outcome(self, steps: int, period_s: float, exact: bool) -> tuple[Array, Bools, bool]:
        """Judge the episode.

        Args:
            steps: Control steps T.
            period_s: Control period, s.
            exact: There must be a state at the end of every control step; otherwise the last before counts.

        Returns:
            Distance to the goal [T] m, whether it was within tolerance [T], and whether the task has failed.

        Raises:
            Sim2RealError: A state is missing.
        """
        begun_s = self.begun_s()
        stamps = np.array([stamp for stamp, _ in self.track])
        wanted = (stamps[0] if begun_s is None else begun_s) + period_s * np.arange(1, steps + 1)
        rows = np.clip(np.searchsorted(stamps, wanted + 1e-6, side="right") - 1, 0, len(stamps) - 1)
        if exact and np.abs(stamps[rows] - wanted).max() > 1e-6:
            raise Sim2RealError(f"a state of '{self.variant}' was lost on its way to the score keeper; run it again")
        state = self._state(np.array([self.track[row][1] for row in rows]))
        goal = np.repeat(self._goal, steps, axis=0)
        task = self._case.task
        return task.distance(state, goal), within(task, state, goal), bool(task.failed(state, goal).any())

    def _state(self, values: Array) -> dict[str, Array]:
        pos, quat, lin_vel, ang_vel = values[:, :3], values[:, 3:7], values[:, 7:10], values[:, 10:]
        if not self.stays:
            world_rate = rotate(quat_to_matrix(quat), ang_vel)
            return {"pos": pos, "quat": quat, "lin_vel": lin_vel, "ang_vel": world_rate}
        # What an arm's task is about: its object, or its end effector.
        joints = np.zeros((len(pos), len(self._case.robot.spec.actuators)))
        arm = {"joint_pos": joints, "joint_vel": joints, "ee_pos": pos}
        has_object = "object_pos" in self._case.task.signals.needs
        return arm | ({"object_pos": pos, "object_vel": np.zeros_like(pos)} if has_object else {})
