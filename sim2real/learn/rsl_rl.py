"""The only file that knows rsl-rl's insides: networks, storage and update of its PPO."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel, RNNModel
from rsl_rl.modules import MLP, EmpiricalNormalization
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict
from torch import nn

from sim2real.config import PPOConfig
from sim2real.learn.buffers import Buffers
from sim2real.tasks.env import TaskEnv

__all__ = ["MLP", "EmpiricalNormalization", "Learner", "make_network", "read_groups"]
EXTRA = ("parameters", "privileged")  # groups of every environment besides those of the contract
Groups = TensorDict
# Advantages are multiplied by weights [T, N] and normalised over what is kept.
Weights = torch.Tensor | None


def read_groups(env: TaskEnv, names: Sequence[str]) -> Groups:
    """Read observation groups, identified quantities and privileged observation as float32 tensors, batch [N]."""
    groups = {name: torch.from_numpy(env.observation(name)) for name in names}
    groups["parameters"] = torch.from_numpy(env.parameters().copy())
    groups["privileged"] = torch.from_numpy(env.privileged_observation())
    return TensorDict(groups, batch_size=[env.count])


def repeat_groups(groups: Groups, times: int) -> Groups:
    """The groups of ``times`` environments like this one."""
    count = times * groups.batch_size[0]
    return TensorDict({name: value.repeat(times, 1) for name, value in groups.items()}, batch_size=[count])


class FeedForward(nn.Module):
    """An actor as a plain module of its inputs [N, d], side by side, to the mean action [N, A]."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.normalizer, self.mlp = actor.obs_normalizer, actor.mlp

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Deterministic action."""
        return self.mlp(self.normalizer(torch.cat(inputs, dim=-1)))


class Recurrent(nn.Module):
    """An actor with an LSTM as a plain module: inputs [N, d] and memory [N, 2H] to action and next memory."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.normalizer, self.mlp, self.lstm = actor.obs_normalizer, actor.mlp, actor.rnn.rnn

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Deterministic action; one step of the LSTM (Hochreiter and Schmidhuber 1997) written out for export."""
        *observation, memory = inputs
        lstm = self.lstm
        hidden, cell = memory.chunk(2, dim=-1)
        x = self.normalizer(torch.cat(observation, dim=-1))
        gates = nn.functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0)
        gates = gates + nn.functional.linear(hidden, lstm.weight_hh_l0, lstm.bias_hh_l0)
        take, keep, new, show = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(take) * torch.tanh(new)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return self.mlp(hidden), torch.cat((hidden, cell), dim=-1)


# Kinds of actors: how rsl-rl builds them, and their plain module for export.
ACTORS: dict[str, tuple[Callable[..., Any], type[nn.Module]]] = {
    "mlp": (MLPModel, FeedForward),
    "lstm": (RNNModel, Recurrent),
}


def actor_kind(config: PPOConfig) -> str:
    """Which kind of actor a configuration asks for."""
    return "lstm" if config.lstm else "mlp"


def memory_size(config: PPOConfig) -> int:
    """Numbers that the configured actor carries from step to step."""
    return 2 * config.lstm


def make_network(actor: Any, config: PPOConfig) -> nn.Module:
    """Make the plain module of a trained actor; it shares the actor's weights."""
    return ACTORS[actor_kind(config)][1](actor)


def make_ppo(groups: Groups, actions: int, config: PPOConfig, actor_groups: Sequence[str]) -> PPO:
    """Make networks, storage and algorithm.

    Args:
        groups: One example of the observation groups, batch [N].
        actions: Components of an action.
        config: PPO's settings.
        actor_groups: What the policy reads; the critic reads the privileged observation besides.
    """
    obs_groups = {"actor": list(actor_groups), "critic": [*actor_groups, "privileged"]}
    distribution = {
        "class_name": "GaussianDistribution",
        "init_std": config.initial_std,
        "std_range": (config.least_std, 1.0),
        "std_type": "log",
    }
    build = ACTORS[actor_kind(config)][0]
    more = {"rnn_hidden_dim": config.lstm} if config.lstm else {}
    with contextlib.redirect_stdout(io.StringIO()):
        actor = build(groups, obs_groups, "actor", actions, config.hidden, "elu", True, distribution, **more)
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


