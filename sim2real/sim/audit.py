"""Randomization audit: does every term really move the robot, and how far?

A term that changes nothing (a misspelt name, a parameter overwritten later, an inertia the engine
ignores) looks exactly like a working one in a learning curve. Here each term alone is moved to both
ends of its range, from the middle of all ranges, with the same commands and the same random numbers;
what differs in the measured signals is what the term does. It matters if it moves the robot by a part of the task's
tolerance, or a signal by a part of its own noise; a term that does neither can be felt by no policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim2real.robots.model import RobotModel
from sim2real.robots.physics import PhysicsParameter
from sim2real.robots.terms import RandomizationTerm, apply
from sim2real.runtime.signals import Signals
from sim2real.sim.scene import Scene
from sim2real.sim.simulation import Simulation
from sim2real.types import Array, State

NO_EFFECT = 1e-9
LEAST_OF_TOLERANCE, LEAST_OF_NOISE = 0.05, 0.1  # below both a term is nearly dead
LEAST_RESOLVED = 1e-3  # of a signal's spread in the rollout: where a signal has no noise, it is read no finer
DRAWS = 20_000  # to count those that leave the bounds


@dataclass(frozen=True)
class Excitation:
    """Motion of the robots while they are audited, whatever their physics.

    Attributes:
        start: State of N robots.
        goal: [N, 3] m.
        commands: [T, N, A].
    """

    start: State
    goal: Array
    commands: Array


@dataclass(frozen=True)
class AuditRow:
    """Effect of one term.

    Attributes:
        term: Name of the randomization term.
        low, high: The parameter's values that were compared.
        distance_m: Root-mean-square change of position along the rollout, at the end that moves it more.
        effect: The same over all measured signals, each divided by its own spread in the rollout.
        moves: Whether anything changed at all.
        cut: Share of the draws that leave the parameter's bounds, and are set to the bound.
        of_tolerance: ``distance_m`` divided by the task's tolerance.
        of_noise: Largest root-mean-square change of a signal, divided by the noise of that signal.
        matters: Whether one of the two is large enough to be felt; a term that moves and does not is nearly dead.
    """

    term: str
    low: float
    high: float
    distance_m: float
    effect: float
    moves: bool
    cut: float
    of_tolerance: float
    of_noise: float
    matters: bool


def ends(term: RandomizationTerm, around: float, parameter: PhysicsParameter) -> tuple[float, float, float]:
    """Low end, middle and high end of a parameter under a term (two deviations for a gaussian), within its bounds.

    Args:
        term: How it is drawn.
        around: The value that is scaled or offset.
        parameter: Whose bounds hold.
    """
    first, second = term.range
    if term.distribution == "gaussian":
        draws = (first - 2 * second, first, first + 2 * second)
    elif term.distribution == "log_uniform":
        draws = (first, float(np.sqrt(first * second)), second)
    else:
        draws = (first, 0.5 * (first + second), second)
    values = apply(term.operation, np.full(3, around), np.array(draws))
    low, middle, high = np.clip(values, parameter.low, parameter.high).tolist()
    return low, middle, high


def cut(term: RandomizationTerm, around: float, parameter: PhysicsParameter) -> float:
    """Share of a term's draws that leave the parameter's bounds; arguments as of :func:`ends`."""
    values = apply(term.operation, np.full(DRAWS, around), term.draw(np.random.default_rng(0), DRAWS))
    return float(((values < parameter.low) | (values > parameter.high)).mean())


def wiggle(model: RobotModel, steps: int, robots: int, rng: np.random.Generator) -> Array:
    """Commands [steps, robots, A] that wiggle every command around its hold value, inside its limits."""
    low, high = (np.array([getattr(c, end) for c in model.spec.commands]) for end in ("low", "high"))
    hold = np.array([0.5 * (c.low + c.high) if c.hold is None else c.hold for c in model.spec.commands])
    reach = 0.35 * np.minimum(high - hold, hold - low)
    time = np.arange(steps)[:, None, None] / model.spec.control_rate_hz
    frequency = rng.uniform(0.5, 3.0, (1, robots, len(hold)))
    phase = rng.uniform(0.0, 2 * np.pi, (1, robots, len(hold)))
    return hold + reach * np.sin(2 * np.pi * frequency * time + phase)


class Auditor:
    """Rolls the same commands out under different physics.

    Args:
        robot: The robot.
        signals: What is compared.
        error_signal: Which of them is a position, m.
        goal_size: Components of a goal.
        scene: What stands around the robot.
        robots: Parallel rollouts with different commands.
        seconds: Length of a rollout.
        decimation: Physics steps in one control step.
        seed: Seed of commands and noise.
        excitation: What they do; by default they wiggle every command around a plain start.
        tolerance_m: Distance that decides on success.
    """

    def __init__(
        self,
        robot: RobotModel,
        signals: Signals,
        error_signal: str,
        goal_size: int = 3,
        scene: Scene | None = None,
        robots: int = 8,
        seconds: float = 1.5,
        decimation: int = 2,
        seed: int = 0,
        excitation: Excitation | None = None,
        tolerance_m: float = 0.01,
    ) -> None:
        self.tolerance_m = tolerance_m
        self._robot, self._signals, self._scene = robot, signals, scene
        self.error_signal = error_signal
        self.parameters = {**robot.parameters, **(scene.parameters if scene else {})}
        self._decimation, self._seed = decimation, seed
        if excitation is None:
            commands = wiggle(robot, round(seconds * robot.spec.control_rate_hz), robots, np.random.default_rng(seed))
            start = {**robot.nominal_state(robots), **(scene.nominal_state(robots) if scene else {})}
            excitation = Excitation(start, np.zeros((robots, goal_size)), commands)
        self._does = excitation
        self._robots = len(excitation.goal)

    def noise(self, values: Mapping[str, float], reference: Mapping[str, Array]) -> dict[str, float]:
        """Standard deviation of every measured signal's noise with the given parameter values.

        Other random numbers change noise, gusts and biases. Second differences over time keep what is independent from
        step to step, with 6 times its variance, and lose what the robot's motion has made smooth.

        Args:
            values: Of the parameters.
            reference: :meth:`rollout` with them.
        """
        other = self.rollout(values, {}, self._seed + 1)
        return {
            name: float(np.sqrt((np.diff(other[name] - value, n=2, axis=0) ** 2).mean() / 12.0))
            for name, value in reference.items()
        }

    def rollout(
        self, values: Mapping[str, float], step_terms: Mapping[str, RandomizationTerm], seed: int | None = None
    ) -> dict[str, Array]:
        """Measured signals over time, each [T, robots, d], with the given parameter values.

        Args:
            values: Of the parameters; nominal where they are not named.
            step_terms: What is drawn anew at every step.
            seed: Of noise; the auditor's by default.
        """
        seed = self._seed if seed is None else seed
        sim = Simulation(self._robot, self._robots, step_terms, self._decimation, seed, self._scene)
        params = np.tile(sim.params.nominal, (self._robots, 1))
        for name, value in values.items():
            params[:, sim.params.column(name)] = value
        does = self._does
        sim.reset(np.arange(self._robots), does.start, does.commands[0], params)
        frames = []
        for command in does.commands:
            sim.step(command)
            frames.append(self._signals.measure(sim.measured(), does.goal))
        sim.close()
        return {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}


def audit(terms: Mapping[str, RandomizationTerm], auditor: Auditor) -> list[AuditRow]:
    """Audit every term, strongest first; terms of idle parameters only where there are no others.

    Args:
        terms: Randomization terms by name.
        auditor: Rollouts to use.
    """
    table = auditor.parameters
    felt = {name: term for name, term in terms.items() if not table[term.parameter or name].idle}
    terms = felt or terms
    middle = {name: parameter.nominal for name, parameter in table.items()}
    for name, term in terms.items():
        if term.kind == "episode":
            parameter = term.parameter or name
            middle[parameter] = ends(term, table[parameter].nominal, table[parameter])[1]
    reference = auditor.rollout(middle, {})
    spread = {name: max(float(value.std()), 1e-9) for name, value in reference.items()}
    noise = auditor.noise(middle, reference)
    resolved = {name: max(value, LEAST_RESOLVED * spread[name]) for name, value in noise.items()}
    rows = []
    for name, term in terms.items():
        parameter = term.parameter or name
        around = table[parameter].nominal if term.kind == "episode" else middle[parameter]
        low, _, high = ends(term, around, table[parameter])
        if term.kind == "step":
            rollouts = [auditor.rollout(middle, {name: term})]
        else:
            rollouts = [auditor.rollout({**middle, parameter: end}, {}) for end in (low, high)]
        distance = max(_moved(reference[auditor.error_signal], rollout[auditor.error_signal]) for rollout in rollouts)
        changes = [_changes(reference, rollout) for rollout in rollouts]
        effect = max(float(np.sqrt(np.mean([(c[s] / spread[s]) ** 2 for s in spread]))) for c in changes)
        of_tolerance = distance / auditor.tolerance_m
        of_noise = max(change[signal] / resolved[signal] for change in changes for signal in resolved)
        rows.append(
            AuditRow(
                name,
                low,
                high,
                distance,
                effect,
                moves=effect > NO_EFFECT,
                cut=cut(term, around, table[parameter]),
                of_tolerance=of_tolerance,
                of_noise=of_noise,
                matters=of_tolerance > LEAST_OF_TOLERANCE or of_noise > LEAST_OF_NOISE,
            )
        )
    return sorted(rows, key=lambda row: -row.effect)


def _moved(reference: Array, rollout: Array) -> float:
    """Root-mean-square distance between positions [T, robots, 3], m."""
    return float(np.sqrt(((rollout - reference) ** 2).sum(axis=-1).mean()))


def _changes(reference: Mapping[str, Array], rollout: Mapping[str, Array]) -> dict[str, float]:
    """Root-mean-square change of every signal, in its unit."""
    return {name: float(np.sqrt(((rollout[name] - value) ** 2).mean())) for name, value in reference.items()}
