"""A vectorised task environment: simulated robots, a task and the observation contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sim2real.robots.physics import PhysicsParams
from sim2real.runtime.observation import ObservationHistory, decode_action, encode_action, measured_command, own_signals
from sim2real.runtime.spec import ActionTerm, ObservationTerm, ParameterTerm, PolicySpec, normalise_parameters
from sim2real.sim.robot import RobotModel, Simulation
from sim2real.types import Array, Bools, EnvIds, Float32


class Task(Protocol):
    """What a task file provides. States are the robot's: a drone's ``BodyState``, an arm's ``ArmState``.

    Attributes:
        name: As in ``TASKS``.
        episode_s: Length of an episode.
        hold_s: The end of the episode that must be spent within tolerance.
        teacher: Signals to action [N, A], -1 .. 1: a controller to imitate before PPO begins; None without one.
        near: What the distance from the goal is divided by for the critic, m: about three tolerances.
    """

    name: str
    episode_s: float
    hold_s: float
    near: float
    teacher: Callable[[Mapping[str, Array]], Array] | None

    def observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the policy's observation."""

    def estimator_observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the identification network's input."""

    def action(self) -> tuple[ActionTerm, ...]:
        """Terms of the command."""

    def start(self, rng: np.random.Generator, count: int) -> Any:
        """Draw start states."""

    def start_command(self, state: Any) -> Array:
        """Command [N, A] taken as already sent at the start."""

    def goals(self, rng: np.random.Generator, count: int, state: Any) -> Array:
        """Draw goals [count, 3] for robots that start in ``state``."""

    def failed(self, state: Any, goal: Array) -> Bools:
        """Whether each robot has failed for good."""

    def reward(self, state: Any, goal: Array, action: Array, previous: Array, failed: Bools) -> Array:
        """Reward of a step."""

    def within(self, state: Any, goal: Array) -> Bools:
        """Whether each robot satisfies the task now."""


def identified_terms(
    model: RobotModel, names: Sequence[str], params: PhysicsParams, sample: Array
) -> tuple[ParameterTerm, ...]:
    """Ranges of identified quantities: the 0.5 and 99.5 percentiles over sampled physics.

    Args:
        model: The robot.
        names: Identified quantities, in the order in which the policy will see them.
        params: Any table of the robot's parameters.
        sample: Sampled parameters [n, P].
    """
    table = {name: sample[:, params.column(name)] for name in params.names}
    nominal = {name: params.nominal[params.column(name)][None] for name in params.names}
    terms = []
    for name in names:
        quantity = model.identified[name]
        low, high = np.percentile(quantity.compute(table), (0.5, 99.5))
        if high - low < 1e-6:  # not randomized: any width does
            low, high = low - 0.5, high + 0.5
        terms.append(
            ParameterTerm(
                name=name,
                unit=quantity.unit,
                low=float(low),
                high=float(high),
                nominal=float(quantity.compute(nominal)[0]),
            )
        )
    return tuple(terms)