class Learner:
    """PPO (Schulman et al. 2017) on rollouts that lie in buffers.

    Args:
        groups: One worker's observation groups, batch [N].
        workers: Number of workers.
        actions: Components of an action.
        config: PPO's settings.
        actor_groups: What the policy reads.

    Attributes:
        actor: The policy network.
        mirror: A copy of it in shared memory, which workers act with.
    """

    def __init__(
        self, groups: Groups, workers: int, actions: int, config: PPOConfig, actor_groups: Sequence[str]
    ) -> None:
        self.config = config
        self._ppo = make_ppo(repeat_groups(groups, workers), actions, config, actor_groups)
        self.mirror = make_ppo(groups, actions, config, actor_groups).actor.share_memory()

    @property
    def actor(self) -> Any:
        """The policy network (an rsl-rl model with observation normalisation)."""
        return self._ppo.get_policy()

    def publish(self) -> None:
        """Give the workers the newest policy."""
        self.mirror.load_state_dict(self.actor.state_dict())

    def update(self, buffers: Sequence[Buffers], rate: float, weights: Weights, critic_only: bool) -> dict[str, float]:
        """Learn from one rollout of every worker.

        Args:
            buffers: The rollouts.
            rate: Learning rate.
            weights: Of the advantages [T, N]; all alike by default.
            critic_only: The policy stays as it is.

        Returns:
            Losses by name.
        """
        self._fill(buffers, weights, critic_only)
        for group in self._ppo.optimizer.param_groups:
            group["lr"] = rate
        return self._ppo.update()

    def _fill(self, buffers: Sequence[Buffers], weights: Weights, critic_only: bool) -> None:
        storage, config = self._ppo.storage, self.config
        for name in buffers[0].groups:
            torch.cat([b.groups[name] for b in buffers], dim=1, out=storage.observations[name])
        for name, target in (
            ("actions", storage.actions),
            ("log_prob", storage.actions_log_prob),
            ("rewards", storage.rewards),
        ):
            torch.cat([getattr(b, name) for b in buffers], dim=1, out=target)
        storage.rewards *= config.reward_scale
        storage.distribution_params = (
            torch.cat([b.mean for b in buffers], dim=1),
            torch.cat([b.std for b in buffers], dim=1),
        )
        truncated = torch.cat([b.truncated for b in buffers], dim=1)
        storage.dones[:] = (torch.cat([b.terminated for b in buffers], dim=1) + truncated) > 0
        last = TensorDict(
            {name: torch.cat([b.last_groups[name] for b in buffers]) for name in buffers[0].groups},
            batch_size=[storage.num_envs],
        )
        with torch.inference_mode():
            storage.values[:] = self._ppo.critic(storage.observations.flatten(0, 1)).view_as(storage.values)
            # A robot whose time was up has not failed: its last value stands in for what would have come.
            storage.rewards += config.gamma * storage.values * truncated
            self._ppo.compute_returns(last)
            if weights is not None:
                storage.advantages = weigh(storage.advantages, weights[..., None])
            if critic_only:
                storage.advantages = torch.zeros_like(storage.advantages)
        if config.lstm:
            # Memory at the start of every trajectory: kept from the last rollout, nothing after a trial's end.
            memory = torch.zeros(2, config.steps, 1, storage.num_envs, config.lstm)
            memory[:, 0, 0] = torch.cat([b.memory for b in buffers], dim=1)
            storage.saved_hidden_state_a = list(memory)
        storage.step = config.steps

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        return dict(self._ppo.save())

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._ppo.load(dict(state), None, strict=True)


def weigh(advantages: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted advantages: mean 0 and standard deviation 1 over what is kept, then divided by the fraction kept.

    Args:
        advantages: Of any shape.
        weights: Of the same shape, at least 0; those of 0 leave the loss, and so does a single one that is kept.
    """
    kept = weights > 0
    if int(kept.sum()) < 2:
        return torch.zeros_like(advantages)
    chosen = advantages[kept]
    scaled = (advantages - chosen.mean()) / (chosen.std() + 1e-8)
    return scaled * weights / weights.mean()


def act(actor: Any, groups: Groups) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample actions [N, A]; with their log probability [N] and the distribution's mean and deviation [N, A]."""
    action = actor(groups, stochastic_output=True)
    mean, std = actor.output_distribution_params
    return action, actor.get_output_log_prob(action), mean, std


def hidden_state(actor: Any) -> list[torch.Tensor]:
    """Hidden and cell state [N, H] of a recurrent actor; empty without one, or before its first step."""
    if not actor.is_recurrent or actor.get_hidden_state() is None:
        return []
    return [state[0] for state in actor.get_hidden_state()]


def imitation_parameters(actor: Any) -> list[nn.Parameter]:
    """Weights that imitation trains: everything but normalisation and exploration."""
    return [p for name, p in actor.named_parameters() if name.startswith(("mlp.", "rnn."))]


def normalise_once(actor: Any, data: torch.Tensor) -> None:
    """Take the normalisation from ``data`` [n, d] and freeze it: a moving one would change what the policy does."""
    actor.obs_normalizer.train()
    actor.obs_normalizer.update(data)
    freeze_normaliser(actor)


def freeze_normaliser(actor: Any) -> None:
    """Leave the normalisation as it is from now on."""
    actor.obs_normalizer.until = 0


def actor_inputs(actor: Any, groups: Groups) -> torch.Tensor:
    """Everything an actor reads, side by side [N, d]."""
    return torch.cat([groups[name] for name in actor.obs_groups], dim=-1)


def mean_actions(actor: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Mean actions [T, N, A] for sequences [T, N, d] that begin without memory."""
    latent = actor.obs_normalizer(inputs)
    if actor.is_recurrent:
        latent, _ = actor.rnn.rnn(latent)
    return actor.mlp(latent)
