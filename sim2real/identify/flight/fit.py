"""Fitting :class:`~sim2real.identify.flight.model.FlightModel` to flights with a measured pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from sim2real.identify.flight.air import whole
from sim2real.identify.flight.model import (
    GRAVITY,
    STEP_S,
    Flight,
    FlightModel,
    Residual,
    accelerations,
    errors,
    joined,
    predict,
    resample,
)
from sim2real.recordings.flights import FlightLog
from sim2real.recordings.tables import LogError
from sim2real.runtime.geometry import quat_to_matrix, rotate_inverse
from sim2real.types import Array, EnvIds, Progress

WINDOW = 6  # steps over which accelerations are averaged; shorter ones drown in noise
HORIZONS = (1, 10, 50)
FIT_HORIZONS = (10, 30, 50)
FIT_STARTS = 600
TIME_CONSTANTS = (0.0, 0.02, 0.035, 0.05, 0.07, 0.1)
TRIM_CONSTANTS_S = (0.2, 0.5, 1.5)
RIDGE = 1e-6


@dataclass(frozen=True)
class Trim:
    """Gains of what the last moments say the model leaves out.

    Attributes:
        time_constant: s; memory.
        force, spin: Shares, 0 .. 1, that are carried into the prediction.
    """

    time_constant: float = 0.5
    force: float = 0.0
    spin: float = 0.0


@dataclass(frozen=True)
class FlightFit:
    """A fitted model with what it was judged by.

    Attributes:
        error_m: Position error after 50 steps on the flights it was fitted on, m.
        covariance: [P, P] of :meth:`FlightModel.pack`.
    """

    model: FlightModel
    trim: Trim
    error_m: float
    covariance: Array


def windows(flight: Flight) -> tuple[Array, Array, Array, Array, Array]:
    """Mean accelerations over ``WINDOW`` steps and what they are to be explained with.

    Returns:
        Specific force [M, 3] m/s² and angular acceleration [M, 3] rad/s² in the body frame; body velocity, rate and
        inputs averaged over the same window.
    """
    n = len(flight.pos) - WINDOW
    if n < 10 * WINDOW:
        raise LogError(f"flight '{flight.name}' lasts {len(flight.pos) * STEP_S:.1f} s; at least a second is needed")
    span = WINDOW * STEP_S

    def mean(values: Array) -> Array:
        total = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)))
        inner = total[WINDOW:] - total[:-WINDOW]
        return inner[:n] / WINDOW

    middle = quat_to_matrix(flight.quat[WINDOW // 2 : WINDOW // 2 + n])
    world = (flight.vel[WINDOW:] - flight.vel[:-WINDOW]) / span - GRAVITY
    force = rotate_inverse(middle, world)
    spin = (flight.ang_vel[WINDOW:] - flight.ang_vel[:-WINDOW]) / span
    v_body = rotate_inverse(quat_to_matrix(flight.quat), flight.vel)
    return force, spin, mean(v_body), mean(flight.ang_vel), mean(flight.inputs)


def flying_windows(flight: Flight) -> list[Array]:
    """The arrays of :func:`windows`, with the world's up in the body frame [M, 3] last; only windows in the air."""
    parts = windows(flight)
    count = len(parts[0])
    up = quat_to_matrix(flight.quat[WINDOW // 2 : WINDOW // 2 + count])[:, 2, :]
    flying = whole(flight.air, WINDOW + 1)[:count]
    return [part[flying] for part in (*parts, up)]


def regress(flights: Sequence[Flight], time_constant: float = 0.0) -> FlightModel:
    """Linear least squares on windowed accelerations; a start for :func:`fit_flights`."""
    parts = [flying_windows(flight) for flight in flights]
    force, spin, v_body, rate, inputs = (np.concatenate([part[i] for part in parts]) for i in range(5))
    one = np.ones((len(force), 1))
    lift = _solve(np.hstack((inputs, one, -v_body[:, 2:])), force[:, 2])
    side = [_solve(np.hstack((one, -v_body[:, i : i + 1])), force[:, i]) for i in (0, 1)]
    turning = np.stack((rate[:, 1] * rate[:, 2], rate[:, 0] * rate[:, 2], rate[:, 0] * rate[:, 1]), axis=1)
    spins = [_solve(np.hstack((inputs, one, -rate[:, i : i + 1], turning[:, i : i + 1])), spin[:, i]) for i in range(3)]
    return FlightModel(
        thrust=lift[:4],
        lift_offset=np.array([side[0][0], side[1][0], lift[4]]),
        drag=np.array([side[0][1], side[1][1], lift[5]]),
        torque=np.stack([row[:4] for row in spins]),
        torque_offset=np.array([row[4] for row in spins]),
        damping=np.array([row[5] for row in spins]),
        coupling=np.array([row[6] for row in spins]),
        time_constant=time_constant,
    )


def _solve(table: Array, values: Array) -> Array:
    scale = np.sqrt((table**2).mean(axis=0)) + 1e-12
    square = table.T @ table / np.outer(scale, scale) / len(table)
    right = table.T @ values / scale / len(table)
    return np.linalg.solve(square + RIDGE * np.eye(len(scale)), right) / scale


def trim_estimate(model: FlightModel, flight: Flight, trim: Trim) -> tuple[Array, Array]:
    """Estimate from the past of every row the force [T, 3] m/s² and angular acceleration [T, 3] rad/s² left out."""
    force, spin, v_body, rate, inputs = windows(flight)
    own_force, own_spin = accelerations(model, v_body, rate, inputs)
    gain = STEP_S / trim.time_constant
    result = []
    for left, believed in ((force - own_force, trim.force), (spin - own_spin, trim.spin)):
        known = np.zeros((len(flight.pos), 3))
        value = np.zeros(3)
        for row in range(len(left)):  # the window that ends at row + WINDOW
            value = value + max(gain, 1.0 / (row + 1)) * (left[row] - value)
            known[row + WINDOW] = value
        result.append(believed * known)
    return result[0], result[1]


def starts_of(flight: Flight, count: int | None, longest: int = HORIZONS[-1]) -> EnvIds:
    """EnvIds to predict from: all that leave room for ``longest`` steps, or about ``count`` of them, evenly."""
    last = len(flight.pos) - longest - 1
    if last < 1:
        raise LogError(f"flight '{flight.name}' lasts {len(flight.pos) * STEP_S:.1f} s, too short for {longest} steps")
    flying = whole(flight.air, longest + 1)[:last]
    starts = np.nonzero(flying)[0]
    starts = starts[starts >= WINDOW]
    if not len(starts):
        raise LogError(f"flight '{flight.name}' is never in the air for {longest * STEP_S:g} s; is it a flight?")
    return starts[:: 1 if count is None else max(1, len(starts) // count)]


def multi_step(
    model: FlightModel, flight: Flight, trim: Trim, residual: Residual | None = None, count: int | None = None
) -> dict[str, dict[str, float]]:
    """Mean prediction errors after 1, 10 and 50 steps of 0.01 s over all start rows of one flight."""
    starts = starts_of(flight, count)
    known = trim_estimate(model, flight, trim) if trim.force or trim.spin else None
    predicted = predict(model, flight, starts, HORIZONS, known, residual)
    found = {step: errors(flight, starts, step, predicted[step]) for step in HORIZONS}
    return {str(step): {name: float(v.mean()) for name, v in found[step].items()} for step in HORIZONS}


def position_error(
    model: FlightModel, flights: Sequence[Flight], trim: Trim, residual: Residual | None = None
) -> float:
    """Mean position error after 50 steps, m."""
    found = [multi_step(model, f, trim, residual, FIT_STARTS)[str(HORIZONS[-1])]["position_m"] for f in flights]
    return float(np.mean(found))


def fit_flights(logs: Sequence[FlightLog], on_progress: Progress) -> FlightFit:
    """Fit a model to flights with pose: regression, then least squares on multi-step predictions.

    Args:
        logs: Flights with pose.
        on_progress: Called with stage, step, steps in all and figures.

    Raises:
        LogError: A flight has no pose or is too short.
    """
    lags = TIME_CONSTANTS if logs[0].rotor_speed is None else (0.0,)
    tried = []
    for index, constant in enumerate(lags):
        flights = [resample(log, constant) for log in logs]
        guess = regress(flights, constant)
        tried.append((position_error(guess, flights, Trim()), index, guess, flights))
        on_progress("regression", index + 1, len(lags), {"position_m": tried[-1][0]})
    _, _, model, flights = min(tried, key=lambda entry: entry[:2])
    # Rotor speeds say little about the slow torques of some airframes; holding the rate may then predict better.
    coasting = replace(model, torque=0 * model.torque, torque_offset=0 * model.damping, damping=0 * model.damping)
    coasting = replace(coasting, coupling=0 * model.coupling)
    if position_error(coasting, flights, Trim()) < position_error(model, flights, Trim()):
        model = coasting
    starts = [starts_of(f, max(20, FIT_STARTS // len(flights))) for f in flights]
    one, rows = joined(flights, starts)
    owner = np.repeat(np.arange(len(flights)), [len(s) for s in starts])
    scale: list[Array] = []  # of every part, by row: each flight counts by its own errors at the start, calm or wild

    def residuals(vector: Array) -> Array:
        predicted = predict(model.unpack(vector), one, rows, FIT_HORIZONS)
        parts = []
        for step in FIT_HORIZONS:
            pos, vel, quat, rate = predicted[step]
            after = rows + step
            sign = np.where((quat * one.quat[after]).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
            parts += [
                pos - one.pos[after],
                vel - one.vel[after],
                2.0 * (sign * quat - one.quat[after]),
                rate - one.ang_vel[after],
            ]
        if not scale:
            for part in parts:
                square = np.bincount(owner, (part**2).mean(axis=1)) / np.bincount(owner)
                scale.append(np.sqrt(square)[owner, None] + 1e-9)
        return np.concatenate([np.ravel(part / s) for part, s in zip(parts, scale, strict=True)])

    on_progress("prediction fit", 0, 1, {})
    start = model.pack()
    found = least_squares(
        residuals, start, x_scale=np.maximum(np.abs(start), 0.1), loss="soft_l1", max_nfev=12, method="trf"
    )
    fitted = model.unpack(found.x)
    before, after = (position_error(m, flights, Trim()) for m in (model, fitted))
    model = fitted if after < before else model
    on_progress("prediction fit", 1, 1, {"position_m": min(before, after)})
    noise = float((found.fun**2).mean())
    covariance = noise * np.linalg.pinv(found.jac.T @ found.jac)
    trim, error = _best_trim(model, flights)
    return FlightFit(model, trim, error, covariance)


def _best_trim(model: FlightModel, flights: Sequence[Flight]) -> tuple[Trim, float]:
    best, trim = position_error(model, flights, Trim()), Trim()
    for constant in TRIM_CONSTANTS_S:
        for force in (0.0, 0.5, 1.0):
            for spin in (0.0, 0.5, 1.0):
                candidate = Trim(constant, force, spin)
                if force or spin:
                    error = position_error(model, flights, candidate)
                    if error < best:
                        best, trim = error, candidate
    return trim, best
