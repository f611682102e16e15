"""From a configuration to the environment it describes."""

from __future__ import annotations

import numpy as np

from sim2real.config import ExperimentConfig, IdentifiedRanges
from sim2real.errors import ConfigError
from sim2real.robots import load_robot
from sim2real.sim.physics import PhysicsParams
from sim2real.sim.randomization import Randomization, RandomizationTerm
from sim2real.sim.robot import RobotModel
from sim2real.spec import PolicySpec
from sim2real.tasks import load_task
from sim2real.tasks.env import Task, TaskEnv, identified_terms


def chosen_terms(config: ExperimentConfig, model: RobotModel) -> dict[str, RandomizationTerm]:
    """The randomization terms a configuration names.

    Raises:
        ConfigError: A name the robot does not have, or a parameters file that cannot be used.
    """
    known, names = model.randomization, config.randomize
    if isinstance(names, IdentifiedRanges):
        known, names = model.identified_terms(names.from_), names.terms
    if names == "all":
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"robot '{model.name}' has no randomization {unknown}; it has {', '.join(known)}")
    return {name: known[name] for name in names}


def robot_of(config: ExperimentConfig) -> RobotModel:
    """The configured robot, around the parameters that the randomization comes from, where it comes from a file."""
    source = config.randomize.from_ if isinstance(config.randomize, IdentifiedRanges) else None
    return load_robot(config.robot, source)


def build_task(config: ExperimentConfig, model: RobotModel) -> Task:
    """The configured task."""
    settings = {key: value for key, value in config.task.items() if key != "name"}
    return load_task(config.task["name"], settings, model)


def build_spec(config: ExperimentConfig) -> PolicySpec:
    """The observation and action contract of a configuration; the same for the same configuration."""
    model = robot_of(config)
    task = build_task(config, model)
    unknown = [name for name in config.identify if name not in model.identified]
    if unknown:
        raise ConfigError(f"robot '{model.name}' cannot identify {unknown}; it knows {', '.join(model.identified)}")
    params = PhysicsParams(model.parameters, 1)
    sample = Randomization(chosen_terms(config, model), params, np.random.default_rng(0)).sample(20_000)
    return PolicySpec(
        robot=model.name,
        task=config.task["name"],
        control_rate_hz=model.spec.control_rate_hz,
        observation=task.observation(),
        estimator_observation=task.estimator_observation() if config.identify else (),
        parameters=identified_terms(model, config.identify, params, sample),
        estimate_time_constant_s=config.osi.estimate_time_constant_s if config.osi else 0.0,
        action=task.action(),
    )


def build_env(
    config: ExperimentConfig, seed: int, robots: int | None = None, record_history: bool = False, restart: bool = True
) -> TaskEnv:
    """A freshly started environment.

    Args:
        config: The experiment.
        seed: Seed of every draw in this environment.
        robots: Robots in the client; the configured number by default.
        record_history: Keep the identification network's input.
        restart: Start robots anew when their episode ends.
    """
    model = robot_of(config)
    terms = chosen_terms(config, model)
    sim = model.simulator(robots or config.sim.robots, terms, config.sim.decimation, seed)
    env = TaskEnv(sim, build_task(config, model), build_spec(config), record_history, restart)
    env.reset()
    return env
