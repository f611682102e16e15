"""Fit of friction, drive gains and the masses that bodies can have to torques or motor currents.

The masses start at the description's, and are drawn to it as strongly as it is believed: what torques do not determine
stays there. Only sums that act together are determined (base parameters), so an interval of one mass holds what is
believed of the others. Currents alone give torques, masses and inertias up to one common factor (Gautier and Briot
2014, "Global Identification of Joint Drive Gains and Dynamic Parameters of Robots"): a torque constant or a weighed
payload in some recordings, and none in others, gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from sim2real.identify.arm.dynamics import (
    Body,
    carriers,
    consistent,
    factor_of,
    pseudo_inertia,
    pseudo_of,
    regressor,
)
from sim2real.identify.arm.torque import Rows
from sim2real.robots.arm import Arm
from sim2real.types import Array

SHAPES = 3.0  # times less believed than masses: tensors are rougher, and many of descriptions are flat
WIDE = 3.0  # standard deviation of what nothing is known of, in its own scale
GAIN_WIDE = 10.0  # of the logarithm of a drive gain
CONSTANT_WITHIN = 0.02  # of a torque constant that is given
WEIGHED_WITHIN = 0.002  # of a payload's mass that is given
PAYLOAD_GUESS, PAYLOAD_M = 0.05, 0.05  # of the arm's mass, and its size, where the search for a payload begins
UNCORRELATED = 0.05
STEP = 1e-4
INSIDE = 0.3  # of their scale, where frictions begin; on a bound the search makes no step


@dataclass(frozen=True)
class Known:
    """Knowledge besides the recordings.

    Attributes:
        constants: Torque constants [J] N·m/A; None where the recordings hold torques, NaN where they are not known.
        payload_kg: Weighed payload of the loaded recordings; None where it is not known.
        within: Standard deviation of the description's masses, relative.
    """

    constants: Array | None
    payload_kg: float | None
    within: float


class TorqueModel:
    """Efforts as a function of coordinates x: bodies, payload, friction, drive gains.

    Args:
        arm: The robot.
        bodies: Its bodies.
        rows: Recordings that give the scales.
        known: What is known besides.
    """

    def __init__(self, arm: Arm, bodies: list[Body], rows: Sequence[Rows], known: Known) -> None:
        self.arm, self.bodies, self.known = arm, bodies, known
        self.joints, self.loaded = len(arm.joints), any(r.loaded for r in rows)
        pseudo = [pseudo_of(body.parameters) for body in bodies]
        self.tip = next(i for i, body in enumerate(bodies) if body.link == carriers(arm.chain)[arm.ee])
        frames = arm.chain.frames(np.zeros((1, self.joints)))
        (place, turned), (origin, rotation) = frames[arm.ee], frames[bodies[self.tip].link]
        self.ee_in_tip = rotation[0].T @ (place - origin)[0], rotation[0].T @ turned[0]
        if self.loaded:
            mass = known.payload_kg or PAYLOAD_GUESS * sum(arm.chain.masses.values())
            pseudo.append(pseudo_inertia(mass, self.ee_in_tip[0], 0.4 * mass * PAYLOAD_M**2 * np.eye(3)))
        self.factors = np.array([factor_of(p) for p in pseudo])
        described = np.concatenate([body.parameters for body in bodies])
        effort = np.concatenate([r.effort for r in rows])
        moves = np.concatenate([r.moves for r in rows])
        self.moving: NDArray[np.bool_] = np.array(moves.any(axis=0))
        self.scale = np.array([effort[m, j].std() or 1.0 if m.any() else 1.0 for j, m in enumerate(moves.T)])
        faster, speed = (
            np.sqrt(np.mean([(r.data[:, :, column] ** 2).mean(axis=0) for r in rows], axis=0)) + 1e-6
            for column in (-4, -3)
        )
        asked = np.concatenate([r.data[:, :, : len(described)] @ described for r in rows])
        gain = np.array([asked[m, j].std() or 1.0 if m.any() else 1.0 for j, m in enumerate(moves.T)]) / self.scale
        self.gain = np.ones(self.joints) if known.constants is None else gain
        # Units of rotor inertia, viscous and Coulomb friction, and offset [4, J].
        self.units = np.stack([self.gain * self.scale / faster, self.scale / speed, self.scale, self.scale])
        self._spread()

    def _spread(self) -> None:
        """Standard deviations and middles of all coordinates before any recording is seen."""
        believed = np.full((len(self.bodies), 10), self.known.within)
        believed[:, 0] *= 0.5  # a mass grows with the square of its size
        believed[:, 1:7] *= SHAPES
        payload = np.full((int(self.loaded), 10), WIDE)
        parts = [believed.ravel(), payload.ravel(), np.full(4 * self.joints, WIDE)]
        middles = [np.zeros(sum(map(len, parts)))]
        if self.known.constants is not None:
            given = np.isfinite(self.known.constants)
            parts.append(np.where(given, CONSTANT_WITHIN, GAIN_WIDE))
            middles.append(np.log(np.where(given, np.abs(self.known.constants), self.gain) / self.gain))
        self.std, self.middle = np.concatenate(parts), np.concatenate(middles)

    def inertia_rows(self, position: Array) -> Array:
        """Rows [N, J, 10 B] that make every joint's inertia, with all that it carries, of the bodies' parameters."""
        zero, chain = np.zeros_like(position), self.arm.chain
        still = regressor(chain, self.bodies, position, zero, zero)
        result = np.empty_like(still)
        for joint in range(self.joints):
            push = zero.copy()
            push[:, joint] = 1.0
            result[:, joint] = (regressor(chain, self.bodies, position, zero, push) - still)[:, joint]
        return result

    def split(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Parameters of bodies [B, 10], of the payload [10], frictions [4, J] in their units, drive gains [J]."""
        count = 10 * len(self.factors)
        parameters = consistent(self.factors, x[:count].reshape(-1, 10))
        frictions = self.units * x[count : count + 4 * self.joints].reshape(4, -1)
        gains = self.gain * np.exp(x[count + 4 * self.joints :]) if self.known.constants is not None else self.gain
        payload = parameters[-1] if self.loaded else np.zeros(10)
        return parameters[: len(self.bodies)], payload, frictions, gains

    def coefficients(self, x: Array) -> Array:
        """Coefficients [2, J, C] of the columns of the data, without and with payload."""
        bodies, payload, frictions, gains = self.split(x)
        result = np.empty((2, self.joints, bodies.size + 4))
        for loaded in range(2):
            carried = bodies.copy()
            carried[self.tip] += loaded * payload
            result[loaded, :, : bodies.size] = carried.ravel() / gains[:, None]
        result[:, :, bodies.size :] = frictions.T
        result[:, :, bodies.size] /= gains
        return result

    def slopes(self, x: Array) -> Array:
        """Derivative [2, J, C, P] of :meth:`coefficients` by the coordinates."""
        count, bodies = 10 * len(self.factors), 10 * len(self.bodies)
        theta, gains = x[:count].reshape(-1, 10), self.split(x)[3]
        result = np.zeros((2, self.joints, bodies + 4, len(x)))
        for number in range(10):
            step = STEP * np.eye(10)[number]
            moved = (consistent(self.factors, theta + step) - consistent(self.factors, theta - step)) / (2.0 * STEP)
            for body, own in enumerate(moved):
                at = 10 * (self.tip if body == len(self.bodies) else body)
                first = int(body == len(self.bodies))  # the payload is there where it is carried
                result[first:, :, at : at + 10, 10 * body + number] = own / gains[:, None]
        for joint in range(self.joints):
            for kind in range(4):
                by_gain = gains[joint] if kind == 0 else 1.0
                result[:, joint, bodies + kind, count + kind * self.joints + joint] = self.units[kind, joint] / by_gain
            if self.known.constants is not None:
                own = self.coefficients(x)[:, joint]
                result[:, joint, : bodies + 1, count + 4 * self.joints + joint] = -own[:, : bodies + 1]
        return result

    def residuals(self, rows: Rows, x: Array) -> Array:
        """Measured less modelled efforts [T, J]."""
        return rows.effort - np.einsum("tjc,jc->tj", rows.data, self.coefficients(x)[int(rows.loaded)])


