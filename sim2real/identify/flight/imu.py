"""Thrust curve, rotor lag and inertia of a quadrotor from motor commands and an IMU alone.

The way of Eschmann, Albani and Loianno, "Data-driven system identification of quadrotors subject to motor delays"
(2024): the rotors' first-order lag is the one under which a thrust curve explains the accelerometer best; inertia is
the regression of the resulting torque on the angular acceleration. Forces and torques scale with the mass and the
positions of the rotors, which an IMU cannot tell and the user gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from sim2real.identify.flight.imu_part import (
    DT,
    EXCITED,
    LOW_PASS_HZ,
    Airframe,
    curve_terms,
    imu_part,
    in_order,
    misfit_of,
    on_one_clock,
    torques,
)
from sim2real.identify.flight.sync import TAU_BOUNDS_S, correlation
from sim2real.recordings.flights import STANDARD_GRAVITY, FlightLog
from sim2real.recordings.tables import LogError
from sim2real.types import Array, Progress

BLOCK_S = 2.0
BOOTSTRAPS = 200
HEAVIEST = 5.0  # times mass and arm squared; with all mass at the rotors, inertia is once that


@dataclass(frozen=True)
class Estimate:
    """A value with the standard deviation of a block bootstrap."""

    value: float
    std: float
    unit: str


@dataclass(frozen=True)
class ImuFit:
    """Parameters fitted to flights with an IMU.

    Attributes:
        estimates: By name: ``thrust_quadratic``; ``thrust_0``, ``thrust_1``, ``thrust_2`` of the full curve (newtons a
            motor over the lagged command in 0 .. 1), ``time_constant``, ``hover_command``, ``inertia_x``,
            ``inertia_y``, ``inertia_z``, ``torque_per_thrust``.
        excitation: By flight: correlation of torque and angular acceleration about x and y.
        remarks: What the data do not say.
    """

    estimates: dict[str, Estimate]
    excitation: dict[str, tuple[float, float]]
    remarks: tuple[str, ...]

    def thrust(self, command: Array) -> Array:
        """Newtons a motor at lagged commands 0 .. 1."""
        c = [self.estimates[f"thrust_{i}"].value for i in range(3)]
        return c[0] + c[1] * command + c[2] * command**2


def fit_imu(logs: Sequence[FlightLog], frame: Airframe, seed: int, on_progress: Progress) -> ImuFit:
    """Fit thrust curve, lag and inertia to flights with an IMU.

    Args:
        logs: Flights.
        frame: Mass and positions of the rotors.
        seed: Of the bootstrap.
        on_progress: Called with stage, step, steps in all and figures.

    Raises:
        LogError: A flight has no IMU, is too short, or turns so little under its torques that its gyro is in another
            unit.
    """
    remarks: list[str] = []
    parts = []
    for log in logs:
        part, found = on_one_clock(imu_part(log))
        parts.append(part)
        remarks += [part.air, *found]

    def misfit(constant: float) -> float:
        pieces = [curve_terms(part, constant) for part in parts]
        return misfit_of(*(np.concatenate([piece[i] for piece in pieces]) for i in range(2)))

    on_progress("rotor lag", 0, 1, {})
    constant = float(minimize_scalar(misfit, bounds=TAU_BOUNDS_S, method="bounded", options={"xatol": 5e-4}).x)
    on_progress("rotor lag", 1, 1, {})
    known = 1.05 * TAU_BOUNDS_S[0] < constant < 0.95 * TAU_BOUNDS_S[1]
    if not known:
        remarks.append(
            f"the rotor lag, {1000 * constant:.0f} ms, lies on a bound of its search and is not identified; are motors "
            "and IMU of one log, on one clock?"
        )
    rng = np.random.default_rng(seed)
    lifts = [curve_terms(part, constant) for part in parts]
    curve = _curve(lifts, frame.mass)
    for index, part in enumerate(parts):
        parts[index], found = in_order(part, constant, curve, frame)
        remarks += found
    spins = [torques(part, constant, curve, frame) for part in parts]
    excitation = {p.name: _correlations(s) for p, s in zip(parts, spins, strict=True)}
    good = [s for p, s in zip(parts, spins, strict=True) if min(excitation[p.name]) > EXCITED]
    for part, spin in zip(parts, spins, strict=True):
        if min(excitation[part.name]) > EXCITED:
            _check_inertia(part.name, spin, frame)
    remarks += [
        f"'{name}' hardly turns (torque and angular acceleration correlate by {min(found):.2f}); inertia is not taken "
        "from it"
        for name, found in excitation.items()
        if min(found) <= EXCITED
    ]
    remarks.append("inertia_z is the given ratio times the mean of the others: yaw torque per thrust is unknown too")
    samples: dict[str, list[float]] = {}
    for index in range(BOOTSTRAPS):
        again = [_resampled(piece, rng) for piece in lifts]
        drawn = _values(again, [_resampled(piece, rng) for piece in good], frame)
        for name, value in drawn.items():
            samples.setdefault(name, []).append(value)
        if index % 20 == 19:
            on_progress("intervals", index + 1, BOOTSTRAPS, {})
    values = _values(lifts, good, frame)
    estimates = {name: Estimate(value, float(np.std(samples[name])), _UNITS[name]) for name, value in values.items()}
    lag_std = _lag_std(misfit, constant, sum(len(p[1]) for p in lifts)) if known else constant
    estimates["time_constant"] = Estimate(constant, lag_std, "s")
    return ImuFit(estimates, excitation, tuple(remarks))


_UNITS = {
    "thrust_quadratic": "N",
    "thrust_0": "N",
    "thrust_1": "N",
    "thrust_2": "N",
    "hover_command": "1",
    "inertia_x": "kg*m^2",
    "inertia_y": "kg*m^2",
    "inertia_z": "kg*m^2",
    "torque_per_thrust": "m",
}


def _curve(pieces: Sequence[tuple[Array, Array]], mass: float) -> Array:
    terms, lift = (np.concatenate([piece[i] for piece in pieces]) for i in range(2))
    return mass * np.linalg.lstsq(terms, lift, rcond=None)[0]


def _values(
    lifts: Sequence[tuple[Array, Array]], spins: Sequence[tuple[Array, Array]], frame: Airframe
) -> dict[str, float]:
    terms, lift = (np.concatenate([piece[i] for piece in lifts]) for i in range(2))
    curve = _curve(lifts, frame.mass)
    quadratic = frame.mass * float(terms[:, 2] @ lift) / float(terms[:, 2] @ terms[:, 2])
    weight = frame.mass * STANDARD_GRAVITY / 4.0
    root = curve[1] ** 2 - 4.0 * curve[2] * (curve[0] - weight)
    values = {
        "thrust_quadratic": quadratic,
        "thrust_0": float(curve[0]),
        "thrust_1": float(curve[1]),
        "thrust_2": float(curve[2]),
        "hover_command": float((-curve[1] + np.sqrt(max(root, 0.0))) / (2.0 * curve[2])),
    }
    if spins:
        torque, spin = (np.concatenate([piece[i] for piece in spins]) for i in range(2))
        inertia = (torque * spin).sum(axis=0) / (spin**2).sum(axis=0)
        values["inertia_x"], values["inertia_y"] = float(inertia[0]), float(inertia[1])
        values["inertia_z"] = 0.5 * float(inertia[0] + inertia[1]) * frame.yaw_ratio
        values["torque_per_thrust"] = values["inertia_z"] * float(
            (torque[:, 2] * spin[:, 2]).sum() / (torque[:, 2] ** 2).sum()
        )
    return values


def _check_inertia(name: str, piece: tuple[Array, Array], frame: Airframe) -> None:
    """Refuse a flight whose inertia no body of that mass and size has.

    Raises:
        LogError: Names the flight and what may be wrong.
    """
    torque, spin = piece
    inertia = float(((torque * spin).sum(axis=0) / (spin**2).sum(axis=0))[:2].max())
    largest = HEAVIEST * frame.mass * float((frame.rotors**2).sum(axis=1).max())
    if inertia > largest:
        raise LogError(
            f"'{name}' has an inertia of {inertia:.3g} kg·m² by its gyro, {frame.mass:g} kg and these rotors allow "
            f"{largest:.3g}; is the gyro in rad/s? It must be deg/s, multiply it by 57.2958"
        )


def _correlations(piece: tuple[Array, Array]) -> tuple[float, float]:
    torque, spin = piece
    x, y = (correlation(torque[:, i], spin[:, i]) for i in (0, 1))
    return x, y


def _resampled(piece: tuple[Array, Array], rng: np.random.Generator) -> tuple[Array, Array]:
    """Blocks of ``BLOCK_S`` drawn with replacement: neighbouring samples belong together."""
    size = round(BLOCK_S / DT)
    count = max(1, len(piece[0]) // size)
    rows = (rng.integers(0, count, count)[:, None] * size + np.arange(size)).ravel()
    rows = rows[rows < len(piece[0])]
    return piece[0][rows], piece[1][rows]


def _lag_std(misfit: Callable[[float], float], constant: float, samples: int) -> float:
    """From the curvature of the misfit, with one independent sample a period of the low-pass."""
    step = 0.1 * constant
    best = misfit(constant)
    curvature = (misfit(constant + step) - 2.0 * best + misfit(constant - step)) / step**2
    independent = samples * DT * LOW_PASS_HZ
    return float(np.sqrt(2.0 * best / max(curvature, 1e-12) / independent))


def lift_error(log: FlightLog, estimates: dict[str, float], mass: float) -> dict[str, float]:
    """Compare a fitted thrust curve with the accelerometer of a flight.

    Returns:
        ``hover_lift_error``: relative error of the lift where the flight is within 10 % of hovering; ``lift_rmse_m_s2``
        and ``lift_spread_m_s2`` (standard deviation of the measurement) over the flight; ``in_the_air_s`` of
        ``recorded_s`` that were compared.
    """
    part = imu_part(log)
    terms, lift = curve_terms(part, estimates["time_constant"])
    own = terms @ np.array([estimates[f"thrust_{i}"] for i in range(3)]) / mass
    hovering = np.abs(lift / STANDARD_GRAVITY - 1.0) < 0.1
    return {
        "hover_lift_error": float(own[hovering].mean() / lift[hovering].mean() - 1.0) if hovering.any() else np.nan,
        "lift_rmse_m_s2": float(np.sqrt(((own - lift) ** 2).mean())),
        "lift_spread_m_s2": float(lift.std()),
        "in_the_air_s": len(part.keep) * DT,
        "recorded_s": len(part.lift) * DT,
    }
