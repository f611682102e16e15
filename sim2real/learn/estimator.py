"""Online system identification, UP-OSI (Yu et al., Preparing for the Unknown, RSS 2017): the estimator's training.

The universal policy π(a | o, μ) was trained with the true physical parameters μ. Here φ(history) → μ
is trained on the states that π itself visits while it runs on φ's own estimates, in rounds
(DAgger, Ross et al. 2011): a φ trained only on episodes with true parameters never sees the
consequences of its own errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import nn

from sim2real.files import write_text
from sim2real.learn.rsl_rl import MLP, EmpiricalNormalization
from sim2real.learn.torch_io import save_state, threads
from sim2real.robots.identified import ParameterTerm, nominal_parameters
from sim2real.runtime.policy import Network
from sim2real.tasks.env import TaskEnv
from sim2real.types import Float32, Model, Widths

CLIP = 1.2  # normalised parameters are told within ± this


class OSISettings(Model):
    """Training of the estimator.

    Attributes:
        rounds: Rounds of running with the newest φ and training on everything seen.
        robots: Robots of one round, each with its own physics: variety matters more than length.
        samples_per_episode: Steps of an episode kept as samples.
        batches_per_round: Gradient steps after each round.
        estimate_time_constant_s: Averaging of the estimates over time on the robot.
    """

    rounds: int = Field(default=8, ge=1)
    robots: int = Field(default=512, ge=1)
    samples_per_episode: int = Field(default=40, ge=1)
    batches_per_round: int = Field(default=2000, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    hidden: Widths = (128, 128)
    estimate_time_constant_s: float = Field(default=0.4, ge=0)


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
        return self.read(self.normalizer(history))

    def read(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`forward`, of a history that is normalised already."""
        return self.mean_mlp(x), 0.01 + nn.functional.softplus(self.std_mlp(x))


