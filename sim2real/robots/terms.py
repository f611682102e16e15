"""Randomization terms: how one parameter of the physics is sampled, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from sim2real.errors import ConfigError
from sim2real.types import Array, Model


class RandomizationTerm(Model):
    """The way one parameter is sampled.

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
        from scipy.special import ndtri  # noqa: PLC0415 - the command line lists robots without it

        return low + high * ndtri(share)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """``count`` independent draws, [count]."""
        low, high = self.range
        if self.distribution == "uniform":
            return rng.uniform(low, high, count)
        if self.distribution == "log_uniform":
            return np.exp(rng.uniform(np.log(low), np.log(high), count))
        return rng.normal(low, high, count)


def apply(operation: str, value: Array, draw: Array) -> Array:
    """Apply an operation to a parameter's ``value`` with a ``draw`` of its term."""
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
