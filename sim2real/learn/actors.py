"""Policy networks outside rsl-rl: plain modules for export, and arrays for the rollout workers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sim2real.config import PPOConfig
from sim2real.learn.acting import ActorSizes
from sim2real.types import Array


class Encoded(nn.Module):
    """Layers that read their last inputs through an encoder.

    Args:
        encoder: From the last inputs [N, P] to a latent [N, Z].
        policy: From the other inputs and the latent to the output.
        encoded: Number P of inputs that the encoder reads.
    """

    def __init__(self, encoder: nn.Sequential, policy: nn.Sequential, encoded: int) -> None:
        super().__init__()
        self.encoder, self.policy, self.encoded = encoder, policy, encoded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Output for inputs [..., d]."""
        latent = self.encoder(x[..., -self.encoded :])
        return self.policy(torch.cat((x[..., : -self.encoded], latent), dim=-1))

    def __getitem__(self, index: int) -> nn.Module:
        """A layer of the policy."""
        return self.policy[index]


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
    inputs, mlp = actor.obs_normalizer.mean.shape[0], actor.mlp
    encoder: tuple[int, ...] = ()
    if isinstance(mlp, Encoded):
        encoder = tuple(layer.out_features for layer in _linear(mlp.encoder))
    encoded = mlp.encoded if isinstance(mlp, Encoded) else 0
    return ActorSizes(inputs, tuple(config.hidden), mlp[-1].out_features, config.lstm, encoder, encoded)


def actor_arrays(actor: Any) -> dict[str, Array]:
    """Weights of a policy as :class:`~sim2real.learn.acting.Acting` reads them, normalisation folded in; float64."""
    arrays: dict[str, Array] = {}
    with torch.no_grad():
        low, high = actor.distribution.log_std_range
        arrays["std"] = actor.distribution.log_std_param.clamp(low, high).exp().double().numpy()
        shift, scale = actor.obs_normalizer.mean.double(), actor.obs_normalizer.std.double() + actor.obs_normalizer.eps
        mlp = actor.mlp

        def folded(weight: torch.Tensor, bias: torch.Tensor, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
            """Fold in the normalisation of as many inputs as there are from ``first`` on; others are left alone."""
            s, m = (value[first : first + weight.shape[1]] for value in (scale, shift))
            weight = torch.cat((weight[:, : len(s)] / s, weight[:, len(s) :]), dim=1)
            return weight, bias - weight[:, : len(s)] @ m

        def write(name: str, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
            for i, (weight, bias) in enumerate(layers):
                arrays[f"{name}.{i}.weight"], arrays[f"{name}.{i}.bias"] = weight.numpy(), bias.numpy()

        if isinstance(mlp, Encoded):
            layers, encoder = _weights(mlp.policy), _weights(mlp.encoder)
            others = len(shift) - mlp.encoded
            write("encoder", [folded(*encoder[0], others), *encoder[1:]])
            shift, scale = shift[:others], scale[:others]  # the latent is not normalised
            layers[0] = folded(*layers[0])
        elif actor.is_recurrent:
            layers, lstm = _weights(mlp), actor.rnn.rnn
            bias = lstm.bias_ih_l0.double() + lstm.bias_hh_l0.double()
            weight, bias = folded(lstm.weight_ih_l0.double(), bias)
            arrays["lstm.input"], arrays["lstm.bias"] = weight.numpy(), bias.numpy()
            arrays["lstm.memory"] = lstm.weight_hh_l0.double().numpy()
        else:
            layers = _weights(mlp)
            layers[0] = folded(*layers[0])
        write("layer", layers)
    return arrays


def _linear(layers: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in layers if isinstance(layer, nn.Linear)]


def _weights(layers: nn.Sequential) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and biases of the linear layers, float64."""
    return [(layer.weight.double(), layer.bias.double()) for layer in _linear(layers)]
