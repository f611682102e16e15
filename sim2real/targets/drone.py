"""A batch of Crazyflies flown by dynamics that others identified from real flights: the drone target.

The dynamics are the package ``drone-models`` (``so_rpy_rotor_drag``): thrust lag, second-order attitude loop and
drag, fitted per airframe. Nothing here is shared with the training simulator. What the package leaves out, and
every flight has, is added here: command delay, an estimator with noise, bias and latency, attitude trim, gusts,
battery, payload, and the ground.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from robot_drivers.limits import DriverError
from sim2real.targets.drone_model import (
    AIRFRAMES,
    DISTURBANCE,
    POS,
    QUAT,
    RATE,
    STATE_SIZE,
    THRUST,
    VEL,
    DroneDynamics,
    airframe_parameters,
)
from sim2real.types import Array

__all__ = [
    "AIRFRAMES",
    "COMMAND_NAMES",
    "CONDITIONS",
    "PERFECT_SENSORS",
    "STEP_S",
    "Condition",
    "DroneSensors",
    "SimulatedDrones",
    "quat_multiply",
    "rotation_quat",
    "yaw_of",
]

COMMAND_NAMES = ("thrust", "roll", "pitch", "yaw_rate")

GRAVITY = 9.81
STEP_S = 0.002
COMMAND_DELAY_S = 0.010  # radio packet of 2 to 8 ms, then the 500 Hz attitude loop
GUST_FORCE_STD_N = 0.002  # under 1 % of the weight: a room with its windows closed
GUST_TIME_CONSTANT_S = 0.5
FLOOR_M = 0.02
MAX_TILT_RAD = float(np.deg2rad(80.0))


@dataclass(frozen=True)
class Condition:
    """State of battery, load and link.

    Attributes:
        thrust_scale: Real lift over the lift of a full battery, at any command.
        added_mass_kg: Payload at the centre of mass.
        command_delay_s: On top of ``COMMAND_DELAY_S``.
    """

    thrust_scale: float = 1.0
    added_mass_kg: float = 0.0
    command_delay_s: float = 0.0


CONDITIONS = {
    "fresh": Condition(),
    "low_battery": Condition(thrust_scale=0.8),
    "payload": Condition(added_mass_kg=0.008),
    "delay": Condition(command_delay_s=0.060),
}


@dataclass(frozen=True)
class DroneSensors:
    """Errors that the state estimate adds to the truth.

    Attributes:
        position_noise_m: White. Lighthouse and motion capture jitter by up to 1 mm.
        position_bias_m: Deviation per axis of a constant drawn per episode: calibration of the base stations and
            the marker centre against the body.
        velocity_noise: White, m/s. Deviation of the on-board Kalman filter at rest.
        attitude_noise_rad: White, per axis; 0.3°, propeller vibration in the accelerometer.
        gyro_noise: White, rad/s. The same vibration after the firmware's 80 Hz low pass.
        latency_s: The estimate is logged over radio every 10 ms.
        trim_rad: Half range of a uniform constant in roll and pitch per episode; 1.5°, accelerometer bias and
            the board's mounting. The attitude loop on board believes it too.
    """

    position_noise_m: float = 0.001
    position_bias_m: float = 0.002
    velocity_noise: float = 0.02
    attitude_noise_rad: float = float(np.deg2rad(0.3))
    gyro_noise: float = 0.05
    latency_s: float = 0.010
    trim_rad: float = float(np.deg2rad(1.5))


PERFECT_SENSORS = DroneSensors(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class SimulatedDrones:
    """N drones of one airframe under one condition.

    The model was identified around zero yaw. Its equations depend on yaw only through the attitude loop, whose yaw is
    measured from the setpoint here: a drone flies alike at any heading, and its yaw goes through ±π smoothly. Its
    steady roll and pitch are about 0.8 of the commanded ones: that is how the identified drones answered.

    Args:
        airframe: One of ``AIRFRAMES``.
        condition: One of ``CONDITIONS`` by name, or a condition.
        count: Number of drones N.
        seed: Of every random draw.
        sensors: Errors of the estimate.
        gust_force_std: Of each axis, N.
        step_s: Longest integration step, s.

    Attributes:
        time_s: Simulated time since the last reset.
        crashed: [N], since the last reset: on the floor or tilted beyond 80°. A crashed drone stays where it is.
        trim: Roll and pitch error of the estimated attitude [N, 2] rad.
        hover_command: Thrust command that carries the drone under its condition, N.
        nominal_hover_command: The same with a full battery and no payload.
        max_thrust: Command at which the motors saturate, N.

    Raises:
        DriverError: Unknown airframe or condition, or ``drone-models`` is not installed.
    """

    def __init__(
        self,
        airframe: str,
        condition: str | Condition,
        count: int,
        seed: int,
        sensors: DroneSensors = DroneSensors(),
        *,
        gust_force_std: float = GUST_FORCE_STD_N,
        step_s: float = STEP_S,
    ) -> None:
        self.condition = _condition(condition)
        params = airframe_parameters(airframe)
        mass = float(params["mass"]) + self.condition.added_mass_kg
        lift = float(params["cmd_f_coef"])
        self.max_thrust = 4.0 * float(params.pop("thrust_max"))
        self.hover_command = (mass * GRAVITY - float(params["acc_coef"])) / lift / self.condition.thrust_scale
        self.nominal_hover_command = (float(params["mass"]) * GRAVITY - float(params["acc_coef"])) / lift
        # The attitude loop sees roll + trim, which is as good as another command.
        self._command_gain = np.asarray(params["rpy_coef"]) / np.asarray(params["cmd_rpy_coef"])
        self.count, self.sensors = count, sensors
        self._step_s, self._gust_std = step_s, gust_force_std
        self._rng = np.random.default_rng(seed)
        self._state = np.zeros((count, STATE_SIZE))
        self._input = np.zeros((count, 4))
        self._slope = np.zeros((count, 7))
        self._model = DroneDynamics(params | {"mass": mass}, self._state, self._input, self._slope)
        level = np.tile([0.0, 0.0, 0.0, 1.0], (count, 1))
        self.reset(np.tile([0.0, 0.0, 1.5], (count, 1)), level, np.zeros((count, 3)))

    def reset(self, pos: Array, quat: Array, vel: Array) -> None:
        """Start anew at time zero, rotors at hover, with new biases, trims and gusts.

        Args:
            pos: [N, 3] m.
            quat: [N, 4] xyzw.
            vel: [N, 3] m/s, world frame.
        """
        n, rng, state = self.count, self._rng, self._state
        state[:] = 0.0
        state[:, POS], state[:, QUAT], state[:, VEL] = pos, quat, vel
        state[:, THRUST] = self.hover_command * self.condition.thrust_scale
        state[:, DISTURBANCE] = self._gust_std * rng.standard_normal((n, 3))
        self.trim = rng.uniform(-self.sensors.trim_rad, self.sensors.trim_rad, (n, 2))
        self._bias = self.sensors.position_bias_m * rng.standard_normal((n, 3))
        self._yaw_setpoint = yaw_of(state[:, QUAT])
        self.crashed = np.zeros(n, dtype=np.bool_)
        self.time_s = 0.0
        hover = np.tile([self.hover_command, 0.0, 0.0, 0.0], (n, 1))
        self._received: Array = hover
        self._on_the_way: deque[tuple[float, Array]] = deque()
        self._past: deque[tuple[float, Array]] = deque([(0.0, state[:, :13].copy())])

    def command(self, values: Array) -> None:
        """Send a command now; it arrives after the delay and holds until the next one arrives.

        Args:
            values: [N, 4]: thrust N, roll rad, pitch rad, yaw rate rad/s.

        Raises:
            DriverError: Wrong shape, or not finite.
        """
        if values.shape != (self.count, 4):
            raise DriverError(f"a command needs shape [{self.count}, 4], got {list(values.shape)}")
        if not np.isfinite(values).all():
            raise DriverError("the command is not finite; check the policy's output")
        arrival = self.time_s + COMMAND_DELAY_S + self.condition.command_delay_s
        self._on_the_way.append((arrival, values.copy()))

    def advance(self, dt: float) -> None:
        """Fly for ``dt`` seconds, in equal steps of at most ``step_s``."""
        steps = max(1, int(np.ceil(dt / self._step_s - 1e-9)))
        for _ in range(steps):
            self._step(dt / steps)

    def truth(self) -> tuple[Array, Array, Array, Array]:
        """True position, quaternion xyzw, velocity (world), angular velocity (body): [N, 3], [N, 4], [N, 3], [N, 3]."""
        return _split(self._state.copy())

    def estimate(self) -> tuple[Array, Array, Array, Array]:
        """The same as :meth:`truth`, as the estimator reports it: late, biased and noisy."""
        n, rng, sensors = self.count, self._rng, self.sensors
        pos, quat, vel, rate = _split(self._past[0][1])
        noise = rng.standard_normal((4, n, 3))
        tilt = np.zeros((n, 3))
        tilt[:, :2] = self.trim
        quat = quat_multiply(quat, rotation_quat(tilt + sensors.attitude_noise_rad * noise[0]))
        return (
            pos + self._bias + sensors.position_noise_m * noise[1],
            quat,
            vel + sensors.velocity_noise * noise[2],
            rate + sensors.gyro_noise * noise[3],
        )

    def _step(self, h: float) -> None:
        while self._on_the_way and self._on_the_way[0][0] <= self.time_s + 1e-9:
            self._received = self._on_the_way.popleft()[1]
        received, state, slope = self._received, self._state, self._slope
        self._yaw_setpoint = self._yaw_setpoint + h * received[:, 3]  # as the firmware does
        self._input[:, :2] = received[:, 1:3] + self._command_gain[:2] * self.trim
        # The model pulls its own yaw to zero; this input makes that the yaw error, within ±π.
        yaw = yaw_of(state[:, QUAT])
        error = np.remainder(yaw - self._yaw_setpoint + np.pi, 2.0 * np.pi) - np.pi
        self._input[:, 2] = self._command_gain[2] * (error - yaw)
        self._input[:, 3] = self.condition.thrust_scale * np.clip(received[:, 0], 0.0, self.max_thrust)
        if self._gust_std > 0.0:
            keep = np.exp(-h / GUST_TIME_CONSTANT_S)
            kick = self._gust_std * np.sqrt(1.0 - keep * keep)
            state[:, DISTURBANCE] = keep * state[:, DISTURBANCE] + kick * self._rng.standard_normal((self.count, 3))
        self._model.evaluate()
        if self.crashed.any():
            slope[self.crashed] = 0.0
        # Rates first, then the poses from the new rates. The package's own quaternion derivative takes the scalar
        # first and is not used: the attitude is integrated as a rotation.
        state[:, 7:14] += h * slope
        state[:, POS] += h * (state[:, VEL] - 0.5 * h * slope[:, :3])
        state[:, QUAT] = quat_multiply(state[:, QUAT], rotation_quat(h * state[:, RATE]))
        state[:, QUAT] /= np.sqrt((state[:, QUAT] ** 2).sum(axis=1, keepdims=True))
        up = 1.0 - 2.0 * (state[:, 3] ** 2 + state[:, 4] ** 2)
        down = (state[:, 2] < FLOOR_M) | (up < np.cos(MAX_TILT_RAD))
        if down.any():
            self.crashed |= down
            state[self.crashed, 7:13] = 0.0
        self.time_s += h
        self._past.append((self.time_s, state[:, :13].copy()))
        while len(self._past) > 1 and self._past[1][0] <= self.time_s - self.sensors.latency_s + 1e-9:
            self._past.popleft()


def yaw_of(quat: Array) -> Array:
    """Yaw [N] rad of quaternions [N, 4] xyzw."""
    x, y, z, w = quat.T
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def rotation_quat(vector: Array) -> Array:
    """Quaternions [N, 4] xyzw of rotation vectors [N, 3] rad."""
    half = 0.5 * np.sqrt((vector * vector).sum(axis=1, keepdims=True))
    return np.concatenate((0.5 * np.sinc(half / np.pi) * vector, np.cos(half)), axis=1)


def quat_multiply(a: Array, b: Array) -> Array:
    """Hamilton product a ⊗ b of quaternions [N, 4] xyzw."""
    ax, ay, az, aw = a.T
    bx, by, bz, bw = b.T
    out = np.empty_like(a)
    out[:, 0] = aw * bx + ax * bw + ay * bz - az * by
    out[:, 1] = aw * by - ax * bz + ay * bw + az * bx
    out[:, 2] = aw * bz + ax * by - ay * bx + az * bw
    out[:, 3] = aw * bw - ax * bx - ay * by - az * bz
    return out


def _split(state: Array) -> tuple[Array, Array, Array, Array]:
    return state[:, POS], state[:, QUAT], state[:, VEL], state[:, RATE]


def _condition(condition: str | Condition) -> Condition:
    if isinstance(condition, Condition):
        return condition
    if condition not in CONDITIONS:
        raise DriverError(f"unknown condition '{condition}'; known: {', '.join(CONDITIONS)}")
    return CONDITIONS[condition]