@dataclass(frozen=True)
class TorqueFit:
    """Best coordinates, their covariance, noise of every joint [J] as the effort, and the weighted data's Jacobian."""

    x: Array
    covariance: Array
    noise: Array
    jacobian: Array


def compress(rows: Rows) -> Array:
    """Triangles [J, C + 1, C + 1] with the same sums of squares as the rows in which a joint moves."""
    joints, columns = rows.data.shape[1], rows.data.shape[2] + 1
    result = np.zeros((joints, columns, columns))
    for joint in range(joints):
        at = rows.moves[:, joint]
        own = np.linalg.qr(np.column_stack([rows.data[at, joint], rows.effort[at, joint]]), mode="r")
        result[joint, : len(own)] = own
    return result


def fit_torques(model: TorqueModel, rows: Sequence[Rows], triangles: Sequence[Array], start: Array) -> TorqueFit:
    """Fit by maximum posterior: Gaussian noise a joint, as correlated as it is found to be.

    Args:
        model: What is fitted.
        rows: Recordings.
        triangles: Of :func:`compress`, by recording.
        start: Coordinates.
    """
    shape = triangles[0].shape
    roots = np.zeros((2, *shape))
    for loaded in range(2):
        own = [t for t, r in zip(triangles, rows, strict=True) if r.loaded == bool(loaded)]
        for joint in range(shape[0] if own else 0):
            roots[loaded, joint] = np.linalg.qr(np.concatenate([t[joint] for t in own]), mode="r")
    count = 10 * len(model.factors)
    low = np.full(len(start), -np.inf)
    low[count : count + 3 * model.joints] = 0.0  # no rotor without inertia, no friction that drives
    # The noise is what no coefficients explain, a joint by itself: what beliefs cost must not pass for noise.
    free = np.array([_free(roots[:, joint]) for joint in range(model.joints)]).transpose(1, 0, 2)
    noise, together = _noise(rows, [r.effort - np.einsum("tjc,jc->tj", r.data, free[int(r.loaded)]) for r in rows])
    weight = np.where(model.moving, 1.0 / (noise * np.sqrt(together)), 0.0)

    def measured(x: Array) -> Array:
        whole = np.concatenate([model.coefficients(x), -np.ones((2, model.joints, 1))], axis=2)
        return (weight[None, :, None] * np.einsum("gjrc,gjc->gjr", roots, whole)).ravel()

    def residuals(x: Array) -> Array:
        parts = [measured(x), (x - model.middle) / model.std]
        if model.loaded and model.known.payload_kg:
            mass = model.split(x)[1][0]
            parts.append(np.array([np.log(mass / model.known.payload_kg) / WEIGHED_WITHIN]))
        return np.concatenate(parts)

    def jacobian(x: Array) -> Array:
        data = np.einsum("gjrc,gjcp->gjrp", roots[..., :-1], model.slopes(x), optimize=True)
        parts = [(weight[None, :, None, None] * data).reshape(-1, len(x)), np.diag(1.0 / model.std)]
        if model.loaded and model.known.payload_kg:
            parts.append(np.zeros((1, len(x))))
            parts[-1][0, count - 10] = 2.0 / WEIGHED_WITHIN
        return np.concatenate(parts)

    inside = start.copy()
    inside[count : count + 3 * model.joints] = INSIDE
    limits = {"xtol": 1e-10, "ftol": 1e-10, "max_nfev": 400}
    x = least_squares(residuals, inside, jacobian, (low, np.inf), x_scale=model.std, **limits).x
    # Intervals allow for what the model leaves besides the noise.
    noise, together = _noise(rows, [model.residuals(r, x) for r in rows])
    weight = np.minimum(weight, np.where(model.moving, 1.0 / (noise * np.sqrt(together)), 0.0))
    slope = jacobian(x)
    return TorqueFit(
        x, np.asarray(np.linalg.inv(slope.T @ slope), dtype=np.float64), noise, slope[: roots[..., 0].size]
    )


