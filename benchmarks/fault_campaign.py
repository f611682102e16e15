"""What happens to a robot when its world is faulty: scripted faults over ROS 2, one line each.

    python benchmarks/fault_campaign.py --json benchmarks/results/fault_campaign.json
    python benchmarks/fault_campaign.py --only drone --match delayed wxyz

The driver node (a target, 100 Hz), the policy node and a relay that breaks what it passes on are real ROS 2 nodes in
this process. Time is this program's: it goes on by one state when every message has arrived, so that a busy computer
does not look like a fault, and loops and watchdogs are stepped in place of their threads. Distances and speeds are the
target's truth, from the begin of the fault on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class Virtual:
    """The only clock of this process, s."""

    now = 1000.0
    offset = time.time() - 1000.0


time.monotonic = lambda: Virtual.now
time.time = lambda: Virtual.now + Virtual.offset
time.sleep = lambda seconds: None
clock = time.perf_counter
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import rclpy  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_rig import make_pd_bundle  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

from robot_drivers.limits import WatchdogStage  # noqa: E402
from sim2real.deploy import policy_node  # noqa: E402
from sim2real.deploy.driver_node import DriverNode  # noqa: E402
from sim2real.deploy.policy_node import SUCCESS, PolicyNode  # noqa: E402
from sim2real.deploy.watch import Watch  # noqa: E402
from sim2real.provenance import commit  # noqa: E402
from sim2real.runtime.loop import LoopFigures  # noqa: E402
from sim2real.runtime.safety import SafetyState  # noqa: E402
from sim2real.targets.base import begin  # noqa: E402
from sim2real.targets.driver import TargetDriver  # noqa: E402

STATE_S = 0.01

STATES = {"pose": PoseStamped, "twist": TwistStamped, "joint_states": JointState, "object_pose": PoseStamped}
Relay = Callable[["Rig", str, Any], list[Any]]
Act = Callable[["Rig"], Any]


class SteppedLoop:
    """The control loop, called by this program."""

    def __init__(self, period_s: float, function: Callable[[], None], on_error: Any, data: Any) -> None:
        self.period_s, self.function, self.running = period_s, function, False

    def start(self) -> None:
        self.running, self.due_s = True, Virtual.now

    def stop(self) -> None:
        self.running = False

    def figures(self) -> LoopFigures:
        return LoopFigures(0, 0, 0.0, 0.0, 0.0, 0.0)

    def step(self) -> None:
        while self.running and self.due_s <= Virtual.now + 1e-6:
            self.due_s += self.period_s
            self.function()


policy_node.FixedRateLoop = SteppedLoop  # type: ignore[misc, assignment]
TargetDriver._run = DriverNode._run = lambda self: None  # type: ignore[method-assign]
_listen = Watch.listen


class Heard:
    """Messages that the policy node has heard, and commands that it has sent."""

    count = sent = 0


def counting_listen(self: Watch, kind: Any, topic: str, callback: Callable[[Any], None], into: list[Any]) -> None:
    """Count what the policy node hears."""

    def counted(message: Any) -> None:
        Heard.count += 1
        callback(message)

    _listen(self, kind, topic, counted, into)


Watch.listen = counting_listen  # type: ignore[method-assign]


def stamped(shift_s: float = 0.0) -> Time:
    """Time now as a stamp."""
    now = round(1e9 * (time.time() + shift_s))
    return Time(sec=now // 10**9, nanosec=now % 10**9)


@dataclass
class Fault:
    """One scripted fault.

    Attributes:
        name: As in the table.
        robot: drone, reach or push.
        relay: What becomes of a state's message; several, or none, may come of one.
        act: Done once when the fault begins; ``every`` then every control period.
        early: The fault is there before activation.
        allowed: Outcomes that are right.
        seconds: It is watched for.
        height: The drone starts here, m.
        speed: The fault begins when the drone is this fast, m/s.
        quality: Of the relay's publishers.
        before_s: A fault that is there early is there for this time before activation.
        slow_m_s: Speed limit from the begin on; of the touch where it lands.
    """

    name: str
    robot: str
    relay: Relay | None = None
    act: Act | None = None
    every: Act | None = None
    early: bool = False
    allowed: tuple[str, ...] = ("refused",)
    seconds: float = 4.0
    height: float | None = None
    speed: float = 0.0
    quality: Any = 1
    slow_m_s: float = math.inf
    before_s: float = 1.6


class Rig:
    """Driver node, relay and policy node of one fault."""

    def __init__(self, fault: Fault, bundle: Path) -> None:
        self.fault, self.bundle = fault, bundle
        goal = [0.0, 0.0, fault.height or 1.5]
        arguments = ["--ros-args", "-p", f"policy:bundle:={bundle}"]
        arguments += ["-p", f"policy:goal:={goal}"] if fault.robot == "drone" else []
        for topic in STATES:
            arguments += ["-r", f"driver:{topic}:=raw_{topic}"]
        rclpy.init(args=arguments)
        settings: dict[str, Any] = {"seed": 3, "rate_hz": 100.0}
        settings |= {} if fault.robot == "drone" else {"robot": "so101", "task": fault.robot}
        self.driver = DriverNode(settings)
        if fault.height is not None:
            start, _ = begin(self.target._task, self.target._target, 1, 3)
            start["pos"][:] = goal
            self.target._sim.reset(start)
        self.node = rclpy.create_node("robot")
        self.out = {topic: self.node.create_publisher(kind, topic, fault.quality) for topic, kind in STATES.items()}
        for topic, kind in STATES.items():
            self.node.create_subscription(kind, f"raw_{topic}", lambda m, t=topic: self._pass_on(t, m), 1)
        self.active, self.begun_s, self.steps = fault.early, math.inf, 0
        self.policies = [PolicyNode()]
        self.nodes: list[Any] = [self.driver, self.node, *self.policies]
        self.kept: dict[str, deque[Any]] = {topic: deque(maxlen=1000) for topic in STATES}
        self.extra: dict[str, Any] = {}
        self.dead = False
        self.executor = SingleThreadedExecutor()
        for node in self.nodes:
            self.executor.add_node(node)

    def settle(self, seconds: float = 0.3) -> None:
        """Let nodes discover each other."""
        end = clock() + seconds
        while clock() < end:
            self.executor.spin_once(timeout_sec=0.01)

    def until(self, done: Callable[[], bool]) -> None:
        """Spin until messages have arrived; those that were lost on their way are given up."""
        end = clock() + 1.0
        while not done() and clock() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def step(self) -> None:
        """One state of the robot, and the control steps that are due."""
        Virtual.now += STATE_S
        self.driver._watch()
        self.driver._counts["cycles"] += 1
        self.relayed = self.expected = 0
        before = Heard.count
        self.driver._publish_state(stamped())
        topics = ("twist", "pose") if self.fault.robot == "drone" else ("object_pose", "joint_states")
        self.until(lambda: self.relayed == len(topics))
        self.until(lambda: Heard.count - before >= self.expected)
        if self.active and self.fault.every is not None and self.steps % 2 == 0:
            self.fault.every(self)
            self.executor.spin_once(timeout_sec=0.002)
        self.steps += 1
        for policy in self.policies:
            if policy._loop is not None and not self.dead:
                counts, sent = self.driver._counts, Heard.sent
                was = counts["commands"] + counts["refused"]
                policy._loop.step()  # type: ignore[attr-defined]
                if Heard.sent > sent:
                    self.until(lambda: counts["commands"] + counts["refused"] > was)  # noqa: B023

    def sleep(self, seconds: float) -> None:
        for _ in range(round(seconds / STATE_S)):
            self.step()

    @property
    def target(self) -> Any:
        return self.driver._driver

    @property
    def policy(self) -> PolicyNode:
        return self.policies[0]

    def _pass_on(self, topic: str, message: Any) -> None:
        message.header.stamp = stamped()
        relay = self.fault.relay if self.active else None
        subscribed = self.out[topic].get_subscription_count()
        broken = [message] if relay is None else relay(self, topic, message)
        for made in broken:
            self.out[topic].publish(made)
        self.expected += subscribed > 0 and len(broken) > 0
        self.relayed += 1

    def goal(self, x: float, y: float, z: float) -> None:
        message = PoseStamped()
        message.pose.position.x, message.pose.position.y, message.pose.position.z = x, y, z
        message.pose.orientation.w = 1.0
        if "goal" not in self.extra:
            self.extra["goal"] = self.node.create_publisher(PoseStamped, "goal", 1)
            self.settle()
        self.extra["goal"].publish(message)
        self.executor.spin_once(timeout_sec=0.01)

    def command(self, node: str = "intruder") -> None:
        """One foreign command: nothing, or the first joint at its end."""
        if "command" not in self.extra:
            other = rclpy.create_node(node)
            self.nodes.append(other)
            kind = Twist if self.fault.robot == "drone" else JointTrajectory
            topic = "cmd_vel_legacy" if self.fault.robot == "drone" else "joint_trajectory"
            self.extra["command"] = other.create_publisher(kind, topic, 1)
            self.settle()
        if self.fault.robot == "drone":
            self.extra["command"].publish(Twist())
            return
        joints = list(self.target._spec.actuators)
        self.extra["command"].publish(
            JointTrajectory(joint_names=joints, points=[JointTrajectoryPoint(positions=[1.5, *[0.0] * 5])])
        )

    def second_state(self) -> None:
        """The same state again from another node."""
        topic = "pose" if self.fault.robot == "drone" else "joint_states"
        if "state" not in self.extra:
            other = rclpy.create_node("impostor")
            self.nodes.append(other)
            self.extra["state"] = other.create_publisher(STATES[topic], topic, 1)
            self.settle()
        message = PoseStamped() if topic == "pose" else JointState(name=list(self.target._spec.actuators))
        message.header.stamp = stamped()
        if topic == "pose":
            message.pose.position.z = message.pose.orientation.w = 1.0
        else:
            message.position = [0.3] * 6
        self.extra["state"].publish(message)

    def second_policy(self) -> None:
        self.policies.append(PolicyNode())
        self.nodes.append(self.policies[-1])
        self.executor.add_node(self.policies[-1])
        self.policies[-1].trigger_configure()
        self.settle()

    def arm(self) -> None:
        self.driver._on_arm(SetBool.Request(data=True), SetBool.Response())

    def kill_policy(self) -> None:
        """As SIGKILL does: silent at once."""
        self.dead = True

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        truth = self.target._sim.truth()
        if self.fault.robot == "drone":
            return truth["pos"][0].copy(), truth["lin_vel"][0].copy()
        return truth["joint_pos"][0].copy(), truth["joint_vel"][0].copy()

    def run(self) -> dict[str, Any]:
        fault, policy = self.fault, self.policy
        if policy.trigger_configure() is not SUCCESS:
            return {"outcome": "refused", "reason": "configure"}
        send = policy._adapter.send  # type: ignore[union-attr]

        def counting_send(command: Any) -> None:
            Heard.sent += 1
            send(command)

        policy._adapter.send = counting_send  # type: ignore[method-assign, union-attr]
        self.settle()
        self.arm()
        if fault.early:
            self._begin()
        if fault.early and fault.every is not None:
            fault.every(self)
        self.sleep(fault.before_s if fault.early else 1.3)
        activated = policy.trigger_activate() is SUCCESS
        if not activated:
            return {"outcome": "refused", "reason": policy._refusal, "time_s": None}
        if not fault.early:
            flying = fault.robot == "drone"
            if fault.speed:
                self.sleep(1.0)
                pos, _ = self.truth()
                self.goal(pos[0] + 3.5, pos[1], pos[2])
                end = time.monotonic() + 4.0
                while np.linalg.norm(self.truth()[1]) < fault.speed and time.monotonic() < end:
                    self.step()
            else:
                self.sleep(1.0 if flying else 0.3)
            self._begin()
        return self._watch()

    def _begin(self) -> None:
        self.active, self.begun_s = True, time.monotonic()
        if self.fault.act is not None:
            self.fault.act(self)

    def _watch(self) -> dict[str, Any]:  # noqa: PLR0912
        fault, start = self.fault, self.truth()[0]
        first: dict[str, Any] = {}
        went = fastest = end_speed = 0.0
        touch, refused = None, self.policy._adapter.refused  # type: ignore[union-attr]
        stage = WatchdogStage.OK
        end_s = self.begun_s + fault.seconds
        while (now := time.monotonic()) < end_s:
            pos, vel = self.truth()
            off = pos - start
            went = max(went, float(np.linalg.norm(off) if fault.robot == "drone" else np.abs(off).max()))
            end_speed = float(np.linalg.norm(vel) if fault.robot == "drone" else np.abs(vel).max())
            fastest = max(fastest, end_speed)
            if fault.robot == "drone":
                if pos[2] < 0.3 and touch is None:
                    touch = 0.0
                if touch is not None and pos[2] > 0.03:
                    touch = float(-vel[2])
                if pos[2] <= 0.021 and now < end_s - 1.0:
                    end_s = now + 1.0
            state, adapter = self.policy._safety.state, self.policy._adapter
            stage = self.driver._stage if self.driver._stage is not WatchdogStage.IDLE else stage
            if not first and (state is not SafetyState.FLY or stage in (WatchdogStage.HOLD, WatchdogStage.LAND)):
                first = {"time_s": now - self.begun_s, "reason": self.policy._safety.reason or f"driver: {stage.value}"}
            if not first and adapter is not None and adapter.refused > refused:
                reason = "; ".join(f"{topic}: {why}" for topic, why in adapter.watch.newest.items())  # type: ignore[attr-defined]
                first = {"time_s": now - self.begun_s, "reason": reason or "a message was refused", "message": True}
            self.step()
        state = self.policy._safety.state
        outcome = "unnoticed"
        if touch is not None and self.truth()[0][2] < 0.05:
            outcome = "landed"
        elif state is SafetyState.LAND or stage is WatchdogStage.LAND:
            outcome = "landing" if fault.robot == "drone" else "held"
        elif state is SafetyState.HOLD or stage is WatchdogStage.HOLD:
            outcome = "held"
        elif state is SafetyState.INACTIVE:
            outcome = "stopped"
        elif first.pop("message", False):
            outcome = "message refused"
        elif first:
            outcome = "held, then went on"
        if outcome == "unnoticed" and (remark := getattr(self.policy._adapter, "remark", "")):
            first = {"reason": remark, "time_s": None}
        first.pop("message", None)
        return {
            "outcome": outcome,
            **first,
            "went": round(went, 2),
            "fastest": round(fastest, 2),
            "end_speed": round(end_speed, 2),
            "touch_m_s": None if touch is None else round(touch, 2),
        }

    def close(self) -> None:
        for policy in self.policies:
            policy.close()
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown()


# Relays: what becomes of a message on its way.


def delayed(seconds: float) -> Relay:
    """Everything comes late, stamped when it was measured."""

    def relay(rig: Rig, topic: str, message: Any) -> list[Any]:
        kept = rig.kept[topic]
        kept.append((time.monotonic(), message))
        due = []
        while kept and kept[0][0] <= time.monotonic() - seconds:
            due.append(kept.popleft()[1])
        return due[-1:]

    return relay


def shifted(seconds: float) -> Relay:
    """Stamps of another clock."""

    def relay(rig: Rig, topic: str, message: Any) -> list[Any]:
        message.header.stamp = stamped(seconds)
        return [message]

    return relay


def scaled(*factors: float, twist: bool = False) -> Relay:
    """Positions, and velocities too with ``twist``, times a factor an axis."""

    def relay(rig: Rig, topic: str, message: Any) -> list[Any]:
        part = message.pose.position if topic == "pose" else message.twist.linear if twist else None
        if part is not None:
            part.x, part.y, part.z = part.x * factors[0], part.y * factors[1], part.z * factors[2]
        return [message]

    return relay


def wxyz(rig: Rig, topic: str, message: Any) -> list[Any]:
    if topic == "pose":
        q = message.pose.orientation
        q.x, q.y, q.z, q.w = q.w, q.x, q.y, q.z
    return [message]


def frozen(rig: Rig, topic: str, message: Any) -> list[Any]:
    """The first values for ever, under running stamps."""
    kept = rig.kept[topic]
    if not kept:
        kept.append(message)
    kept[0].header.stamp = message.header.stamp
    return [kept[0]]


def same_stamp(rig: Rig, topic: str, message: Any) -> list[Any]:
    kept = rig.kept[topic]
    if not kept:
        kept.append(message.header.stamp)
    message.header.stamp = kept[0]
    return [message]


def silent(rig: Rig, topic: str, message: Any) -> list[Any]:
    return []


def interrupted(rig: Rig, topic: str, message: Any) -> list[Any]:
    """Nothing for 0.8 s, then all is well: it lands, and has a state for it."""
    return [] if time.monotonic() - rig.begun_s < 0.8 else [message]


def rare(hz: float) -> Relay:
    def relay(rig: Rig, topic: str, message: Any) -> list[Any]:
        kept = rig.kept[topic]
        if kept and time.monotonic() - kept[-1] < 1.0 / hz:
            return []
        kept.append(time.monotonic())
        return [message]

    return relay


def bursts(rig: Rig, topic: str, message: Any) -> list[Any]:
    return [] if time.monotonic() % 0.3 < 0.15 else [message]


def poisoned(rig: Rig, topic: str, message: Any) -> list[Any]:
    if topic in ("pose", "object_pose"):
        message.pose.position.x = math.nan
    if topic == "joint_states":
        message.position[2] = math.nan
    return [message]


def jumped(rig: Rig, topic: str, message: Any) -> list[Any]:
    if topic == "pose":
        message.pose.position.x += 1.0
    return [message]


def swapped_axes(rig: Rig, topic: str, message: Any) -> list[Any]:
    if topic == "pose":
        p = message.pose.position
        p.x, p.y = p.y, p.x
    return [message]


def framed(name: str, where: str) -> Relay:
    def relay(rig: Rig, topic: str, message: Any) -> list[Any]:
        if topic == where:
            message.header.frame_id = name
        return [message]

    return relay


def twice(rig: Rig, topic: str, message: Any) -> list[Any]:
    return [message, message]


def reordered(rig: Rig, topic: str, message: Any) -> list[Any]:
    kept = rig.kept[topic]
    kept.append(message)
    return [kept.pop(), kept.pop()] if len(kept) == 2 else []


def joints(change: Callable[[list[float]], list[float]], names: bool = False) -> Relay:
    """Other joint positions, or with ``names`` other names."""

    def relay(rig: Rig, topic: str, message: Any) -> list[Any]:
        if topic == "joint_states":
            if names:
                message.name = change(list(message.name))
            else:
                message.position = change(list(message.position))
        return [message]

    return relay


def no_velocity(rig: Rig, topic: str, message: Any) -> list[Any]:
    if topic == "joint_states":
        message.velocity = []
    return [message]


def object_at(x: float) -> Relay:
    def relay(rig: Rig, topic: str, message: Any) -> list[Any]:
        if topic == "object_pose":
            message.pose.position.x = x
        return [message]

    return relay


def flood(rig: Rig) -> None:
    """3,000 goals a second."""
    for _ in range(60):
        rig.goal(0.0, 0.0, 1.5)


def deactivate(rig: Rig) -> None:
    rig.policy.trigger_deactivate()


def swap(names: list[Any]) -> list[Any]:
    names[1], names[2] = names[2], names[1]
    return names


BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
STOPS = ("held", "landed", "landing", "held, then went on")
D, R, P = "drone", "reach", "push"


def faults() -> list[Fault]:
    """All of them."""
    early = {"early": True}
    land = {"allowed": ("landed",), "seconds": 12.0}
    return [
        Fault("no fault", D, allowed=("unnoticed",)),
        *(
            Fault(f"states delayed by {s:g} s from the start", D, delayed(s), before_s=s + 1.6, **early)
            for s in (0.3, 1.0, 3.0)
        ),
        Fault("position in millimetres", D, scaled(1e3, 1e3, 1e3), **early),
        Fault("z down (NED), velocity too", D, scaled(1, 1, -1, twist=True), **early),
        Fault("quaternion wxyz", D, wxyz, **early),
        Fault("values frozen under running stamps", D, frozen, **early),
        Fault("stamps 5 s old", D, shifted(-5.0), **early),
        Fault("stamps 0.5 s in the future", D, shifted(0.5), **early),
        Fault("stamps of a clock since boot", D, shifted(-1.7e9), **early),
        Fault("states at 11.6 Hz", D, rare(11.6), **early),
        Fault("states in bursts, gaps of 150 ms", D, bursts, **early),
        Fault("pose in frame 'map'", D, framed("map", "pose"), **early),
        Fault("second publisher of poses", D, every=Rig.second_state, **early),
        Fault("second publisher of commands", D, every=Rig.command, **early),
        Fault("states stop", D, silent, slow_m_s=1.0, **land),
        Fault("states stop at 2 m/s", D, silent, speed=2.0, slow_m_s=1.0, **land),
        Fault("states stop at 3 m", D, silent, height=3.0, slow_m_s=1.0, **(land | {"seconds": 20.0})),
        Fault("stamps stand still in flight", D, same_stamp, slow_m_s=1.0, **land),
        Fault("values freeze in flight", D, frozen, slow_m_s=1.0, **land),
        Fault("positions not finite in flight", D, poisoned, slow_m_s=1.0, **land),
        Fault("states 0.3 s late from now on", D, delayed(0.3), slow_m_s=1.0, **land),
        Fault("positions become millimetres in flight", D, scaled(1e3, 1e3, 1e3), slow_m_s=1.0, **land),
        Fault("z turns down in flight", D, scaled(1, 1, -1, twist=True), slow_m_s=1.0, **land),
        Fault("the pose jumps by 1 m", D, jumped, allowed=STOPS, slow_m_s=1.0),
        Fault("x and y swapped in the pose, at 1.5 m/s", D, swapped_axes, speed=1.5, slow_m_s=1.0, **land),
        Fault("the sender's clock jumps 1 s back", D, shifted(-1.0), slow_m_s=1.0, **land),
        Fault("the sender's clock jumps 1 s ahead", D, shifted(1.0), slow_m_s=1.0, **land),
        Fault("states fall to 11.6 Hz in flight", D, rare(11.6), allowed=(*STOPS, "unnoticed"), slow_m_s=1.0),
        Fault("messages twice", D, twice, allowed=("unnoticed",)),
        Fault("messages in pairs, out of order", D, reordered, allowed=("unnoticed",)),
        Fault("best-effort publishers", D, quality=BEST_EFFORT, allowed=("unnoticed",)),
        Fault("goal 10^6 m away", D, act=lambda r: r.goal(1e6, 0, 1), allowed=("message refused",)),
        Fault("goal 50 m up", D, act=lambda r: r.goal(0, 0, 50), allowed=("message refused",)),
        Fault("goal under the floor", D, act=lambda r: r.goal(0, 0, -1), allowed=("message refused",)),
        Fault("goals not finite, 50 Hz", D, every=lambda r: r.goal(math.nan, 0, 1), allowed=("message refused",)),
        Fault("3,000 goals a second", D, every=flood, allowed=("message refused", "unnoticed"), seconds=5.0),
        Fault("second publisher of poses in flight", D, every=Rig.second_state, slow_m_s=1.0, **land),
        Fault("foreign commands of zero, 50 Hz", D, every=Rig.command, slow_m_s=1.0, **land),
        Fault("second policy node configured in flight", D, act=Rig.second_policy, slow_m_s=1.0, **land),
        Fault("policy dead, armed again and again", D, act=Rig.kill_policy, every=Rig.arm, slow_m_s=1.0, **land),
        Fault("policy killed", D, act=Rig.kill_policy, slow_m_s=1.0, **land),
        Fault("deactivated at 2.5 m/s", D, act=deactivate, speed=2.5, slow_m_s=1.0, **land),
        *(
            Fault(f"landing from {h:g} m, state back after 0.8 s", D, interrupted, height=h, slow_m_s=1.0,
                  allowed=("landed",), seconds=3.0 * h + 4.0)
            for h in (3.0, 12.0)
        ),
        Fault("no fault, arm", R, allowed=("unnoticed",)),
        Fault("joints in degrees", R, joints(lambda p: [math.degrees(v) for v in p]), **early),
        Fault("joints as LeRobot's -100 to 100", R, joints(lambda p: [58.0 * v for v in p]), **early),
        Fault("a joint at 1000 rad", R, joints(lambda p: [1000.0, *p[1:]]), **early),
        Fault("a joint at 1e308 rad", R, joints(lambda p: [1e308, *p[1:]]), **early),
        Fault("a joint is missing", R, joints(lambda p: p[:5]), **early),
        Fault("states delayed by 1 s from the start, arm", R, delayed(1.0), before_s=2.6, **early),
        Fault("stamps 5 s old, arm", R, shifted(-5.0), **early),
        Fault("states at 11.6 Hz, arm", R, rare(11.6), **early),
        Fault("second publisher of joint states", R, every=Rig.second_state, **early),
        Fault("second publisher of trajectories", R, every=Rig.command, **early),
        Fault("names of two joints swapped", R, joints(swap, names=True), allowed=("held",), early=True),
        Fault("joint values freeze in motion", R, frozen, allowed=("held",)),
        Fault("joint values frozen from the start", R, frozen, allowed=("held",), early=True),
        Fault("joint states stop", R, silent, allowed=("held",)),
        Fault("a joint jumps to 1000 rad in motion", R, joints(lambda p: [1000.0, *p[1:]]), allowed=("held",)),
        Fault("joint values not finite in motion", R, poisoned, allowed=("held",)),
        Fault("foreign trajectories, 50 Hz", R, every=Rig.command, allowed=("held",)),
        Fault("no velocities", R, no_velocity, allowed=("unnoticed",), early=True),
        Fault("goal below the table", R, act=lambda r: r.goal(0.25, 0, -0.3), allowed=("unnoticed",)),
        Fault("goal 10 m away, arm", R, act=lambda r: r.goal(10, 0, 0.1), allowed=("unnoticed",)),
        Fault("policy killed, arm", R, act=Rig.kill_policy, allowed=("held",)),
        Fault("object 10^6 m away", P, object_at(1e6), **early),
        Fault("object in the camera's frame", P, framed("camera", "object_pose"), **early),
        Fault("object jumps 10^6 m away in motion", P, object_at(1e6), allowed=("held",)),
        Fault("object not finite in motion", P, poisoned, allowed=("held",)),
    ]  # fmt: skip


def make_bundle(robot: str, path: Path) -> Path:
    """A policy that needs no training."""
    if robot == "drone":
        return make_pd_bundle(path)
    from arm_bundles import make_controller_bundle

    return make_controller_bundle(path, f"so101_{robot}")


def judge(fault: Fault, seen: dict[str, Any]) -> bool:
    """Whether it ended as it should, as gently as it should."""
    gentle = seen.get("touch_m_s") is None or seen["touch_m_s"] <= fault.slow_m_s
    return seen["outcome"] in fault.allowed and gentle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("drone", "reach", "push"))
    parser.add_argument("--match", nargs="*", default=[""], help="Parts of names, in the order of running.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundles: dict[str, Path] = {}
        chosen = [fault for part in arguments.match for fault in faults() if part in fault.name]
        for fault in chosen:
            if arguments.only and fault.robot != arguments.only:
                continue
            if fault.robot not in bundles:
                bundles[fault.robot] = make_bundle(fault.robot, Path(folder) / fault.robot)
            rig = Rig(fault, bundles[fault.robot])
            try:
                seen = rig.run()
            finally:
                rig.close()
            row = {"fault": fault.name, "robot": fault.robot, **seen, "as_it_should": judge(fault, seen)}
            rows.append(row)
            print(("ok   " if row["as_it_should"] else "WRONG"), json.dumps(row), flush=True)
            if arguments.json:
                report = {
                    "date": datetime.date.today().isoformat(),
                    "commit": commit(),
                    "hardware": platform.machine(),
                    "faults": len(rows),
                    "as_they_should": sum(r["as_it_should"] for r in rows),
                    "rows": rows,
                }
                arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{sum(row['as_it_should'] for row in rows)} of {len(rows)} faults end as they should")


if __name__ == "__main__":
    main()
