"""The attitude controller on board of a drone, as the simulator has it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sim2real.robots.physics import PhysicsParams
from sim2real.runtime.columns import choose, columns, joined, within
from sim2real.runtime.geometry import quat_multiply_columns, rotate_inverse_columns, rpy_to_quat_columns, yaw_of
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
        self._inertia, self._limit = inertia.tolist(), max_torque.tolist()
        self._params, self._dt = params, sim_dt
        self._read = params.reader("attitude_gain", "roll_trim", "pitch_trim")
        # Yaw setpoint rad, then stiffness 1/s² and damping 1/s of roll, pitch and yaw.
        self._memory = np.zeros((len(params.values), 7))

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Take the present yaw as the setpoint."""
        p = self._params.rows(env_ids)
        frequency = np.stack((p["attitude_bandwidth"], p["attitude_bandwidth"], p["yaw_bandwidth"]), axis=1)
        damping = np.stack((p["attitude_damping"], p["attitude_damping"], np.ones(len(env_ids))), axis=1)
        gains = pole_matched_gains(frequency, damping, self._dt)
        self._memory[env_ids] = np.concatenate((yaw_of(state["quat"])[:, None], *gains), axis=1)

    def torque(self, state: State, matrix: Array, command: Array) -> Array:
        """Torque [N, 3] N·m of the loop, cut at what the rotors can give."""
        gain, roll_trim, pitch_trim = self._read()
        yaw, *gains = columns(self._memory)
        _, roll, pitch, yaw_rate = columns(command)
        yaw = yaw + self._dt * yaw_rate
        self._memory[:, 0] = yaw
        # The controller levels what its own sensor calls level: trim tilts the true attitude the other way.
        wanted = rpy_to_quat_columns(roll * gain - roll_trim, pitch * gain - pitch_trim, yaw)
        x, y, z, w = columns(state["quat"])
        *error, turn = quat_multiply_columns((-x, -y, -z, w), wanted)
        double = choose(turn < 0.0, -2.0, 2.0)
        rates = rotate_inverse_columns(columns(matrix.reshape(-1, 9)), columns(state["ang_vel"]))
        torques = []
        for axis, (inertia, limit) in enumerate(zip(self._inertia, self._limit, strict=True)):
            acceleration = gains[axis] * (double * error[axis]) - gains[3 + axis] * rates[axis]
            torques.append(within(inertia * acceleration, -limit, limit))
        return joined(torques, (len(command),))


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
