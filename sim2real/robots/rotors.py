"""Rotors, air and attitude controller of N drones: commands to body wrenches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim2real.robots.attitude import AttitudeController
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.residual import Residual
from sim2real.robots.weights import GRAVITY
from sim2real.runtime.geometry import quat_to_matrix, rotate_inverse
from sim2real.types import Array, EnvIds, State

if TYPE_CHECKING:
    from sim2real.sim.world import World


class RotorActuation:
    """Commands (thrust N, roll rad, pitch rad, yaw rate rad/s) to body wrenches.

    Args:
        thrust_reference: Where the thrust curve's exponent leaves the command unchanged, N.
        max_thrust: Largest thrust command, N.
        attitude: The controller on board.
        params: Physics parameters, read at every step and at resets.
        sim_dt: Physics step, s.
        rng: Source of the gusts.
        residual: What recordings showed besides, where there is such a network.
    """

    def __init__(
        self,
        thrust_reference: float,
        max_thrust: float,
        attitude: AttitudeController,
        params: PhysicsParams,
        sim_dt: float,
        rng: np.random.Generator,
        residual: Residual | None = None,
    ) -> None:
        self._reference, self._max_thrust, self._attitude = thrust_reference, max_thrust, attitude
        self._params, self._dt, self._rng = params, sim_dt, rng
        self._residual = residual
        count = len(params.values)
        self._force = np.zeros(count)
        self._gust = np.zeros((count, 3))
        self._time = np.zeros(count)
        self._lag = np.zeros(count)

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Set rotors to hover and the air to its gusts."""
        p = self._params.rows(env_ids)
        self._force[env_ids] = p["mass"] * GRAVITY
        self._gust[env_ids] = p["gust_force_std"][:, None] * self._rng.standard_normal((len(env_ids), 3))
        self._time[env_ids] = 0.0
        self._lag[env_ids] = 1.0 - np.exp(-self._dt / p["rotor_time_constant"])
        self._attitude.reset(env_ids, state)

    def apply(self, world: World, state: State, command: Array) -> None:
        """Put the wrench of the next physics step on every robot."""
        matrix = quat_to_matrix(state["quat"])
        force = self._body_force(state, matrix, command)
        world.apply_wrench(force, self._attitude.torque(state, matrix, command))
        self._time += self._dt

    def _body_force(self, state: State, matrix: Array, command: Array) -> Array:
        p, reference, dt = self._params, self._reference, self._dt
        # Lift: the curve of thrust over command, the battery, then the rotors' lag.
        lift = p["thrust_scale"] * (1.0 - p["battery_sag_rate"] * self._time)
        wanted = lift * reference * (np.maximum(command[:, 0], 0.0) / reference) ** p["thrust_exponent"]
        wanted = np.clip(wanted + p["thrust_offset"], 0.0, 1.5 * self._max_thrust)
        self._force += self._lag * (wanted - self._force)
        # Air: gusts as first-order noise, drag against wind.
        keep = np.exp(-dt / p["gust_time_constant"])[:, None]
        spread = (p["gust_force_std"] * np.sqrt(1.0 - keep[:, 0] ** 2))[:, None]
        self._gust = keep * self._gust + spread * self._rng.standard_normal(self._gust.shape)
        air = state["lin_vel"].copy()
        air[:, 0] -= p["wind_x"]
        air[:, 1] -= p["wind_y"]
        force = rotate_inverse(matrix, air)
        force[:, :2] *= -p["drag_xy"][:, None]
        force[:, 2] *= -p["drag_z"]
        force += rotate_inverse(matrix, self._gust)
        force[:, 2] += self._force
        if self._residual is not None:
            force += p["mass"][:, None] * self._unmodelled(self._residual, state, matrix)
        return force

    def _unmodelled(self, residual: Residual, state: State, matrix: Array) -> Array:
        """Specific force [N, 3] m/s² that recordings showed besides."""
        v_body, rate = (rotate_inverse(matrix, state[name]) for name in ("lin_vel", "ang_vel"))
        return residual(v_body, rate, matrix[:, 2, :], self._force / self._params["mass"])
