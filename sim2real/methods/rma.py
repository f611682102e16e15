"""Rapid motor adaptation (Kumar et al., RMA: Rapid Motor Adaptation for Legged Robots, RSS 2021).

PPO trains a base policy π(a | o, z) together with an encoder μ → z of all the physics that randomization varies. Then
an adaptation module φ(history) → z is trained on the states that π visits while it runs on φ's own latents, as UP-OSI's
estimator is. φ, its filter and π are one network. The latent need not be a quantity that anyone could identify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import nn

from sim2real.errors import ConfigError
from sim2real.learn.actors import Encoded
from sim2real.learn.artifact import Candidate
from sim2real.learn.estimator import OSISettings
from sim2real.learn.experiment import Experiment
from sim2real.learn.ppo import Hooks
from sim2real.methods.base import Method, PolicyMethod, Run, train_policy
from sim2real.methods.up_osi import identifying
from sim2real.robots.identified import IdentifiedQuantity, ParameterTerm, ParameterValue, normalise_parameters
from sim2real.types import Array, Widths


class RmaSettings(OSISettings):
    """Settings of the method.

    Attributes:
        latent: Numbers that the encoder makes of the physics.
        encoder: Widths of its hidden layers.
        nominal_latent: Switch adaptation off: the policy always reads the latent of nominal physics.
    """

    latent: int = Field(default=8, ge=1)
    encoder: Widths = (64,)
    nominal_latent: bool = False


class BasePolicy(nn.Module):
    """π and its encoder as plain modules, of an actor that reads ``observation`` and ``parameters``.

    Args:
        actor: Trained with an encoder.
    """

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.low: torch.Tensor
        self.half_range: torch.Tensor
        self.normalizer, self.layers = actor.obs_normalizer, cast(Encoded, actor.mlp)
        self.others = int(actor.obs_dim) - self.layers.encoded
        for name, value in (("low", 0.0), ("half_range", 1.0)):
            self.register_buffer(name, torch.full((1, 1), value), persistent=False)

    def normalise_by(self, terms: tuple[ParameterTerm, ...]) -> None:
        """Read latents that are normalised to -1 .. 1 over the range of ``terms``: their own scale is arbitrary."""
        low, high = (torch.tensor([[getattr(term, end) for term in terms]]) for end in ("low", "high"))
        self.low, self.half_range = low, 0.5 * (high - low)

    def encode(self, parameters: torch.Tensor) -> torch.Tensor:
        """Latents [N, Z] of normalised parameters [N, P]."""
        padded = torch.cat((parameters.new_zeros(len(parameters), self.others), parameters), dim=-1)
        latents: torch.Tensor = self.layers.encoder(self.normalizer(padded)[:, self.others :])
        return latents

    def forward(self, observation: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Action [N, A] for observation [N, O] and normalised latent [N, Z]."""
        padding = torch.zeros_like(observation[:, :1]).expand(-1, self.layers.encoded)
        known = self.normalizer(torch.cat((observation, padding), dim=-1))[:, : self.others]
        raw = self.low + (latent + 1.0) * self.half_range
        action: torch.Tensor = self.layers.policy(torch.cat((known, raw), dim=-1))
        return action


class Rma(PolicyMethod):
    """A policy that reads a latent of the physics, and adapts it from its own past."""

    Settings = RmaSettings
    settings: RmaSettings
    off_trains = False

    def check(self, experiment: Experiment) -> None:
        """Refuse a configuration without randomization, or with an LSTM."""
        super().check(experiment)
        if experiment.config.ppo.lstm:
            raise ConfigError("an LSTM adapts by itself; 'ppo.lstm' does not go with method 'rma'")

    def prepare(self, experiment: Experiment) -> Experiment:
        """Add the history that φ reads and everything that randomization varies in an episode."""
        task, known = experiment.task, experiment.parameters
        groups = experiment.with_groups(observation=task.observation(), history=task.history())
        names = [term.parameter or name for name, term in experiment.terms.items() if term.kind == "episode"]
        varied = {name: IdentifiedQuantity(known[name].unit, ParameterValue(name)) for name in names}
        return replace(groups, identified=varied).telling(tuple(varied))

    def hooks(self, experiment: Experiment) -> Hooks:
        """The encoder of the parameters."""
        return Hooks(encoder=(*self.settings.encoder, self.settings.latent))

    def train(self, experiment: Experiment, run: Run) -> Candidate:
        """Train π and the encoder by PPO, then φ in rounds; each is kept, and not trained again."""
        experiment = self.prepare(experiment)
        trainer = train_policy(experiment, run, ("observation", "parameters"), self.hooks(experiment))
        policy = BasePolicy(trainer.actor).eval()
        latents = telling_latents(experiment, policy, self.settings.latent)
        policy.normalise_by(latents.told)
        history = {"ppo": trainer.history}
        return identifying(latents, run, policy, self.settings, self.settings.nominal_latent, history)

    def off(self) -> Method:
        """Give the same policy, always reading the latent of nominal physics."""
        return cast(Method, Rma(self.settings.model_copy(update={"nominal_latent": True})))


def telling_latents(experiment: Experiment, policy: BasePolicy, count: int) -> Experiment:
    """The experiment whose environments tell the latents of their physics in place of the physics.

    Args:
        experiment: Its environments tell what the encoder reads.
        policy: Has the encoder.
        count: Numbers of the latent Z.
    """
    quantities = tuple((term, experiment.identified[term.name]) for term in experiment.told)
    latents = {f"latent_{i}": IdentifiedQuantity("1", partial(_latent, policy, quantities, i)) for i in range(count)}
    return replace(experiment, identified=latents).telling(tuple(latents))


def _latent(
    policy: BasePolicy,
    quantities: tuple[tuple[ParameterTerm, IdentifiedQuantity], ...],
    index: int,
    p: Mapping[str, Array],
) -> Array:
    """One number of the latent of parameters by name, [N]."""
    values = np.stack([quantity.compute(p) for _, quantity in quantities], axis=1)
    with torch.inference_mode():
        told = torch.from_numpy(normalise_parameters(tuple(term for term, _ in quantities), values))
        latent: Array = policy.encode(told)[:, index].double().numpy()
    return latent