class EstimateFilter(nn.Module):
    """Averages estimated parameters over time, starting from the nominal ones, with its state in a memory [N, P + 1].

    The first estimates are averaged evenly; later ones with a time constant. A memory of zeros is a fresh start.

    Args:
        terms: The parameters.
        control_dt: Control period, s.
        time_constant_s: 0 takes each estimate as it comes.
    """

    def __init__(self, terms: tuple[ParameterTerm, ...], control_dt: float, time_constant_s: float) -> None:
        super().__init__()
        self.nominal: torch.Tensor
        nominal = np.clip(nominal_parameters(terms), -CLIP, CLIP)
        self.register_buffer("nominal", torch.from_numpy(nominal), persistent=False)
        self._least_gain = min(1.0, control_dt / time_constant_s) if time_constant_s > 0 else 1.0
        self.memory_size = len(terms) + 1

    def forward(self, mean: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Filtered parameters [N, P] and next memory, for an estimate [N, P]."""
        updates = torch.clamp(memory[:, -1:], min=0.0) + 1.0
        gain = torch.clamp(1.0 / updates, min=self._least_gain)
        filtered = self.nominal + memory[:, :-1]
        filtered = filtered + gain * (torch.clamp(mean, -CLIP, CLIP) - filtered)
        return filtered, torch.cat((filtered - self.nominal, updates), dim=-1)


class IdentifyingPolicy(nn.Module):
    """π with φ and its filter: observation, history and memory to action, next memory and report.

    Args:
        policy: π, from observation [N, O] and normalised parameters [N, P] to the action.
        estimator: φ, from history [N, E] to mean and standard deviation [N, P].
        estimates: Filter of the estimates.
        terms: What the parameters are.
        told_nominal: Tell π the nominal parameters whatever φ says.
    """

    def __init__(
        self,
        policy: nn.Module,
        estimator: Estimator,
        estimates: EstimateFilter,
        terms: tuple[ParameterTerm, ...],
        told_nominal: bool = False,
    ) -> None:
        super().__init__()
        self.low: torch.Tensor
        self.half_range: torch.Tensor
        self.policy, self.estimator, self.estimates, self.told_nominal = policy, estimator, estimates, told_nominal
        low, high = (torch.tensor([[getattr(term, end) for term in terms]]) for end in ("low", "high"))
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("half_range", 0.5 * (high - low), persistent=False)

    def forward(
        self, observation: torch.Tensor, history: torch.Tensor, memory: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Action [N, A], next memory [N, P + 1], estimate and its standard deviation [N, P] in physical units."""
        mean, std = self.estimator(history)
        filtered, next_memory = self.estimates(mean, memory)
        told = self.estimates.nominal.expand_as(filtered) if self.told_nominal else filtered
        return (
            self.policy(observation, told),
            next_memory,
            self.low + (filtered + 1.0) * self.half_range,
            std * self.half_range,
        )


def told_network(network: IdentifyingPolicy, parameters: torch.Tensor, outputs: Mapping[str, int]) -> Network:
    """Make a network of π that is told parameters in place of φ's estimates; its other outputs stay zero.

    Args:
        network: π with φ.
        parameters: Normalised, one row a robot [N, P].
        outputs: Widths of the contract's outputs by name.
    """
    silent = {name: np.zeros((len(parameters), size), np.float32) for name, size in outputs.items()}

    def told(inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
        with torch.inference_mode():
            return silent | {"action": network.policy(torch.from_numpy(inputs["observation"]), parameters).numpy()}

    return told


@dataclass
class Samples:
    """Samples of history and truth, and how the episodes went."""

    history: list[Float32] = field(default_factory=list)
    truth: list[Float32] = field(default_factory=list)
    episodes: int = 0
    successes: int = 0


def run_and_record(
    env: TaskEnv,
    policy: nn.Module,
    estimator: Estimator | None,
    estimates: EstimateFilter,
    samples_per_episode: int,
    data: Samples,
    seed: int,
) -> None:
    """Run one episode of every robot in ``env`` and add samples to ``data``.

    Args:
        env: Environment with the group ``history``; its robots start anew together.
        policy: π, from observation and parameters to the action.
        estimator: φ; None runs on the true parameters.
        estimates: Filter of the estimates.
        samples_per_episode: Randomly chosen steps of each episode that are kept.
        data: Where samples go.
        seed: Seed of the choice of steps.
    """
    rng = np.random.default_rng(seed)
    env.reset()
    memory = torch.zeros(env.count, estimates.memory_size)
    alive = np.ones(env.count, dtype=np.bool_)
    keep = samples_per_episode / env.episode_steps
    with torch.inference_mode():
        for _ in range(env.episode_steps):
            history = env.observation("history")
            chosen = np.nonzero(alive & (rng.random(env.count) < keep))[0]
            data.history.append(history[chosen])
            data.truth.append(env.parameters()[chosen].copy())
            if estimator is None:
                mu = torch.from_numpy(env.parameters())
            else:
                mean, _ = estimator(torch.from_numpy(history))
                mu, memory = estimates(mean, memory)
            action = policy(torch.from_numpy(env.observation()), mu)
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
        settings: Sizes and rates.
        seed: Of the sample order.
    """

    def __init__(self, estimator: Estimator, settings: OSISettings, seed: int) -> None:
        self._estimator, self._batch_size = estimator, settings.batch_size
        self._batches = settings.batches_per_round
        self._optimizer = torch.optim.Adam(estimator.parameters(), lr=settings.learning_rate, fused=True)
        self._scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, settings.learning_rate, total_steps=self._batches * settings.rounds + 1
        )
        self._generator = torch.Generator().manual_seed(seed)
        self._scale: torch.Tensor | None = None

    def fit(self, data: Samples) -> float:
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
        with torch.no_grad():
            inputs = self._estimator.normalizer(history)
        squared = 0.0
        for _ in range(self._batches):
            index = torch.randint(len(inputs), (self._batch_size,), generator=self._generator)
            mean, std = self._estimator.read(inputs[index])
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


def train_estimator(
    env: TaskEnv,
    policy: nn.Module,
    estimates: EstimateFilter,
    settings: OSISettings,
    seed: int,
    on_round: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[Estimator, list[dict[str, float]]]:
    """Train φ for a trained universal policy.

    Args:
        env: Environment with the groups ``observation`` and ``history``.
        policy: π, from observation and parameters to the action.
        estimates: Filter of the estimates.
        settings: Rounds, sizes and rates.
        seed: Seed of network and sample order.
        on_round: Called with the round and its metrics.

    Returns:
        φ and the metrics of every round: ``success`` running on the estimates of the round before
        (round 0: on true parameters), ``rmse`` of the fit, ``samples`` so far.
    """
    torch.manual_seed(seed)
    history = env.observation("history").shape[1]
    estimator = Estimator(history, len(env.parameter_terms), settings.hidden).eval()
    trainer = EstimatorTrainer(estimator, settings, seed)
    data = Samples()
    metrics = []
    for index in range(settings.rounds):
        before = (data.episodes, data.successes)
        newest = estimator if index else None
        run_and_record(env, policy, newest, estimates, settings.samples_per_episode, data, seed + index)
        with threads(1):  # batches are small: a second thread would only wait
            rmse = trainer.fit(data)
        metrics.append(
            {
                "success": (data.successes - before[1]) / max(data.episodes - before[0], 1),
                "rmse": rmse,
                "samples": float(sum(len(part) for part in data.truth)),
            }
        )
        if on_round:
            on_round(index, metrics[-1])
    return estimator, metrics


def write_estimator(folder: Path, estimator: Estimator, rounds: list[dict[str, float]]) -> None:
    """Write φ and the metrics of its rounds into a run's folder, so that no later call trains it again."""
    save_state(estimator.state_dict(), folder / "estimator.pt")
    write_text(folder / "estimator.json", json.dumps(rounds))


def read_estimator(
    folder: Path, size: int, parameters: int, hidden: tuple[int, ...]
) -> tuple[Estimator, list[dict[str, float]]] | None:
    """Read what :func:`write_estimator` wrote; None where it has not. The sizes are those of :class:`Estimator`."""
    file, log = folder / "estimator.pt", folder / "estimator.json"
    if not (file.is_file() and log.is_file()):
        return None
    estimator = Estimator(size, parameters, hidden).eval()
    estimator.load_state_dict(torch.load(file, weights_only=True))
    return estimator, json.loads(log.read_text())
