"""The only file that knows rsl-rl's insides: networks, storage and update of its PPO."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel, RNNModel
from rsl_rl.modules import MLP, EmpiricalNormalization
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict
from torch import nn

from sim2real.config import PPOConfig
from sim2real.learn.actors import Encoded, FeedForward, Recurrent
from sim2real.learn.buffers import Buffers
from sim2real.learn.update import Networks, Samples, UpdateSettings, decoupled, log_prob, update
from sim2real.types import Float32

__all__ = ["MLP", "EmpiricalNormalization", "Learner", "make_network", "tensors"]
Groups = TensorDict
# Advantages are multiplied by weights [T, N] and normalised over what is kept.
Weights = torch.Tensor | None


def tensors(groups: Mapping[str, Float32]) -> Groups:
    """Observation groups [N, d] as tensors, batch [N]; they share the memory."""
    values = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in groups.items()}
    return TensorDict(values, batch_size=[len(next(iter(groups.values())))])


def repeat_groups(groups: Groups, times: int) -> Groups:
    """The groups of ``times`` environments like this one."""
    count = times * groups.batch_size[0]
    return TensorDict({name: value.repeat(times, 1) for name, value in groups.items()}, batch_size=[count])


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


def make_ppo(
    groups: Groups, actions: int, config: PPOConfig, actor_groups: Sequence[str], encoder: Sequence[int] = ()
) -> PPO:
    """Make networks, storage and algorithm.

    Args:
        groups: One example of the observation groups, batch [N].
        actions: Components of an action.
        config: PPO's settings.
        actor_groups: What the policy reads; the critic reads the privileged observation besides.
        encoder: Widths of an encoder that the policy reads the last of its groups through; none by default.
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
    if encoder:
        encoded = groups[actor_groups[-1]].shape[1]
        width = actor.obs_dim - encoded + encoder[-1]
        layers = MLP(encoded, encoder[-1], encoder[:-1], "elu")
        actor.mlp = Encoded(layers, MLP(width, actions, config.hidden, "elu"), encoded)
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
        encoder: Widths of an encoder that the policy reads the last of its groups through; none by default.

    Attributes:
        actor: The policy network.
    """

    def __init__(
        self,
        groups: Groups,
        workers: int,
        actions: int,
        config: PPOConfig,
        actor_groups: Sequence[str],
        encoder: Sequence[int] = (),
    ) -> None:
        self.config = config
        self._ppo = make_ppo(repeat_groups(groups, workers), actions, config, actor_groups, encoder)
        actor, critic = self._ppo.actor, self._ppo.critic
        self._networks = Networks(
            actor.mlp, critic.mlp, actor.distribution.log_std_param, tuple(actor.distribution.log_std_range)
        )
        self._settings = UpdateSettings(
            config.epochs,
            config.mini_batches,
            config.clip,
            config.entropy,
            self._ppo.value_loss_coef,
            self._ppo.max_grad_norm,
        )

    @property
    def actor(self) -> Any:
        """The policy network (an rsl-rl model with observation normalisation)."""
        return self._ppo.get_policy()

    def update(self, buffers: Sequence[Buffers], rate: float, weights: Weights, critic_only: bool) -> dict[str, float]:
        """Learn from one rollout of every worker.

        Args:
            buffers: The rollouts.
            rate: Learning rate.
            weights: Of the advantages [T, N]; all alike by default.
            critic_only: The policy stays as it is.

        Returns:
            Losses by name, and ``policy_lag``: mean divergence of the policy that acted from the one that learns, nats.
        """
        for group in self._ppo.optimizer.param_groups:
            group["lr"] = rate
        samples = self._fill(buffers, weights, critic_only)
        lag = self._lag(samples)
        if self.config.lstm:
            losses = self._ppo.update()
        else:
            samples = decoupled(self._networks, samples)
            losses = update(self._networks, self._ppo.optimizer, samples, self._settings)
            for network in (self._ppo.actor, self._ppo.critic):
                average(network.obs_normalizer, actor_inputs(network, self._ppo.storage.observations).flatten(0, 1))
        return losses | {"policy_lag": lag}

    def _fill(self, buffers: Sequence[Buffers], weights: Weights, critic_only: bool) -> Samples:
        storage, config, ppo = self._ppo.storage, self.config, self._ppo

        def side_by_side(name: str) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([getattr(b, name) for b in buffers], axis=1))

        for name in buffers[0].groups:
            np.concatenate([b.groups[name] for b in buffers], axis=1, out=storage.observations[name].numpy())
        storage.actions[:] = side_by_side("actions")
        storage.rewards[:] = side_by_side("rewards") * config.reward_scale
        mean, std = side_by_side("mean"), side_by_side("std")
        storage.distribution_params = (mean, std)
        storage.actions_log_prob[..., 0] = log_prob(storage.actions, mean, torch.log(std))
        truncated = side_by_side("truncated")
        storage.dones[:] = (side_by_side("terminated") + truncated) > 0
        last = {name: np.concatenate([b.last_groups[name] for b in buffers]) for name in buffers[0].groups}
        with torch.no_grad():
            critic_inputs = normalised(ppo.critic, storage.observations)
            storage.values[:] = ppo.critic.mlp(critic_inputs).view_as(storage.values)
            # A robot whose time was up has not failed: its last value stands in for what would have come.
            storage.rewards += config.gamma * storage.values * truncated
            ppo.compute_returns(tensors(last))
            if weights is not None:
                storage.advantages = weigh(storage.advantages, weights[..., None])
            if critic_only:
                storage.advantages = torch.zeros_like(storage.advantages)
            inputs = normalised(ppo.actor, storage.observations)
        if config.lstm:
            # Memory at the start of every trajectory: kept from the last rollout, nothing after a trial's end.
            memory = torch.zeros(2, config.steps, 1, storage.num_envs, config.lstm)
            memory[:, 0, 0] = side_by_side("memory")
            storage.saved_hidden_state_a = list(memory)
        storage.step = config.steps
        return Samples(
            inputs,
            critic_inputs,
            storage.actions.flatten(0, 1),
            storage.actions_log_prob.flatten(),
            storage.advantages.flatten(),
            storage.returns.flatten(0, 1),
        )

    def _lag(self, samples: Samples) -> float:
        """Divergence KL(acted || now) of Gaussians, averaged over the rollout; 0 for a policy with memory."""
        if self.config.lstm:
            return 0.0
        mean, std = (value.flatten(0, 1) for value in self._ppo.storage.distribution_params)
        with torch.no_grad():
            log_std = self._networks.log_std.clamp(*self._networks.log_std_range)
            apart = (mean - self._networks.actor(samples.actor_inputs)).square()
            terms = log_std - std.log() + (std.square() + apart) / (2.0 * torch.exp(2.0 * log_std)) - 0.5
        return float(terms.sum(-1).mean())

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


def normalised(network: Any, groups: Groups) -> torch.Tensor:
    """Normalised inputs [B, d] of a network, for groups [T, N, d]."""
    result: torch.Tensor = network.obs_normalizer(actor_inputs(network, groups).flatten(0, 1))
    return result


def average(normaliser: Any, x: torch.Tensor) -> None:
    """Take inputs [B, d] into a running normalisation, as its own ``update`` does.

    That one takes 100 ms for 12,288 inputs of 340 numbers, because ``torch.var`` is slow along the first dimension.
    """
    if normaliser.until is not None and normaliser.count >= normaliser.until:
        return
    normaliser.count += len(x)
    rate = len(x) / float(normaliser.count)
    mean = x.mean(0, keepdim=True)
    variance = (x - mean).square_().mean(0, keepdim=True)
    change = mean - normaliser._mean
    normaliser._mean += rate * change
    normaliser._var += rate * (variance - normaliser._var + change * (mean - normaliser._mean))
    normaliser._std = torch.sqrt(normaliser._var)


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
