"""A target of one's own: drones as points that thrust along a tilted axis, with a lag and drag of another kind."""

import numpy as np

from sim2real.runtime.geometry import quat_to_matrix, rpy_to_quat

MASS = {"light": 0.9, "heavy": 1.15}


class PointDrone:
    """Point masses for any robot that takes thrust, roll, pitch and yaw rate."""

    name = "my_lab.target:PointDrone"
    variants = ("point",)
    commands = ("thrust", "roll", "pitch", "yaw_rate")

    def __init__(self, robot, task):
        self._mass = robot.parameters["mass"].nominal

    def conditions(self):
        return tuple(MASS)

    def start(self, task, rng, n):
        return task.start(rng, n)

    def make(self, variant, condition, n, seed):
        return Points(self._mass * MASS[condition], n, np.random.default_rng(seed))


class Points:
    def __init__(self, mass, n, rng):
        self._mass, self._rng, self.failed = mass, rng, np.zeros(n, dtype=bool)

    def reset(self, start):
        self._pos, self._vel = start["pos"].copy(), start["lin_vel"].copy()
        self._rpy = np.zeros_like(self._pos)
        self.command(np.tile([self._mass * 9.81, 0.0, 0.0, 0.0], (len(self._pos), 1)))

    def command(self, command):
        self._sent = command.copy()

    def advance(self, seconds):
        for _ in range(max(1, round(seconds / 0.005))):
            dt = 0.005
            self._rpy[:, :2] += dt * 12.0 * (self._sent[:, 1:3] - self._rpy[:, :2])
            self._rpy[:, 2] += dt * self._sent[:, 3]
            up = quat_to_matrix(rpy_to_quat(self._rpy))[:, :, 2]
            force = self._sent[:, :1] * up - 0.3 * self._mass * self._vel
            self._vel += dt * (force / self._mass - np.array([0.0, 0.0, 9.81]))
            self._pos += dt * self._vel
        self.failed |= self._pos[:, 2] < 0.0

    def measured(self):
        state = self.truth()
        return {**state, "pos": state["pos"] + 0.001 * self._rng.standard_normal(state["pos"].shape)}

    def truth(self):
        quat, still = rpy_to_quat(self._rpy), np.zeros_like(self._pos)
        return {"pos": self._pos.copy(), "quat": quat, "lin_vel": self._vel.copy(), "ang_vel": still}

    def close(self):
        pass
