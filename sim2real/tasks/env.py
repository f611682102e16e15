"""A vectorised task environment: simulated robots, a task and the observation contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim2real.robots.identified import IdentifiedQuantity, ParameterTerm, normalise_parameters
from sim2real.runtime.observation import (
    ActionScale,
    ObservationHistory,
    measured_command,
    own_signals,
)
from sim2real.runtime.spec import PolicySpec
from sim2real.sim.simulation import Simulation
from sim2real.tasks.base import Task
from sim2real.tasks.success import Holding, within
from sim2real.types import Array, Bools, EnvIds, Float32, State


@dataclass(frozen=True)
class EndedEpisodes:
    """Episodes that ended in one step, for methods that learn from them.

    Attributes:
        env_ids: Whose episodes [E].
        params: Their physics [E, P], as it was sampled at their start.
        returns: Sums of their rewards [E].
        success: Which succeeded [E].
        lengths: Control steps they took [E].
    """

    env_ids: EnvIds
    params: Array
    returns: Array
    success: Bools
    lengths: EnvIds


class TaskEnv:
    """N copies of a task on simulated robots; a robot whose episode ends starts anew at once.

    Args:
        sim: The robots.
        task: The task.
        spec: Observation and action contract.
        parameters: Identified quantities to tell, with what computes them.
        groups: Observation groups to record; all of the contract's by default.
        restart: Start a robot anew when its episode ends; without it the last observation stays.

    Attributes:
        signals: What the robots measure now, before encoding, by name.
        success: Of the episodes that ended in the last step [N].
        trial_ended: Robots whose trial ended in the last step [N]: memory that outlives episodes ends there.
        command: What was commanded in the last step [N, A].
        returns: Sum of the rewards of each running episode [N].
        ended: Episodes that ended in the last step.
    """

    def __init__(
        self,
        sim: Simulation,
        task: Task,
        spec: PolicySpec,
        parameters: Mapping[ParameterTerm, IdentifiedQuantity] | None = None,
        groups: Sequence[str] | None = None,
        restart: bool = True,
    ) -> None:
        self.sim, self.task, self.spec, self.restart = sim, task, spec, restart
        count = self.count = sim.count
        self.episode_steps = round(task.episode_s * spec.control_rate_hz)
        self._holding = Holding(count, round(task.hold_s * spec.control_rate_hz))
        self._scale = ActionScale(spec.action)
        self._histories = {
            name: ObservationHistory(spec.observation[name], count)
            for name in (spec.observation if groups is None else groups)
        }
        self.goal = np.zeros((count, task.goal.size))
        self.steps = np.zeros(count, dtype=np.int64)
        self.returns = np.zeros(count)
        self._ages = np.zeros(count, dtype=np.int64)  # unlike steps, never shifted by a trainer
        self.signals: dict[str, Array] = {}
        self._action = np.zeros((count, len(spec.action)))
        self.command = np.zeros((count, len(spec.action)))
        self.parameter_terms = tuple(parameters or ())
        self._quantities = list((parameters or {}).values())
        self._mu = np.zeros((count, len(self._quantities)), dtype=np.float32)
        self.success = np.zeros(count, dtype=np.bool_)
        self.trial_ended = np.zeros(count, dtype=np.bool_)
        self.ended = self._nobody = self._ended(np.zeros(0, dtype=np.int64))

    def reset(self, params: Array | None = None, start: State | None = None) -> None:
        """Start every robot anew, with sampled or given physics ``params`` [N, P] and ``start`` states."""
        env_ids = np.arange(self.count)
        self._restart(env_ids, params, start)
        self._observe(env_ids)

    def _restart(self, env_ids: EnvIds, params: Array | None = None, start: State | None = None) -> None:
        state = self.task.start(self.sim.rng, len(env_ids)) if start is None else start
        self.goal[env_ids] = self.task.goals(self.sim.rng, len(env_ids), state)
        self.sim.reset(env_ids, state, self.task.start_command(state), params)
        self.steps[env_ids] = 0
        self.returns[env_ids] = 0.0
        self._ages[env_ids] = 0
        self._holding.reset(env_ids)
        self._action[env_ids] = 0.0
        if self._quantities:
            table = self.sim.params.rows(env_ids)
            values = np.stack([quantity.compute(table) for quantity in self._quantities], axis=1)
            self._mu[env_ids] = normalise_parameters(self.parameter_terms, values)

    def _observe(self, restarted: EnvIds) -> None:
        measured = self.task.signals.measure(self.sim.measured(), self.goal)
        if len(restarted):
            self.command[restarted] = measured_command(self.spec, measured)[restarted]
        signals = self.signals = own_signals(self.spec, measured, self._action, self.command)
        fresh = {name: value[restarted] for name, value in signals.items()} if len(restarted) else {}
        for history in self._histories.values():
            history.push(signals)
            if len(restarted):
                history.reset(fresh, restarted)

    def step(self, action: Float32) -> tuple[Array, Bools, Bools]:
        """Act for one control period.

        Args:
            action: Network output [N, A]; clipped to -1 .. 1.

        Returns:
            reward [N], terminated [N] (failed), truncated [N] (time is up). Robots of which either is true have
            already started anew (with ``restart``); ``success`` [N] tells of their last episode.
        """
        command = self._scale.decode(action, self.command)
        sent = self._scale.encode(command, self.command)
        self.command = command
        self.sim.step(command)
        state = self.sim.state
        terminated = self.task.failed(state, self.goal)
        reward = self.task.reward(state, self.goal, sent, self._action, terminated)
        self._action = sent
        self.steps += 1
        self.returns += reward
        self._ages += 1
        self._holding.update(within(self.task, state, self.goal), terminated)
        truncated = (self.steps >= self.episode_steps) & ~terminated
        self.success = truncated & self._holding.success
        self.trial_ended = terminated | truncated
        ended = self.trial_ended.nonzero()[0]
        self.ended = self._ended(ended) if len(ended) else self._nobody
        done = ended if self.restart else ended[:0]
        if len(done):
            self._restart(done)
        self._observe(done)
        return reward, terminated, truncated

    def _ended(self, env_ids: EnvIds) -> EndedEpisodes:
        return EndedEpisodes(
            env_ids,
            self.sim.randomization.values[env_ids],
            self.returns[env_ids],
            self.success[env_ids],
            self._ages[env_ids],
        )

    def observation(self, group: str = "observation") -> Float32:
        """Encode a group of the policy's observation [N, d].

        Raises:
            KeyError: The environment was made without this group.
        """
        return self._histories[group].observation()

    def parameters(self) -> Float32:
        """True identified quantities, normalised [N, P]."""
        return self._mu

    def privileged_observation(self) -> Float32:
        """Encode what only the critic sees: the true state, time left, and scaled physics."""
        left = (1.0 - self.steps / self.episode_steps)[:, None]
        signals = self.task.signals.measure(self.sim.state, self.goal)
        near = np.clip(signals[self.task.error_signal] / self.task.near_m, -3, 3)
        return np.concatenate((*signals.values(), near, left, self._all_parameters()), axis=1).astype(np.float32)

    def _all_parameters(self) -> Array:
        params = self.sim.params
        width = params.high - params.low
        free = np.nonzero(width > 0)[0]
        return (params.values[:, free] - params.nominal[free]) / width[free] * 4.0
