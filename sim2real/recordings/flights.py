"""Recordings of flights: motor commands with an IMU, or with a measured pose.

``.npz`` files with named arrays, or ``.csv`` files whose columns are called ``NAME.0``, ``NAME.1`` … (or ``.x``,
``.y`` …). A log that cannot be trusted is refused, with file, row and column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sim2real.recordings.logs import check_stamps, list_files
from sim2real.recordings.tables import LogError, names_of, numbers, read_csv, read_npz
from sim2real.runtime.geometry import quat_conjugate, quat_multiply
from sim2real.types import Array

STANDARD_GRAVITY = 9.80665  # m/s², what "g" means to an accelerometer
PWM_FULL = 65535.0
FASTEST_ROTOR = 6000.0  # rad/s; no propeller that small survives more, so it is revolutions per minute
COARSEST_PWM = 255.0  # commands that never go beyond are percent or bytes, not 16 bit
LIFT_G = (0.5, 2.0)  # what the accelerometer of a flight shows in the middle: about one g
# Standard deviation about the axis that turns most. Real flights have 86 and 107, never under 18 in 5 s of them; in
# rad/s these are 1.5 and 1.9.
STILLEST_DEG_S = 3.0
WIDTHS = {"pos": 3, "vel": 3, "quat": 4, "ang_vel": 3, "acc": 3, "gyro": 3, "motor": 4, "rotor_speed": 4}
_SUFFIXES = {"x": 0, "y": 1, "z": 2, "w": 3, **{str(i): i for i in range(4)}}


@dataclass(frozen=True)
class FlightLog:
    """One flight.

    Attributes:
        name: The file's.
        time: [T] s from zero, strictly increasing.
        motor: [T, 4] commands, 0 .. 1; None where rotor speeds are known.
        rotor_speed: [T, 4] rad/s, measured.
        acc, gyro: [T, 3] m/s² and rad/s, body frame (x forward, y left, z up); None where the pose is known.
        pos, vel: [T, 3] m and m/s, world frame, z up.
        quat: [T, 4] xyzw, body to world.
        ang_vel: [T, 3] rad/s, body frame.
    """

    name: str
    time: Array
    motor: Array | None = None
    rotor_speed: Array | None = None
    acc: Array | None = None
    gyro: Array | None = None
    pos: Array | None = None
    vel: Array | None = None
    quat: Array | None = None
    ang_vel: Array | None = None

    @property
    def has_pose(self) -> bool:
        """True where the full state was recorded."""
        return all(part is not None for part in (self.pos, self.vel, self.quat, self.ang_vel))

    @property
    def inputs(self) -> str:
        """Name of the inputs of a model of this flight: ``rotor_speed`` where it was measured, else ``motor``."""
        return "motor" if self.rotor_speed is None else "rotor_speed"


def read_flight_logs(paths: Iterable[Path]) -> list[FlightLog]:
    """Read flights; a folder stands for every recording in it.

    Flights of one file name in several folders are called by folder and name.

    Raises:
        LogError: A recording cannot be trusted, there is none, or one is given twice.
    """
    files = list_files(paths, (".npz", ".csv"), "recordings (.npz, .csv)")
    return [replace(read_flight_log(file), name=name) for file, name in zip(files, names_of(files), strict=True)]


def read_flight_log(path: Path) -> FlightLog:
    """Read and check one flight: ``t`` with ``acc`` (g), ``gyro`` (deg/s) and ``motor``, or with ``pos``, ``vel``,
    ``quat``, ``ang_vel`` and ``motor`` or ``rotor_speed``.

    Raises:
        LogError: An array is missing, of the wrong shape or unit, not finite, or contradicts another.
    """  # noqa: D205
    if not path.is_file():
        raise LogError(f"{path} does not exist")
    if path.suffix.lower() not in (".npz", ".csv"):
        raise LogError(f"{path}: flights are .npz or .csv")
    content = _known_arrays(path) if path.suffix.lower() == ".npz" else _known_columns(path)
    time = content.pop("t", np.empty(0)).reshape(-1)
    if not len(time):
        raise LogError(f"{path} has no 't' (s), or no rows; it has {', '.join(content) or 'nothing'}")
    if {"pos", "vel", "quat", "ang_vel"} <= set(content):  # the pose says more; nothing reads an IMU beside it
        content.pop("acc", None)
        content.pop("gyro", None)
    arrays = {name: _checked(path, name, values, len(time)) for name, values in content.items()}
    check_stamps(time, path)
    motor, rotor = arrays.pop("motor", None), arrays.pop("rotor_speed", None)
    pose = [name for name in ("pos", "vel", "quat", "ang_vel") if name in arrays]
    if motor is None and rotor is None:
        raise LogError(f"{path} has neither 'motor' [T, 4] nor 'rotor_speed' [T, 4] (rad/s)")
    if len(pose) not in (0, 4) or (not pose and not {"acc", "gyro"} <= set(arrays)):
        raise LogError(f"{path} needs acc and gyro, or pos, vel, quat and ang_vel; it has {', '.join(content)}")
    if rotor is not None and rotor.max() > FASTEST_ROTOR:
        raise LogError(f"{path}: rotor_speed reaches {rotor.max():.0f}; it must be rad/s, divide rpm by 9.549")
    if motor is not None:
        if motor.min() < 0 or motor.max() > PWM_FULL:
            raise LogError(f"{path}: motor spans {motor.min():g} .. {motor.max():g}; commands are 0 .. 1 or 0 .. 65535")
        if 1.0 < motor.max() <= COARSEST_PWM:
            raise LogError(
                f"{path}: motor never goes beyond {motor.max():g}; commands are 0 .. 1 or 0 .. 65535, divide percent "
                "by 100 and bytes by 255"
            )
        motor = motor / PWM_FULL if motor.max() > 1.0 else motor
    if "acc" in arrays:
        arrays["acc"] = _checked_lift(path, arrays["acc"]) * STANDARD_GRAVITY
    if "gyro" in arrays:
        arrays["gyro"] = np.deg2rad(_checked_rate(path, arrays["gyro"]))
    log = FlightLog(path.stem, time - time[0], motor, rotor, **arrays)
    return _checked_pose(log, path) if log.has_pose else log


def _checked(path: Path, name: str, values: Array, count: int) -> Array:
    if values.shape != (count, WIDTHS[name]):
        raise LogError(f"{path}: '{name}' is {list(values.shape)}, expected [{count}, {WIDTHS[name]}]")
    rows, columns = np.nonzero(~np.isfinite(values))
    if len(rows):
        raise LogError(f"{path}: '{name}' is {values[rows[0], columns[0]]} in row {rows[0]}, column {columns[0]}")
    return values


def _checked_lift(path: Path, acc: Array) -> Array:
    """The accelerometer [T, 3] in g.

    Raises:
        LogError: It is in another unit, or no flight's.
    """
    middle = float(np.median(np.sqrt((acc**2).sum(axis=1))))
    if not LIFT_G[0] <= middle <= LIFT_G[1]:
        metric = LIFT_G[0] <= middle / STANDARD_GRAVITY <= LIFT_G[1]
        hint = "this looks like m/s², divide by 9.80665" if metric else "is this the accelerometer of a flight?"
        raise LogError(f"{path}: the median length of 'acc' is {middle:.3g}, it must be g, near 1; {hint}")
    return acc


def _checked_rate(path: Path, gyro: Array) -> Array:
    """The gyro [T, 3] in deg/s.

    Raises:
        LogError: It turns less than anything that flies: it is in another unit, or no flight's.
    """
    std = float(gyro.std(axis=0).max())
    if std < STILLEST_DEG_S:
        raise LogError(
            f"{path}: 'gyro' varies by {std:.3g} (standard deviation about the axis that turns most), a flight by "
            f"more than {STILLEST_DEG_S:g} deg/s; is it rad/s? Multiply it by 57.2958"
        )
    return gyro


def _checked_pose(log: FlightLog, path: Path) -> FlightLog:
    """The log with unit quaternions.

    Raises:
        LogError: Pose and velocities contradict each other: another order, frame or unit.
    """
    assert log.pos is not None and log.vel is not None and log.quat is not None and log.ang_vel is not None
    norm = np.sqrt((log.quat**2).sum(axis=1))
    off = int(np.abs(norm - 1.0).argmax())
    if abs(norm[off] - 1.0) > 0.05:
        raise LogError(f"{path}: the quaternion in row {off} has length {norm[off]:.3f}, it must be 1")
    quat = log.quat / norm[:, None]
    span = max(1, round(0.05 / float(np.median(np.diff(log.time)))))
    if len(log.time) > 3 * span:
        _compare_motion(log, quat, span, path)
    return FlightLog(log.name, log.time, log.motor, log.rotor_speed, log.acc, log.gyro, log.pos, log.vel, quat,
                     log.ang_vel)  # fmt: skip


def _compare_motion(log: FlightLog, quat: Array, span: int, path: Path) -> None:
    assert log.pos is not None and log.vel is not None and log.ang_vel is not None
    elapsed = (log.time[span:] - log.time[:-span])[:, None]

    def mean(values: Array) -> Array:
        return 0.5 * (values[span:] + values[:-span])

    def fraction(wanted: Array, got: Array) -> float:
        """Fraction of the motion that is explained; 1 is all."""
        total = float((wanted**2).sum())
        return 1.0 - float(((wanted - got) ** 2).sum()) / total if total > 1e-9 else 1.0

    def rate_of(order: Array) -> Array:
        step = quat_multiply(quat_conjugate(order[:-span]), order[span:])
        return 2.0 * np.where(step[:, 3:] < 0, -1.0, 1.0) * step[:, :3] / elapsed

    moved = fraction((log.pos[span:] - log.pos[:-span]) / elapsed, mean(log.vel))
    if moved < 0.3:
        raise LogError(
            f"{path}: 'vel' is not the rate of 'pos' ({moved:.0%} agree); both must be SI in the world frame"
        )
    agreement, swapped = (fraction(rate_of(order), mean(log.ang_vel)) for order in (quat, np.roll(quat, -1, axis=1)))
    if agreement < 0.3:
        hint = "the order is xyzw, this looks like wxyz" if swapped > 0.5 else "it must be rad/s in the body frame"
        raise LogError(f"{path}: 'ang_vel' is not the rate of 'quat' ({agreement:.0%} agree); {hint}")


def _known_arrays(path: Path) -> dict[str, Array]:
    """Arrays of known names; others may hold anything."""
    content = read_npz(path)
    return {name: numbers(path, name, values) for name, values in content.items() if name == "t" or name in WIDTHS}


def _known_columns(path: Path) -> dict[str, Array]:
    table = read_csv(path)
    columns: dict[str, dict[int, int]] = {}
    for column, heading in enumerate(table.header):
        name, _, suffix = heading.rpartition(".")
        if heading in ("t", "time"):
            name, component = "t", 0
        elif name in WIDTHS and _SUFFIXES.get(suffix, WIDTHS[name]) < WIDTHS[name]:
            component = _SUFFIXES[suffix]
        else:
            continue
        if component in columns.setdefault(name, {}):
            raise LogError(
                f"{path} holds '{heading}' more than once; '{table.header[columns[name][component]]}' is the same"
            )
        columns[name][component] = column
    content = {}
    for name, found in columns.items():
        values = np.full((len(table.rows), WIDTHS.get(name, 1)), np.nan)
        values[:, list(found)] = table.numbers(list(found.values()))
        content[name] = values
    return content
