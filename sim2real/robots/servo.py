"""A position servo with a gearbox, as cheap arms have it: any number of them at once.

The controller follows the reference it received a dead time ago with a profile of limited acceleration, which plans to
stop there, and pulls towards the profile, proportionally and with a dead band; the motor's torque is limited and falls
with speed (a DC motor's line); the gearbox rubs, sticks and has play.

    duty   = clip(gain * shrink(profile - encoder, dead_band), -1, 1)
    torque = stall_torque * (duty - velocity / no_load_speed) - gravity_scale * gravity - friction
    armature * acceleration = torque

Time stepping treats speed-dependent torque and dry friction implicitly, so it sticks truly and is stable at any
step (Anitescu and Potra 1997 for one joint).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim2real.types import Array

Rows = NDArray[np.int64] | slice

# Quantity → unit, in the order that arm models list them.
SERVO_QUANTITIES = {
    "dead_time": "s",
    "acceleration": "rad/s^2",
    "gain": "1/rad",
    "dead_band": "rad",
    "stall_torque": "N*m",
    "no_load_speed": "rad/s",
    "armature": "kg*m^2",
    "coulomb": "N*m",
    "stiction": "N*m",
    "load_friction": "1",
    "backlash": "rad",
    "gravity_scale": "1",
    "offset": "rad",
}
_DERIVED = (
    "acceleration", "gain", "dead_band", "stall", "no_load_speed", "drive", "keep",
    "coulomb", "sticking", "load_friction", "play",
    "gravity_scale", "offset",
)  # fmt: skip
STICTION_SPEED = 0.02  # rad/s; slower than this a joint counts as standing
FREE_ACCELERATION = 1000.0  # rad/s^2; from here on there is no profile, commands are followed as they come


class Servo:
    """Servos of one shape, for example [lanes, joints].

    Args:
        parameters: Every quantity of ``SERVO_QUANTITIES`` but ``dead_time``, broadcastable to the shape.
        position: Start [..] rad, as the encoder reads it.
        velocity: Start [..] rad/s.
        dt: Time step, s.

    Attributes:
        position: Of the output shaft, as the encoder reads it, rad.
        velocity: Of the motor behind the gearbox, rad/s.
    """

    def __init__(self, parameters: Mapping[str, Array], position: Array, velocity: Array, dt: float) -> None:
        self._dt = dt
        self._p = {name: np.empty(position.shape) for name in _DERIVED}
        self.position = position.copy()
        self.velocity = velocity.copy()
        self.motor = position.copy()
        self._profile, self._profile_speed = position.copy(), velocity.copy()
        self.configure(slice(None), parameters)

    def configure(self, rows: Rows, parameters: Mapping[str, Array]) -> None:
        """Give ``rows`` other quantities."""
        p = parameters
        derived = {
            "acceleration": p["acceleration"],
            "gain": p["gain"],
            "dead_band": p["dead_band"],
            "stall": p["stall_torque"],
            "no_load_speed": p["no_load_speed"],
            "coulomb": p["coulomb"],
            "sticking": np.maximum(p["stiction"], p["coulomb"]),
            "load_friction": p["load_friction"],
            "play": 0.5 * p["backlash"],
            "gravity_scale": p["gravity_scale"],
            "offset": p["offset"],
        }
        for name, values in derived.items():
            self._p[name][rows] = values
        self.bear(rows, p["armature"])
        self._plans = bool((self._p["acceleration"] < FREE_ACCELERATION).any())

    def bear(self, rows: Rows, inertia: Array) -> None:
        """Give ``rows`` another inertia [..] kg·m² in place of their armature: of what the joint carries."""
        per_inertia = self._dt / inertia
        # (1 + dt b / J) divides everything: speed-dependent torque at the end of the step.
        slow = 1.0 / (1.0 + per_inertia * self._p["stall"][rows] / self._p["no_load_speed"][rows])
        self._p["drive"][rows], self._p["keep"][rows] = per_inertia * slow, slow

    def place(self, rows: Rows, position: Array, velocity: Array) -> None:
        """Start ``rows`` anew, in the middle of their play."""
        self.position[rows], self.motor[rows], self.velocity[rows] = position, position, velocity
        self._profile[rows], self._profile_speed[rows] = position, velocity

    def observe(self, rows: Rows, position: Array, velocity: Array) -> None:
        """Take over where the joints of ``rows`` really are, behind the gearbox; contact may have stopped them."""
        self.motor[rows], self.velocity[rows] = position, velocity
        self.position[rows] = position + _clip(self.position[rows] - position, self._p["play"][rows])

    def step(self, reference: Array, gravity: Array, load: Array | float = 0.0) -> None:
        """Advance by ``dt``.

        Args:
            reference: What the controller has received by now, rad.
            gravity: Torque that gravity asks of the joint at this pose, N·m.
            load: Torque that contact asks of the joint besides, N·m.
        """
        p = self._p
        followed = self._plan(reference) if self._plans else reference
        error = followed + p["offset"] - self.position
        error -= _clip(error, p["dead_band"])
        load = p["gravity_scale"] * gravity + load
        torque = p["stall"] * _clip(p["gain"] * error, 1.0) - load
        free = p["keep"] * self.velocity + p["drive"] * torque
        dry = np.where(np.abs(self.velocity) < STICTION_SPEED, p["sticking"], p["coulomb"])
        dry = p["drive"] * (dry + p["load_friction"] * np.abs(load))
        self.velocity = free - _clip(free, dry)
        self.motor += self._dt * self.velocity
        self.position = self.motor + _clip(self.position - self.motor, p["play"])

    def _plan(self, reference: Array) -> Array:
        """Move the profile by ``dt``: no faster than lets it stop at ``reference`` from where it is after the step.

        Returns:
            Where it is in the middle of the step, rad; where nothing limits it, ``reference``.
        """
        acceleration = self._p["acceleration"]
        change = self._dt * acceleration
        way = reference - self._profile
        fastest = np.sqrt(change * change + 2.0 * acceleration * np.abs(way)) - change
        self._profile_speed += _clip(np.copysign(fastest, way) - self._profile_speed, change)
        self._profile += self._dt * self._profile_speed
        middle = self._profile - 0.5 * self._dt * self._profile_speed
        return np.where(acceleration < FREE_ACCELERATION, middle, reference)


def _clip(values: Array, limit: Array | float) -> Array:
    """Values within ±limit; several times faster than numpy's own clip on small arrays."""
    return np.minimum(np.maximum(values, -limit), limit)
