"""Episodes over real ROS 2 topics, in real time: driver nodes and policy nodes as processes of their own.

Every airframe (an arm is the only one of its kind) has a namespace with one driver node (the target) and one policy
node a bundle, of which one is active at a time. This program only resets, arms, activates and keeps the score.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool, Trigger

from sim2real.config import validate_config
from sim2real.deploy.executor import make_executor
from sim2real.errors import Sim2RealError
from sim2real.evaluate.in_process import summarise
from sim2real.learn.build import robot_and_task
from sim2real.runtime.bundle import PolicyBundle
from sim2real.tasks.push import Push

# A server that has just been found may not have found its client yet, and its answer would be lost.
DISCOVERY_S = 1.0
GOAL_S = 0.2  # for a goal to arrive
START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 10.0
SAMPLE_HZ = 50.0

Cells = dict[str, dict[str, dict[str, dict[str, Any]]]]


def free_domain() -> int:
    """A ROS domain that other programs on this machine are unlikely to use (0 to 101 are safe on Linux)."""
    return 1 + os.getpid() % 100


class Namespace:
    """One airframe's clients and the flight being recorded.

    Args:
        node: The score keeper's node.
        airframe: Name of the airframe, also the namespace.
        policies: Names of the policy nodes.
    """

    def __init__(self, node: Node, airframe: str, policies: Sequence[str]) -> None:
        self.airframe = airframe
        prefix = f"/{airframe.lower()}"
        self.arm = node.create_client(SetBool, f"{prefix}/arm")
        self.reset = node.create_client(Trigger, f"{prefix}/reset")
        self.driver_parameters = node.create_client(SetParameters, f"{prefix}/driver/set_parameters")
        self.change_state = {p: node.create_client(ChangeState, f"{prefix}/{p}/change_state") for p in policies}
        self.track: list[tuple[float, float, float, float]] = []
        self.goal = np.zeros(3)
        self._begun_s: float | None = None
        self._goals = node.create_publisher(PoseStamped, f"{prefix}/goal", QoSProfile(depth=1))
        node.create_subscription(Odometry, f"{prefix}/ground_truth/odom", self._on_truth, QoSProfile(depth=50))

    def clients(self) -> list[Client]:
        """Every service that must be there before the first flight."""
        return [self.arm, self.reset, self.driver_parameters, *self.change_state.values()]

    def _on_truth(self, message: Odometry) -> None:
        stamp, p = message.header.stamp, message.pose.pose.position
        self.track.append((stamp.sec + 1e-9 * stamp.nanosec, p.x, p.y, p.z))

    def send_goal(self, goal: np.ndarray) -> None:
        """Tell the policy where to go, [3] m."""
        self.goal = goal
        message = PoseStamped()
        place = message.pose.position
        place.x, place.y, place.z = goal.tolist()
        self._goals.publish(message)

    def begin(self) -> None:
        """The episode begins now, whether or not what is tracked moves; an object waits to be pushed."""
        self._begun_s = self.track[-1][0]

    def launched_s(self) -> float | None:
        """Stamp of the begin; where none was told, of the last truth before the drone moved, or None until then."""
        if self._begun_s is not None:
            return self._begun_s
        for before, after in zip(self.track, self.track[1:], strict=False):
            if before[1:] != after[1:]:
                return before[0]
        return None

    def flown_s(self) -> float:
        """Time since the drone moved first."""
        launched = self.launched_s()
        return self.track[-1][0] - launched if launched is not None else 0.0

    def wait_at_start(self) -> None:
        """Forget the last episode."""
        self.track.clear()
        self._begun_s = None

    def distance(self, episode_s: float, width: int) -> np.ndarray:
        """Distance to the goal [T] m at ``SAMPLE_HZ`` over the episode, from the nearest truth before each time.

        Args:
            episode_s: Length of the episode.
            width: 3 for a distance in space, 2 for one on the table.
        """
        launched = self.launched_s()
        track = np.array(self.track)
        times = (launched if launched is not None else track[0, 0]) + np.arange(
            1, round(episode_s * SAMPLE_HZ) + 1
        ) / SAMPLE_HZ
        rows = np.clip(np.searchsorted(track[:, 0], times, side="right") - 1, 0, len(track) - 1)
        return np.linalg.norm((track[rows, 1:] - self.goal)[:, :width], axis=1)


class Fleet:
    """All processes and the node that directs them; use it as a context manager.

    Args:
        bundles: Bundle path by policy name.
        airframes: Airframes that fly at the same time.
        domain: ROS domain; one of this process by default.

    Raises:
        Sim2RealError: A process did not start or answer.
    """

    def __init__(self, bundles: Mapping[str, Path], airframes: Sequence[str], domain: int | None = None) -> None:
        loaded = PolicyBundle.load(next(iter(bundles.values())))
        config = validate_config(loaded.provenance["config"], "provenance.json")
        self.is_arm = bool(loaded.robot.ee)
        self.task: Any = robot_and_task(config)[1]
        self._pushes = isinstance(self.task, Push)
        self._log = tempfile.NamedTemporaryFile(prefix="sim2real-nodes-", suffix=".log", delete=False)
        self._processes: list[subprocess.Popen[bytes]] = []
        domain = free_domain() if domain is None else domain
        self._environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "OMP_NUM_THREADS": "1",
        }
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        for airframe in airframes:
            driver = {"airframe": airframe}
            if self.is_arm:
                driver = {"driver": f"{airframe}_twin", "puck": str(self._pushes).lower()}
            self._start("sim2real.deploy.driver_node", airframe, driver)
            for policy, bundle in bundles.items():
                self._start(
                    "sim2real.deploy.policy_node",
                    airframe,
                    {"bundle": str(bundle.resolve())},
                    name=policy,
                )
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = Node("score_keeper", context=self._context)
        self._executor = make_executor(self._context)
        self._executor.add_node(self.node)
        self.namespaces = [Namespace(self.node, airframe, list(bundles)) for airframe in airframes]
        self._configured = ""

    def _start(self, module: str, airframe: str, parameters: Mapping[str, str], name: str = "") -> None:
        command = [sys.executable, "-m", module, "--ros-args", "-r", f"__ns:=/{airframe.lower()}"]
        if name:
            command += ["-r", f"__node:={name}"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={value}"]
        self._processes.append(
            subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT)
        )

    def __enter__(self) -> Fleet:
        """Wait until every node answers."""
        try:
            clients = [client for space in self.namespaces for client in space.clients()]
            self._wait(lambda: all(client.service_is_ready() for client in clients), START_TIMEOUT_S, "start")
            self.spin(DISCOVERY_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Stop every process."""
        self.close()

    def close(self) -> None:
        """Stop every process; calling it twice is harmless."""
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []
        if self._context.ok():
            self._executor.shutdown()
            self.node.destroy_node()
            rclpy.shutdown(context=self._context)
        self._log.close()

    def _wait(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            dead = [p for p in self._processes if p.poll() is not None]
            if dead or time.monotonic() > deadline:
                reason = (
                    f"{dead[0].args!r} ended with {dead[0].returncode}" if dead else f"no answer in {timeout_s:.0f} s"
                )
                raise Sim2RealError(f"the ROS 2 nodes did not {what}: {reason}; their log is {self._log.name}")
            self._executor.spin_once(timeout_sec=0.02)

    def _call(self, calls: Sequence[tuple[Client, Any]], what: str) -> None:
        futures = [client.call_async(request) for client, request in calls]
        self._wait(lambda: all(future.done() for future in futures), CALL_TIMEOUT_S, what)
        for future in futures:
            result = future.result()
            if not getattr(result, "success", True):
                reason = getattr(result, "message", "refused")
                raise Sim2RealError(f"a node refused to {what}: {reason}; the nodes' log is {self._log.name}")

    def _transition(self, spaces: Sequence[Namespace], policy: str, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        self._call([(space.change_state[policy], request) for space in spaces], f"make transition {transition}")

    def _activate(self, policy: str) -> None:
        """Activate; a node that was configured just now refuses until its first state has arrived."""
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
        waiting = self.namespaces
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while waiting:
            futures = [(space, space.change_state[policy].call_async(request)) for space in waiting]
            left = deadline - time.monotonic()
            self._wait(lambda called=futures: all(f.done() for _, f in called), left, "activate")  # type: ignore[misc]
            waiting = [space for space, future in futures if not future.result().success]
            self.spin(0.1 if waiting else 0.0)

    def launch(self, policy: str, condition: str, seed: int) -> None:
        """Put every airframe at the start of ``seed`` under ``condition``, and let ``policy`` fly it from there."""
        self._configure(policy)
        settings = SetParameters.Request(parameters=[_parameter("condition", condition), _parameter("seed", seed)])
        self._call([(space.driver_parameters, settings) for space in self.namespaces], "take a condition")
        self._call([(space.reset, Trigger.Request()) for space in self.namespaces], "reset")
        for space in self.namespaces:
            space.wait_at_start()
        self._wait(lambda: all(len(space.track) > 20 for space in self.namespaces), CALL_TIMEOUT_S, "report a state")
        for space in self.namespaces:
            space.send_goal(self._goal(space, seed))
        self.spin(GOAL_S)
        self._call([(space.arm, SetBool.Request(data=True)) for space in self.namespaces], "arm")
        self._activate(policy)
        if self.is_arm:
            for space in self.namespaces:
                space.begin()

    def _goal(self, space: Namespace, seed: int) -> np.ndarray:
        """The task's goal for the robot at its start."""
        rng = np.random.default_rng([seed, 2])
        if not self._pushes:
            return np.asarray(self.task.goals(rng, 1)[0])
        state = self.task.start(rng, 1)
        state.object_pos[0] = space.track[-1][1:]
        return np.asarray(self.task.goals(rng, 1, state)[0])

    def _configure(self, policy: str) -> None:
        """Configure the policy that flies next and no other: each that listens costs processor time."""
        if self._configured == policy:
            return
        if self._configured:
            self._transition(self.namespaces, self._configured, Transition.TRANSITION_CLEANUP)
        self._transition(self.namespaces, policy, Transition.TRANSITION_CONFIGURE)
        self._configured = policy

    def recall(self, policy: str) -> None:
        """End the flight."""
        self._transition(self.namespaces, policy, Transition.TRANSITION_DEACTIVATE)
        self._call([(space.arm, SetBool.Request(data=False)) for space in self.namespaces], "disarm")

    def spin(self, seconds: float) -> None:
        """Let time pass."""
        deadline = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() > deadline, seconds + CALL_TIMEOUT_S, "stay alive")

    def fly(self, policy: str, condition: str, seed: int) -> dict[str, np.ndarray]:
        """One episode of every airframe at the same time.

        Returns:
            Distance to the goal [T] m over the episode, by airframe.
        """
        self.launch(policy, condition, seed)
        length = self.task.episode_s + 0.1
        self._wait(lambda: all(space.flown_s() > length for space in self.namespaces), length + CALL_TIMEOUT_S, "fly")
        self.recall(policy)
        return {
            space.airframe: space.distance(self.task.episode_s, 2 if self._pushes else 3) for space in self.namespaces
        }


def _parameter(name: str, value: str | int) -> Parameter:
    if isinstance(value, int):
        return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value))
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))


