"""UP-OSI (Yu et al., Preparing for the Unknown, RSS 2017): a universal policy with online system identification.

PPO trains π(a | o, μ) with the true physical parameters μ. Then φ(history) → μ is trained on the states that π visits
while it runs on φ's own estimates. φ, a filter over time and π are one network: its memory holds the filtered estimate,
its report is the estimate with its standard deviation.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from sim2real.errors import ConfigError
from sim2real.learn.artifact import Candidate
from sim2real.learn.estimator import (
    EstimateFilter,
    Estimator,
    IdentifyingPolicy,
    OSISettings,
    read_estimator,
    told_network,
    train_estimator,
    write_estimator,
)
from sim2real.learn.experiment import Experiment
from sim2real.learn.ppo import seed_of
from sim2real.learn.rsl_rl import make_network
from sim2real.methods.base import Method, PolicyMethod, Run, train_policy
from sim2real.robots.identified import normalise_parameters
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import ReportTerm, group_size
from sim2real.types import Array


class UpOsiSettings(OSISettings):
    """Settings of the method.

    Attributes:
        identify: Identified quantities that the policy is conditioned on, in order.
        told_nominal: Switch identification off: the policy is always told the nominal parameters.
    """

    identify: tuple[str, ...]
    told_nominal: bool = False


class UpOsi(PolicyMethod):
    """A universal policy with online system identification."""

    Settings = UpOsiSettings
    settings: UpOsiSettings
    off_trains = False

    def check(self, experiment: Experiment) -> None:
        """Refuse a configuration without randomization, with nothing to identify, or with an LSTM."""
        super().check(experiment)
        if not self.settings.identify:
            raise ConfigError("method 'up_osi' needs 'identify': names of the quantities to identify")
        if experiment.config.ppo.lstm:
            raise ConfigError("an LSTM identifies by itself; 'ppo.lstm' does not go with method 'up_osi'")

    def prepare(self, experiment: Experiment) -> Experiment:
        """Add the history that φ reads and the quantities that π is told."""
        task = experiment.task
        groups = experiment.with_groups(observation=task.observation(), history=task.history())
        return groups.telling(self.settings.identify)

    def train(self, experiment: Experiment, run: Run) -> Candidate:
        """Train π by PPO, then φ in rounds; each is kept, and not trained again."""
        experiment = self.prepare(experiment)
        trainer = train_policy(experiment, run, ("observation", "parameters"))
        policy = make_network(trainer.actor, experiment.config.ppo).eval()
        return identifying(experiment, run, policy, self.settings, self.settings.told_nominal, {"ppo": trainer.history})

    def told(self, experiment: Experiment, run: Run, values: Array) -> PolicyRunner:
        """Make a runner of a finished run's π that is told parameters in place of φ's estimates: an oracle.

        Args:
            experiment: What it was trained on.
            run: The finished run.
            values: Physical values [N, P] of :attr:`UpOsiSettings.identify`, one row a robot.
        """
        candidate, terms = self.train(experiment, run), self.prepare(experiment).told
        mu = torch.from_numpy(normalise_parameters(terms, values))
        network = told_network(cast(IdentifyingPolicy, candidate.network), mu, candidate.spec.outputs())
        return PolicyRunner(candidate.spec, network, len(mu))

    def off(self) -> Method:
        """Give the same policy, always told the nominal parameters."""
        return cast(Method, UpOsi(self.settings.model_copy(update={"told_nominal": True})))


def identifying(
    experiment: Experiment,
    run: Run,
    policy: nn.Module,
    settings: OSISettings,
    told_nominal: bool,
    history: dict[str, list[dict[str, float]]],
) -> Candidate:
    """Train φ for a policy that is told quantities, where that has not been done, and make one network of both.

    Args:
        experiment: Its environments have the groups ``observation`` and ``history`` and tell the quantities.
        run: Where φ is kept.
        policy: π, from observation and normalised quantities to the action.
        settings: Of φ's training.
        told_nominal: Tell π the nominal quantities whatever φ says.
        history: Metrics of the stages before.
    """
    dt = 1.0 / experiment.robot.spec.control_rate_hz
    estimates = EstimateFilter(experiment.told, dt, settings.estimate_time_constant_s)
    estimator, rounds = _estimator(experiment, run, policy, estimates, settings)
    network = IdentifyingPolicy(policy, estimator, estimates, experiment.told, told_nominal)
    report = tuple(ReportTerm(name=term.name, unit=term.unit) for term in experiment.told)
    spec = experiment.spec(estimates.memory_size, report)
    return Candidate(spec, network.eval(), {**history, "osi": rounds})


def _estimator(
    experiment: Experiment, run: Run, policy: nn.Module, estimates: EstimateFilter, settings: OSISettings
) -> tuple[Estimator, list[dict[str, float]]]:
    seed = seed_of(experiment.config.seed, "osi")
    assert experiment.groups is not None
    inputs = group_size(experiment.groups["history"])
    kept = read_estimator(run.folder, inputs, len(experiment.told), settings.hidden)
    if kept is None:
        env = experiment.make_env(seed, settings.robots)
        kept = train_estimator(
            env,
            policy,
            estimates,
            settings,
            seed,
            lambda i, metrics: run.on_progress("identification", i + 1, settings.rounds, metrics),
        )
        env.sim.close()
        write_estimator(run.folder, *kept)
    return kept
