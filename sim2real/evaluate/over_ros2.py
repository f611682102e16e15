"""Episodes over real ROS 2 topics: driver nodes and policy nodes as processes of their own.

Every variant of the target has a namespace with one driver node (the target) and one policy node a bundle, of which
one is active at a time. This program only resets, arms, activates and keeps the score. Time is simulated and waits for
every node (:mod:`sim2real.deploy.lockstep`), unless real time is asked for.
"""

from __future__ import annotations

import json
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
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from sim2real.deploy.executor import make_executor
from sim2real.errors import Sim2RealError
from sim2real.evaluate.episodes import score
from sim2real.evaluate.namespace import Namespace, namespace_of
from sim2real.learn.experiment import bundle_experiment
from sim2real.runtime.bundle import PolicyBundle
from sim2real.targets.base import begin, target_for
from sim2real.types import Array, Bools

# A server that has just been found may not have found its client yet, and its answer would be lost.
DISCOVERY_S = 1.0
GOAL_S = 0.2  # for a goal to arrive
START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 30.0  # wall time in which simulated time must go on
MOST_LATE = 0.01  # fraction of cycles; with more, a success rate in real time says more about the computer

Cells = dict[str, dict[str, dict[str, dict[str, Any]]]]
# Distance to the goal [T] m, within tolerance [T], failed, crashed.
Outcome = tuple[Array, Bools, bool, bool]


def free_domain() -> int:
    """A ROS domain that other programs on this machine are unlikely to use (0 to 101 are safe on Linux)."""
    return 1 + os.getpid() % 100


class Fleet:
    """All processes and the node that directs them; use it as a context manager.

    Args:
        bundles: Bundle path by policy name; all for the same robot and task.
        variants: Variants of the target that run at the same time.
        domain: ROS domain; one of this process by default.
        real_time: Run on the wall clock, in place of lockstep in simulated time.
        seconds: Length of the episodes; the task's by default.

    Raises:
        Sim2RealError: A process did not start or answer.
    """

    def __init__(
        self,
        bundles: Mapping[str, Path],
        variants: Sequence[str],
        domain: int | None = None,
        real_time: bool = False,
        seconds: float | None = None,
    ) -> None:
        loaded = PolicyBundle.load(next(iter(bundles.values())))
        case = bundle_experiment(loaded)
        self.episode_s = case.task.episode_s if seconds is None else seconds
        self.task, self.real_time, self.rate_hz = case.task, real_time, loaded.spec.control_rate_hz
        self._target = target_for(case.robot, case.task)
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
        driver, clock = self._driver_parameters(loaded), {} if real_time else {"use_sim_time": "true"}
        for variant in variants:
            self._start("sim2real.deploy.driver_node", variant, {**driver, "variant": variant})
            for policy, bundle in bundles.items():
                self._start(
                    "sim2real.deploy.policy_node", variant, {"bundle": str(bundle.resolve()), **clock}, name=policy
                )
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = Node("score_keeper", context=self._context)
        self._executor = make_executor(self._context)
        self._executor.add_node(self.node)
        self.namespaces = [Namespace(self.node, variant, list(bundles), case) for variant in variants]
        self._configured = ""

    def _driver_parameters(self, bundle: PolicyBundle) -> dict[str, str]:
        """The same robot and task as the bundle's, and lockstep at its control rate."""
        config = bundle.provenance["config"]
        settings = {key: value for key, value in config["task"].items() if key != "name"}
        parameters = {"robot": config["robot"], "task": config["task"]["name"]}
        if settings:  # quoted twice: ROS 2 reads a parameter as YAML, and this one is a string
            parameters["task_settings"] = json.dumps(json.dumps(settings))
        if not self.real_time:
            parameters |= {"lockstep": "true", "rate_hz": str(float(self.rate_hz))}
        return parameters

    def _start(self, module: str, variant: str, parameters: Mapping[str, str], name: str = "") -> None:
        space = namespace_of(variant)
        command = [sys.executable, "-m", module, "--ros-args", "-r", f"__ns:={space}", "-r", f"/clock:={space}/clock"]
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

    def _wait(
        self, done: Callable[[], bool], timeout_s: float, what: str, progress: Callable[[], object] = lambda: None
    ) -> None:
        """Spin until ``done``; at most ``timeout_s`` may pass without a change of ``progress``."""
        seen, deadline = progress(), time.monotonic() + timeout_s
        while not done():
            dead = [p for p in self._processes if p.poll() is not None]
            if progress() != seen:
                seen, deadline = progress(), time.monotonic() + timeout_s
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
        """Put every variant at the start of ``seed`` under ``condition``, and let ``policy`` run from there."""
        self._configure(policy)
        settings = SetParameters.Request(parameters=[_parameter("condition", condition), _parameter("seed", seed)])
        self._call([(space.driver_parameters, settings) for space in self.namespaces], "take a condition")
        self._call([(space.reset, Trigger.Request()) for space in self.namespaces], "reset")
        for space in self.namespaces:
            space.wait_at_start()
        self._wait(lambda: all(len(space.track) > 2 for space in self.namespaces), CALL_TIMEOUT_S, "report a state")
        goal = begin(self.task, self._target, 1, seed)[1]
        for space in self.namespaces:
            space.send_goal(goal)
        self.spin(GOAL_S)
        self._call([(space.arm, SetBool.Request(data=True)) for space in self.namespaces], "arm")
        if not self.real_time:  # time stands still once they are armed
            self._wait(lambda: all(space.repeated for space in self.namespaces), CALL_TIMEOUT_S, "stop the clock")
            for space in self.namespaces:
                space.begin()
        self._activate(policy)
        if self.real_time and self.namespaces[0].stays:  # an object waits to be pushed; a drone moves at once
            for space in self.namespaces:
                space.begin()

    def _configure(self, policy: str) -> None:
        """Configure the policy that runs next and no other: each that listens costs processor time."""
        if self._configured == policy:
            return
        if self._configured:
            self._transition(self.namespaces, self._configured, Transition.TRANSITION_CLEANUP)
        self._transition(self.namespaces, policy, Transition.TRANSITION_CONFIGURE)
        self._configured = policy

    def recall(self, policy: str) -> None:
        """End the episode."""
        for space in self.namespaces:
            space.late.end(policy)
        self._transition(self.namespaces, policy, Transition.TRANSITION_DEACTIVATE)
        self._call([(space.arm, SetBool.Request(data=False)) for space in self.namespaces], "disarm")

    def spin(self, seconds: float) -> None:
        """Let time pass."""
        deadline = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() > deadline, seconds + CALL_TIMEOUT_S, "stay alive")

    def run(self, policy: str, condition: str, seed: int) -> dict[str, Outcome]:
        """One episode of every variant at the same time.

        Returns:
            By variant: distance to the goal [T] m at every control step, whether it was within tolerance then [T],
            whether it failed, whether it crashed.

        Raises:
            Sim2RealError: Time does not go on, or a state of the episode was lost.
        """
        self.launch(policy, condition, seed)
        length = self.episode_s + (0.1 if self.real_time else 0.0)
        self._wait(
            lambda: all(space.run_s() > length - 1e-6 for space in self.namespaces),
            STALL_TIMEOUT_S,
            "run an episode",
            lambda: [space.run_s() for space in self.namespaces],
        )
        self.recall(policy)
        steps = round(self.episode_s * self.rate_hz)
        result = {}
        for space in self.namespaces:
            distance, near, failed = space.outcome(steps, 1.0 / self.rate_hz, exact=not self.real_time)
            result[space.variant] = (distance, near, failed or space.crashed, space.crashed)
        return result

    def late(self) -> tuple[float, float]:
        """Fraction of the policy nodes' and of the driver nodes' cycles that were late, over all episodes so far."""
        late = [space.late for space in self.namespaces]
        policies, drivers = (
            sum(getattr(one, who)[0] for one in late) / max(sum(getattr(one, who)[1] for one in late), 1)
            for who in ("policy", "driver")
        )
        return policies, drivers


