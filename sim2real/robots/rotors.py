"""Rotors, air and attitude controller of N drones: commands to body wrenches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim2real.robots.attitude import AttitudeController
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.residual import Residual
from sim2real.robots.weights import GRAVITY
from sim2real.runtime.columns import Column, columns, exp, joined, larger, power, sqrt, within
from sim2real.runtime.geometry import Columns, matrix_columns, rotate_inverse, rotate_inverse_columns
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
        self._read = params.reader(
            "thrust_scale", "battery_sag_rate", "thrust_exponent", "thrust_offset", "gust_time_constant",
            "gust_force_std", "wind_x", "wind_y", "drag_xy", "drag_z",
        )  # fmt: skip
        # Lift N, time since the start s, the rotors' lag in a step, gust x y z N.
        self._memory = np.zeros((len(params.values), 6))

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Set rotors to hover and the air to its gusts."""
        p = self._params.rows(env_ids)
        gust = p["gust_force_std"][:, None] * self._rng.standard_normal((len(env_ids), 3))
        lag = 1.0 - np.exp(-self._dt / p["rotor_time_constant"])
        parts = (p["mass"] * GRAVITY, np.zeros(len(env_ids)), lag, *gust.T)
        self._memory[env_ids] = np.stack(parts, axis=1)
        self._attitude.reset(env_ids, state)

    def apply(self, world: World, state: State, command: Array) -> None:
        """Put the wrench of the next physics step on every robot."""
        elements = matrix_columns(columns(state["quat"]))
        matrix = joined(elements, (len(command),)).reshape(-1, 3, 3)
        force = self._body_force(state, elements, columns(command)[0])
        if self._residual is not None:
            force += self._params["mass"][:, None] * self._unmodelled(self._residual, state, matrix)
        world.apply_wrench(force, self._attitude.torque(state, matrix, command))

    def _body_force(self, state: State, matrix: Columns, thrust: Column) -> Array:
        scale, sag, exponent, offset, gust_time, gust_force, wind_x, wind_y, drag_xy, drag_z = self._read()
        lift, time, lag, gust_x, gust_y, gust_z = columns(self._memory)
        reference, dt = self._reference, self._dt
        # Lift: the curve of thrust over command, the battery, then the rotors' lag.
        wanted = scale * (1.0 - sag * time) * reference * power(larger(thrust, 0.0) / reference, exponent)
        lift = lift + lag * (within(wanted + offset, 0.0, 1.5 * self._max_thrust) - lift)
        # Air: gusts as first-order noise, drag against wind.
        keep = exp(-dt / larger(gust_time, 1e-9))
        spread = gust_force * sqrt(1.0 - keep * keep)
        shake = columns(self._rng.standard_normal((len(self._memory), 3)))
        gust = [keep * old + spread * new for old, new in zip((gust_x, gust_y, gust_z), shake, strict=True)]
        self._memory = joined((lift, time + dt, lag, *gust), (len(self._memory),))
        vx, vy, vz = columns(state["lin_vel"])
        air_x, air_y, air_z = rotate_inverse_columns(matrix, (vx - wind_x, vy - wind_y, vz))
        push_x, push_y, push_z = rotate_inverse_columns(matrix, gust)
        force = (air_x * -drag_xy + push_x, air_y * -drag_xy + push_y, air_z * -drag_z + push_z + lift)
        return joined(force, (len(self._memory),))

    def _unmodelled(self, residual: Residual, state: State, matrix: Array) -> Array:
        """Specific force [N, 3] m/s² that recordings showed besides."""
        v_body, rate = (rotate_inverse(matrix, state[name]) for name in ("lin_vel", "ang_vel"))
        return residual(v_body, rate, matrix[:, 2, :], self._memory[:, 0] / self._params["mass"])
