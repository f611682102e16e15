"""A driver of one's own: an arm whose joints go where they are told, at once. A real one opens its SDK in connect()."""

import time

import numpy as np

from robot_drivers.driver import DriverState
from robot_drivers.limits import CommandLimits, DriverError, Limit

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


class ObedientArm:
    """An SO-101 without inertia.

    Args:
        port: Where a real arm would be.
    """

    def __init__(self, port: str = "/dev/none"):
        self.port, self.is_connected, self._armed = port, False, False
        self._limits = CommandLimits({j: Limit(-1.6, 1.6, 4.0) for j in JOINTS}, dict.fromkeys(JOINTS, 0.0))
        self._pos = dict.fromkeys(JOINTS, 0.0)

    def connect(self):
        self.is_connected = True

    def disconnect(self):
        self.is_connected = self._armed = False

    def read(self):
        if not self.is_connected:
            raise DriverError("not connected; call connect() first")
        still, level = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
        pos = np.array([self._pos[joint] for joint in JOINTS])
        return DriverState(time.monotonic(), still, level, still, still, JOINTS, pos, np.zeros(6), np.zeros(6))

    def arm(self, armed):
        self._armed = armed

    def command(self, command):
        if not self._armed:
            raise DriverError("not armed; call arm(True) first")
        self._pos = self._limits.apply(command, time.monotonic())
        return dict(self._pos)

    def hold(self):
        pass

    def land(self):
        pass

    def stop(self):
        self._armed = False
