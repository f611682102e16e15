"""The contract of a transfer method, and the parts of a run that methods share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sim2real.errors import ConfigError
from sim2real.learn.artifact import Candidate
from sim2real.learn.experiment import EnvOf, Experiment
from sim2real.learn.ppo import Hooks, Trainer, seed_of
from sim2real.learn.rsl_rl import make_network, memory_size
from sim2real.types import Model, Progress

if TYPE_CHECKING:
    from sim2real.targets.env import TargetEnv


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class Run:
    """The place of a training.

    Attributes:
        folder: Checkpoints, events and metrics go here.
        on_progress: Told stage, step done, steps in all and metrics.
    """

    folder: Path
    on_progress: Progress


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Training was interrupted; a checkpoint is there, and the same run goes on later."""


class Method(Protocol):
    """A way to train a policy for physics it does not know. A class with a ``Settings`` model, made with its settings.

    Attributes:
        Settings: Read from ``method:`` of a configuration.
    """

    Settings: type[Model]

    def __init__(self, settings: Model) -> None:
        """Take the settings."""

    def check(self, experiment: Experiment) -> None:
        """Refuse a configuration that does not suit the method; raises ConfigError."""

    def train(self, experiment: Experiment, run: Run) -> Candidate:
        """Train, going on from what is in ``run.folder``; raises :class:`Stopped` after an interruption.

        A run that is finished gives its candidate again without training.
        """

    def adapt(self, candidate: Candidate, target: TargetEnv, run: Run) -> Candidate:
        """Adapt to a target within its budget of episodes; the candidate as it is by default."""

    def off(self) -> Method:
        """The same code with its mechanism switched off, for comparisons."""


class PolicyMethod:
    """Base of methods that train one policy by PPO: override what differs.

    Args:
        settings: The method's.
    """

    Settings: type[Model] = Model
    # False where the mechanism is switched off after the training, which can then be taken over as it is.
    off_trains = True

    def __init__(self, settings: Model) -> None:
        self.settings = settings

    def check(self, experiment: Experiment) -> None:
        """Refuse a configuration without randomization."""
        if not experiment.terms:
            raise ConfigError(f"method '{experiment.config.method['name']}' needs 'randomize': all, or a list of terms")

    def prepare(self, experiment: Experiment) -> Experiment:
        """The experiment as this method trains on it: other groups, told quantities, a sampler."""
        return experiment

    def groups(self) -> Sequence[str]:
        """Observation groups that the policy reads."""
        return ("observation",)

    def hooks(self, experiment: Experiment) -> Hooks:
        """Additions to the training loop."""
        return Hooks()

    def train(self, experiment: Experiment, run: Run) -> Candidate:
        """Train one policy by PPO."""
        experiment = self.prepare(experiment)
        trainer = train_policy(experiment, run, self.groups(), self.hooks(experiment))
        ppo = experiment.config.ppo
        spec = experiment.spec(memory_size(ppo))
        return Candidate(spec, make_network(trainer.actor, ppo), {"ppo": trainer.history})

    def adapt(self, candidate: Candidate, target: TargetEnv, run: Run) -> Candidate:
        """Leave the candidate as it is."""
        return candidate

    def off(self) -> Method:
        """Give the method itself: it has no mechanism beside PPO."""
        return self


def train_policy(experiment: Experiment, run: Run, groups: Sequence[str], hooks: Hooks = NO_HOOKS) -> Trainer:
    """Train a policy by PPO to the configured number of iterations, going on from a checkpoint.

    Args:
        experiment: What it trains on.
        run: Where.
        groups: Observation groups the policy reads; ``parameters`` is one that tells the true physics.
        hooks: What a method adds.

    Raises:
        Stopped: Ctrl-C ended training early; a checkpoint is there.
    """
    config = experiment.config
    make_env = EnvOf(experiment, [name for name in groups if name != "parameters"])
    seed = seed_of(config.seed, "ppo")
    trainer = Trainer(make_env, config.ppo, run.folder, config.sim.workers, seed, groups, hooks)
    trainer.load()
    total = config.ppo.iterations
    if not trainer.train(lambda i, metrics: run.on_progress("PPO", i, total, metrics)):
        raise Stopped
    return trainer
