"""PX4 logs (``.ulg``): motor commands, accelerometer and gyro."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sim2real.recordings.flight_checks import STANDARD_GRAVITY
from sim2real.recordings.tables import LogError
from sim2real.types import Array

MESSAGES = ("actuator_motors", "vehicle_angular_velocity", "sensor_combined")
SLOWEST_HZ = 40.0  # of motor commands; rotors answer within 0.1 s
_EXPORT = (
    "a table (.csv) with t [s], acc.x .. acc.z [g], gyro.x .. gyro.z [deg/s] and motor.0 .. motor.3 [0 .. 1], from "
    + ", ".join(MESSAGES)
)


def read_ulog(path: Path) -> dict[str, Array]:
    """Read ``t``, ``acc`` (g), ``gyro`` (deg/s) and ``motor`` at the rate of the gyro; axes as PX4 has them (z down).

    Raises:
        LogError: It cannot be read, lacks a message, or holds motor commands at too low a rate; the message says what
            to export or how to record.
    """
    try:
        from pyulog import ULog  # noqa: PLC0415 (an extra)
    except ImportError:
        raise LogError(
            f"{path} is a PX4 log; 'pip install sim2real[logs]' brings pyulog, which reads it. Or export {_EXPORT}"
        ) from None
    try:
        log = ULog(str(path), list(MESSAGES))
        sets = {entry.name: entry.data for entry in reversed(log.data_list)}  # the first instance of each wins
    except Exception as error:  # a damaged log makes pyulog fail in many ways
        raise LogError(
            f"{path} is a PX4 log that pyulog cannot read ({error}); copy it again, or export {_EXPORT}"
        ) from error
    for name in ("actuator_motors", "sensor_combined"):
        if name not in sets or len(sets[name]["timestamp"]) < 2:
            raise LogError(
                f"{path} is a PX4 log without '{name}'; it has {', '.join(sets) or 'none of the messages needed'}. Log "
                f"{', '.join(MESSAGES)} (PX4 1.13 or later, SDLOG_PROFILE high rate)"
            )
    combined, motors = sets["sensor_combined"], sets["actuator_motors"]
    rate = 1e6 * (len(motors["timestamp"]) - 1) / float(motors["timestamp"][-1] - motors["timestamp"][0])
    if rate < SLOWEST_HZ:
        raise LogError(
            f"{path}: 'actuator_motors' comes at {rate:.0f} Hz, at least {SLOWEST_HZ:.0f} Hz are needed; set "
            "SDLOG_PROFILE to high rate and fly again"
        )
    stamps, acc = combined["timestamp"], _rows(combined, "accelerometer_m_s2", 3) / STANDARD_GRAVITY
    gyro = _rows(combined, "gyro_rad", 3)
    if "vehicle_angular_velocity" in sets:
        finer = sets["vehicle_angular_velocity"]
        gyro = np.stack([np.interp(stamps, finer["timestamp"], part) for part in _rows(finer, "xyz", 3).T], axis=1)
    inside = (stamps >= motors["timestamp"][0]) & (stamps <= motors["timestamp"][-1])
    latest = np.clip(np.searchsorted(motors["timestamp"], stamps, side="right") - 1, 0, None)
    command = np.nan_to_num(_rows(motors, "control", 4)[latest])  # disarmed motors are not finite
    return {
        "t": 1e-6 * (stamps[inside] - stamps[inside][0]),
        "acc": acc[inside],
        "gyro": np.rad2deg(gyro)[inside],
        "motor": np.clip(command[inside], 0.0, 1.0),
    }


def _rows(data: Any, name: str, width: int) -> Array:
    return np.stack([np.asarray(data[f"{name}[{i}]"], dtype=np.float64) for i in range(width)], axis=1)
