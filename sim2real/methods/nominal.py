"""Training without randomization: what everybody trains first."""

from __future__ import annotations

from sim2real.errors import ConfigError
from sim2real.learn.experiment import Experiment
from sim2real.methods.base import PolicyMethod


class Nominal(PolicyMethod):
    """PPO on nominal physics."""

    def check(self, experiment: Experiment) -> None:
        """Refuse randomization."""
        if experiment.terms:
            raise ConfigError(
                "method 'nominal' means no randomization; remove 'randomize' or choose method 'randomized'"
            )
