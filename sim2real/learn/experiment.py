"""An experiment: a configuration resolved once into robot, task, physics and the environments made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import ValidationError

from sim2real.config import ExperimentConfig, IdentifiedRanges, OwnRanges, validate_config
from sim2real.errors import ConfigError
from sim2real.robots import load_robot
from sim2real.robots.identified import IdentifiedQuantity, ParameterTerm, ParameterValue, parameter_terms
from sim2real.robots.model import RobotModel
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm, expand_terms
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.spec import ObservationTerm, PolicySpec, ReportTerm
from sim2real.sim.randomization import ParameterSampler, Randomization
from sim2real.sim.simulation import Simulation
from sim2real.tasks import load_task
from sim2real.tasks.base import Task
from sim2real.tasks.env import TaskEnv

_SAMPLES = 20_000  # for the ranges of identified quantities


@dataclass(frozen=True)
class Experiment:
    """Everything that training, evaluation and export share; picklable, made once by :func:`load_experiment`.

    Attributes:
        config: What it was made from.
        robot, task: The robot, and the task for it with its scene.
        parameters: What the physics of robot and scene can vary.
        terms: Randomization terms that take part.
        identified: What data can identify of robot and scene.
        told: Identified quantities that environments tell, with their ranges; none by default.
        groups: Observation groups of the contract, and of environments.
        sampler: What samples physics in place of the terms alone.
    """

    config: ExperimentConfig
    robot: RobotModel
    task: Task
    parameters: Mapping[str, PhysicsParameter]
    terms: Mapping[str, RandomizationTerm]
    identified: Mapping[str, IdentifiedQuantity]
    told: tuple[ParameterTerm, ...] = ()
    groups: Mapping[str, tuple[ObservationTerm, ...]] | None = None
    sampler: ParameterSampler | None = None

    def spec(self, memory: int = 0, report: tuple[ReportTerm, ...] = ()) -> PolicySpec:
        """Write the contract of a policy with these observation groups.

        Args:
            memory: Numbers its network carries from step to step.
            report: What its network reports.
        """
        return PolicySpec(
            robot=self.robot.name,
            task=self.task.name,
            control_rate_hz=self.robot.spec.control_rate_hz,
            signals=self.task.signals_name,
            goal=self.task.goal,
            observation=dict(self.groups or {"observation": self.task.observation()}),
            memory=memory,
            report=report,
            action=self.task.action(),
        )

    def told_terms(self, names: Sequence[str]) -> tuple[ParameterTerm, ...]:
        """Find the ranges of identified quantities under this randomization.

        Raises:
            ConfigError: The robot cannot identify one of them.
        """
        unknown = [name for name in names if name not in self.identified]
        if unknown:
            known = ", ".join(self.identified)
            raise ConfigError(f"robot '{self.robot.name}' cannot identify {unknown}; it knows {known}")
        params = PhysicsParams(dict(self.parameters), 1)
        sample = Randomization(self.terms, params, np.random.default_rng(0)).sample(_SAMPLES)
        return parameter_terms(self.identified, names, params, sample)

    def telling(self, names: Sequence[str]) -> Experiment:
        """The same experiment whose environments tell identified quantities."""
        return replace(self, told=self.told_terms(names))

    def nominal(self) -> Experiment:
        """The same experiment without randomization."""
        return replace(self, terms={}, sampler=None)

    def with_groups(self, **groups: tuple[ObservationTerm, ...]) -> Experiment:
        """The same experiment with other observation groups."""
        return replace(self, groups=groups)

    def make_sim(self, count: int, seed: int) -> Simulation:
        """Start ``count`` simulated robots with their scene and randomized physics."""
        sim = Simulation(self.robot, count, self.terms, self.config.sim.decimation, seed, self.task.scene)
        sim.randomization.sampler = self.sampler
        return sim

    def make_env(
        self, seed: int, count: int | None = None, restart: bool = True, groups: Sequence[str] | None = None
    ) -> TaskEnv:
        """Start an environment.

        Args:
            seed: Seed of every random draw in it.
            count: Robots in it; the configured number by default.
            restart: Start robots anew when their episode ends.
            groups: Observation groups to record; all by default.
        """
        sim = self.make_sim(count or self.config.sim.robots, seed)
        told = {term: self.identified[term.name] for term in self.told}
        env = TaskEnv(sim, self.task, self.spec(), told, groups, restart)
        env.reset()
        return env


@dataclass(frozen=True)
class EnvOf:
    """Makes environments of an experiment; picklable, for the rollout processes, which need no torch for it."""

    experiment: Experiment
    groups: Sequence[str]

    def __call__(self, seed: int) -> TaskEnv:
        """Start an environment."""
        return self.experiment.make_env(seed, groups=self.groups)


def load_experiment(config: ExperimentConfig) -> Experiment:
    """Resolve a configuration.

    The robot is built around the parameters that the randomization comes from, where it comes from a file.

    Raises:
        ConfigError: No such robot or task, they do not go together, or a randomization term is unknown.
    """
    source = config.randomize.from_ if isinstance(config.randomize, IdentifiedRanges) else None
    robot = load_robot(config.robot, source)
    task = load_task(config.task, robot)
    scene = task.scene
    parameters = {**robot.parameters, **(scene.parameters if scene else {})}
    terms = {**robot.randomization, **(scene.randomization if scene else {})}
    identified = dict(robot.identified)
    if scene:
        identified |= {name: IdentifiedQuantity(p.unit, ParameterValue(name)) for name, p in scene.parameters.items()}
    return Experiment(config, robot, task, parameters, chosen_terms(config, robot, parameters, terms), identified)


def bundle_experiment(bundle: PolicyBundle) -> Experiment:
    """Resolve the configuration that a bundle's policy was trained on.

    Raises:
        ConfigError: The bundle does not say, or its robot or task cannot be found here.
    """
    config = bundle.provenance.get("config")
    if not isinstance(config, dict) or not config:
        raise ConfigError(f"{bundle.path} does not say what it was trained on (no 'config' in provenance.json)")
    return load_experiment(validate_config(config, f"{bundle.path}/provenance.json"))


def chosen_terms(
    config: ExperimentConfig,
    robot: RobotModel,
    parameters: Mapping[str, PhysicsParameter],
    known: Mapping[str, RandomizationTerm],
) -> dict[str, RandomizationTerm]:
    """Choose the randomization terms that a configuration names.

    Args:
        config: The configuration.
        robot: Reads what was identified of it.
        parameters: Of robot and scene.
        known: Terms of robot and scene.

    Raises:
        ConfigError: A name the robot does not have, or a parameters file that cannot be used.
    """
    names = config.randomize
    if isinstance(names, IdentifiedRanges):
        own = robot.identified_terms(names.from_)
        scene = {name: term for name, term in known.items() if name not in robot.randomization}
        known, names = {**own, **scene}, names.terms
    elif isinstance(names, OwnRanges):
        own = _written(names.ranges, parameters)
        known = {**known, **own}
        names = names.terms if names.terms == "all" else (*names.terms, *(n for n in own if n not in names.terms))
    if names == "all":
        return dict(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"robot '{robot.name}' has no randomization {unknown}; it has {', '.join(known)}")
    return {name: known[name] for name in names}


def _written(
    ranges: Mapping[str, Mapping[str, object]], parameters: Mapping[str, PhysicsParameter]
) -> dict[str, RandomizationTerm]:
    try:
        terms = {name: RandomizationTerm.model_validate(term) for name, term in ranges.items()}
    except ValidationError as error:
        raise ConfigError(f"randomize.ranges: {error}") from error
    return expand_terms(terms, parameters, "randomize.ranges")
