"""PPO on rollouts from worker processes: the training loop.

The algorithm (networks, losses, update) is rsl-rl's; the loop is ours because the rollouts come
from processes with their own worlds, and because a run must resume and survive Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel, RNNModel
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict
from torch.utils.tensorboard import SummaryWriter

from sim2real.config import PPOConfig
from sim2real.learn.rollout import GROUPS, Buffers, EnvFactory, RolloutStats, Workers, read_groups
from sim2real.learn.torch_io import save_state
from sim2real.learn.warm_start import warm_start

SUCCESS_AVERAGE = 0.2  # weight of the newest iteration

Progress = Callable[[int, dict[str, float]], None]


def actor_groups(told_parameters: bool) -> list[str]:
    """Observation groups the policy network reads."""
    return ["observation", "parameters"] if told_parameters else ["observation"]


def make_ppo(groups: TensorDict, actions: int, config: PPOConfig, told_parameters: bool) -> PPO:
    """Networks, storage and algorithm for one example of the observation groups (batch [N])."""
    obs_groups = {"actor": actor_groups(told_parameters), "critic": list(GROUPS)}
    if not told_parameters:
        obs_groups["critic"] = ["observation", "privileged"]
    distribution = {
        "class_name": "GaussianDistribution",
        "init_std": config.initial_std,
        "std_range": (config.least_std, 1.0),
        "std_type": "log",
    }
    with contextlib.redirect_stdout(io.StringIO()):
        network = (groups, obs_groups, "actor", actions, config.hidden, "elu", True, distribution)
        actor = RNNModel(*network, rnn_hidden_dim=config.lstm) if config.lstm else MLPModel(*network)
        critic = MLPModel(groups, obs_groups, "critic", 1, config.critic_hidden, "elu", True)
    with torch.no_grad():
        actor.mlp[-1].weight.mul_(0.1)  # start at level flight, not at a random command
        actor.mlp[-1].bias.zero_()
    storage = RolloutStorage("rl", groups.batch_size[0], config.steps, groups, [actions])
    return PPO(
        actor,
        critic,
        storage,
        num_learning_epochs=config.epochs,
        num_mini_batches=config.mini_batches,
        clip_param=config.clip,
        gamma=config.gamma,
        lam=config.gae_lambda,
        entropy_coef=config.entropy,
        learning_rate=config.learning_rate,
        schedule="fixed",
        use_clipped_value_loss=False,
    )


class Trainer:
    """Trains one policy, with checkpoints.

    Args:
        make_env: Seed to environment; picklable.
        config: PPO's settings.
        run_dir: Where ``checkpoint.pt`` and TensorBoard events go.
        workers: Number of rollout processes.
        seed: Seed of networks, exploration and environments.
        told_parameters: Whether the policy reads the true physical parameters (universal policy).
    """

    def __init__(
        self, make_env: EnvFactory, config: PPOConfig, run_dir: Path, workers: int, seed: int, told_parameters: bool
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.run_dir = config, run_dir
        self.iteration = 0
        self.history: list[dict[str, float]] = []
        probe = make_env(seed)
        groups = read_groups(probe)
        self._robots = probe.count
        whole = TensorDict(
            {name: groups[name].repeat(workers, 1) for name in GROUPS}, batch_size=[workers * self._robots]
        )
        actions = len(probe.spec.action)
        self.ppo = make_ppo(whole, actions, config, told_parameters)
        self._mirror = make_ppo(groups, actions, config, told_parameters).actor.share_memory()
        self._buffers = [Buffers(config.steps, groups, actions, config.lstm) for _ in range(workers)]
        self._make_env, self._seed = make_env, seed
        self._best_success, self._success = -1.0, 0.0
        self._best: dict[str, torch.Tensor] = {}
        self._imitates = probe.task.teacher is not None and config.imitate > 0
        if self._imitates and not (run_dir / "checkpoint.pt").is_file():
            warm_start(probe, self.actor, seed, config.imitate)
        probe.sim.close()

    @property
    def actor(self) -> MLPModel:
        """The policy network (rsl-rl model with observation normalisation)."""
        return self.ppo.get_policy()

    def train(self, on_progress: Progress | None = None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the configured number of iterations.

        Args:
            on_progress: Called with the iteration and its figures.
            stop: Asked after every iteration; True ends training with a checkpoint.

        Returns:
            True when finished, False when stopped early (Ctrl-C included); a checkpoint exists either way.
        """
        seeds = [self._seed * 1_000_003 + 1_009 * (self.iteration + 1) + i for i in range(len(self._buffers))]
        workers = Workers(self._make_env, seeds, self._mirror, self._buffers)
        try:
            with SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=self.iteration) as writer:
                while self.iteration < self.config.iterations:
                    figures = self._iterate(workers)
                    self.history.append(figures)
                    self._remember(figures["success"])
                    for name, value in figures.items():
                        writer.add_scalar(name, value, self.iteration)
                    if on_progress:
                        on_progress(self.iteration, figures)
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
        share = SUCCESS_AVERAGE if self.iteration > 1 else 1.0
        self._success += share * (success - self._success)
        if self.config.keep_best and self._success > self._best_success and self.iteration > self.config.critic_first:
            self._best_success = self._success
            self._best = {name: value.clone() for name, value in self._mirror.state_dict().items()}

    def use_best(self) -> None:
        """Put the best policy so far in the last one's place, with ``keep_best``; the checkpoint stays as it is."""
        if self._best:
            self.actor.load_state_dict(self._best)

    def _iterate(self, workers: Workers) -> dict[str, float]:
        started = time.perf_counter()
        self._mirror.load_state_dict(self.actor.state_dict())
        stats = workers.collect()
        collected = time.perf_counter()
        self._fill_storage()
        self._anneal()
        losses = self.ppo.update()
        self.iteration += 1
        return self._figures(stats, losses, collected - started, time.perf_counter() - collected)

    def _fill_storage(self) -> None:
        storage, buffers = self.ppo.storage, self._buffers
        for name in GROUPS:
            torch.cat([b.groups[name] for b in buffers], dim=1, out=storage.observations[name])
        for name, target in (
            ("actions", storage.actions),
            ("log_prob", storage.actions_log_prob),
            ("rewards", storage.rewards),
        ):
            torch.cat([getattr(b, name) for b in buffers], dim=1, out=target)
        storage.rewards *= self.config.reward_scale
        storage.distribution_params = (
            torch.cat([b.mean for b in buffers], dim=1),
            torch.cat([b.std for b in buffers], dim=1),
        )
        truncated = torch.cat([b.truncated for b in buffers], dim=1)
        storage.dones[:] = (torch.cat([b.terminated for b in buffers], dim=1) + truncated) > 0
        last = TensorDict(
            {name: torch.cat([b.last_groups[name] for b in buffers]) for name in GROUPS},
            batch_size=[storage.num_envs],
        )
        with torch.inference_mode():
            storage.values[:] = self.ppo.critic(storage.observations.flatten(0, 1)).view_as(storage.values)
            # A robot whose time was up has not failed: its last value stands in for what would have come.
            storage.rewards += self.config.gamma * storage.values * truncated
            self.ppo.compute_returns(last)
            if self.iteration < self.config.critic_first:
                storage.advantages = torch.zeros_like(storage.advantages)
        if self.config.lstm:
            # Memory at the start of every trajectory: kept from the last rollout, nothing after an episode's end.
            memory = torch.zeros(2, self.config.steps, 1, storage.num_envs, self.config.lstm)
            memory[:, 0, 0] = torch.cat([b.memory for b in buffers], dim=1)
            storage.saved_hidden_state_a = list(memory)
        storage.step = self.config.steps

    def _anneal(self) -> None:
        left = 1.0 - self.iteration / self.config.iterations
        rate = self.config.final_learning_rate + left * (self.config.learning_rate - self.config.final_learning_rate)
        for group in self.ppo.optimizer.param_groups:
            group["lr"] = rate

    def _figures(
        self, stats: RolloutStats, losses: dict[str, float], collect_s: float, learn_s: float
    ) -> dict[str, float]:
        samples = self.config.steps * len(self._buffers) * self._robots
        episodes = max(stats.episodes, 1)
        return {
            "success": stats.successes / episodes,
            "crashes": stats.crashes / episodes,
            "reward": stats.reward_sum / samples,
            "std": float(torch.cat([b.std for b in self._buffers], dim=1).mean()),
            "value_loss": losses["value"],
            "collect_s": collect_s,
            "learn_s": learn_s,
            "steps_per_s": samples / (collect_s + learn_s),
            "samples": float(self.iteration * samples),
        }

    def save(self) -> None:
        """Write ``checkpoint.pt`` at once (to a temporary name, then renamed)."""
        state: dict[str, Any] = self.ppo.save()
        state["iteration"] = self.iteration
        state["history"] = self.history
        state["best"] = {"actor": self._best, "success": self._best_success, "average": self._success}
        save_state(state, self.run_dir / "checkpoint.pt")

    def load(self) -> bool:
        """Continue from ``checkpoint.pt`` if there is one."""
        path = self.run_dir / "checkpoint.pt"
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True)
        self.ppo.load(state, None, strict=True)
        self.iteration = state["iteration"]
        self.history = state["history"]
        best = state.get("best", {"actor": {}, "success": -1.0, "average": 0.0})
        self._best, self._best_success, self._success = best["actor"], best["success"], best["average"]
        if self._imitates:  # what the imitation froze stays frozen
            self.actor.obs_normalizer.until = 0
        return True


def seed_of(config_seed: int, purpose: str) -> int:
    """A seed for one purpose, different for different purposes, the same every time."""
    return int(np.random.SeedSequence([config_seed, *purpose.encode()]).generate_state(1)[0] % 2**31)
