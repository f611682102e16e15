"""Flights of a drone that is not ours (the package drone-models, a plain controller, noise) and planted IMU logs."""

from __future__ import annotations

from typing import Any

import numpy as np
from drone_models.core import load_params
from drone_models.first_principles import dynamics

from sim2real.identify.flight.imu_part import Airframe
from sim2real.identify.flight.model import lag
from sim2real.recordings.flights import STANDARD_GRAVITY
from sim2real.runtime.geometry import quat_multiply, quat_to_matrix, rotation_vector_to_quat

ROTORS = 0.028 * np.array([[1, -1], [-1, -1], [-1, 1], [1, 1]])
FRAME = Airframe(0.027, ROTORS, np.array([-1.0, 1.0, -1.0, 1.0]), 1.832)
STEP_S = 0.002
RPM = 60.0 / (2.0 * np.pi)


def _trajectory(seed: int):
    rng = np.random.default_rng(seed)
    frequency, phase = rng.uniform(0.1, 0.55, (3, 3)), rng.uniform(0, 6.28, (3, 3))
    size = rng.uniform(0.2, 0.5, (3, 3)) * np.array([[1.0], [1.0], [0.4]])

    def at(t: float) -> np.ndarray:
        return (size * np.sin(2 * np.pi * frequency * t + phase)).sum(axis=1) + np.array([0.0, 0.0, 1.5])

    return at


def fly(seed: int, seconds: float = 20.0, airframe: str = "cf2x_T350", noise: float = 1.0) -> dict[str, Any]:
    """A flight as ``.npz`` content: t, pos, vel, quat, ang_vel at 100 Hz and rotor_speed (rad/s)."""
    p = load_params("first_principles", airframe)
    constants = {
        name: p[name]
        for name in ("mass", "L", "prop_inertia", "gravity_vec", "J", "J_inv", "rpm2thrust", "rpm2torque",
                     "mixing_matrix", "drag_matrix", "rotor_dyn_coef")
    }  # fmt: skip
    goal, rng = _trajectory(seed), np.random.default_rng([seed, 1])
    mass, mix = float(p["mass"]), np.asarray(p["mixing_matrix"])
    a, b = float(p["rpm2thrust"][2]), float(p["rpm2thrust"][1])
    hover = (-b + np.sqrt(b * b + a * mass * 9.81)) / (2 * a)
    pos, vel, rate = goal(0.0), np.zeros(3), np.zeros(3)
    quat, rotor = np.array([0.0, 0.0, 0.0, 1.0]), np.full(4, hover)
    bias = np.zeros(3)
    rows = []
    for step in range(round(seconds / STEP_S)):
        t = step * STEP_S
        if step % 5 == 0:
            rows.append(np.concatenate(([t], pos, vel, quat, rate, rotor)))
        ahead = (goal(t + 0.05) - goal(t - 0.05)) / 0.1
        wanted = 6.0 * (goal(t) - pos) + 4.0 * (ahead - vel) + np.array([0, 0, 9.81])
        matrix = quat_to_matrix(quat[None])[0]
        lift = mass * float(wanted @ matrix[:, 2])
        error = np.cross(matrix[:, 2], wanted / np.linalg.norm(wanted))
        spin = 120.0 * (matrix.T @ error) - 18.0 * rate
        spin[2] = -4.0 * rate[2]
        torque = np.asarray(p["J"]) @ spin
        arm = float(p["L"])
        share = lift / 4 + (mix.T @ (torque / np.array([arm, arm, float(p["thrust2torque"])]))) / 4
        share = np.clip(share, 0.02, 0.2)
        command = (-b + np.sqrt(b * b + 4 * a * share)) / (2 * a)
        bias = 0.9995 * bias + 2e-7 * rng.standard_normal(3)  # slow torques: battery, bent propellers
        _, _, acceleration, turning, spun = dynamics(
            pos, quat, vel, rate, command, rotor, None, matrix @ bias, **constants
        )
        rate = rate + STEP_S * np.asarray(turning)
        vel = vel + STEP_S * np.asarray(acceleration)
        pos = pos + STEP_S * vel
        quat = quat_multiply(quat[None], rotation_vector_to_quat(STEP_S * rate[None]))[0]
        rotor = rotor + STEP_S * np.asarray(spun)
    table = np.array(rows)
    jitter = noise * rng.standard_normal((len(table), 12))
    tilt = rotation_vector_to_quat(0.003 * jitter[:, 6:9])
    return {
        "t": table[:, 0],
        "pos": table[:, 1:4] + 0.0005 * jitter[:, 0:3],
        "vel": table[:, 4:7] + 0.01 * jitter[:, 3:6],
        "quat": quat_multiply(table[:, 7:11], tilt),
        "ang_vel": table[:, 11:14] + 0.03 * jitter[:, 9:12],
        "rotor_speed": table[:, 14:18] / RPM * (1 + 0.002 * noise * rng.standard_normal((len(table), 4))),
    }


def planted_imu(seconds=24.0, constant=0.06, quadratic=0.15, inertia=1.5e-5):
    """A flight whose rotors, lift and turning obey the model exactly, with noise."""
    rng = np.random.default_rng(0)
    t = 0.001 * np.arange(round(seconds / 0.001))
    common = 0.62 + 0.08 * np.sin(2 * np.pi * 0.7 * t) + 0.03 * np.sin(2 * np.pi * 2.3 * t + 1)
    wiggle = [0.04 * np.sin(2 * np.pi * f * t + f) for f in (1.7, 2.1, 2.9)]
    signs = np.array([[-1, -1, -1], [-1, 1, 1], [1, 1, -1], [1, -1, 1]])
    motor = np.clip(common[:, None] + np.stack(wiggle, axis=1) @ signs.T, 0.0, 1.0)
    motor = np.round(motor * 65535) / 65535
    speed = lag(motor, 0.001, constant)
    thrust = quadratic * speed**2
    torque = np.stack((thrust @ ROTORS[:, 1], -thrust @ ROTORS[:, 0], 0.006 * thrust @ FRAME.turns), axis=1)
    rate = np.cumsum(0.001 * torque / np.array([inertia, inertia, 1.832 * inertia]), axis=0)
    lift = thrust.sum(axis=1) / 0.027 / STANDARD_GRAVITY
    acc = np.stack((0 * t, 0 * t, lift), axis=1) + 0.01 * rng.standard_normal((len(t), 3))
    return {
        "t": t,
        "acc": acc,
        "gyro": np.rad2deg(rate) + 0.1 * rng.standard_normal(rate.shape),
        "motor": 65535 * motor,
    }
