"""Recordings of flights: motor commands with an IMU, or with a measured pose.

``.npz`` and ``.csv`` files with the names of :mod:`~sim2real.recordings.flight_columns`, and PX4's ``.ulg``. A log that
cannot be trusted is refused, with file, row and column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sim2real.recordings.flight_checks import (
    STANDARD_GRAVITY,
    check_lift,
    check_motion,
    check_rate,
    turned_imu,
    turned_pose,
    unit_quaternions,
)
from sim2real.recordings.flight_columns import KNOWN, WIDTHS, read_columns
from sim2real.recordings.logs import check_stamps, list_files
from sim2real.recordings.tables import LogError, names_of
from sim2real.recordings.ulog import read_ulog
from sim2real.types import Array

PWM_FULL = 65535.0
FASTEST_ROTOR = 6000.0  # rad/s; no propeller that small survives more, so it is revolutions per minute
COARSEST_PWM = 255.0  # commands that never go beyond are percent or bytes, not 16 bit
POSE = ("pos", "vel", "quat", "ang_vel")
BLACKBOX = (".bbl", ".bfl")
SUFFIXES = (".npz", ".csv", ".ulg", *BLACKBOX)


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
        remarks: What a reader should know about how it was read.
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
    remarks: tuple[str, ...] = ()

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
    files = list_files(paths, SUFFIXES, "recordings (.npz, .csv, .ulg)")
    return [replace(read_flight_log(file), name=name) for file, name in zip(files, names_of(files), strict=True)]


def read_flight_log(path: Path) -> FlightLog:
    """Read and check one flight: ``t`` with ``acc`` (g), ``gyro`` (deg/s) and ``motor``, or with ``pos``, ``vel``,
    ``quat``, ``ang_vel`` and ``motor`` or ``rotor_speed``. Axes with z down are turned, with a remark.

    Raises:
        LogError: An array is missing, of the wrong shape or unit, not finite, or contradicts another.
    """  # noqa: D205
    content, remarks = _read(path)
    time = content.pop("t", np.empty(0)).reshape(-1)
    if not len(time):
        raise LogError(f"{path} has no 't' (s), or no rows; it has {', '.join(content) or 'nothing known'}. {_READ}")
    if set(POSE) <= set(content):  # the pose says more; nothing reads an IMU beside it
        dropped: tuple[str, ...] = ("acc", "gyro")
    else:
        dropped = POSE if {"acc", "gyro"} <= set(content) else ()
    arrays = {name: _checked(path, name, values, len(time)) for name, values in content.items() if name not in dropped}
    check_stamps(time, path)
    motor, rotor = arrays.pop("motor", None), arrays.pop("rotor_speed", None)
    if motor is None and rotor is None:
        raise LogError(f"{path} has neither 'motor' [T, 4] nor 'rotor_speed' [T, 4] (rad/s). {_notes(remarks)}{_READ}")
    if not (set(POSE) <= set(arrays) or {"acc", "gyro"} <= set(arrays)):
        raise LogError(
            f"{path} needs acc and gyro, or pos, vel, quat and ang_vel; it has {', '.join(content)}. "
            f"{_notes(remarks)}{_READ}"
        )
    if rotor is not None and rotor.max() > FASTEST_ROTOR:
        raise LogError(f"{path}: rotor_speed reaches {rotor.max():.0f}; it must be rad/s, divide rpm by 9.549")
    if motor is not None:
        motor = _commands(path, motor)
    if "acc" in arrays:
        check_lift(path, arrays["acc"])
        check_rate(path, arrays["gyro"])
        arrays, turned = turned_imu(arrays)
        arrays["acc"], arrays["gyro"] = STANDARD_GRAVITY * arrays["acc"], np.deg2rad(arrays["gyro"])
    else:
        arrays["quat"] = unit_quaternions(path, arrays["quat"])
        check_motion(path, time, *(arrays[name] for name in POSE))
        speed = rotor if rotor is not None else motor
        assert speed is not None
        arrays, turned = turned_pose(arrays, (speed**2).sum(axis=1), time)
    return FlightLog(path.stem, time - time[0], motor, rotor, **arrays, remarks=(*remarks, *turned))


_READ = f"Columns that are read: {KNOWN}"


def _notes(remarks: tuple[str, ...]) -> str:
    return "".join(f"{remark}. " for remark in remarks)


def _read(path: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    if not path.is_file():
        raise LogError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if suffix == ".ulg":
        return read_ulog(path), ()
    if suffix in BLACKBOX:
        raise LogError(
            f"{path} is a Betaflight blackbox log; export it with 'blackbox_decode {path.name}' and give the .csv, "
            "which holds time (us), gyroADC[0 .. 2], accSmooth[0 .. 2] and motor[0 .. 3]"
        )
    if suffix not in SUFFIXES:
        raise LogError(f"{path}: flights are .npz, .csv or .ulg")
    return read_columns(path)


def _commands(path: Path, motor: Array) -> Array:
    """Motor commands [T, 4] as 0 .. 1.

    Raises:
        LogError: They are of another kind.
    """
    if motor.min() < 0 or motor.max() > PWM_FULL:
        raise LogError(f"{path}: motor spans {motor.min():g} .. {motor.max():g}; commands are 0 .. 1 or 0 .. 65535")
    if 1.0 < motor.max() <= COARSEST_PWM:
        raise LogError(
            f"{path}: motor never goes beyond {motor.max():g}; commands are 0 .. 1 or 0 .. 65535, divide percent "
            "by 100 and bytes by 255"
        )
    return motor / PWM_FULL if motor.max() > 1.0 else motor


def _checked(path: Path, name: str, values: Array, count: int) -> Array:
    if values.shape != (count, WIDTHS[name]):
        raise LogError(f"{path}: '{name}' is {list(values.shape)}, expected [{count}, {WIDTHS[name]}]")
    rows, columns = np.nonzero(~np.isfinite(values))
    if len(rows):
        raise LogError(f"{path}: '{name}' is {values[rows[0], columns[0]]} in row {rows[0]}, column {columns[0]}")
    return values
