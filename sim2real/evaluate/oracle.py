"""The oracle: a policy trained on the target itself, which reads its true state and which cell it is in.

It says how well the target can be done at all. The distance between it and a policy without any method is the reality
gap; nothing of it can be deployed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from sim2real.config import PPOConfig
from sim2real.errors import Sim2RealError
from sim2real.evaluate.episodes import CellResult, score
from sim2real.learn.experiment import Experiment
from sim2real.learn.ppo import Trainer, seed_of
from sim2real.learn.rsl_rl import make_network
from sim2real.targets.base import target_for
from sim2real.targets.env import TargetEnv
from sim2real.tasks.env import TaskEnv
from sim2real.types import Float32, Progress

GROUPS = ("observation", "parameters")


class OracleEnv(TargetEnv):
    """All cells of a target side by side, judged by the truth.

    Args:
        experiment: Its robot and task.
        seed: Of starts and noise.
        per_cell: Robots in each cell.
        target: As ``target_for`` takes it.
    """

    def __init__(self, experiment: Experiment, seed: int, per_cell: int, target: str = "") -> None:
        judge = target_for(experiment.robot, experiment.task, target)
        cells = [(variant, condition) for variant in judge.variants for condition in judge.conditions()]
        super().__init__(experiment.task, judge, experiment.spec(), cells, per_cell, seed)
        self._behind = self.cheat()

    def parameters(self) -> Float32:
        """The cell of each robot, and the true signals with the error near the goal enlarged [N, d]."""
        cell = np.repeat(np.eye(len(self.cells)), self.per_cell, axis=0)
        signals = self._behind.signals()
        near = np.clip(signals[self.task.error_signal] / self.task.near_m, -3.0, 3.0)
        return np.concatenate((cell, *signals.values(), near), axis=1).astype(np.float32)

    def privileged_observation(self) -> Float32:
        """Time left, for the critic; all else is told to the policy, and so to the critic [N, 1]."""
        return (1.0 - self.steps / self.episode_steps)[:, None].astype(np.float32)


@dataclass(frozen=True)
class OracleEnvOf:
    """Makes the oracle's environments; picklable, for the rollout processes."""

    experiment: Experiment
    per_cell: int
    target: str = ""

    def __call__(self, seed: int) -> TaskEnv:
        """Start an environment; it has a task environment's surface."""
        return cast(TaskEnv, OracleEnv(self.experiment, seed, self.per_cell, self.target))


@dataclass(frozen=True)
class Oracle:
    """A trained oracle.

    Attributes:
        make_env: Made the environments of its training.
        trainer: Has the policy and its history.
    """

    make_env: OracleEnvOf
    trainer: Trainer

    def try_out(self, episodes: int, seed: int) -> dict[tuple[str, str], CellResult]:
        """Run the policy without exploration: results by variant and condition."""
        policy = make_network(self.trainer.actor, self.trainer.config).eval()
        env = OracleEnv(self.make_env.experiment, seed, episodes, self.make_env.target)
        shape = (env.episode_steps, env.count)
        distance, near, failed = np.empty(shape), np.empty(shape, dtype=np.bool_), np.zeros(env.count, dtype=np.bool_)
        with torch.inference_mode():
            for step in range(env.episode_steps):
                inputs = (torch.from_numpy(env.observation()), torch.from_numpy(env.parameters()))
                _, terminated, _ = env.step(policy(*inputs).numpy())
                distance[step], near[step] = env.distance, env.within
                failed |= terminated
        env.close()
        rate = env.spec.control_rate_hz
        return {
            cell: score(distance[:, r], near[:, r], failed[r], failed[r], env.task, rate)
            for cell, r in ((cell, env.rows(i)) for i, cell in enumerate(env.cells))
        }


def train_oracle(
    experiment: Experiment, config: PPOConfig, folder: Path, seed: int, robots: int, on_progress: Progress
) -> Oracle:
    """Train an oracle, going on from a checkpoint in ``folder``.

    Args:
        experiment: Robot and task, and the number of worker processes.
        config: PPO's settings.
        folder: Checkpoint and events go here.
        seed: Of the training.
        robots: About so many in each worker, spread over the target's cells.
        on_progress: Told what goes on.

    Raises:
        Sim2RealError: It was stopped; the same call goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judge = target_for(experiment.robot, experiment.task)
    cells = len(judge.variants) * len(judge.conditions())
    make_env = OracleEnvOf(experiment, max(1, robots // cells))
    trainer = Trainer(make_env, config, folder, experiment.config.sim.workers, seed_of(seed, "oracle"), GROUPS)
    trainer.load()
    if not trainer.train(lambda i, metrics: on_progress("oracle", i, config.iterations, metrics)):
        raise Sim2RealError(f"training 'oracle' was stopped; its checkpoint is in {folder}, run the same again")
    return Oracle(make_env, trainer)