def fly_fleet(
    bundles: Mapping[str, Path],
    airframes: Sequence[str],
    conditions: Sequence[str],
    episodes: int,
    seed: int,
    on_episode: Callable[[int, int], None],
) -> Cells:
    """Fly every policy under every condition on all airframes.

    Args:
        bundles: Bundle path by policy name.
        airframes: Fly at the same time.
        conditions: One after another.
        episodes: A cell.
        seed: Of starts and noise; the same for every policy.
        on_episode: Called with episodes done and in all.

    Returns:
        Policy → airframe → condition → ``{"success", "ci95", "n", "final_error_m", "crashes"}``.
    """
    cells: Cells = {policy: {airframe: {} for airframe in airframes} for policy in bundles}
    total, done = len(bundles) * len(conditions) * episodes, 0
    with Fleet(bundles, airframes) as fleet:
        for condition in conditions:
            for policy in bundles:
                flights: dict[str, list[np.ndarray]] = {airframe: [] for airframe in airframes}
                for episode in range(episodes):
                    for airframe, distance in fleet.fly(policy, condition, seed + episode).items():
                        flights[airframe].append(distance)
                    done += 1
                    on_episode(done, total)
                for airframe, distances in flights.items():
                    cells[policy][airframe][condition] = _score(np.stack(distances, axis=1), fleet)
    return cells


def _score(distance: np.ndarray, fleet: Fleet) -> dict[str, Any]:
    task = fleet.task
    # A crashed drone stays where it fell, far from the goal; the twin says so by not moving any more.
    crashed = (distance[-1] > 0.5) & (np.ptp(distance[-10:], axis=0) < 1e-9) & (not fleet.is_arm)
    tolerance = task.settings.tolerance_m if fleet.is_arm else task.tolerance_m
    return summarise(distance, crashed, SAMPLE_HZ, tolerance, task.hold_s).summary()
