"""A quadrotor as recordings show it: rigid-body prediction with fitted thrust, torque and drag, many starts at once.

    u         = (rotor speed / 1000 rad/s)², or the square of the lagged motor command
    accel     = R (sum_r thrust_r u_r z + lift_offset - drag * v_body) + gravity
    ang accel = torque u + torque_offset - damping * rate + coupling * (rate_y rate_z, rate_x rate_z, rate_x rate_y)

Every rotor has a thrust and torques of its own, so neither their order nor their positions need to be known, and what
is fitted is divided by mass and inertia: only these ratios show in a flight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from sim2real.identify.flight.air import Mask, airborne
from sim2real.recordings.flights import FlightLog
from sim2real.recordings.tables import LogError
from sim2real.runtime.geometry import quat_multiply, quat_to_matrix, rotate, rotate_inverse, rotation_vector_to_quat
from sim2real.types import Array

Residual = Callable[[Array, Array, Array, Array], Array]

STEP_S = 0.01
GRAVITY = np.array([0.0, 0.0, -9.81])
ROTOR_UNIT = 1000.0  # rad/s


@dataclass(frozen=True)
class FlightModel:
    """Fitted quantities.

    Attributes:
        thrust: [4] m/s² per unit of u.
        lift_offset: [3] m/s², body frame.
        drag: [3] 1/s, body frame.
        torque: [3, 4] rad/s² per unit of u.
        torque_offset: [3] rad/s².
        damping: [3] 1/s.
        coupling: [3], the gyroscopic terms (Iy - Iz) / Ix and so on.
        time_constant: s; lag of the rotors behind ``motor`` commands.
    """

    thrust: Array
    lift_offset: Array
    drag: Array
    torque: Array
    torque_offset: Array
    damping: Array
    coupling: Array
    time_constant: float = 0.0

    def pack(self) -> Array:
        """All quantities but the time constant, in one vector."""
        return np.concatenate([np.ravel(getattr(self, part.name)) for part in fields(self)[:-1]])

    def unpack(self, vector: Array) -> FlightModel:
        """This model with the quantities of :meth:`pack`."""
        parts: dict[str, Any] = {}
        at = 0
        for part in fields(self)[:-1]:
            shape = np.shape(getattr(self, part.name))
            size = int(np.prod(shape))
            parts[part.name] = vector[at : at + size].reshape(shape)
            at += size
        return replace(self, **parts)


@dataclass(frozen=True)
class Flight:
    """One flight on a grid of ``STEP_S``.

    Attributes:
        pos, vel, ang_vel: [T, 3]; world, world, body frame.
        quat: [T, 4] xyzw.
        inputs: [T, 4] u, as the rotors turn from one row to the next.
        air: [T] true where it flies.
    """

    name: str
    pos: Array
    vel: Array
    quat: Array
    ang_vel: Array
    inputs: Array
    air: Mask


def joined(flights: Sequence[Flight], starts: Sequence[NDArray[np.int64]]) -> tuple[Flight, NDArray[np.int64]]:
    """Flights one after the other, and the rows to start from in them; one prediction then serves all."""
    offsets = np.cumsum([0, *(len(flight.pos) for flight in flights[:-1])])
    parts = {
        part.name: np.concatenate([getattr(flight, part.name) for flight in flights]) for part in fields(Flight)[1:]
    }
    return Flight("", **parts), np.concatenate([rows + offset for rows, offset in zip(starts, offsets, strict=True)])


def resample(log: FlightLog, time_constant: float = 0.0) -> Flight:
    """A flight with pose on the grid.

    Args:
        log: With pose.
        time_constant: Lag of the rotors behind motor commands, s; not applied to measured rotor speeds.

    Raises:
        LogError: The log has no pose.
    """
    if not log.has_pose:
        raise LogError(f"'{log.name}' has no pose; multi-step prediction needs pos, vel, quat and ang_vel")
    assert log.pos is not None and log.vel is not None and log.quat is not None and log.ang_vel is not None
    grid = np.arange(0.0, log.time[-1] + 1e-9, STEP_S)

    def at(values: Array) -> Array:
        return np.stack([np.interp(grid, log.time, column) for column in values.T], axis=1)

    sign = np.cumprod(np.where((log.quat[1:] * log.quat[:-1]).sum(axis=1) < 0, -1.0, 1.0))
    quat = at(log.quat * np.concatenate(([1.0], sign))[:, None])
    quat /= np.sqrt((quat**2).sum(axis=1, keepdims=True))
    inputs = (
        at((log.rotor_speed / ROTOR_UNIT) ** 2) if log.rotor_speed is not None else _lagged(log, grid, time_constant)
    )
    inputs = 0.5 * (inputs + np.concatenate((inputs[1:], inputs[-1:])))
    vel = at(log.vel)
    felt = np.sqrt(((np.gradient(vel, STEP_S, axis=0) - GRAVITY) ** 2).sum(axis=1)) / -GRAVITY[2]
    return Flight(log.name, at(log.pos), vel, quat, at(log.ang_vel), inputs, airborne(inputs.sum(axis=1), felt, STEP_S))


def _lagged(log: FlightLog, grid: Array, time_constant: float) -> Array:
    assert log.motor is not None
    fine = np.arange(0.0, grid[-1] + 1e-9, 0.1 * STEP_S)
    index = np.clip(np.searchsorted(log.time, fine + 1e-9, side="right") - 1, 0, None)
    speed = lag(log.motor[index], 0.1 * STEP_S, time_constant)
    return np.stack([np.interp(grid, fine, column) for column in (speed**2).T], axis=1)


def lag(values: Array, dt: float, time_constant: float) -> Array:
    """First-order lag of [T, ..] values, exact for values held over ``dt``."""
    if time_constant <= 0:
        return values
    keep = float(np.exp(-dt / time_constant))
    filtered, _ = lfilter([1.0 - keep], [1.0, -keep], values, axis=0, zi=keep * values[:1])
    return np.asarray(filtered)


def accelerations(model: FlightModel, v_body: Array, rate: Array, inputs: Array) -> tuple[Array, Array]:
    """Specific force in the body frame [N, 3] m/s² and angular acceleration [N, 3] rad/s²."""
    force = model.lift_offset - model.drag * v_body
    force[:, 2] += inputs @ model.thrust
    spin = inputs @ model.torque.T + model.torque_offset - model.damping * rate
    spin += model.coupling * np.stack(
        (rate[:, 1] * rate[:, 2], rate[:, 0] * rate[:, 2], rate[:, 0] * rate[:, 1]), axis=1
    )
    return force, spin


def predict(
    model: FlightModel,
    flight: Flight,
    starts: NDArray[np.int64],
    horizons: tuple[int, ...],
    trim: tuple[Array, Array] | None = None,
    residual: Residual | None = None,
) -> dict[int, tuple[Array, Array, Array, Array]]:
    """Predict from many rows at once, without looking at anything but the inputs.

    Args:
        model: What flies.
        flight: States and inputs.
        starts: Rows [N] to start from.
        horizons: Steps after which the prediction is kept, ascending.
        trim: Force [T, 3] m/s² and angular acceleration [T, 3] rad/s² known at each row from the past.
        residual: Added to the model: body velocity, rate, the world's up in the body frame and the rotors' specific
            lift to specific force (m/s²), as in the training simulator.

    Returns:
        By horizon: position, velocity, quaternion and rate of the N predictions.
    """
    pos, vel, quat, rate = (part[starts] for part in (flight.pos, flight.vel, flight.quat, flight.ang_vel))
    kept = {}
    for step in range(horizons[-1]):
        matrix = quat_to_matrix(quat)
        inputs = flight.inputs[starts + step]
        v_body = rotate_inverse(matrix, vel)
        force, spin = accelerations(model, v_body, rate, inputs)
        if residual is not None:
            force = force + residual(v_body, rate, matrix[:, 2, :], inputs @ model.thrust)
        if trim is not None:
            force, spin = force + trim[0][starts], spin + trim[1][starts]
        next_rate = rate + STEP_S * spin
        # The attitude in the middle of the step carries the force.
        middle = quat_multiply(quat, rotation_vector_to_quat(0.5 * STEP_S * 0.5 * (rate + next_rate)))
        acceleration = rotate(quat_to_matrix(middle), force) + GRAVITY
        pos = pos + STEP_S * vel + 0.5 * STEP_S**2 * acceleration
        vel = vel + STEP_S * acceleration
        quat = quat_multiply(quat, rotation_vector_to_quat(STEP_S * 0.5 * (rate + next_rate)))
        rate = next_rate
        if step + 1 in horizons:
            kept[step + 1] = (pos, vel, quat, rate)
    return kept


def errors(flight: Flight, starts: NDArray[np.int64], step: int, predicted: tuple[Array, ...]) -> dict[str, Array]:
    """Errors [N] after ``step`` steps: position (m), velocity (m/s), attitude (rad, geodesic), rate (rad/s)."""
    pos, vel, quat, rate = predicted
    rows = starts + step
    dot = np.abs((quat * flight.quat[rows]).sum(axis=1))
    return {
        "position_m": np.sqrt(((pos - flight.pos[rows]) ** 2).sum(axis=1)),
        "velocity_m_s": np.sqrt(((vel - flight.vel[rows]) ** 2).sum(axis=1)),
        "attitude_rad": 2.0 * np.arccos(np.clip(dot / np.sqrt((quat**2).sum(axis=1)), 0.0, 1.0)),
        "rate_rad_s": np.sqrt(((rate - flight.ang_vel[rows]) ** 2).sum(axis=1)),
    }
