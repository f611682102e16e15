"""Online system identification, UP-OSI (Yu et al., Preparing for the Unknown, RSS 2017).

The universal policy π(a | o, μ) was trained with the true physical parameters μ. Here φ(history) → μ
is trained on the states that π itself visits while it flies on φ's own estimates, in rounds
(DAgger, Ross et al. 2011): a φ trained only on flights with true parameters never sees the
consequences of its own errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rsl_rl.modules import MLP, EmpiricalNormalization
from torch import nn

from sim2real.config import OSIConfig
from sim2real.runtime.observation import EstimateFilter
from sim2real.tasks.env import TaskEnv
from sim2real.types import Float32


class Estimator(nn.Module):
    """φ: history [N, E] → mean and standard deviation [N, P] of the normalised parameters.

    Args:
        size: Length E of the input.
        parameters: Number of parameters P.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, size: int, parameters: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.normalizer = EmpiricalNormalization(size)
        self.mean_mlp = MLP(size, parameters, hidden, "elu")
        self.std_mlp = MLP(size, parameters, (64,), "elu")

    def forward(self, history: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, each [N, P]."""
        x = self.normalizer(history)
        return self.mean_mlp(x), 0.01 + nn.functional.softplus(self.std_mlp(x))


@dataclass
class FlightData:
    """Samples of history and truth, and what the flights were like."""

    history: list[Float32] = field(default_factory=list)
    truth: list[Float32] = field(default_factory=list)
    episodes: int = 0
    successes: int = 0

    @property
    def success(self) -> float:
        """Share of finished episodes that succeeded."""
        return self.successes / max(self.episodes, 1)


class UniversalPolicy(nn.Module):
    """π as a plain module of (observation [N, O], parameters [N, P]) → mean action [N, A]."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.normalizer = actor.obs_normalizer
        self.mlp = actor.mlp

    def forward(self, observation: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Deterministic action."""
        return self.mlp(self.normalizer(torch.cat((observation, parameters), dim=-1)))


def fly_and_record(
    env: TaskEnv,
    policy: UniversalPolicy,
    estimator: Estimator | None,
    samples_per_episode: int,
    data: FlightData,
    seed: int,
) -> None:
    """Fly one episode of every robot in ``env`` and add samples to ``data``.

    Args:
        env: Environment with ``record_history``; its robots start anew together.
        policy: π.
        estimator: φ; None flies on the true parameters.
        samples_per_episode: Randomly chosen steps of each episode that are kept.
        data: Where samples go.
        seed: Seed of the choice of steps.
    """
    rng = np.random.default_rng(seed)
    env.reset()
    estimates = EstimateFilter(env.spec, env.count)
    alive = np.ones(env.count, dtype=np.bool_)
    keep = samples_per_episode / env.episode_steps
    with torch.inference_mode():
        for _ in range(env.episode_steps):
            history = env.estimator_observation()
            chosen = np.nonzero(alive & (rng.random(env.count) < keep))[0]
            data.history.append(history[chosen])
            data.truth.append(env.parameters()[chosen].copy())
            if estimator is None:
                mu = env.parameters()
            else:
                mean, std = estimator(torch.from_numpy(history))
                mu = estimates.update(mean.numpy(), std.numpy())
            action = policy(torch.from_numpy(env.observation()), torch.from_numpy(mu))
            _, terminated, truncated = env.step(action.numpy())
            ended = alive & (terminated | truncated)
            data.episodes += int(ended.sum())
            data.successes += int((env.success & ended).sum())
            alive &= ~ended


class EstimatorTrainer:
    """Regresses the truth on the history, with one optimiser and one rate schedule over all rounds.

    The mean minimises the squared error of each parameter relative to its own present error: what
    can be identified well is not drowned by what cannot. The deviation maximises the likelihood of
    the error left over.

    Args:
        estimator: φ.
        config: Sizes and rates.
        seed: Of the sample order.
    """

    def __init__(self, estimator: Estimator, config: OSIConfig, seed: int) -> None:
        self._estimator, self._batch_size = estimator, config.batch_size
        self._batches = config.batches_per_round
        self._optimizer = torch.optim.Adam(estimator.parameters(), lr=config.learning_rate, fused=True)
        self._scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, config.learning_rate, total_steps=self._batches * config.rounds + 1
        )
        self._generator = torch.Generator().manual_seed(seed)
        self._scale: torch.Tensor | None = None

    def fit(self, data: FlightData) -> float:
        """Train on one round's share of batches, drawn from everything seen.

        Returns:
            Root of the mean squared error over these batches, normalised units.
        """
        history = torch.from_numpy(np.concatenate(data.history))
        truth = torch.from_numpy(np.concatenate(data.truth))
        data.history, data.truth = [history.numpy()], [truth.numpy()]
        if int(self._estimator.normalizer.count) == 0:
            self._estimator.normalizer.train()
            self._estimator.normalizer.update(history)
            self._estimator.normalizer.eval()
        squared = 0.0
        for _ in range(self._batches):
            index = torch.randint(len(history), (self._batch_size,), generator=self._generator)
            mean, std = self._estimator(history[index])
            error = truth[index] - mean
            mse = (error * error).mean(0)
            self._scale = mse.detach() if self._scale is None else 0.99 * self._scale + 0.01 * mse.detach()
            likelihood = (torch.log(std) + 0.5 * (error.detach() / std) ** 2).mean()
            self._optimizer.zero_grad()
            ((mse / self._scale).mean() + 0.1 * likelihood).backward()
            self._optimizer.step()
            self._scheduler.step()
            squared += float(mse.detach().mean())
        return float(np.sqrt(squared / self._batches))


def train_osi(
    env: TaskEnv,
    actor: Any,
    config: OSIConfig,
    seed: int,
    on_round: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[Estimator, list[dict[str, float]]]:
    """Train φ for a trained universal policy.

    Args:
        env: Environment with ``record_history``.
        actor: rsl-rl policy model over the groups observation and parameters.
        config: Rounds, sizes and rates.
        seed: Seed of network and sample order.
        on_round: Called with the round and its figures.

    Returns:
        φ and the figures of every round: ``success`` flying on the estimates of the round before
        (round 0: on true parameters), ``rmse`` of the fit, ``samples`` so far.
    """
    torch.manual_seed(seed)
    policy = UniversalPolicy(actor).eval()
    estimator = Estimator(env.spec.estimator_size, len(env.spec.parameters), config.hidden).eval()
    trainer = EstimatorTrainer(estimator, config, seed)
    data = FlightData()
    figures = []
    for index in range(config.rounds):
        before = (data.episodes, data.successes)
        fly_and_record(env, policy, estimator if index else None, config.samples_per_episode, data, seed + index)
        rmse = trainer.fit(data)
        figures.append(
            {
                "success": (data.successes - before[1]) / max(data.episodes - before[0], 1),
                "rmse": rmse,
                "samples": float(sum(len(part) for part in data.truth)),
            }
        )
        if on_round:
            on_round(index, figures[-1])
    return estimator, figures
