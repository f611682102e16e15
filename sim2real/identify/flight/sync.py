"""Faults of a flight's recording that its physics show: an IMU on another clock, motors in another order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.optimize import minimize_scalar

from sim2real.types import Array

TAU_BOUNDS_S = (0.005, 0.3)
# Real rotors follow a first-order lag up to 20 ms of delay; more is another clock.
UNREMARKABLE_S = 0.03
LIFT_DELAYS_S = np.arange(-0.15, 0.301, 0.05)
FINE_S, STEP_S = 0.03, 0.01
TURN_DELAYS_S = np.arange(-0.15, 0.301, 0.01)
# Misfit with a delay over that without, below which the delay is believed; real flights on one clock have 0.87, 0.97.
MUCH_BETTER = 0.8
ALIKE, NEGLIGIBLE = 1.05, 0.001
PENALTY, GAIN = 0.05, 0.15  # of a correlation: what doubt an odd hypothesis carries, and what it must bring


def lift_delay(misfit: Callable[[float, float], float]) -> float:
    """Measure how much later than its rotors' lag a drone's accelerometer shows their lift, s; 0 where nothing says so.

    Args:
        misfit: Of the lift, as a fraction of its variance, by lag and delay (s).
    """

    def best(delay: float) -> tuple[float, float]:
        found = minimize_scalar(
            lambda lag: misfit(lag, delay), bounds=TAU_BOUNDS_S, method="bounded", options={"xatol": 2e-3}
        )
        return float(found.fun), float(found.x)

    error, lag = best(0.0)
    # A lag that would rather be negative says by itself that the motors are late.
    allowed = error * (1.0 if lag < 2.0 * TAU_BOUNDS_S[0] else MUCH_BETTER)
    coarse = float(min(LIFT_DELAYS_S, key=lambda value: best(value)[0]))
    if best(coarse)[0] > allowed - NEGLIGIBLE:
        return 0.0
    # Where lag and delay say the same, as in a plain oscillation, what a delay can explain is left to the lag.
    nearer = np.sign(coarse) * np.arange(0.0, abs(coarse) + FINE_S, STEP_S)
    errors = [best(float(delay))[0] for delay in nearer]
    delay = float(nearer[next(i for i, found in enumerate(errors) if found <= ALIKE * min(errors) + NEGLIGIBLE)])
    return delay if abs(delay) > UNREMARKABLE_S else 0.0


@dataclass(frozen=True)
class Turning:
    """Answer of a flight's gyro to its motors.

    Attributes:
        order: Motors, from 0, at the places of M1 .. M4.
        delay: s by which the gyro is late; 0 where that is nothing to speak of.
        correlation: Smaller one of the correlations of torque and angular acceleration about x and y.
    """

    order: tuple[int, ...]
    delay: float
    correlation: float


def turning(thrust: Array, spin: Array, rotors: Array, dt: float, least: float) -> Turning:
    """Find the order of motors and the delay of the gyro under which torques explain a flight's turning.

    Args:
        thrust: [T, 4] N of the motors as recorded.
        spin: [T, 3] rad/s², angular acceleration.
        rotors: [4, 2] m, places of M1 .. M4.
        dt: s between rows.
        least: Correlation from which another order or a delay is believed.

    Returns:
        The order as recorded without delay, unless another explains the flight much better.
    """
    plain = (0, 1, 2, 3)
    base = _agreement(thrust, spin, rotors, plain, 0)
    best, most = Turning(plain, 0.0, base), base + GAIN
    for delay in TURN_DELAYS_S:
        shift = round(float(delay) / dt)
        for order in permutations(range(4)):
            odd = PENALTY * ((order != plain) + (abs(delay) > UNREMARKABLE_S))
            if not odd:
                continue
            found = _agreement(thrust, spin, rotors, order, shift)
            if found > least and found - odd > most:
                late = float(delay) if abs(delay) > UNREMARKABLE_S else 0.0
                best, most = Turning(order, late, found), found - odd
    return best


def correlation(first: Array, second: Array) -> float:
    """Pearson's correlation of [T] values; 0 where one of them stands still."""
    if first.std() < 1e-9 * (1e-12 + np.abs(first).max()) or second.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _agreement(thrust: Array, spin: Array, rotors: Array, order: tuple[int, ...], shift: int) -> float:
    torque = np.stack((thrust[:, order] @ rotors[:, 1], -thrust[:, order] @ rotors[:, 0]), axis=1)
    late = spin[:, :2]
    if shift > 0:
        torque, late = torque[:-shift], late[shift:]
    elif shift < 0:
        torque, late = torque[-shift:], late[:shift]
    return min(correlation(torque[:, i], late[:, i]) for i in (0, 1))
