"""Commands as Crazyswarm2's ``cmd_vel_legacy`` (geometry_msgs/Twist) carries them.

Signs as read in the C++ server, its default back end:

- ``crazyflie/src/crazyflie_server.cpp`` (IMRCLab/crazyswarm2 at f6154e2), ``cmd_vel_legacy_changed``: roll is
  ``linear.y``, pitch is ``-linear.x``, yaw rate is ``angular.z``, thrust is ``linear.z`` limited to 0 .. 60000.
- ``src/Crazyflie.cpp`` (whoenig/crazyflie_cpp at 8b8391b), ``sendSetpoint``: passed on unchanged.
- bitcraze/crazyflie-firmware at 2a18fc2: ``crtp_commander_rpyt.c`` negates the yaw rate ("legacy rate input is
  inverted"); ``kalman_core.c`` reports pitch negated, and ``controller_pid.c`` compares the setpoint with that.

So in REP 103 (x forward, y left, z up): ``linear.y`` is roll and ``linear.x`` is pitch in degrees, both unchanged
(positive pitch lowers the nose and flies forward), and ``angular.z`` is the yaw rate in degrees per second, negated.
Crazyswarm2's Python server (back end ``cflib``) negates pitch once more; it is not the one meant here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

FULL_SCALE_PWM = 65535.0
MAX_PWM = 60000.0  # the server and the firmware cut here
# Collective thrust at full scale, taken as linear. By this the limit of 60000 is 0.7325 N, where the robot's spec
# ends. How much a real motor lifts at a PWM is among what a policy has to cope with.
FULL_SCALE_THRUST_N = 0.80


class LegacyCommand(NamedTuple):
    """The four numbers of ``cmd_vel_legacy`` that are read.

    Attributes:
        linear_x: Pitch, degrees.
        linear_y: Roll, degrees.
        linear_z: Thrust, PWM of 0 .. 60000.
        angular_z: Yaw rate, degrees per second, positive clockwise seen from above.
    """

    linear_x: float
    linear_y: float
    linear_z: float
    angular_z: float


def to_legacy(thrust: float, roll: float, pitch: float, yaw_rate: float) -> LegacyCommand:
    """A command as ``cmd_vel_legacy`` numbers; thrust is limited to what the server passes on.

    Args:
        thrust: N, collective.
        roll: rad.
        pitch: rad, positive nose down.
        yaw_rate: rad/s, positive counter-clockwise seen from above.

    Returns:
        The message's numbers; a value that is not finite stays so, for the receiver to refuse.
    """
    pwm = thrust * (FULL_SCALE_PWM / FULL_SCALE_THRUST_N)
    if math.isfinite(pwm):
        pwm = min(max(pwm, 0.0), MAX_PWM)
    return LegacyCommand(math.degrees(pitch), math.degrees(roll), pwm, -math.degrees(yaw_rate))


def from_legacy(linear_x: float, linear_y: float, linear_z: float, angular_z: float) -> dict[str, float]:
    """Inverse of :func:`to_legacy`, without limits: thrust N, roll rad, pitch rad, yaw_rate rad/s by name."""
    return {
        "thrust": linear_z * (FULL_SCALE_THRUST_N / FULL_SCALE_PWM),
        "roll": math.radians(linear_y),
        "pitch": math.radians(linear_x),
        "yaw_rate": -math.radians(angular_z),
    }
