"""Automatic domain randomization (OpenAI et al., Solving Rubik's Cube with a Robot Hand, 2019).

Every range begins without width at the nominal value, delays included. In a part of the episodes one parameter lies at
one end of its present range. When the newest episodes at an end succeed often enough, it moves outwards, and inwards
when they fail. What stays narrow names the parameter that hurts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field, model_validator

from sim2real.learn.artifact import Candidate
from sim2real.learn.buffers import EpisodeTable
from sim2real.learn.experiment import Experiment
from sim2real.learn.ppo import Hooks
from sim2real.methods.base import Method, PolicyMethod, Run
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.terms import RandomizationTerm, apply
from sim2real.sim.randomization import Randomization
from sim2real.types import Array, Model

TWO_SIDED_95 = 1.96  # a Gaussian's range, in standard deviations
RECORD_EVERY = 20  # iterations


class AdrSettings(Model):
    """Settings of the method.

    Attributes:
        delta: Steps of an end, as fractions of its way to the configured range; 0 stays at nominal physics.
        limit: Ends move at most this many times that way.
        boundary: Fraction of the episodes in which one parameter lies at an end.
        episodes: Results at an end that decide about its next step.
        grow, shrink: Success from which on an end moves outwards, and up to which it moves inwards.
    """

    delta: float = Field(default=0.1, ge=0, le=1)
    limit: float = Field(default=1.0, gt=0)
    boundary: float = Field(default=0.5, gt=0, le=1)
    episodes: int = Field(default=10, ge=1)
    grow: float = Field(default=0.8, gt=0, le=1)
    shrink: float = Field(default=0.4, ge=0, lt=1)

    @model_validator(mode="after")
    def _apart(self) -> AdrSettings:
        if not self.shrink < self.grow:
            raise ValueError(f"'shrink' ({self.shrink}) must be below 'grow' ({self.grow})")
        return self


@dataclass(frozen=True)
class Ranges:
    """Ranges of parameters between nominal and configured ones.

    Attributes:
        names: The parameters.
        columns: Theirs in the table of physics [D].
        nominal: Their nominal values [D].
        ends: Lowest and highest values of the configured ranges, with the nominal inside [D, 2].
        low, high: Bounds of the parameters [D].
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    nominal: Array
    ends: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, terms: Mapping[str, RandomizationTerm], params: PhysicsParams) -> Ranges:
        """Find what ``terms`` of kind ``episode`` vary, and how far."""
        found: dict[int, tuple[float, float]] = {}
        for name, term in terms.items():
            if term.kind != "episode":
                continue
            first, second = term.range
            if term.distribution == "gaussian":
                first, second = first - TWO_SIDED_95 * second, first + TWO_SIDED_95 * second
            column = params.column(term.parameter or name)
            before = np.array(found.get(column, (params.nominal[column],) * 2))
            values = [apply(term.operation, before, np.array(end)) for end in (first, second)]
            found[column] = (float(np.min(values)), float(np.max(values)))
        columns = tuple(found)
        nominal, low, high = (values[list(columns)] for values in (params.nominal, params.low, params.high))
        ends = np.array(list(found.values())).reshape(-1, 2)
        ends = np.stack((np.minimum(ends[:, 0], nominal), np.maximum(ends[:, 1], nominal)), axis=1)
        return cls(tuple(params.names[c] for c in columns), columns, nominal, ends, low, high)

    def values(self, widths: Array) -> Array:
        """Ends [D, 2] of the ranges at ``widths`` [D, 2]: 0 at the nominal value, 1 at the configured end."""
        ends = self.nominal[:, None] + widths * (self.ends - self.nominal[:, None])
        result: Array = np.clip(ends, self.low[:, None], self.high[:, None])
        return result

    def movable(self) -> Array:
        """Ends that are not nominal anyway, 1.0 or 0.0, [D, 2]."""
        return (np.abs(self.ends - self.nominal[:, None]) > 0.0).astype(np.float64)


@dataclass
class GrowingRanges:
    """Samples physics from ranges that the learner moves; in a rollout worker.

    Attributes:
        ranges: Nominal and configured.
        boundary: Fraction of samples with one parameter at an end.
        widths: Of the present ranges [D, 2].
    """

    ranges: Ranges
    boundary: float
    widths: Array = field(default_factory=lambda: np.zeros((0, 2)))

    def sample(self, terms: Randomization, count: int) -> Array:
        """Sample parameters [count, P]."""
        ranges, rng = self.ranges, terms.rng
        ends = ranges.values(self.widths)
        result = np.tile(terms.params.nominal, (count, 1))
        result[:, list(ranges.columns)] = rng.uniform(ends[:, 0], ends[:, 1], (count, len(ends)))
        parameter, side = np.nonzero(ranges.movable())
        chosen = rng.integers(0, max(len(parameter), 1), count)
        rows = np.nonzero((rng.random(count) < self.boundary) & (len(parameter) > 0))[0]
        which, end = parameter[chosen[rows]], side[chosen[rows]]
        result[rows, np.array(ranges.columns, dtype=np.int64)[which]] = ends[which, end]
        return result

    def load(self, state: Mapping[str, Array]) -> None:
        """Take in the learner's ranges."""
        self.widths = state["widths"]


