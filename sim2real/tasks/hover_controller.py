"""A classical controller for the task ``hover``: what a policy has to be better than."""

from __future__ import annotations

import numpy as np

from sim2real.robots.weights import GRAVITY
from sim2real.runtime.spec import PolicySpec
from sim2real.types import Array, Model

COMMANDS = ("thrust", "roll", "pitch", "yaw_rate")
# m/s² that the integral may ask for at most: trims and draught; a heavy drone on a low battery takes twice the thrust.
_INTEGRAL = np.array([2.0, 2.0, 15.0])
_FAR = np.array([0.1, 0.1, 0.5])  # m, beyond which a larger error is integrated no faster: no winding up on the way


class HoverGains(Model):
    """Gains of :class:`HoverController`; each pair is for the horizontal and the vertical axes.

    Attributes:
        position: m/s² per m.
        velocity: m/s² per m/s.
        integral: m/s² per m·s.
        heading: rad/s per rad.
    """

    position: tuple[float, float] = (5.57, 15.5)
    velocity: tuple[float, float] = (3.29, 6.95)
    integral: tuple[float, float] = (3.63, 13.3)
    heading: float = 2.0


class HoverController:
    """PID on position with a P loop on heading, for N drones; tilt and thrust from the wanted acceleration.

    Args:
        spec: Contract of the task's policies; the order of the command.
        count: Number of drones N.
        weight_n: Thrust command that is taken to carry the drone, N.
        gains: By default as ``benchmarks/tune_hover_controller.py`` finds them in the randomized training simulator.
    """

    def __init__(self, spec: PolicySpec, count: int, weight_n: float, gains: HoverGains | None = None) -> None:
        gains = gains or HoverGains()
        self.spec, self.count, self._weight, self._heading = spec, count, weight_n, gains.heading
        pairs = (gains.position, gains.velocity, gains.integral)
        self._p, self._d, self._i = (np.array([xy, xy, z]) for xy, z in pairs)
        self._order = [COMMANDS.index(term.name) for term in spec.action]
        self._low, self._high = (np.array([getattr(term, end) for term in spec.action]) for end in ("low", "high"))
        self.reset()

    def reset(self) -> None:
        """Forget the integral."""
        self._integral = np.zeros((self.count, 3))

    def step(self, signals: dict[str, Array]) -> Array:
        """Command [N, 4] for measured signals [N, d]."""
        error, velocity = signals["position_error"], signals["linear_velocity"]
        near = np.clip(error, -_FAR, _FAR)
        self._integral = np.clip(self._integral + self._i * near * self.spec.control_dt, -_INTEGRAL, _INTEGRAL)
        wanted = -self._p * error - self._d * velocity - self._integral
        tilt = wanted[:, :2] / GRAVITY
        thrust = self._weight * (1.0 + wanted[:, 2] / GRAVITY)
        yaw_rate = -self._heading * signals["heading_error"][:, 0]
        command = np.stack((thrust, -tilt[:, 1], tilt[:, 0], yaw_rate), axis=1)[:, self._order]
        return np.clip(command, self._low, self._high)