class TaskEnv:
    """N copies of a task on simulated robots; a robot whose episode ends starts anew at once.

    Args:
        sim: The robots.
        task: The task.
        spec: Observation and action contract; its estimator terms are recorded only with ``record_history``.
        record_history: Keep the identification network's input (costs time, not needed while training π).
        restart: Start a robot anew when its episode ends; without it the last observation stays.

    Attributes:
        signals: What the robots measure now, before encoding, by name.
        success: Of the episodes that ended in the last step.
        command: What was commanded in the last step [N, A].
    """

    def __init__(
        self, sim: Simulation, task: Task, spec: PolicySpec, record_history: bool = False, restart: bool = True
    ) -> None:
        self.sim, self.task, self.spec, self.restart = sim, task, spec, restart
        self.count = sim.count
        self.episode_steps = round(task.episode_s * spec.control_rate_hz)
        self._hold_steps = round(task.hold_s * spec.control_rate_hz)
        self._history = ObservationHistory(spec.observation, self.count)
        self._estimator_history = ObservationHistory(spec.estimator_observation, self.count) if record_history else None
        self.goal = np.zeros((self.count, 3))
        self.steps = np.zeros(self.count, dtype=np.int64)
        self._held = np.zeros(self.count, dtype=np.int64)
        self.signals: dict[str, Array] = {}
        self._action = np.zeros((self.count, len(spec.action)))
        self.command = np.zeros((self.count, len(spec.action)))
        self._identified = [sim.model.identified[term.name] for term in spec.parameters]
        self._mu = np.zeros((self.count, len(spec.parameters)), dtype=np.float32)
        self.success = np.zeros(self.count, dtype=np.bool_)

    def reset(self, params: Array | None = None, start: Any = None) -> None:
        """Start every robot anew, with drawn or given physics ``params`` [N, P] and ``start`` states."""
        rows = np.arange(self.count)
        self._restart(rows, params, start)
        self._observe(rows)

    def _restart(self, rows: EnvIds, params: Array | None = None, start: Any = None) -> None:
        state = self.task.start(self.sim.rng, len(rows)) if start is None else start
        self.goal[rows] = self.task.goals(self.sim.rng, len(rows), state)
        self.sim.reset(rows, state, self.task.start_command(state), params)
        self.steps[rows] = 0
        self._held[rows] = 0
        self._action[rows] = 0.0
        if self._identified:
            table = self.sim.params.rows(rows)
            values = np.stack([quantity.compute(table) for quantity in self._identified], axis=1)
            self._mu[rows] = normalise_parameters(self.spec.parameters, values)

    def _observe(self, restarted: EnvIds) -> None:
        measured = self.sim.model.measure(self.sim.estimate(), self.goal)
        if len(restarted):
            self.command[restarted] = measured_command(self.spec, measured)[restarted]
        signals = self.signals = own_signals(self.spec, measured, self._action, self.command)
        fresh = {name: value[restarted] for name, value in signals.items()} if len(restarted) else {}
        for history in (self._history, self._estimator_history):
            if history is not None:
                history.push(signals)
                if len(restarted):
                    history.reset(fresh, restarted)

    def step(self, action: Float32) -> tuple[Array, Bools, Bools]:
        """Act for one control period.

        Args:
            action: Network output [N, A]; clipped to -1 .. 1.

        Returns:
            reward [N], terminated [N] (crashed), truncated [N] (time is up). Robots of which either
            is true have already started anew (with ``restart``); ``success`` [N] tells of their last episode.
        """
        command = decode_action(self.spec.action, action, self.command)
        sent = encode_action(self.spec.action, command, self.command)
        self.command = command
        self.sim.step(command)
        state = self.sim.state
        terminated = self.task.failed(state, self.goal)
        reward = self.task.reward(state, self.goal, sent, self._action, terminated)
        self._action = sent
        self.steps += 1
        self._held = np.where(self.task.within(state, self.goal), self._held + 1, 0)
        truncated = (self.steps >= self.episode_steps) & ~terminated
        self.success = truncated & (self._held >= self._hold_steps)
        done = np.nonzero((terminated | truncated) & self.restart)[0]
        if len(done):
            self._restart(done)
        self._observe(done)
        return reward, terminated, truncated

    def observation(self) -> Float32:
        """The policy's observation [N, O], without parameters."""
        return self._history.observation()

    def estimator_observation(self) -> Float32:
        """The identification network's input [N, E]; needs ``record_history``."""
        assert self._estimator_history is not None, "make the environment with record_history=True"
        return self._estimator_history.observation()

    def parameters(self) -> Float32:
        """True identified quantities, normalised, [N, len(spec.parameters)]."""
        return self._mu

    def privileged_observation(self) -> Float32:
        """What only the critic sees: the true state, time left, and scaled physics."""
        state = self.sim.state
        left = (1.0 - self.steps / self.episode_steps)[:, None]
        signals = self.sim.model.measure(state, self.goal)
        near = np.clip(signals[self.sim.model.position_signal] / self.task.near, -3, 3)
        return np.concatenate((*signals.values(), near, left, self._all_parameters()), axis=1).astype(np.float32)

    def _all_parameters(self) -> Array:
        params = self.sim.params
        width = params.high - params.low
        free = np.nonzero(width > 0)[0]
        return (params.values[:, free] - params.nominal[free]) / width[free] * 4.0
