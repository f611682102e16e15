"""PPO on rollouts from worker processes: the training loop.

The algorithm (networks, losses, update) is rsl-rl's; the loop is ours because the rollouts come
from processes with their own worlds, and because a run must resume and survive Ctrl-C.

While the learner learns from one rollout, the workers collect the next with the policy of one iteration before.
The loss knows the policy that acted, and ``policy_lag`` of the metrics says how far it is behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from sim2real.config import PPOConfig
from sim2real.errors import SimulationError
from sim2real.learn.acting import SharedWeights
from sim2real.learn.actors import actor_arrays, actor_sizes
from sim2real.learn.buffers import Buffers, EpisodeTable
from sim2real.learn.imitation import imitate
from sim2real.learn.rollout import EnvFactory, RolloutStats, SamplerState, Workers, read_groups
from sim2real.learn.rsl_rl import Learner, freeze_normaliser, tensors
from sim2real.learn.torch_io import save_state, spare_threads, threads

SUCCESS_AVERAGE = 0.2  # weight of the newest iteration
LOOK_AGAIN = 20  # iterations, after which the number of threads is chosen anew

# iteration, metrics
OnIteration = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Hooks:
    """Additions of a method to the loop; all of it is called in the learner's process.

    Attributes:
        weigh: Iteration, episodes that ended, steps T and robots N to weights of the advantages [T, N] (None: all
            alike), such as EPOpt's worst episodes.
        learn_sampler: Iteration and episodes to what the samplers of physics take in before the next rollout that
            begins; one is under way meanwhile.
        state, load: What the method itself keeps in a checkpoint.
        encoder: Widths of an encoder through which the policy reads the last of its groups; none by default.
    """

    weigh: Callable[[int, EpisodeTable, int, int], np.ndarray | None] | None = None
    learn_sampler: Callable[[int, EpisodeTable], SamplerState] | None = None
    state: Callable[[], Mapping[str, Any]] | None = None
    load: Callable[[Mapping[str, Any]], None] | None = None
    encoder: tuple[int, ...] = ()


class Trainer:
    """Trains one policy, with checkpoints.

    Args:
        make_env: Seed to environment; picklable.
        config: PPO's settings.
        run_dir: Where ``checkpoint.pt`` and TensorBoard events go.
        workers: Number of rollout processes.
        seed: Seed of networks, exploration and environments.
        groups: Observation groups that the policy reads; ``parameters`` is one that tells the true physics.
        hooks: What a method adds.
    """

    def __init__(
        self,
        make_env: EnvFactory,
        config: PPOConfig,
        run_dir: Path,
        workers: int,
        seed: int,
        groups: Sequence[str] = ("observation",),
        hooks: Hooks = Hooks(),
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.run_dir, self._hooks = config, run_dir, hooks
        self.iteration = 0
        self.history: list[dict[str, float]] = []
        probe = make_env(seed)
        self._names = [name for name in groups if name != "parameters"]
        example = tensors(read_groups(probe, self._names))
        self._robots, actions = probe.count, len(probe.spec.action)
        self._learner = Learner(example, workers, actions, config, groups, hooks.encoder)
        widths = {name: value.shape[1] for name, value in example.items()}
        self._slots = [
            [Buffers(config.steps, widths, probe.count, actions, config.lstm) for _ in range(workers)] for _ in range(2)
        ]
        self._weights = SharedWeights(actor_sizes(self.actor, config))
        self._acting: dict[str, torch.Tensor] = {}  # the policy of the rollout that is under way
        self._acted: dict[str, torch.Tensor] = {}  # the policy of the one before
        self._make_env, self._seed, self._reads = make_env, seed, tuple(groups)
        self._sampler_state: SamplerState = {}
        self._best_success, self._success = -1.0, 0.0
        self._best: dict[str, torch.Tensor] = {}
        self._imitates = probe.task.expert is not None and config.imitate > 0
        if self._imitates and not (run_dir / "checkpoint.pt").is_file():
            with threads(spare_threads(0)):
                imitate(probe, self.actor, seed, config.imitate, self._names)
        probe.sim.close()

    @property
    def actor(self) -> Any:
        """The policy network (an rsl-rl model with observation normalisation)."""
        return self._learner.actor

    def train(self, on_progress: OnIteration | None = None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the configured number of iterations.

        Args:
            on_progress: Called with the iteration and its metrics.
            stop: Asked after every iteration; True ends training with a checkpoint.

        Returns:
            True when finished, False when stopped early (Ctrl-C included); a checkpoint exists either way.
        """
        if self.iteration >= self.config.iterations:
            self.use_best()
            return True
        with threads(spare_threads(len(self._slots[0]))):
            return self._train(on_progress, stop)

    def _train(self, on_progress: OnIteration | None, stop: Callable[[], bool]) -> bool:
        seeds = [self._seed * 1_000_003 + 1_009 * (self.iteration + 1) + i for i in range(len(self._slots[0]))]
        workers = Workers(
            self._make_env, seeds, self._weights, self._slots, self._names, self._reads, self._sampler_state
        )
        try:
            self._start(workers, self.iteration)
            with SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=self.iteration) as writer:
                while self.iteration < self.config.iterations:
                    metrics = self._iterate(workers)
                    self.history.append(metrics)
                    self._remember(metrics["success"])
                    for name, value in metrics.items():
                        writer.add_scalar(name, value, self.iteration)
                    if on_progress:
                        on_progress(self.iteration, metrics)
                    stopping = stop()
                    if stopping or self.iteration % self.config.save_every == 0:
                        self.save()
                    if stopping:
                        return False
        except KeyboardInterrupt:
            self.save()
            return False
        finally:
            workers.close()
        self.save()
        self.use_best()
        return True

    def _remember(self, success: float) -> None:
        """Keep the policy that has just been rolled out where none was better."""
        weight = SUCCESS_AVERAGE if self.iteration > 1 else 1.0
        self._success += weight * (success - self._success)
        if self.config.keep_best and self._success > self._best_success and self.iteration > self.config.critic_first:
            self._best_success = self._success
            self._best = self._acted

    def use_best(self) -> None:
        """Put the best policy so far in the last one's place, with ``keep_best``; the checkpoint stays as it is."""
        if self._best:
            self.actor.load_state_dict(self._best)

    def _start(self, workers: Workers, iteration: int) -> None:
        """Begin a rollout with the newest policy."""
        self._acted = self._acting
        self._acting = {name: value.clone() for name, value in self.actor.state_dict().items()}
        self._weights.write(actor_arrays(self.actor))
        workers.start(iteration % 2, self._sampler_state)

    def _iterate(self, workers: Workers) -> dict[str, float]:
        started = time.perf_counter()
        stats = workers.wait()
        buffers = self._slots[self.iteration % 2]
        if self.iteration + 1 < self.config.iterations:
            self._start(workers, self.iteration + 1)
        else:
            self._acted = self._acting
        collected = time.perf_counter()
        weights = None
        if self._hooks.weigh is not None:
            columns = self._robots * len(buffers)
            chosen = self._hooks.weigh(self.iteration, stats.table, self.config.steps, columns)
            weights = None if chosen is None else torch.from_numpy(np.asarray(chosen, dtype=np.float32))
        critic_only = self.iteration < self.config.critic_first
        losses = self._update(buffers, weights, critic_only)
        if self._hooks.learn_sampler is not None:
            self._sampler_state = self._hooks.learn_sampler(self.iteration, stats.table)
        self.iteration += 1
        if self.iteration % LOOK_AGAIN == 0:
            torch.set_num_threads(spare_threads(len(buffers)))
        return self._metrics(stats, buffers, losses, collected - started, time.perf_counter() - collected)

    def _update(self, buffers: Sequence[Buffers], weights: torch.Tensor | None, critic_only: bool) -> dict[str, float]:
        """Learn from the last rollout.

        Raises:
            SimulationError: Networks or losses are not finite any more; the checkpoint is of before.
        """
        fault: ValueError | None = None
        try:
            losses = self._learner.update(buffers, self._rate(), weights, critic_only)
        except ValueError as error:  # torch's distributions refuse what is not finite
            fault, losses = error, {}
        finite = all(bool(torch.isfinite(p).all()) for p in self.actor.parameters())
        if not finite or not np.isfinite(list(losses.values())).all():
            raise SimulationError(
                f"training diverged in iteration {self.iteration + 1}: the networks are not finite any more; lower "
                "'ppo.learning_rate', and train into another folder with --run"
            ) from fault
        if fault is not None:
            raise fault
        return losses

    def _rate(self) -> float:
        left = 1.0 - self.iteration / self.config.iterations
        return self.config.final_learning_rate + left * (self.config.learning_rate - self.config.final_learning_rate)

    def _metrics(
        self,
        stats: RolloutStats,
        buffers: Sequence[Buffers],
        losses: dict[str, float],
        wait_s: float,
        learn_s: float,
    ) -> dict[str, float]:
        samples = self.config.steps * len(buffers) * self._robots
        episodes = max(stats.episodes, 1)
        return {
            "success": stats.successes / episodes,
            "crashes": stats.crashes / episodes,
            "reward": stats.reward_sum / samples,
            "std": float(np.mean([b.std for b in buffers])),
            "value_loss": losses["value"],
            "policy_lag": losses["policy_lag"],
            "collect_s": stats.seconds,
            "wait_s": wait_s,
            "learn_s": learn_s,
            "steps_per_s": samples / (wait_s + learn_s),
            "samples": float(self.iteration * samples),
        }

    def save(self) -> None:
        """Write ``checkpoint.pt`` at once (to a temporary name, then renamed)."""
        state = self._learner.state()
        state["iteration"] = self.iteration
        state["history"] = self.history
        state["best"] = {"actor": self._best, "success": self._best_success, "average": self._success}
        state["sampler"] = {name: torch.from_numpy(np.asarray(value)) for name, value in self._sampler_state.items()}
        state["method"] = dict(self._hooks.state()) if self._hooks.state else {}
        save_state(state, self.run_dir / "checkpoint.pt")

    def load(self) -> bool:
        """Continue from ``checkpoint.pt`` if there is one."""
        path = self.run_dir / "checkpoint.pt"
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        self._learner.load(state)
        self.iteration = state["iteration"]
        self.history = state["history"]
        best = state.get("best", {"actor": {}, "success": -1.0, "average": 0.0})
        self._best, self._best_success, self._success = best["actor"], best["success"], best["average"]
        self._sampler_state = {name: value.numpy() for name, value in state.get("sampler", {}).items()}
        if self._hooks.load:
            self._hooks.load(state.get("method", {}))
        if self._imitates:  # what the imitation froze stays frozen
            freeze_normaliser(self.actor)
        return True


def seed_of(config_seed: int, purpose: str) -> int:
    """Make a seed for one purpose, different for different purposes, the same every time."""
    return int(np.random.SeedSequence([config_seed, *purpose.encode()]).generate_state(1)[0] % 2**31)
