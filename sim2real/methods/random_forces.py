"""Random force injection (Valassakis et al. 2020), with the two kinds of ERFI-50 (Campanaro et al. 2022).

The physics stays nominal. In each episode the robot bears one kind of random disturbance, each equally often: one that
changes at every step, or one that hardly changes. A robot's ``disturbances`` say what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from pydantic import Field

from sim2real.errors import ConfigError
from sim2real.learn.experiment import Experiment
from sim2real.methods.base import Method, PolicyMethod
from sim2real.robots.terms import RandomizationTerm
from sim2real.sim.randomization import Randomization
from sim2real.types import Array, Model


class RandomForcesSettings(Model):
    """Settings of the method.

    Attributes:
        strength: Disturbances are these times what the robot's description says; 0 is nominal physics.
    """

    strength: float = Field(default=1.0, ge=0)


@dataclass(frozen=True)
class Disturber:
    """Samples nominal physics under one kind of disturbance.

    Attributes:
        kinds: Terms of each kind.
        strength: Distance from nominal, times what the terms say.
    """

    kinds: tuple[Mapping[str, RandomizationTerm], ...]
    strength: float

    def sample(self, terms: Randomization, count: int) -> Array:
        """Sample parameters [count, P]."""
        nominal = terms.params.nominal
        every = [Randomization(kind, terms.params, terms.rng).sample_terms(count) for kind in self.kinds]
        chosen = terms.rng.integers(0, len(every), count)
        disturbed = np.stack(every)[chosen, np.arange(count)]
        return nominal + self.strength * (disturbed - nominal)

    def load(self, state: Mapping[str, Array]) -> None:
        """Learn nothing."""


class RandomForces(PolicyMethod):
    """Random forces on nominal physics, in place of randomization."""

    Settings = RandomForcesSettings
    settings: RandomForcesSettings

    def check(self, experiment: Experiment) -> None:
        """Refuse randomization, and a robot that names no disturbances."""
        if experiment.terms:
            raise ConfigError("method 'random_forces' takes the place of randomization; remove 'randomize'")
        if not experiment.robot.disturbances:
            raise ConfigError(
                f"robot '{experiment.robot.name}' names no 'disturbances' in its robot.yaml; method 'random_forces' "
                "has nothing to disturb it with; write some, as the shipped robots do"
            )

    def prepare(self, experiment: Experiment) -> Experiment:
        """The experiment with disturbed robots."""
        sampler = Disturber(tuple(experiment.robot.disturbances.values()), self.settings.strength)
        return replace(experiment, sampler=sampler)

    def off(self) -> Method:
        """Give the same training without disturbances."""
        return cast(Method, RandomForces(self.settings.model_copy(update={"strength": 0.0})))
