"""Policy networks outside rsl-rl: plain modules for export, and arrays for the rollout workers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sim2real.config import PPOConfig
from sim2real.learn.acting import ActorSizes
from sim2real.types import Array


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


def actor_sizes(actor: Any, config: PPOConfig) -> ActorSizes:
    """Sizes of a policy network."""
    inputs = actor.obs_normalizer.mean.shape[0]
    return ActorSizes(inputs, tuple(config.hidden), actor.mlp[-1].out_features, config.lstm)


def actor_arrays(actor: Any) -> dict[str, Array]:
    """Weights of a policy as :class:`~sim2real.learn.acting.Acting` reads them, normalisation folded in; float64."""
    arrays: dict[str, Array] = {}
    with torch.no_grad():
        low, high = actor.distribution.log_std_range
        arrays["std"] = actor.distribution.log_std_param.clamp(low, high).exp().double().numpy()
        shift, scale = actor.obs_normalizer.mean.double(), actor.obs_normalizer.std.double() + actor.obs_normalizer.eps
        linear = [layer for layer in actor.mlp if isinstance(layer, nn.Linear)]
        layers = [(layer.weight.double(), layer.bias.double()) for layer in linear]

        def folded(weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return weight / scale, bias - weight @ (shift / scale)

        if actor.is_recurrent:
            lstm = actor.rnn.rnn
            bias = lstm.bias_ih_l0.double() + lstm.bias_hh_l0.double()
            weight, bias = folded(lstm.weight_ih_l0.double(), bias)
            arrays["lstm.input"], arrays["lstm.bias"] = weight.numpy(), bias.numpy()
            arrays["lstm.memory"] = lstm.weight_hh_l0.double().numpy()
        else:
            layers[0] = folded(*layers[0])
        for i, (weight, bias) in enumerate(layers):
            arrays[f"layer.{i}.weight"], arrays[f"layer.{i}.bias"] = weight.numpy(), bias.numpy()
    return arrays
