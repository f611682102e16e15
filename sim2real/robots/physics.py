"""Everything the physics can vary, as one flat, named, bounded table a robot."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from sim2real.errors import ConfigError
from sim2real.runtime.columns import Column, columns
from sim2real.types import Array, Model


class PhysicsParameter(Model):
    """One quantity of the physics: unit, nominal value and the bounds no randomization may leave.

    Attributes:
        idle: This robot cannot feel it. It keeps its place in the table and in the random draws, so that those of all
            other parameters stay what they are.
    """

    unit: str
    nominal: float
    low: float
    high: float
    idle: bool = False

    @model_validator(mode="after")
    def _inside(self) -> PhysicsParameter:
        if not self.low <= self.nominal <= self.high:
            raise ValueError(f"nominal {self.nominal} is outside {self.low} .. {self.high}")
        return self


class PhysicsParams:
    """Values of every parameter for N robots.

    Args:
        table: Parameters by name; their order is the order of the columns.
        count: Number of robots N.

    Attributes:
        names: Column names.
        values: [N, P] in the parameters' units; change them with :meth:`assign`.
    """

    def __init__(self, table: dict[str, PhysicsParameter], count: int) -> None:
        self.table = table
        self.names = tuple(table)
        self._column = {name: i for i, name in enumerate(self.names)}
        self.low = np.array([p.low for p in table.values()])
        self.high = np.array([p.high for p in table.values()])
        self.nominal = np.array([p.nominal for p in table.values()])
        self.values = np.asfortranarray(np.tile(self.nominal, (count, 1)))  # formulas read columns

    def column(self, name: str) -> int:
        """Index of a parameter.

        Raises:
            ConfigError: No such parameter.
        """
        try:
            return self._column[name]
        except KeyError:
            raise ConfigError(f"no physics parameter '{name}'; there are {', '.join(self.names)}") from None

    def __getitem__(self, name: str) -> Array:
        """Column of one parameter, [N], a view."""
        return self.values[:, self.column(name)]

    def reader(self, *names: str) -> Callable[[], tuple[Column, ...]]:
        """Make what reads two or more parameters as columns, for formulas of every step."""
        pick: Callable[..., tuple[Column, ...]] = itemgetter(*map(self.column, names))
        return lambda: pick(columns(self.values))

    def rows(self, rows: NDArray[np.int64]) -> dict[str, Array]:
        """Values of some robots by name, each [len(rows)]."""
        part = self.values[rows]
        return {name: part[:, i] for i, name in enumerate(self.names)}

    def assign(self, rows: NDArray[np.int64], values: Array) -> None:
        """Set all parameters of some robots; ``values`` [len(rows), P] is clipped to the bounds."""
        self.values[rows] = np.minimum(np.maximum(values, self.low), self.high)
