"""One episode to look at: a policy or an expert, in the training simulator or on a target, in a window or as a video.

What plays is drawn in a world of its own, whatever its dynamics: a target of any kind looks like its robot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sim2real.config import load_config
from sim2real.errors import ConfigError
from sim2real.evaluate.episodes import Runner, command_order
from sim2real.evaluate.report import encode_gif
from sim2real.files import must_be_writable
from sim2real.learn.experiment import Experiment, bundle_experiment, load_experiment
from sim2real.runtime.bundle import PolicyBundle
from sim2real.sim.simulation import Simulation
from sim2real.targets.base import begin, target_for
from sim2real.tasks.env import TaskEnv
from sim2real.tasks.expert import expert_runner
from sim2real.tasks.success import Holding, within
from sim2real.tasks.view import mark_goal, snapshot
from sim2real.types import Array, Image, State

VIDEO_HZ = 15.0
SIZE = (480, 360)
VIDEOS = (".mp4", ".gif")


@dataclass(frozen=True)
class Stage:
    """An episode to show.

    Attributes:
        experiment: Robot and task.
        make_runner: Number of robots to a runner.
        seed: Of start, physics and noise.
        where: Variant and condition of the target; None plays in the training simulator.
    """

    experiment: Experiment
    make_runner: Callable[[int], Runner]
    seed: int
    where: tuple[str, str] | None = None

    @classmethod
    def of(cls, what: str, expert: bool, seed: int) -> Stage:
        """Find what plays: a run's folder, a bundle, or with ``expert`` any configuration.

        Raises:
            ConfigError: There is none of these.
        """
        folder = next((f for f in (Path(what), Path(what) / "bundle") if (f / "manifest.json").is_file()), None)
        if expert:
            config = Path(what) / "config.yaml"
            experiment = load_experiment(load_config(str(config) if config.is_file() else what))
            spec, task = experiment.spec(), experiment.task
            expert_runner(spec, task)  # says at once where a task has no expert
            return cls(experiment, lambda count: expert_runner(spec, task, count), seed)
        if folder is None:
            raise ConfigError(
                f"{what} is no finished run and no bundle; train first, or add --expert to see the task's expert"
            )
        bundle = PolicyBundle.load(folder)
        return cls(bundle_experiment(bundle), bundle.runner, seed)

    def on_target(self, variant: str = "", condition: str = "") -> Stage:
        """The same on the simulated target; its first variant and condition by default.

        Raises:
            ConfigError: There is no target for the robot, or it has no such variant or condition.
        """
        target = target_for(self.experiment.robot, self.experiment.task)
        for name, known, kind in ((variant, target.variants, "variant"), (condition, target.conditions(), "condition")):
            if name and name not in known:
                raise ConfigError(f"target '{target.name}' has no {kind} '{name}'; it has {', '.join(known)}")
        return replace(self, where=(variant or target.variants[0], condition or target.conditions()[0]))

    def states(self, holding: Holding) -> Iterator[tuple[State, Array]]:
        """True state and goal of one robot at every control step of an episode; ``holding`` is told how it goes."""
        return self._in_simulator(holding) if self.where is None else self._on_target(holding, *self.where)

    def _in_simulator(self, holding: Holding) -> Iterator[tuple[State, Array]]:
        env, runner = self.experiment.make_env(self.seed, 1, restart=False), self.make_runner(1)
        task, sim = env.task, env.sim
        for _ in range(env.episode_steps):
            yield sim.state, env.goal
            sim.step(runner.step(task.signals.measure(sim.measured(), env.goal)))
            holding.update(within(task, sim.state, env.goal), task.failed(sim.state, env.goal))
        sim.close()

    def _on_target(self, holding: Holding, variant: str, condition: str) -> Iterator[tuple[State, Array]]:
        task, runner = self.experiment.task, self.make_runner(1)
        target = target_for(self.experiment.robot, task)
        order, dt = command_order(runner.spec, target), runner.spec.control_dt
        start, goal = begin(task, target, 1, self.seed)
        sim = target.make(variant, condition, 1, self.seed)
        sim.reset(start)
        for _ in range(round(task.episode_s / dt)):
            yield sim.truth(), goal
            sim.command(runner.step(task.signals.measure(sim.measured(), goal))[:, order])
            sim.advance(dt)
            truth = sim.truth()
            holding.update(within(task, truth, goal), task.failed(truth, goal) | sim.failed)
        sim.close()

    def holding(self) -> Holding:
        """Make the judge of the episode."""
        return Holding(1, round(self.experiment.task.hold_s * self.experiment.robot.spec.control_rate_hz))


class Puppet:
    """One robot with its scene that only shows states; nothing moves it.

    Args:
        experiment: Which robot and scene.
        goal: Drawn as a cross [1, G].
        window: Open PyBullet's window.
    """

    def __init__(self, experiment: Experiment, goal: Array, window: bool = False) -> None:
        task = experiment.task
        sim = Simulation(experiment.robot, 1, {}, scene=task.scene, window=window)
        self._env = TaskEnv(sim, task, experiment.spec(), restart=False)
        self._env.goal[:] = goal
        mark_goal(self._env)

    def show(self, state: State) -> None:
        """Put the robot and its scene into ``state``."""
        env = self._env
        still = {name: np.zeros_like(v) if name.endswith("_vel") else v for name, v in state.items()}
        env.sim.reset(np.arange(1), still, env.task.start_command(still), env.sim.params.nominal[None])

    def picture(self) -> Image:
        """Picture of it."""
        return snapshot(self._env, *SIZE)

    def close(self) -> None:
        """Release the physics client."""
        self._env.sim.close()


def write_video(stage: Stage, path: Path) -> str:
    """Write one episode as a video; says whether it succeeded.

    Raises:
        ConfigError: Neither ``.mp4`` nor ``.gif``, or the place cannot be written.
    """
    if path.suffix.lower() not in VIDEOS:
        raise ConfigError(f"{path}: videos are {' or '.join(VIDEOS)}")
    must_be_writable(path)
    frames, dt, holding = [], stage.experiment.spec().control_dt, stage.holding()
    puppet: Puppet | None = None
    for step, (state, goal) in enumerate(stage.states(holding)):
        if step and int(step * dt * VIDEO_HZ) == int((step - 1) * dt * VIDEO_HZ):
            continue
        puppet = puppet or Puppet(stage.experiment, goal)
        puppet.show(state)
        frames.append(puppet.picture())
    if puppet is not None:
        puppet.close()
    _encode(frames, path)
    return "success" if bool(holding.success[0]) else "no success"


def show(stage: Stage) -> None:
    """Play one episode in PyBullet's window, in real time.

    Raises:
        SimulationError: There is no display.
    """
    puppet: Puppet | None = None
    dt, began = stage.experiment.spec().control_dt, time.monotonic()
    for step, (state, goal) in enumerate(stage.states(stage.holding())):
        puppet = puppet or Puppet(stage.experiment, goal, window=True)
        puppet.show(state)
        time.sleep(max(0.0, began + step * dt - time.monotonic()))
    if puppet is not None:
        puppet.close()


def _encode(frames: list[Image], path: Path) -> None:
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    if path.suffix.lower() == ".gif":
        temporary.write_bytes(encode_gif(frames, 1.0 / VIDEO_HZ))
    else:
        import cv2  # noqa: PLC0415 - only for this format

        height, width = frames[0].shape[:2]
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), VIDEO_HZ, (width, height))
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
    temporary.replace(path)
