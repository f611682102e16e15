"""A policy on the SO-101 target in process: many arms side by side, repeatable, no ROS 2."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim2real.config import ExperimentConfig
from sim2real.errors import SpecError
from sim2real.evaluate.in_process import CellResult, summarise
from sim2real.learn.build import robot_and_task
from sim2real.runtime.perception import Locator
from sim2real.runtime.policy import PolicyRunner
from sim2real.sim.arm_on_table import ArmOnTable, TableState
from sim2real.sim.arm_sim import ArmState
from sim2real.targets.so101 import CONDITIONS, PUCK_CONDITIONS, ArmTarget
from sim2real.targets.so101_arm import JOINTS
from sim2real.targets.so101_camera import So101Camera
from sim2real.types import Array

AIRFRAME = "so101"
UNSURE_M = 0.03  # a sighting less certain than that is none: the last one stays
_CLEAR_M = 0.05  # around start, goal and the way between


class Eyes:
    """A camera before every arm, and the network that looks at its images.

    Args:
        locator: The network.
        condition: Of the target; its puck's size.
        seed: Of what every episode looks like.
        start: Of the objects [N, 3] m; nothing else stands there,
        goal: nor there [N, 3] m, nor between.

    Raises:
        DriverError: MuJoCo cannot draw here.
    """

    def __init__(self, locator: Locator, condition: str, seed: int, start: Array, goal: Array) -> None:
        camera = locator.spec.camera()
        assert camera.T_base_camera is not None
        puck = PUCK_CONDITIONS[condition].puck
        self._camera = So101Camera(camera.width, camera.height, camera.matrix, camera.T_base_camera, puck, seed)
        self._locator, self._seed = locator, seed
        self._clear = [
            np.array([[*(a + share * (b - a)), _CLEAR_M] for share in (0.0, 0.33, 0.67, 1.0)])
            for a, b in zip(start[:, :2], goal[:, :2], strict=True)
        ]
        self._frames = [0] * len(start)

    def of(self, episode: int) -> Callable[[Array, Array], Array | None]:
        """What sees one episode's object: joint positions [6] rad and its true centre [3] m to where it seems."""

        def see(joint_pos: Array, puck_pos: Array) -> Array | None:
            self._frames[episode] += 1
            self._camera.look((self._seed, 7, episode), self._frames[episode])
            self._camera.clear(self._clear[episode])
            sighting = self._locator.locate(self._camera.photograph(joint_pos, puck_pos).rgb)
            return sighting.position if sighting.uncertainty_m <= UNSURE_M else None

        return see

    def close(self) -> None:
        """Free the camera; harmless when closed."""
        self._camera.close()


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
    locator: Locator | None = None,
) -> CellResult:
    """Run a policy's task on the target, all episodes side by side.

    Args:
        make_runner: Number of robots to a runner.
        config: What the policy was trained on; its task with its settings.
        condition: One of :func:`conditions`.
        episodes: Number of episodes.
        seed: Of starts, goals and noise: the same for every policy.
        record: Keep the distances over time.
        locator: Where it is given, the object is where this finds it in the target's images.

    Raises:
        SpecError: The policy is for another robot, or its task has no object to find.
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
    if locator is not None and not pushing:
        raise SpecError(f"task '{task.name}' has no object to find; leave --perception out")
    eyes = Eyes(locator, condition, seed, start.object_pos, goal) if locator is not None else None
    targets = [ArmTarget(condition, seed + 1000 * i, pushing, eyes.of(i) if eyes else None) for i in range(episodes)]
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
    if eyes is not None:
        eyes.close()
    never = np.zeros(episodes, dtype=np.bool_)
    tolerance = task.settings.tolerance_m  # type: ignore[attr-defined]
    return summarise(distance, never, 1.0 / dt, tolerance, task.hold_s, record)
