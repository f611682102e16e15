"""Dynamics randomization: named terms, each an operation on one physics parameter.

Tobin et al. 2017 and Peng et al. 2018 draw the physics anew for every episode; terms of kind
``step`` (delay jitter) are drawn anew at every control step around the episode's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from scipy.special import ndtr

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.terms import RandomizationTerm, apply
from sim2real.runtime import columns
from sim2real.types import Array, EnvIds


def _together(terms: Mapping[str, RandomizationTerm]) -> list[tuple[list[str], Array]]:
    """Groups of terms that are drawn together: their names, and what [n, n] makes them so of independent normals."""
    groups: list[list[str]] = []
    for name, term in terms.items():
        linked = [name, *(other for other in term.correlated if other in terms)]
        if len(linked) == 1:
            continue
        met = [group for group in groups if set(group) & set(linked)]
        groups = [group for group in groups if group not in met]
        groups.append(list(dict.fromkeys(other for group in [*met, linked] for other in group)))
    result = []
    for group in groups:
        matrix = np.eye(len(group))
        for row, name in enumerate(group):
            for column, other in enumerate(group[:row]):
                known = terms[name].correlated.get(other, terms[other].correlated.get(name, 0.0))
                matrix[row, column] = matrix[column, row] = known
        # Rounded correlations need not belong together; the nearest ones that do have no negative eigenvalue.
        values, vectors = np.linalg.eigh(matrix)
        factor = vectors * np.sqrt(np.maximum(values, 0.0))
        result.append((group, factor / np.maximum(np.linalg.norm(factor, axis=1, keepdims=True), 1e-12)))
    return result


class ParameterSampler(Protocol):
    """Samples physics in place of the terms alone: a curriculum, a posterior, an adversary. Picklable."""

    def sample(self, terms: Randomization, count: int) -> Array:
        """Sample parameters [count, P]; ``terms.sample_terms(count)`` are samples of the named terms."""

    def load(self, state: Mapping[str, Array]) -> None:
        """Take in what the method has learned since, as arrays; called between rollouts."""


class Randomization:
    """Samples physics parameters from named terms.

    Args:
        terms: Terms by name; empty for the nominal simulator.
        params: The table they act on.
        rng: Source of every random number.

    Attributes:
        sampler: Where set, what samples in place of the terms alone.
        values: Physics of the running episodes [N, P], without what terms of kind ``step`` add.

    Raises:
        ConfigError: A term names an unknown parameter, or its range leaves the parameter's bounds.
    """

    def __init__(self, terms: Mapping[str, RandomizationTerm], params: PhysicsParams, rng: np.random.Generator) -> None:
        self.terms = dict(terms)
        self.params = params
        self.rng = rng
        self.sampler: ParameterSampler | None = None
        for name, term in self.terms.items():
            parameter = params.table[params.names[params.column(term.parameter or name)]]
            if term.operation == "set" and term.distribution != "gaussian":
                low, high = term.range
                if low < parameter.low or high > parameter.high:
                    raise ConfigError(
                        f"randomization '{name}' draws {low} .. {high} {parameter.unit}, outside the "
                        f"parameter's bounds {parameter.low} .. {parameter.high}; "
                        "narrow the range or widen the bounds in robot.yaml"
                    )
        self._episode = [(n, params.column(t.parameter or n), t) for n, t in self.terms.items() if t.kind == "episode"]
        steps = [(params.column(t.parameter or n), t) for n, t in self.terms.items() if t.kind == "step"]
        self._step = [(i, float(params.low[i]), float(params.high[i]), t) for i, t in steps]
        self._groups = _together({n: t for n, t in self.terms.items() if t.kind == "episode"})
        self.values = params.values.copy()

    def sample(self, count: int) -> Array:
        """Sample all parameters [count, P], by the sampler where there is one."""
        if self.sampler is None:
            return self.sample_terms(count)
        return np.clip(self.sampler.sample(self, count), self.params.low, self.params.high)

    def sample_terms(self, count: int) -> Array:
        """Sample nominal values with the episode terms applied, [count, P]."""
        values = np.tile(self.params.nominal, (count, 1))
        drawn: dict[str, Array] = {}
        for names, factor in self._groups:
            shares = ndtr(self.rng.standard_normal((count, len(names))) @ factor.T)
            drawn |= {name: self.terms[name].quantile(shares[:, i]) for i, name in enumerate(names)}
        for name, column, term in self._episode:
            value = drawn[name] if name in drawn else term.draw(self.rng, count)
            values[:, column] = apply(term.operation, values[:, column], value)
        return np.clip(values, self.params.low, self.params.high)

    def reset(self, env_ids: EnvIds, values: Array | None = None) -> None:
        """Give new parameters to ``env_ids``: sampled, or the given ``values`` [len(env_ids), P]."""
        self.params.assign(env_ids, self.sample(len(env_ids)) if values is None else values)
        self.values[env_ids] = self.params.values[env_ids]

    def step(self) -> None:
        """Redraw the terms of kind ``step`` around the episode's values, for every robot."""
        count = len(self.params.values)
        for index, low, high, term in self._step:
            value = apply(term.operation, self.values[:, index], term.draw(self.rng, count))
            self.params.values[:, index] = columns.within(columns.column(value), low, high)
