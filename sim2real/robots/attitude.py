"""The attitude controller on board of a drone, as the simulator has it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sim2real.robots.physics import PhysicsParams
from sim2real.runtime.geometry import quat_conjugate, quat_multiply, rotate_inverse, rpy_to_quat, yaw_of
from sim2real.types import Array, EnvIds, State


class AttitudeController(Protocol):
    """Torques of N drones that follow roll, pitch and yaw rate; made with inertia, largest torque, params and step."""

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Forget the past of ``env_ids``; parameters of those drones have just changed."""

    def torque(self, state: State, matrix: Array, command: Array) -> Array:
        """Torque [N, 3] N·m in the body frame, for the next physics step.

        Args:
            state: Of the bodies.
            matrix: Their attitude, body to world [N, 3, 3].
            command: [N, 4]: thrust N, roll rad, pitch rad, yaw rate rad/s.
        """


class SecondOrderAttitude:
    """A second-order loop in roll, pitch and yaw error, with the stock controller's bandwidth and damping.

    Its gains are chosen so that the *discrete* loop, with Bullet's semi-implicit step, has exactly the poles exp(λ·dt)
    of the continuous one: the response does not depend on the physics step.

    Args:
        inertia: Principal moments [3] kg·m².
        max_torque: Of each axis [3] N·m.
        params: Physics parameters, read at every step and at resets.
        sim_dt: Physics step, s.
    """

    def __init__(self, inertia: Array, max_torque: Array, params: PhysicsParams, sim_dt: float) -> None:
        self._inertia, self._limit, self._params, self._dt = inertia, max_torque, params, sim_dt
        count = len(params.values)
        self._yaw_setpoint = np.zeros(count)
        self._stiffness = np.zeros((count, 3))
        self._damping = np.zeros((count, 3))

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Take the present yaw as the setpoint."""
        p = self._params.rows(env_ids)
        self._yaw_setpoint[env_ids] = yaw_of(state["quat"])
        frequency = np.stack((p["attitude_bandwidth"], p["attitude_bandwidth"], p["yaw_bandwidth"]), axis=1)
        damping = np.stack((p["attitude_damping"], p["attitude_damping"], np.ones(len(env_ids))), axis=1)
        self._stiffness[env_ids], self._damping[env_ids] = pole_matched_gains(frequency, damping, self._dt)

    def torque(self, state: State, matrix: Array, command: Array) -> Array:
        """Torque [N, 3] N·m of the loop, cut at what the rotors can give."""
        p = self._params
        self._yaw_setpoint += self._dt * command[:, 3]
        wanted = np.empty((len(command), 3))
        wanted[:, :2] = command[:, 1:3] * p["attitude_gain"][:, None]
        # The controller levels what its own sensor calls level: trim tilts the true attitude the other way.
        wanted[:, 0] -= p["roll_trim"]
        wanted[:, 1] -= p["pitch_trim"]
        wanted[:, 2] = self._yaw_setpoint
        error = quat_multiply(quat_conjugate(state["quat"]), rpy_to_quat(wanted))
        angle = 2.0 * np.where(error[:, 3:] < 0.0, -1.0, 1.0) * error[:, :3]
        acceleration = self._stiffness * angle - self._damping * rotate_inverse(matrix, state["ang_vel"])
        return np.clip(self._inertia * acceleration, -self._limit, self._limit)


def pole_matched_gains(frequency: Array, damping: Array, dt: float) -> tuple[Array, Array]:
    """Gains of a second-order loop that keep its continuous poles under a semi-implicit Euler step.

    With error e and rate w the step is ``w += dt (a e - b w); e -= dt w``, whose characteristic
    polynomial has determinant ``1 - dt b`` and trace ``2 - dt² a - dt b``. Both are set to those of
    the poles ``exp(λ dt)``, ``λ = frequency (-damping ± sqrt(damping² - 1))``.

    Args:
        frequency: Natural frequency, rad/s.
        damping: Damping ratio.
        dt: Step, s.

    Returns:
        Stiffness a (1/s²) and damping b (1/s), of the arguments' shape.
    """
    root = np.sqrt((damping**2 - 1.0).astype(np.complex128))
    decay = -damping * frequency * dt
    trace = (2.0 * np.exp(decay) * np.cosh(root * frequency * dt)).real
    determinant = np.exp(2.0 * decay)
    b = (1.0 - determinant) / dt
    a = (2.0 - dt * b - trace) / dt**2
    return a, b
