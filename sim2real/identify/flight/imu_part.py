"""The flying part of a log with motor commands and an IMU, on one clock and with its motors in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, filtfilt

from sim2real.identify.flight.air import airborne, shrunk, spans
from sim2real.identify.flight.model import lag
from sim2real.identify.flight.sync import lift_delay, turning
from sim2real.recordings.flights import STANDARD_GRAVITY, FlightLog
from sim2real.recordings.tables import LogError
from sim2real.types import Array

DT = 0.001
LOW_PASS_HZ = 40.0
SETTLE_S = 1.5  # after take-off and before landing, where the ground is near
ENDS_S = 0.5  # of a recording, where filters and the rotors' lag do not know what was before
SHORTEST_S = 5.0
COARSE = 5
EXCITED = 0.7  # correlation of torque and angular acceleration below which a flight says nothing about inertia


@dataclass(frozen=True)
class Airframe:
    """Mass and rotors of a quadrotor, as its user knows them.

    Attributes:
        mass: kg, as flown.
        rotors: [4, 2] m, positions of M1 .. M4 (x forward, y left).
        turns: [4], sign of the torque about z that each rotor puts on the body.
        yaw_ratio: Izz over the mean of Ixx and Iyy; yaw torque per thrust is unknown too, so only their ratio shows.
        name: The robot's, as its description has it.
    """

    mass: float
    rotors: Array
    turns: Array
    yaw_ratio: float
    name: str = ""


@dataclass(frozen=True)
class ImuPart:
    """The flying part of one log at 1 kHz; ``keep`` are its rows."""

    name: str
    motor: Array
    lift: Array
    rate: Array
    keep: NDArray[np.int64]
    air: str


def imu_part(log: FlightLog) -> ImuPart:
    """The part of a log that flies, without what is near take-offs and landings.

    Raises:
        LogError: The log has no IMU or no commands, or flies too little.
    """
    if log.acc is None or log.gyro is None or log.motor is None:
        raise LogError(f"'{log.name}' has no acc, gyro and motor commands")
    grid = np.arange(0.0, log.time[-1], DT)

    def at(values: Array) -> Array:
        return np.stack([np.interp(grid, log.time, column) for column in values.T], axis=1)

    motor, acc = at(log.motor), at(log.acc)
    air = airborne((motor**2).sum(axis=1), np.sqrt((acc**2).sum(axis=1)) / STANDARD_GRAVITY, DT)
    keep = np.nonzero(shrunk(air, round(SETTLE_S / DT), round(ENDS_S / DT)))[0]
    times = f"'{log.name}' is in the air for {air.sum() * DT:.1f} of {grid[-1]:.1f} s"
    if pieces := len(spans(air)) - 1:
        times += f", in {pieces + 1} hops"
    if len(keep) < SHORTEST_S / DT:
        raise LogError(
            f"{times}; away from take-off and landing ({SETTLE_S:g} s each) {len(keep) * DT:.1f} s are left, at least "
            f"{SHORTEST_S:g} s are needed"
        )
    return ImuPart(log.name, motor, acc[:, 2], at(log.gyro), keep, times)


def on_one_clock(part: ImuPart) -> tuple[ImuPart, list[str]]:
    """The part with its motors as late as the accelerometer shows them, and what there is to say about it."""

    def misfit(constant: float, delay: float) -> float:
        terms, lift = curve_terms(replace(part, motor=_later(part.motor, delay)), constant, COARSE)
        return misfit_of(terms, lift) / float(lift.var())

    delay = lift_delay(misfit)
    if not delay:
        return part, []
    remark = (
        f"the accelerometer of '{part.name}' is {1000 * abs(delay):.0f} ms {_late(delay)} than its motors beside their "
        "lag; this is taken out. Were two logs joined?"
    )
    return replace(part, motor=_later(part.motor, delay)), [remark]


def in_order(part: ImuPart, constant: float, curve: Array, frame: Airframe) -> tuple[ImuPart, list[str]]:
    """The part with its gyro on the motors' clock and its motors at their places, and what there is to say about it."""
    thrust, spin = _rotor_thrust(part, constant, curve)
    found = turning(thrust[::10], spin[::10], frame.rotors, 10 * DT, EXCITED)
    remarks = []
    if found.order != (0, 1, 2, 3):
        names = " ".join(f"M{i + 1}" for i in found.order)
        remarks.append(
            f"'{part.name}' turns as if {names} sat at the places of M1 M2 M3 M4, and is taken so; are the motors in "
            "another order than robot.yaml's, or the gyro's axes not x forward, y left, z up?"
        )
    if found.delay:
        remarks.append(
            f"the gyro of '{part.name}' is {1000 * abs(found.delay):.0f} ms {_late(found.delay)} than motors and "
            "accelerometer; this is taken out. Were two logs joined?"
        )
    return replace(part, motor=part.motor[:, found.order], rate=_later(part.rate, -found.delay)), remarks


def _late(delay: float) -> str:
    return "later" if delay > 0 else "earlier"


def _later(values: Array, delay: float) -> Array:
    """[T, ..] values ``delay`` s later; the ends are held."""
    rows = np.arange(len(values)) - round(delay / DT)
    return values[np.clip(rows, 0, len(values) - 1)]


def _smooth(values: Array, every: int = 1) -> Array:
    b, a = butter(2, LOW_PASS_HZ * 2 * DT * every)
    return filtfilt(b, a, values, axis=0)


def curve_terms(part: ImuPart, time_constant: float, every: int = 1) -> tuple[Array, Array]:
    """Summed over the motors: number, command, command squared [M, 3]; and the specific lift [M] m/s².

    Args:
        part: Of a log.
        time_constant: Of the rotors, s.
        every: Take one row in so many; faster, and near enough to choose a delay.
    """
    speed = lag(part.motor[::every], DT * every, time_constant)
    terms = np.stack((np.full(len(speed), 4.0), speed.sum(axis=1), (speed**2).sum(axis=1)), axis=1)
    rows = part.keep[part.keep % every == 0] // every
    return _smooth(terms, every)[rows], _smooth(part.lift[::every], every)[rows]


def misfit_of(terms: Array, lift: Array) -> float:
    """Mean square of what no thrust curve explains of the lift, (m/s²)²."""
    solution = np.linalg.lstsq(terms, lift, rcond=None)[0]
    return float(((lift - terms @ solution) ** 2).mean())


def _rotor_thrust(part: ImuPart, time_constant: float, curve: Array) -> tuple[Array, Array]:
    """Thrust [M, 4] N of the motors and angular acceleration [M, 3] rad/s²."""
    speed = lag(part.motor, DT, time_constant)
    thrust = curve[0] + curve[1] * speed + curve[2] * speed**2
    spin = np.gradient(part.rate, DT, axis=0)
    return _smooth(thrust)[part.keep], _smooth(spin)[part.keep]


def torques(part: ImuPart, time_constant: float, curve: Array, frame: Airframe) -> tuple[Array, Array]:
    """Torque [M, 3] N·m (about z: newtons, before the unknown factor) and angular acceleration [M, 3] rad/s²."""
    thrust, spin = _rotor_thrust(part, time_constant, curve)
    return np.stack((thrust @ frame.rotors[:, 1], -thrust @ frame.rotors[:, 0], thrust @ frame.turns), axis=1), spin
