"""sim2real robot check: what a robot shows without moving."""

import time

import numpy as np
import pytest

from robot_drivers.driver import DriverState
from robot_drivers.limits import DriverError
from sim2real.cli.robot_check import LiveRobot, watch_driver
from sim2real.robots import load_robot

ARM, DRONE = load_robot("so101").spec, load_robot("crazyflie").spec
POSE = np.array([0.1, -0.2, 0.3, 0.6, 0.0, 0.2])


class StillArm:
    """Reads well, but every fourth time; must never be armed or commanded."""

    def __init__(self, fails_every=0, factor=1.0):
        self.reads, self._fails_every, self._factor = 0, fails_every, factor

    def read(self):
        self.reads += 1
        if self._fails_every and self.reads % self._fails_every == 0:
            raise DriverError("no answer from servo 3")
        still = np.zeros(3)
        level = np.array([0.0, 0.0, 0.0, 1.0])
        return DriverState(
            time.monotonic(), still, level, still, still, ARM.actuators, self._factor * POSE, np.zeros(6)
        )


@pytest.fixture
def quick(monkeypatch):
    """A clock of its own: the test takes no time and no busy computer changes it."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def test_a_good_arm(quick):
    seen = watch_driver(ARM, "arm", StillArm(), 2.0)
    assert seen.problems() == [], "an arm may stand still"
    rows = {name: (measured, needed) for name, measured, needed in seen.rows()}
    assert rows["rate"] == ("100.0 Hz", "50 Hz") and rows["failed reads"][0] == "0"
    assert rows["elbow_flex"] == ("0.300 .. 0.300", "-1.69 .. 1.69 rad")


def test_an_arm_in_degrees_that_loses_reads(quick):
    arm = StillArm(fails_every=4, factor=57.3)
    problems = watch_driver(ARM, "arm", arm, 2.0).problems()
    lost = arm.reads // 4
    assert "these look like degrees" in problems[0] and f"({arm.reads - lost} states)" in problems[0]
    assert problems[1] == f"{lost} reads failed: no answer from servo 3"


def test_a_drone_upside_down_whose_estimate_stands_still():
    seen = LiveRobot(DRONE, "pose")
    for at in np.arange(0.0, 2.0, 0.01):
        seen.pose(at, 0.4, np.array([0.0, 0.0, -2.0]), np.array([1.0, 0.0, 0.0, 0.0]))
    problems = "; ".join(seen.problems())
    for said in ("not down (NED)", "order wxyz", "pose is 0.40 s old when it arrives", "stands still to the last bit"):
        assert said in problems
