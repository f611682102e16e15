"""A vectorised environment on a target: to adapt, or to learn there, with a counted budget of episodes.

Robots of one variant and condition are a cell; they start anew together, when the time of their episode is up. One that
fails stays down until then, and is reported as terminated in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from sim2real.errors import SimulationError
from sim2real.runtime.observation import ObservationHistory, decode_action, encode_action, measured_command, own_signals
from sim2real.runtime.spec import PolicySpec
from sim2real.targets.base import Target, TargetSim, begin
from sim2real.tasks.base import Task
from sim2real.tasks.env import EndedEpisodes
from sim2real.tasks.success import Holding, within
from sim2real.types import Array, Bools, EnvIds, Float32


class Budget:
    """Episodes that may be run on a target; on a physical robot each costs time and wear.

    Args:
        episodes: How many; None for any number.

    Attributes:
        spent: Episodes begun so far.
    """

    def __init__(self, episodes: int | None) -> None:
        self.episodes, self.spent = episodes, 0

    @property
    def left(self) -> float:
        """Episodes that may still begin; infinite without a limit."""
        return np.inf if self.episodes is None else self.episodes - self.spent

    def spend(self, episodes: int) -> None:
        """Count episodes that begin now.

        Raises:
            SimulationError: There are not so many left; nothing is counted then.
        """
        if episodes > self.left:
            raise SimulationError(
                f"the budget of {self.episodes} episodes on the target is spent: {self.spent} were begun, {episodes} "
                "more are asked for; use fewer robots or ask for a larger budget, and report it with the result"
            )
        self.spent += episodes


class TargetEnv:
    """A task on a target, with the surface of :class:`sim2real.tasks.env.TaskEnv`.

    Rewards, ends and success are judged by what is measured, as on a physical robot, until :meth:`cheat` is called.

    Args:
        task: The task.
        target: Made for it.
        spec: Observation and action contract.
        cells: Pairs of variant and condition.
        per_cell: Robots in each.
        seed: Of starts and noise.
        budget: Of episodes; without one any number.

    Attributes:
        count: Number of robots N, cell after cell.
        signals: What the robots measure now, before encoding, by name.
        success: Of the episodes that ended in the last step [N].
        command: What was commanded in the last step [N, A].
        distance: To the goal at the end of the last step [N] m, before any cell started anew.
        within: Who was where it should be then [N].
        cheats: Whether :meth:`cheat` was called; say so beside any result.

    Raises:
        SimulationError: The budget does not allow the first episodes.
    """

    def __init__(
        self,
        task: Task,
        target: Target,
        spec: PolicySpec,
        cells: Sequence[tuple[str, str]],
        per_cell: int = 1,
        seed: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self.task, self.target, self.spec, self.budget = task, target, spec, budget or Budget(None)
        self.cells, self.per_cell, self.count = tuple(cells), per_cell, per_cell * len(cells)
        self._sims = [target.make(*cell, per_cell, seed + index) for index, cell in enumerate(cells)]
        # What a trainer asks of a simulation; nobody samples a target's physics.
        self.sim = SimpleNamespace(
            rng=np.random.default_rng(seed),
            close=self.close,
            randomization=SimpleNamespace(sampler=None, values=np.zeros((self.count, 0))),
        )
        self.episode_steps = round(task.episode_s * spec.control_rate_hz)
        self._holding = Holding(self.count, round(task.hold_s * spec.control_rate_hz))
        names = [term.name for term in spec.action]
        self._order = [names.index(name) for name in target.commands]
        self._histories = {name: ObservationHistory(terms, self.count) for name, terms in spec.observation.items()}
        self.goal = np.zeros((self.count, task.goal.size))
        self.returns = np.zeros(self.count)
        self.trial_ended = np.zeros(self.count, dtype=np.bool_)
        self.success = np.zeros(self.count, dtype=np.bool_)
        self.steps = np.zeros(self.count, dtype=np.int64)
        self.ended = self._ended(np.zeros(0, dtype=np.int64))
        self.distance = np.full(self.count, np.inf)
        self.within = np.zeros(self.count, dtype=np.bool_)
        self.signals: dict[str, Array] = {}
        self._action = np.zeros((self.count, len(names)))
        self.command = np.zeros((self.count, len(names)))
        self.cheats = False
        self.reset()

    def reset(self) -> None:
        """Start every robot anew.

        Raises:
            SimulationError: The budget is spent.
        """
        self._restart(range(len(self.cells)))
        self._observe(self._measured(), np.arange(self.count))

    def rows(self, cell: int) -> slice:
        """Robots of a cell."""
        return slice(cell * self.per_cell, (cell + 1) * self.per_cell)

    def _restart(self, cells: Sequence[int]) -> None:
        self.budget.spend(len(cells) * self.per_cell)
        for cell in cells:
            rows = self.rows(cell)
            start, goal = begin(self.task, self.target, self.per_cell, int(self.sim.rng.integers(2**31)))
            self._sims[cell].reset(start)
            self.goal[rows], self._action[rows], self.steps[rows], self.returns[rows] = goal, 0.0, 0, 0.0
            self._holding.reset(np.arange(self.count)[rows])

    def step(self, action: Float32) -> tuple[Array, Bools, Bools]:
        """Act for one control period.

        Args:
            action: Network output [N, A]; clipped to -1 .. 1.

        Returns:
            reward [N], terminated [N] (failed), truncated [N] (time is up). Cells whose time is up have started
            anew; ``success`` [N] tells of their last episode.

        Raises:
            SimulationError: The budget does not allow the next episodes.
        """
        command = decode_action(self.spec.action, action, self.command)
        sent = encode_action(self.spec.action, command, self.command)
        self.command = command
        for cell, sim in enumerate(self._sims):
            sim.command(command[self.rows(cell)][:, self._order])
            sim.advance(self.spec.control_dt)
        measured = None if self.cheats else self._measured()
        state = _stack([sim.truth() for sim in self._sims]) if measured is None else measured
        crashed = np.concatenate([sim.failed for sim in self._sims])
        terminated = crashed | self.task.failed(state, self.goal)
        reward = self.task.reward(state, self.goal, sent, self._action, terminated)
        self._action = sent
        self.steps += 1
        self.returns += reward
        self.distance = np.asarray(self.task.distance(state, self.goal))
        self.within = within(self.task, state, self.goal)
        self._holding.update(self.within, terminated)
        # A trainer may shift first episodes by changing `steps` row by row; a cell goes by its first row.
        over = self.steps[:: self.per_cell] >= self.episode_steps
        ended = np.repeat(over, self.per_cell)
        truncated = ended & ~terminated
        self.success = truncated & self._holding.success
        self.trial_ended = ended
        self.ended = self._ended(np.nonzero(ended)[0])
        if over.any():
            self._restart([int(cell) for cell in np.nonzero(over)[0]])
        if measured is None or over.any():
            measured = self._measured()
        self._observe(measured, np.nonzero(ended)[0])
        return reward, terminated, truncated

    def _measured(self) -> dict[str, Array]:
        return _stack([sim.measured() for sim in self._sims])

    def _observe(self, state: dict[str, Array], restarted: EnvIds) -> None:
        measured = self.task.signals.measure(state, self.goal)
        if len(restarted):
            self.command[restarted] = measured_command(self.spec, measured)[restarted]
        signals = self.signals = own_signals(self.spec, measured, self._action, self.command)
        fresh = {name: value[restarted] for name, value in signals.items()} if len(restarted) else {}
        for history in self._histories.values():
            history.push(signals)
            if len(restarted):
                history.reset(fresh, restarted)

    def _ended(self, env_ids: EnvIds) -> EndedEpisodes:
        none = np.zeros((len(env_ids), 0))
        return EndedEpisodes(env_ids, none, self.returns[env_ids], self.success[env_ids], self.steps[env_ids])

    def observation(self, group: str = "observation") -> Float32:
        """Encode a group of the policy's observation [N, d]."""
        return self._histories[group].observation()

    def parameters(self) -> Float32:
        """Identified quantities [N, 0]: nobody knows a target's own."""
        return np.zeros((self.count, 0), dtype=np.float32)

    def cheat(self) -> Cheat:
        """Look behind the sensors, and judge by the truth from now on: for oracles, never for a method."""
        self.cheats = True
        return Cheat(self, self._sims)

    def close(self) -> None:
        """Free the simulations; harmless when closed."""
        for sim in self._sims:
            sim.close()


class Cheat:
    """Facts that only a simulated target can tell.

    Attributes:
        sims: The simulated robots, one entry a cell.
    """

    def __init__(self, env: TargetEnv, sims: Sequence[TargetSim]) -> None:
        self._env, self.sims = env, sims

    def state(self) -> dict[str, Array]:
        """The true state [N, d] by name."""
        return _stack([sim.truth() for sim in self.sims])

    def signals(self) -> dict[str, Array]:
        """Signals of the true state [N, d] by name."""
        return dict(self._env.task.signals.measure(self.state(), self._env.goal))


def _stack(states: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([state[name] for state in states]) for name in states[0]}