def _free(roots: Array) -> Array:
    """Coefficients [2, C] of one joint's columns that fit best, each without and with payload its own, by roots."""
    result = np.zeros((2, roots.shape[2] - 1))
    for loaded, root in enumerate(roots):
        result[loaded] = np.linalg.lstsq(root[:, :-1], root[:, -1], rcond=1e-10)[0]
    return result


def _noise(rows: Sequence[Rows], left: Sequence[Array]) -> tuple[Array, Array]:
    """Standard deviation of residuals [T, J] a recording [J], and rows that are worth one independent row [J]."""
    left = [np.where(r.moves, own, 0.0) for r, own in zip(rows, left, strict=True)]
    count = np.maximum(np.sum([r.moves.sum(axis=0) for r in rows], axis=0), 1)
    square = np.sum([(e * e).sum(axis=0) for e in left], axis=0) + 1e-18
    together = np.ones(len(square))
    for joint in range(len(square)):
        for lag in range(1, min(len(e) for e in left)):
            shared = sum(float(e[lag:, joint] @ e[:-lag, joint]) for e in left) / square[joint]
            if shared < UNCORRELATED:
                break
            together[joint] += 2.0 * shared
    return np.sqrt(square / count), together


def determined(model: TorqueModel, fit: TorqueFit) -> dict[str, float | int]:
    """Count what the recordings determine: sums of inertial parameters that act, and how many are known better.

    Returns:
        ``inertial``, ``acting`` (their rank), ``condition`` (of the acting, columns of equal length), ``known`` (sums
        known better than from the description).
    """
    count = 10 * len(model.factors)
    jacobian = fit.jacobian[:, :count]
    length = np.sqrt((jacobian**2).sum(axis=0))
    values = np.linalg.svd(jacobian[:, length > 0.0] / length[length > 0.0], compute_uv=False)
    acting = values[values > 1e-6 * values[0]] if len(values) else values
    believed = np.linalg.svd(jacobian * model.std[:count], compute_uv=False)
    return {
        "inertial": count,
        "acting": len(acting),
        "condition": float(acting[0] / acting[-1]) if len(acting) else np.inf,
        "known": int((believed > 1.0).sum()),
    }
