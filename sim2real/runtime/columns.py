"""One formula for one robot and for many: components as plain numbers, or as arrays.

A NumPy call takes about a microsecond however small the array is; Python's own arithmetic takes a thirtieth of that.
:func:`columns` takes an array of one row apart into numbers, and one of many rows into arrays. The same formula then
runs on either, in the same order, and :func:`joined` makes an array of the result. What is not plain arithmetic comes
from NumPy for both, so that a robot alone has the bits it would have among others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.types import Array

Column = Any  # a float, or an array of one component of every row


def columns(values: NDArray[Any]) -> Any:
    """Take ``values`` [..., d] apart: d numbers where there is one row, d arrays [...] otherwise."""
    if values.ndim == 2:
        return values.T if len(values) != 1 else values.tolist()[0]
    return values.ravel().tolist() if values.size == values.shape[-1] else np.moveaxis(values, -1, 0)


def joined(components: Sequence[Column], lead: tuple[int, ...]) -> Array:
    """Put d components back together [*lead, d]; of many rows each component stays contiguous."""
    if isinstance(components[0], float):
        row = np.array([components])
        return row if len(lead) == 1 else row.reshape(*lead, len(components))
    result = np.empty((len(components), *lead))
    for row, component in zip(result, components, strict=True):
        row[...] = component
    return result.T if len(lead) == 1 else np.moveaxis(result, 0, -1)


def column(values: NDArray[Any]) -> Column:
    """``values`` [N] as they are, or as a number where there is one."""
    return values.item() if values.size == 1 else values


def array(value: Column) -> NDArray[Any]:
    """A column [N] as an array, also of one robot."""
    return value if isinstance(value, np.ndarray) else np.array([value])


def _of_one(function: Callable[[Any], Any]) -> Callable[[Column], Column]:
    return lambda value: float(function(value)) if isinstance(value, float) else function(value)


def _of_two(function: Callable[[Any, Any], Any]) -> Callable[[Column, Column], Column]:
    return lambda a, b: float(function(a, b)) if isinstance(a, float) and isinstance(b, float) else function(a, b)


sin, cos, arccos, exp, rint = map(_of_one, (np.sin, np.cos, np.arccos, np.exp, np.rint))
arctan2, power = map(_of_two, (np.arctan2, np.power))


def floor(value: Column) -> Column:
    """Largest whole number that is not above a finite ``value``."""
    return float(math.floor(value)) if isinstance(value, float) else np.floor(value)


def whole(value: Column) -> Column:
    """``value`` without what is behind the point, as an index."""
    return int(value) if isinstance(value, float) else value.astype(np.int64)


def sqrt(value: Column) -> Column:
    """Square root of what is not negative; correctly rounded either way."""
    return math.sqrt(value) if isinstance(value, float) else np.sqrt(value)


def larger(value: Column, low: Column) -> Column:
    """``value``, or ``low`` where it is below; not a number stays so."""
    if isinstance(value, float):
        return low if value < low else value
    return np.maximum(value, low)


def smaller(value: Column, high: Column) -> Column:
    """``value``, or ``high`` where it is above; not a number stays so."""
    if isinstance(value, float):
        return high if value > high else value
    return np.minimum(value, high)


def within(value: Column, low: Column, high: Column) -> Column:
    """``value`` kept between ``low`` and ``high``; not a number stays so."""
    if isinstance(value, float):
        return low if value < low else high if value > high else value
    return np.minimum(np.maximum(value, low), high)


def choose(condition: Any, if_true: Column, if_false: Column) -> Column:
    """``if_true`` where ``condition`` holds, ``if_false`` elsewhere."""
    if isinstance(condition, bool):
        return if_true if condition else if_false
    return np.where(condition, if_true, if_false)
