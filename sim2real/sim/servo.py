"""A position servo with a gearbox, as cheap arms have it: any number of them at once.

The controller pulls towards the reference it received a dead time ago, proportionally and with a dead band; the
motor's torque is limited and falls with speed (a DC motor's line); the gearbox rubs, sticks and has play.

    duty   = clip(gain * shrink(reference - encoder, dead_band), -1, 1)
    torque = stall_torque * (duty - velocity / no_load_speed) - gravity_scale * gravity - friction
    armature * acceleration = torque

Time stepping treats speed-dependent torque and dry friction implicitly, so it sticks truly and is stable at any
step (Anitescu and Potra 1997 for one joint).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Quantity → unit, in the order that arm models list them.
SERVO_QUANTITIES = {
    "dead_time": "s",
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
STICTION_SPEED = 0.02  # rad/s; slower than this a joint counts as standing


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
        p = parameters
        self._dt = dt
        self._gain, self._dead_band, self._stall = p["gain"], p["dead_band"], p["stall_torque"]
        per_inertia = dt / p["armature"]
        # (1 + dt b / J) divides everything: speed-dependent torque at the end of the step.
        slow = 1.0 / (1.0 + per_inertia * p["stall_torque"] / p["no_load_speed"])
        self._drive, self._keep = per_inertia * slow, slow
        self._coulomb, self._sticking = p["coulomb"], np.maximum(p["stiction"], p["coulomb"])
        self._load_friction, self._play = p["load_friction"], 0.5 * p["backlash"]
        self._gravity_scale, self._offset = p["gravity_scale"], p["offset"]
        self.position = position.copy()
        self.velocity = velocity.copy()
        self._motor = position.copy()

    def place(self, rows: NDArray[np.int64], position: Array, velocity: Array) -> None:
        """Start ``rows`` anew, in the middle of their play."""
        self.position[rows], self._motor[rows], self.velocity[rows] = position, position, velocity

    def observe(self, rows: NDArray[np.int64] | slice, position: Array, velocity: Array) -> None:
        """Take over where the joints of ``rows`` really are, behind the gearbox; contact may have stopped them."""
        self._motor[rows], self.velocity[rows] = position, velocity
        self.position[rows] = position + _clip(self.position[rows] - position, self._play[rows])

    def step(self, reference: Array, gravity: Array) -> None:
        """Advance by ``dt``.

        Args:
            reference: What the controller has received by now, rad.
            gravity: Torque that gravity asks of the joint at this pose, N·m.
        """
        error = reference + self._offset - self.position
        error -= _clip(error, self._dead_band)
        load = self._gravity_scale * gravity
        torque = self._stall * _clip(self._gain * error, 1.0) - load
        free = self._keep * self.velocity + self._drive * torque
        dry = np.where(np.abs(self.velocity) < STICTION_SPEED, self._sticking, self._coulomb)
        dry = self._drive * (dry + self._load_friction * np.abs(load))
        self.velocity = free - _clip(free, dry)
        self._motor += self._dt * self.velocity
        self.position = self._motor + _clip(self.position - self._motor, self._play)


def _clip(values: Array, limit: Array | float) -> Array:
    """Values within ±limit; several times faster than numpy's own clip on small arrays."""
    result: Array = np.minimum(np.maximum(values, -limit), limit)
    return result
