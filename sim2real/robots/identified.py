"""Quantities of the physics that data can identify, and their normalised form for networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import model_validator

from sim2real.robots.physics import PhysicsParams
from sim2real.types import Array, Float32, Model


@dataclass(frozen=True)
class IdentifiedQuantity:
    """A combination of parameters that data can identify.

    Attributes:
        compute: Parameter lookup (name to [N]) to the quantity [N]; picklable.
    """

    unit: str
    compute: Callable[[Mapping[str, Array]], Array]


class ParameterValue:
    """The parameter of this name, as a quantity; a class, so that it can be pickled."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, p: Mapping[str, Array]) -> Array:
        """Its values [N]."""
        return p[self._name]


class ParameterTerm(Model):
    """An identified quantity as networks see it, normalised to -1 .. 1 over ``low .. high``."""

    name: str
    unit: str
    low: float
    high: float
    nominal: float

    @model_validator(mode="after")
    def _ordered(self) -> ParameterTerm:
        if not self.low < self.high:
            raise ValueError(f"parameter '{self.name}': low {self.low} is not below high {self.high}")
        return self


def parameter_terms(
    quantities: Mapping[str, IdentifiedQuantity], names: Sequence[str], params: PhysicsParams, sample: Array
) -> tuple[ParameterTerm, ...]:
    """Ranges of identified quantities: the 0.5 and 99.5 percentiles over sampled physics.

    Args:
        quantities: What the robot can identify.
        names: Which of them, in the order in which the policy will see them.
        params: Any table of the robot's parameters.
        sample: Sampled parameters [n, P].
    """
    table = {name: sample[:, params.column(name)] for name in params.names}
    nominal = {name: params.nominal[params.column(name)][None] for name in params.names}
    terms = []
    for name in names:
        quantity = quantities[name]
        low, high = np.percentile(quantity.compute(table), (0.5, 99.5))
        if high - low < 1e-6:  # not randomized: any width does
            low, high = low - 0.5, high + 0.5
        middle = float(quantity.compute(nominal)[0])
        terms.append(ParameterTerm(name=name, unit=quantity.unit, low=float(low), high=float(high), nominal=middle))
    return tuple(terms)


def nominal_parameters(terms: tuple[ParameterTerm, ...]) -> Float32:
    """Normalised nominal parameters, shape [P]."""
    return normalise_parameters(terms, np.array([[p.nominal for p in terms]], dtype=np.float64))[0]


def normalise_parameters(terms: tuple[ParameterTerm, ...], values: Array) -> Float32:
    """Physical parameters [N, P] to -1 .. 1 over each term's range, clipped at ±1.5."""
    low = np.array([term.low for term in terms])
    high = np.array([term.high for term in terms])
    return np.clip(2.0 * (values - low) / (high - low) - 1.0, -1.5, 1.5).astype(np.float32)


def denormalise_parameters(terms: tuple[ParameterTerm, ...], values: Float32) -> Array:
    """Inverse of :func:`normalise_parameters` inside the clip: [N, P] to physical units."""
    low = np.array([term.low for term in terms])
    high = np.array([term.high for term in terms])
    return low + 0.5 * (values.astype(np.float64) + 1.0) * (high - low)