def _parameter(name: str, value: str | int) -> Parameter:
    if isinstance(value, int):
        return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value))
    return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))


def run_fleet(
    bundles: Mapping[str, Path],
    variants: Sequence[str],
    conditions: Sequence[str],
    episodes: int,
    seed: int,
    on_episode: Callable[[int, int], None],
    real_time: bool = False,
    seconds: float | None = None,
) -> Cells:
    """Run every policy under every condition on all variants.

    Args:
        bundles: Bundle path by policy name.
        variants: Run at the same time.
        conditions: One after another.
        episodes: A cell.
        seed: Of starts and noise, the same for every policy; every episode has the next one.
        on_episode: Called with episodes done and in all.
        real_time: Run on the wall clock, in place of lockstep in simulated time.
        seconds: Length of the episodes; the task's by default.

    Returns:
        Policy → variant → condition → summary of a cell, in real time with
        ``late_policy`` and ``late_target``, fractions of all cycles.

    Raises:
        Sim2RealError: A node did not start or answer; or, in real time, too many cycles were late.
    """
    cells: Cells = {policy: {variant: {} for variant in variants} for policy in bundles}
    total, done = len(bundles) * len(conditions) * episodes, 0
    with Fleet(bundles, variants, real_time=real_time, seconds=seconds) as fleet:
        for condition in conditions:
            for policy in bundles:
                outcomes: dict[str, list[Outcome]] = {variant: [] for variant in variants}
                for episode in range(episodes):
                    for variant, outcome in fleet.run(policy, condition, seed + episode).items():
                        outcomes[variant].append(outcome)
                    done += 1
                    on_episode(done, total)
                lateness = _on_time(*fleet.late()) if real_time else {}
                for variant, each in outcomes.items():
                    distance, near = (np.stack([outcome[i] for outcome in each], axis=1) for i in (0, 1))
                    failed, crashed = (np.array([outcome[i] for outcome in each]) for i in (2, 3))
                    cell = score(distance, near, failed, crashed, fleet.task, fleet.rate_hz)
                    cells[policy][variant][condition] = cell.summary() | lateness
    return cells


def _on_time(policy: float, target: float) -> dict[str, float]:
    if max(policy, target) > MOST_LATE:
        raise Sim2RealError(
            f"late cycles: {policy:.1%} of the policy nodes', {target:.1%} of the targets'; with more than "
            f"{MOST_LATE:.0%} a success rate in real time is the computer's and not the policy's: stop other programs, "
            "run fewer variants at once, or leave real time out"
        )
    return {"late_policy": policy, "late_target": target}
