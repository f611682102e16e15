"""PPO's gradient steps for networks without memory, with nothing done twice.

The loss is that of Schulman et al. 2017 as rsl-rl has it, and a test holds the two together. It is faster because what
the networks read is normalised and put into order once an iteration, and because no step builds dictionaries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)
MOST_WEIGHT = 2.0  # a single step must not outweigh all others


@dataclass(frozen=True)
class Networks:
    """The networks and what bounds them.

    Attributes:
        actor: Normalised inputs [B, d] to mean actions [B, A].
        critic: Normalised inputs [B, d] to values [B, 1].
        log_std: Logarithm of the exploration [A].
        log_std_range: Its bounds.
    """

    actor: nn.Module
    critic: nn.Module
    log_std: nn.Parameter
    log_std_range: tuple[float, float]

    def parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the policy and of the critic."""
        return [*self.actor.parameters(), self.log_std], list(self.critic.parameters())


@dataclass(frozen=True)
class Samples:
    """Steps of a rollout, side by side.

    Attributes:
        actor_inputs, critic_inputs: Normalised, [B, d].
        actions: [B, A].
        log_prob: Of the actions under the policy that steps are clipped around [B].
        advantages: [B].
        returns: [B, 1].
    """

    actor_inputs: torch.Tensor
    critic_inputs: torch.Tensor
    actions: torch.Tensor
    log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def rows(self, index: torch.Tensor | slice) -> Samples:
        """Some of them."""
        return Samples(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class UpdateSettings:
    """Settings of the update.

    Attributes:
        epochs, mini_batches: Each epoch sees the same mini-batches.
        clip: Of the ratio of probabilities.
        entropy: Weight of the entropy.
        value: Weight of the value's loss.
        max_norm: Of the gradients, policy and critic each.
    """

    epochs: int
    mini_batches: int
    clip: float
    entropy: float
    value: float
    max_norm: float


def log_prob(actions: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Log probability [...] of actions [..., A] under a Gaussian."""
    z = (actions - mean) * torch.exp(-log_std)
    return (-0.5 * z * z - log_std).sum(-1) - HALF_LOG_2_PI * actions.shape[-1]


def decoupled(networks: Networks, samples: Samples) -> Samples:
    """Samples of a policy that is one iteration old, for steps that are clipped around the present one.

    Decoupled PPO (Hilton et al. 2021, Batch size-invariance for policy optimization): the ratio of the present policy
    to the one that acted weighs the advantages. Clipping around the old one would halve what an iteration may change.
    """
    with torch.no_grad():
        log_std = networks.log_std.clamp(*networks.log_std_range)
        now = log_prob(samples.actions, networks.actor(samples.actor_inputs), log_std)
        weights = torch.exp(now - samples.log_prob).clamp(max=MOST_WEIGHT)
    return replace(samples, log_prob=now, advantages=samples.advantages * weights)


def update(
    networks: Networks, optimizer: torch.optim.Optimizer, samples: Samples, settings: UpdateSettings
) -> dict[str, float]:
    """Take the gradient steps of one iteration.

    Returns:
        Means of the losses: ``value``, ``surrogate``, ``entropy``.
    """
    size = len(samples.actions) // settings.mini_batches
    shuffled = samples.rows(torch.randperm(size * settings.mini_batches))
    batches = [shuffled.rows(slice(i * size, (i + 1) * size)) for i in range(settings.mini_batches)]
    losses = torch.zeros(3)
    for _ in range(settings.epochs):
        for batch in batches:
            losses += step(networks, optimizer, batch, settings)
    means = (losses / (settings.epochs * settings.mini_batches)).tolist()
    return dict(zip(("value", "surrogate", "entropy"), means, strict=True))


def step(
    networks: Networks, optimizer: torch.optim.Optimizer, batch: Samples, settings: UpdateSettings
) -> torch.Tensor:
    """Take one gradient step; returns the losses of value, surrogate and entropy."""
    log_std = networks.log_std.clamp(*networks.log_std_range)
    ratio = torch.exp(log_prob(batch.actions, networks.actor(batch.actor_inputs), log_std) - batch.log_prob)
    clipped = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
    surrogate = -torch.min(batch.advantages * ratio, batch.advantages * clipped).mean()
    value = (batch.returns - networks.critic(batch.critic_inputs)).pow(2).mean()
    entropy = (log_std + 0.5 + HALF_LOG_2_PI).sum()
    optimizer.zero_grad()
    (surrogate + settings.value * value - settings.entropy * entropy).backward()
    for parameters in networks.parameters():
        nn.utils.clip_grad_norm_(parameters, settings.max_norm)
    optimizer.step()
    return torch.stack((value.detach(), surrogate.detach(), entropy.detach()))