class RangeLearner:
    """Moves the ends of ranges by the success of episodes that lay there; in the learner.

    An end's results are those of episodes with the parameter exactly at its present value. An end without width is
    where all episodes lie. Results that an end has moved away from since do not count.

    Args:
        ranges: Nominal and configured.
        settings: The method's.

    Attributes:
        widths: Of the present ranges [D, 2].
        history: Every ``RECORD_EVERY`` iterations the widths by ``PARAMETER.low`` and ``PARAMETER.high``, and the mean.
    """

    def __init__(self, ranges: Ranges, settings: AdrSettings) -> None:
        self._ranges, self._settings = ranges, settings
        self.widths = np.zeros((len(ranges.names), 2))
        self._results: dict[tuple[int, int], list[bool]] = {}
        self.history: list[dict[str, float]] = []

    def learn(self, iteration: int, table: EpisodeTable) -> Mapping[str, Array]:
        """Take in the episodes that ended; gives the ranges for the rollouts that follow."""
        values, ends = table.params[:, list(self._ranges.columns)], self._ranges.values(self.widths)
        for parameter, side in np.argwhere(self._ranges.movable() > 0):
            here = np.isclose(values[:, parameter], ends[parameter, side], rtol=1e-9, atol=0.0)
            results = self._results.setdefault((int(parameter), int(side)), [])
            results.extend(table.success[here].tolist())
            if len(results) >= self._settings.episodes:
                self._move(int(parameter), int(side), float(np.mean(results)))
                results.clear()
        if iteration % RECORD_EVERY == 0:
            self._record(iteration)
        return {"widths": self.widths.copy()}

    def _move(self, parameter: int, side: int, success: float) -> None:
        settings = self._settings
        step = settings.delta * (float(success >= settings.grow) - float(success <= settings.shrink))
        self.widths[parameter, side] = np.clip(self.widths[parameter, side] + step, 0.0, settings.limit)

    def _record(self, iteration: int) -> None:
        movable = self._ranges.movable() > 0
        named = {
            f"{name}.{end}": float(self.widths[i, side])
            for i, name in enumerate(self._ranges.names)
            for side, end in enumerate(("low", "high"))
            if movable[i, side]
        }
        mean = float(self.widths[movable].mean()) if movable.any() else 0.0
        self.history.append({"iteration": float(iteration), "mean_width": mean, **named})

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs."""
        results = [[*key, *map(int, values)] for key, values in self._results.items()]
        return {"widths": torch.from_numpy(self.widths.copy()), "results": results, "history": self.history}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.widths, self.history = state["widths"].numpy().copy(), list(state["history"])
        self._results = {(row[0], row[1]): [bool(value) for value in row[2:]] for row in state["results"]}


class Adr(PolicyMethod):
    """Ranges that grow from nominal physics as far as the policy can follow."""

    Settings = AdrSettings
    settings: AdrSettings

    def prepare(self, experiment: Experiment) -> Experiment:
        """The experiment with ranges that grow."""
        ranges = _ranges(experiment)
        sampler = GrowingRanges(ranges, self.settings.boundary, np.zeros((len(ranges.names), 2)))
        return replace(experiment, sampler=sampler)

    def hooks(self, experiment: Experiment) -> Hooks:
        """The learner of the ranges."""
        self._learner = RangeLearner(_ranges(experiment), self.settings)
        return Hooks(learn_sampler=self._learner.learn, state=self._learner.state, load=self._learner.load)

    def train(self, experiment: Experiment, run: Run) -> Candidate:
        """Train one policy by PPO; the history says how wide every range became."""
        candidate = super().train(experiment, run)
        candidate.history["adr"] = self._learner.history
        return candidate

    def off(self) -> Method:
        """Give the same training, with ranges that stay at nominal physics."""
        return cast(Method, Adr(self.settings.model_copy(update={"delta": 0.0})))


def _ranges(experiment: Experiment) -> Ranges:
    return Ranges.of(experiment.terms, PhysicsParams(dict(experiment.parameters), 1))
