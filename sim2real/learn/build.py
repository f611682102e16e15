"""From a configuration to the environment it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from sim2real.config import ExperimentConfig, IdentifiedRanges, OwnRanges
from sim2real.errors import ConfigError
from sim2real.robots import load_robot
from sim2real.robots.physics import PhysicsParams
from sim2real.runtime.spec import PolicySpec
from sim2real.sim.audit import Excitation
from sim2real.sim.randomization import Randomization, RandomizationTerm, expand_terms
from sim2real.sim.robot import RobotModel
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
    elif isinstance(names, OwnRanges):
        own = _written(names.ranges, model)
        known = {**known, **own}
        names = names.terms if names.terms == "all" else (*names.terms, *(n for n in own if n not in names.terms))
    if names == "all":
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"robot '{model.name}' has no randomization {unknown}; it has {', '.join(known)}")
    return {name: known[name] for name in names}


def _written(ranges: Mapping[str, dict[str, Any]], model: RobotModel) -> dict[str, RandomizationTerm]:
    try:
        terms = {name: RandomizationTerm.model_validate(term) for name, term in ranges.items()}
    except ValidationError as error:
        raise ConfigError(f"randomize.ranges: {error}") from error
    return expand_terms(terms, model.parameters, "randomize.ranges")


def robot_and_task(config: ExperimentConfig) -> tuple[RobotModel, Task]:
    """The configured robot with what the task adds to it, and the task.

    The robot is built around the parameters that the randomization comes from, where it comes from a file.
    """
    source = config.randomize.from_ if isinstance(config.randomize, IdentifiedRanges) else None
    settings = {key: value for key, value in config.task.items() if key != "name"}
    return load_task(config.task["name"], settings, load_robot(config.robot, source))


def excitation(config: ExperimentConfig, robots: int = 8) -> Excitation | None:
    """What the task's own controller does on the nominal robot, for an audit; None for a task without one.

    Terms about an object show only where it is touched.
    """
    model, task = robot_and_task(config)
    if task.teacher is None:
        return None
    env = TaskEnv(model.simulator(robots, {}, config.sim.decimation), task, build_spec(config), restart=False)
    start = task.start(np.random.default_rng(0), robots)
    env.reset(start=start)
    commands = []
    for _ in range(env.episode_steps):
        env.step(np.asarray(task.teacher(env.signals), dtype=np.float32))
        commands.append(env.command.copy())
    env.sim.close()
    return Excitation(start, env.goal.copy(), np.array(commands))


def build_spec(config: ExperimentConfig) -> PolicySpec:
    """The observation and action contract of a configuration; the same for the same configuration."""
    model, task = robot_and_task(config)
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
        memory=2 * config.ppo.lstm,
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
    model, task = robot_and_task(config)
    terms = chosen_terms(config, model)
    sim = model.simulator(robots or config.sim.robots, terms, config.sim.decimation, seed)
    env = TaskEnv(sim, task, build_spec(config), record_history, restart)
    env.reset()
    return env
