"""Quantities of one joint as coordinates of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim2real.robots.arm_file import ServoQuantity
from sim2real.types import Array

LOGARITHMIC = ("acceleration", "gain", "no_load_speed", "armature")


@dataclass(frozen=True)
class Space:
    """The fitted quantities of one joint as coordinates in a unit cube."""

    names: tuple[str, ...]
    low: Array
    high: Array
    logarithmic: NDArray[np.bool_]
    fixed: Mapping[str, float]

    @staticmethod
    def of(quantities: Mapping[str, ServoQuantity], fixed: Mapping[str, float]) -> Space:
        """All quantities that are not ``fixed``."""
        names = tuple(name for name in quantities if name not in fixed)
        low, high = (np.array([getattr(quantities[n], end) for n in names]) for end in ("low", "high"))
        return Space(names, low, high, np.array([n in LOGARITHMIC for n in names]), fixed)

    def decode(self, cube: Array) -> dict[str, Array]:
        """Quantities [C] of points [C, P] of the cube."""
        low, high = self._ends()
        values = low + np.clip(cube, 0.0, 1.0) * (high - low)
        values = np.where(self.logarithmic, np.exp(values), values)
        count = len(cube)
        return {n: values[:, i] for i, n in enumerate(self.names)} | {
            n: np.full(count, value) for n, value in self.fixed.items()
        }

    def encode(self, values: Mapping[str, float]) -> Array:
        """The cube's point [P] of some values."""
        low, high = self._ends()
        raw = np.array([values[n] for n in self.names])
        raw = np.where(self.logarithmic, np.log(np.maximum(raw, 1e-12)), raw)
        return np.clip((raw - low) / (high - low), 0.0, 1.0)

    def slope(self, cube: Array) -> Array:
        """Derivative [P] of each quantity by its coordinate, at one point."""
        low, high = self._ends()
        values = np.array([self.decode(cube[None])[n][0] for n in self.names])
        return (high - low) * np.where(self.logarithmic, values, 1.0)

    def _ends(self) -> tuple[Array, Array]:
        tiny = 1e-12
        low = np.where(self.logarithmic, np.log(np.maximum(self.low, tiny)), self.low)
        return low, np.where(self.logarithmic, np.log(np.maximum(self.high, tiny)), self.high)
