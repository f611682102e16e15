"""A policy on the SO-101 target in process: many arms side by side, repeatable, no ROS 2."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from robot_drivers.so101_arm import JOINTS
from robot_drivers.so101_target import CONDITIONS, PUCK_CONDITIONS, ArmTarget
from sim2real.config import ExperimentConfig
from sim2real.errors import SpecError
from sim2real.evaluate.in_process import CellResult, summarise
from sim2real.learn.build import robot_and_task
from sim2real.policy import PolicyRunner
from sim2real.sim.arm_on_table import ArmOnTable, TableState
from sim2real.sim.arm_sim import ArmState

Array = NDArray[np.float64]
AIRFRAME = "so101"


def conditions(task: str) -> tuple[str, ...]:
    """Conditions of the target for a task."""
    return tuple(PUCK_CONDITIONS if task == "push" else CONDITIONS)


def work(
    make_runner: Callable[[int], PolicyRunner],
    config: ExperimentConfig,
    condition: str,
    episodes: int,
    seed: int,
    record: bool = False,
) -> CellResult:
    """Run a policy's task on the target, all episodes side by side.

    Args:
        make_runner: Number of robots to a runner.
        config: What the policy was trained on; its task with its settings.
        condition: One of :func:`conditions`.
        episodes: Number of episodes.
        seed: Of starts, goals and noise: the same for every policy.
        record: Keep the distances over time.

    Raises:
        SpecError: The policy is for another robot.
        DriverError: Unknown condition.
    """
    runner = make_runner(episodes)
    if tuple(term.name for term in runner.spec.action) != JOINTS:
        raise SpecError(f"the SO-101 target takes {list(JOINTS)}, this policy commands another robot's joints")
    model, task = robot_and_task(config)
    pushing = isinstance(model, ArmOnTable)
    rng = np.random.default_rng([seed, 1])
    start = task.start(rng, episodes)
    goal = task.goals(rng, episodes, start)
    targets = [ArmTarget(condition, seed + 1000 * i, pushing) for i in range(episodes)]
    for row, target in enumerate(targets):
        target.reset(start.joint_pos[row], start.object_pos[row, :2] if pushing else None)
    runner.reset()
    dt = runner.spec.control_dt
    distance = np.empty((round(task.episode_s / dt), episodes))
    for step in range(len(distance)):
        position, velocity, seen = (np.array(part) for part in zip(*(t.estimate() for t in targets), strict=True))
        state: ArmState = ArmState(position, velocity, position[:, :3])
        if pushing:
            state = TableState(position, velocity, position[:, :3], seen, np.zeros_like(seen))
        for target, command in zip(targets, runner.step(model.measure(state, goal)), strict=True):
            target.command(command)
            target.advance(dt)
        true = np.array([target.puck_pos if pushing else target.arm.ee_pos for target in targets])
        width = 2 if pushing else 3
        distance[step] = np.linalg.norm((true - goal)[:, :width], axis=1)
    never = np.zeros(episodes, dtype=np.bool_)
    tolerance = task.settings.tolerance_m  # type: ignore[attr-defined]
    return summarise(distance, never, 1.0 / dt, tolerance, task.hold_s, record)
