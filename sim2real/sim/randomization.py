"""Dynamics randomization: named terms, each an operation on one physics parameter.

Tobin et al. 2017 and Peng et al. 2018 draw the physics anew for every episode; terms of kind
``step`` (delay jitter) are drawn anew at every control step around the episode's value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.special import ndtr, ndtri

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParams
from sim2real.types import Array, EnvIds, Model


class RandomizationTerm(Model):
    """How one parameter is drawn.

    Attributes:
        parameter: Physics parameter; the term's own name where it is left out.
        operation: ``set`` replaces the nominal value, ``scale`` multiplies it, ``offset`` is added to it.
        distribution: ``uniform`` or ``log_uniform`` over ``range`` = (low, high), or ``gaussian`` with
            ``range`` = (mean, standard deviation).
        kind: ``episode`` (drawn at reset) or ``step`` (drawn at every control step).
        reason: Where the range comes from.
        correlated: Other terms of kind ``episode`` that this one is drawn together with, by name, and the correlation
            with each (a Gaussian copula: every term alone is distributed as it says).
    """

    parameter: str | None = None
    operation: Literal["set", "scale", "offset"]
    distribution: Literal["uniform", "log_uniform", "gaussian"]
    range: tuple[float, float]
    kind: Literal["episode", "step"] = "episode"
    reason: str
    correlated: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _drawable(self) -> RandomizationTerm:
        low, high = self.range
        if self.distribution == "gaussian":
            if high < 0:
                raise ValueError("a gaussian's range is (mean, standard deviation); the deviation is negative")
        elif high < low:
            raise ValueError(f"range {self.range} is not (low, high)")
        if self.distribution == "log_uniform" and low <= 0:
            raise ValueError(f"log_uniform needs a positive range, got {self.range}")
        if any(not -1.0 <= value <= 1.0 for value in self.correlated.values()):
            raise ValueError(f"correlations are between -1 and 1, got {self.correlated}")
        return self

    def quantile(self, share: Array) -> Array:
        """Values below which ``share`` (0 .. 1) of the draws lie."""
        low, high = self.range
        if self.distribution == "uniform":
            return low + share * (high - low)
        if self.distribution == "log_uniform":
            return low * (high / low) ** share
        return low + high * ndtri(share)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """``count`` independent draws, [count]."""
        low, high = self.range
        if self.distribution == "uniform":
            return rng.uniform(low, high, count)
        if self.distribution == "log_uniform":
            return np.exp(rng.uniform(np.log(low), np.log(high), count))
        return rng.normal(low, high, count)


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


def apply(operation: str, value: Array, draw: Array) -> Array:
    """What an operation makes of a parameter's ``value`` with a ``draw`` of its term."""
    if operation == "set":
        return draw
    return value * draw if operation == "scale" else value + draw


def expand_terms(
    terms: Mapping[str, RandomizationTerm], parameters: Collection[str], origin: str
) -> dict[str, RandomizationTerm]:
    """Terms of single parameters, where one of a quantity (``gain``) stands for that of every joint or link.

    Args:
        terms: By name.
        parameters: What the robot's physics can vary: ``payload``, ``JOINT.gain``, ``LINK.mass_scale``.
        origin: Where the terms are written, for errors.

    Raises:
        ConfigError: A term changes what the robot does not have.
    """
    result = {}
    for name, term in terms.items():
        quantity = term.parameter or name
        matching = [p for p in parameters if p == quantity or p.rpartition(".")[2] == quantity]
        if not matching:
            raise ConfigError(f"{origin}: randomization '{name}' changes '{quantity}', which this robot does not have")
        for parameter in matching:
            prefix = parameter.rpartition(".")[0]
            single = prefix and parameter != quantity
            result[f"{prefix}.{name}" if single else name] = term.model_copy(update={"parameter": parameter})
    return result


class Randomization:
    """Draws physics parameters from named terms.

    Args:
        terms: Terms by name; empty for the nominal simulator.
        params: The table they act on.
        rng: Source of every draw.

    Raises:
        ConfigError: A term names an unknown parameter, or its range leaves the parameter's bounds.
    """

    def __init__(self, terms: Mapping[str, RandomizationTerm], params: PhysicsParams, rng: np.random.Generator) -> None:
        self.terms = dict(terms)
        self.params = params
        self._rng = rng
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
        self._step = [(params.column(t.parameter or n), t) for n, t in self.terms.items() if t.kind == "step"]
        self._groups = _together({n: t for n, t in self.terms.items() if t.kind == "episode"})
        self._base = params.values.copy()

    def sample(self, count: int) -> Array:
        """``count`` draws of all parameters, [count, P]: nominal values with the episode terms applied."""
        values = np.tile(self.params.nominal, (count, 1))
        drawn: dict[str, Array] = {}
        for names, factor in self._groups:
            shares = ndtr(self._rng.standard_normal((count, len(names))) @ factor.T)
            drawn |= {name: self.terms[name].quantile(shares[:, i]) for i, name in enumerate(names)}
        for name, column, term in self._episode:
            value = drawn[name] if name in drawn else term.draw(self._rng, count)
            values[:, column] = apply(term.operation, values[:, column], value)
        return np.clip(values, self.params.low, self.params.high)

    def reset(self, rows: EnvIds, values: Array | None = None) -> None:
        """Give new parameters to ``rows``: drawn, or the given ``values`` [len(rows), P]."""
        self.params.assign(rows, self.sample(len(rows)) if values is None else values)
        self._base[rows] = self.params.values[rows]

    def step(self) -> None:
        """Redraw the terms of kind ``step`` around the episode's values, for every robot."""
        count = len(self.params.values)
        for column, term in self._step:
            value = apply(term.operation, self._base[:, column], term.draw(self._rng, count))
            self.params.values[:, column] = np.clip(value, self.params.low[column], self.params.high[column])
