"""Names and units of flight logs: own ones, Crazyflie's (uSD card, cfclient) and Betaflight's (blackbox_decode)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sim2real.recordings.tables import LogError, numbers, read_csv, read_npz
from sim2real.types import Array

WIDTHS = {"pos": 3, "vel": 3, "quat": 4, "ang_vel": 3, "acc": 3, "gyro": 3, "motor": 4, "rotor_speed": 4}
RPM = np.pi / 30.0  # rad/s
_XYZ, _WXYZ = "xyz", "xyzw"
_SUFFIXES = {"x": 0, "y": 1, "z": 2, "w": 3, **{str(i): i for i in range(4)}}
# By ticks between rows: seconds, then milliseconds, then microseconds.
_TICKS = ((0.5, 1.0), (500.0, 1e-3), (np.inf, 1e-6))
_COUNTS_PER_G = 2.0 ** np.arange(8, 13)  # Betaflight's acc_1G is one of these
_DSHOT, _PWM = (48.0, 2047.0), (1000.0, 2000.0)


class _Source(NamedTuple):
    """Destination of a heading: array, component, and the factor to its unit."""

    target: str
    component: int
    factor: float = 1.0


def _crazyflie() -> dict[str, _Source]:
    table = {f"motor.m{i + 1}": _Source("motor", i) for i in range(4)}
    table |= {f"rpm.m{i + 1}": _Source("rotor_speed", i, RPM) for i in range(4)}
    for i, axis in enumerate(_XYZ):
        table[f"stateestimate.{axis}"] = _Source("pos", i)
        table[f"stateestimate.v{axis}"] = _Source("vel", i)
    table |= {f"stateestimate.q{axis}": _Source("quat", i) for i, axis in enumerate(_WXYZ)}
    return table


def _blackbox() -> dict[str, _Source]:
    table = {f"motor[{i}]": _Source("motor", i) for i in range(4)}
    for i in range(3):
        table[f"gyroadc[{i}]"] = _Source("gyro", i)
        table[f"accsmooth[{i}]"] = _Source("acc", i)
    return table


CRAZYFLIE, BLACKBOX = _crazyflie(), _blackbox()
KNOWN = (
    "t, acc.x .. acc.z [g], gyro.x .. gyro.z [deg/s], motor.0 .. motor.3; or as a Crazyflie (timestamp, acc.x, gyro.x, "
    "motor.m1 ..) or blackbox_decode (time (us), accSmooth[0], gyroADC[0], motor[0] ..) calls them"
)


def read_columns(path: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Read the arrays of a ``.npz`` or ``.csv`` that are known, ``t`` in seconds among them, and remarks on units.

    Raises:
        LogError: The file cannot be read, a column is given twice or is no number.
    """
    if path.suffix.lower() == ".npz":
        content = read_npz(path)
        arrays = {
            name: numbers(path, name, values) for name, values in content.items() if name == "t" or name in WIDTHS
        }
        single = {name: values for name, values in content.items() if name not in arrays and values.ndim == 1}
        headings = tuple(single)

        def column(index: int) -> Array:
            return numbers(path, headings[index], single[headings[index]])
    else:
        arrays, table = {}, read_csv(path)
        headings = table.header

        def column(index: int) -> Array:
            return table.numbers([index])[:, 0]

    found, remarks = _gathered(path, headings, column)
    arrays = {**found, **arrays}
    if {"pos", "vel", "quat", "gyro"} <= set(found) and "ang_vel" not in arrays:
        arrays["ang_vel"] = np.deg2rad(arrays["gyro"])
    return arrays, remarks


def _gathered(
    path: Path, headings: tuple[str, ...], column: Callable[[int], Array]
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Arrays put together from single columns."""
    places: dict[str, dict[int, tuple[int, float]]] = {}
    blackbox = any(heading.casefold().startswith("gyroadc[") for heading in headings)
    for index, heading in enumerate(headings):
        source = _source(heading, blackbox)
        if source is None:
            continue
        parts = places.setdefault(source.target, {})
        if source.component in parts:
            other = headings[parts[source.component][0]]
            raise LogError(f"{path} holds '{heading}' more than once; '{other}' is the same")
        parts[source.component] = (index, source.factor)
    arrays: dict[str, Array] = {}
    remarks: tuple[str, ...] = ()
    for name, parts in places.items():
        if len(parts) < WIDTHS.get(name, 1):
            only = ", ".join(headings[index] for index, _ in parts.values())
            remarks += (f"'{name}' is not complete and was left out; there is only {only}",)
            continue
        arrays[name] = np.stack([parts[i][1] * column(parts[i][0]) for i in sorted(parts)], axis=1)
    if "ticks" in arrays:
        ticks = arrays.pop("ticks")[:, 0]
        step = float(np.median(np.abs(np.diff(ticks)))) if len(ticks) > 1 else 0.0
        arrays.setdefault("t", next(scale for most, scale in _TICKS if step < most) * (ticks - ticks[:1]))
    if blackbox and {"acc", "motor"} <= set(arrays):
        remarks += _scale_blackbox(arrays)
    return arrays, remarks


def _source(heading: str, blackbox: bool) -> _Source | None:
    plain = heading.casefold().partition(" (")[0].strip()
    if plain in ("timestamp", "tick") or (blackbox and plain == "time"):
        return _Source("ticks", 0)
    if heading.casefold() in ("t", "time"):
        return _Source("t", 0)
    if plain in CRAZYFLIE:
        return CRAZYFLIE[plain]
    if plain in BLACKBOX:
        return BLACKBOX[plain]
    name, _, suffix = plain.rpartition(".")
    component = _SUFFIXES.get(suffix, 9)
    return _Source(name, component) if name in WIDTHS and component < WIDTHS[name] else None


def _scale_blackbox(arrays: dict[str, Array]) -> tuple[str, ...]:
    """Put accelerometer into g and motors into 0 .. 1, in place; decoded tables do not say their scale."""
    remarks = []
    middle = float(np.median(np.sqrt((arrays["acc"] ** 2).sum(axis=1))))
    if middle > 0.7 * _COUNTS_PER_G[0]:
        counts = float(_COUNTS_PER_G[np.abs(np.log(middle / _COUNTS_PER_G)).argmin()])
        arrays["acc"] = arrays["acc"] / counts
        remarks.append(f"accSmooth is taken as {counts:.0f} counts a g (its middle is {middle:.0f})")
    low, high = _PWM if arrays["motor"].min() >= _PWM[0] and arrays["motor"].max() <= _PWM[1] else _DSHOT
    if arrays["motor"].max() > 1.0:
        arrays["motor"] = np.clip((arrays["motor"] - low) / (high - low), 0.0, 1.0)
        remarks.append(f"motor[0] .. motor[3] are taken as {low:.0f} .. {high:.0f} for 0 .. 1")
    return tuple(remarks)
