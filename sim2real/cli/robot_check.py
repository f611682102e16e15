"""Check what a live robot shows without moving: rate, jitter, lost reads and limits, over its driver or its topics."""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from robot_drivers.driver import RobotDriver
from robot_drivers.limits import DriverError
from sim2real.errors import Sim2RealError
from sim2real.runtime.live_check import FROZEN_S, Stream, attitude_fault, joint_fault, pose_fault
from sim2real.runtime.spec import RobotSpec
from sim2real.types import Array


class LiveRobot:
    """States that were seen of a robot.

    Args:
        spec: What it must be.
        topic: Where its states come from, for sentences.

    Attributes:
        lost: Reads that failed, by reason.
        faults: States that cannot be this robot's, by reason.
    """

    def __init__(self, spec: RobotSpec, topic: str) -> None:
        self.spec, self.stream = spec, Stream(topic, spec.control_rate_hz)
        self.lost: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._limits = {command.name: command for command in spec.commands}
        self._joints = spec.actuators if set(spec.actuators) <= set(self._limits) else ()
        self._range: dict[str, tuple[float, float]] = {}

    def joints(self, received_s: float, delay_s: float, names: Sequence[str], pos: Array) -> None:
        """Take in joint positions [J] of ``names``."""
        row = dict(zip(names, pos.tolist(), strict=False))
        if missing := [joint for joint in self._joints if joint not in row]:
            self.faults[f"no position of {', '.join(missing)}; it names {', '.join(names) or 'nothing'}"] += 1
            return
        values = np.array([row[joint] for joint in self._joints])
        limits = [self._limits[joint] for joint in self._joints]
        low, high = np.array([c.low for c in limits]), np.array([c.high for c in limits])
        if fault := joint_fault(self._joints, values, low, high, [c.unit for c in limits]):
            self.faults[fault] += 1
        self._take(received_s, delay_s, self._joints, values)

    def pose(self, received_s: float, delay_s: float, pos: Array, quat: Array) -> None:
        """Take in a position [3] m and an attitude [4] xyzw of a robot that stands."""
        for fault in (pose_fault(pos, 0.0), attitude_fault(quat, 0.0)):
            self.faults[fault] += bool(fault)
        self._take(received_s, delay_s, ("x", "y", "z"), pos)

    def _take(self, received_s: float, delay_s: float, names: Sequence[str], values: Array) -> None:
        self.stream.take(received_s, delay_s, values)
        for name, value in zip(names, values.tolist(), strict=True):
            low, high = self._range.get(name, (value, value))
            self._range[name] = min(low, value), max(high, value)

    def problems(self) -> list[str]:
        """Name what must be mended before it is switched on."""
        found = [f"{fault} ({count} states)" for fault, count in self.faults.items() if count]
        found += [f"{count} reads failed: {reason}" for reason, count in self.lost.items()]
        found += self.stream.problems()
        if not self._joints and self.stream.frozen_s > FROZEN_S:
            found.append("its estimate stands still to the last bit; start the estimator again")
        return found

    def rows(self) -> list[tuple[str, str, str]]:
        """Give what was measured, and what is needed, as text."""
        seen = self.stream.figures()
        rows = [("failed reads", str(sum(self.lost.values())), "0")]
        if seen:
            rows += [
                ("rate", f"{seen['rate_hz']:.1f} Hz", f"{self.spec.control_rate_hz:g} Hz"),
                ("jitter", f"{seen['jitter_ms']:.1f} ms", ""),
                ("longest gap", f"{seen['longest_gap_ms']:.0f} ms", "100 ms"),
                ("age on arrival", f"{seen['delay_ms']:.1f} ms", "50 ms"),
            ]
        for name, (low, high) in self._range.items():
            limit = self._limits.get(name)
            needed = f"{limit.low:.2f} .. {limit.high:.2f} {limit.unit}" if limit else "m"
            rows.append((name, f"{low:.3f} .. {high:.3f}", needed))
        return rows


def watch_driver(spec: RobotSpec, name: str, driver: RobotDriver, seconds: float) -> LiveRobot:
    """Read a connected driver for ``seconds``, twice a control period; nothing is armed or commanded."""
    robot, end = LiveRobot(spec, f"driver '{name}'"), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = driver.read()
        except DriverError as error:
            robot.lost[str(error)] += 1
        else:
            now = time.monotonic()
            if state.joint_names or robot._joints:
                robot.joints(now, now - state.stamp_s, state.joint_names, state.joint_pos)
            else:
                robot.pose(now, now - state.stamp_s, state.pos, state.quat)
        time.sleep(0.5 / spec.control_rate_hz)
    return robot


def watch_topics(spec: RobotSpec, seconds: float, remap: Sequence[str] = ()) -> LiveRobot:
    """Listen to ``joint_states`` or ``pose`` for ``seconds``.

    Raises:
        Sim2RealError: ROS 2 is not installed.
    """
    try:
        import rclpy
    except ImportError as error:
        raise Sim2RealError("topics need ROS 2; see 'sim2real doctor', or name a --driver") from error
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    from sim2real.deploy.executor import make_executor
    from sim2real.deploy.messages import Channel, StateTime, pose
    from sim2real.deploy.watch import Watch

    arm = set(spec.actuators) <= {command.name for command in spec.commands}
    topic = "joint_states" if arm else "pose"
    robot = LiveRobot(spec, topic)
    context = rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", *(word for rule in remap for word in ("-r", rule))])
    node, executor = rclpy.create_node("robot_check", context=context), make_executor(context)
    executor.add_node(node)
    clock, channel = StateTime(node), Channel()

    def hear(message: Any) -> None:
        stamp = message.header.stamp
        if not channel.arrived(stamp, clock.arrival(stamp)):
            robot.lost["stamps that do not go on"] += 1
        elif arm:
            robot.joints(clock.now(), clock.delay(stamp), message.name, np.array(message.position))
        elif (found := pose(message.pose)) is None:
            robot.faults["the pose is not finite, or no rotation"] += 1
        else:
            robot.pose(clock.now(), clock.delay(stamp), *found)

    Watch(node, "", lively=False).listen(JointState if arm else PoseStamped, topic, hear, [])
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        if (count := node.count_publishers(node.resolve_topic_name(topic))) > 1:
            robot.faults[f"{count} nodes publish {topic}; stop all but one"] = 1
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    return robot
