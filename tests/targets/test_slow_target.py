"""A target slower than real time: commands, services and signals are answered all the same, and it says so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robot_drivers.limits import DriverError
from sim2real.targets.driver import TargetDriver

HOVER = {"thrust": 0.32, "roll": 0.0, "pitch": 0.0, "yaw_rate": 0.0}
SLOWNESS = 3.0


class Slow:
    """A drone in the air that needs three seconds for one."""

    name, variants = "slow", ("slow",)
    commands = ("thrust", "roll", "pitch", "yaw_rate")

    def __init__(self, robot, task):
        pass

    def conditions(self):
        return ("fresh",)

    def start(self, task, rng, n):
        return task.start(rng, n)

    def make(self, variant, condition, n, seed):
        return SlowSim(n)


class SlowSim:
    def __init__(self, n):
        self.failed, self.seconds = np.zeros(n, dtype=bool), 0.0

    def reset(self, start):
        self._state = {name: start[name] for name in ("pos", "quat", "lin_vel")}
        self._state["ang_vel"] = np.zeros_like(start["pos"])

    def command(self, command):
        pass

    def advance(self, seconds):
        time.sleep(SLOWNESS * seconds)
        self.seconds += seconds

    def measured(self):
        return self._state

    truth = measured

    def close(self):
        pass


@pytest.fixture
def driver():
    made = TargetDriver("crazyflie", target="test_slow_target:Slow")
    made.connect()
    made.arm(True)
    yield made
    made.disconnect()


def took(what, *arguments):
    begun = time.monotonic()
    what(*arguments)
    return time.monotonic() - begun


@pytest.mark.realtime
def test_it_answers_at_once_and_counts_what_it_lost(driver):
    driver.command(HOVER)
    begun = time.monotonic()
    time.sleep(1.5)
    assert max(took(driver.command, HOVER), took(driver.read), took(driver.truth), took(driver.stop)) < 0.5
    passed = time.monotonic() - begun
    assert driver.lost_s == pytest.approx(passed - driver._sim.seconds, abs=0.15)
    assert driver._sim.seconds == pytest.approx(passed / SLOWNESS, rel=0.35)
    assert took(driver.disconnect) < 0.5
    with pytest.raises(DriverError, match="not connected"):
        driver.read()


def test_a_fast_one_makes_up_for_every_pause():
    clock = [100.0]
    driver = TargetDriver("crazyflie", clock=lambda: clock[0])
    driver.connect()
    try:
        driver.arm(True)
        driver.command(HOVER)
        for pause in (0.02, 3.0, 0.5):
            clock[0] += pause
            driver.read()
        assert driver._sim.drones.time_s == pytest.approx(3.52, abs=0.0021) and driver.lost_s == 0.0
    finally:
        driver.disconnect()


@pytest.mark.ros
@pytest.mark.realtime
def test_over_ros2_it_warns_and_ends_at_once_when_asked_to():
    rclpy = pytest.importorskip("rclpy", reason="the node needs ROS 2; see `sim2real doctor`")
    from diagnostic_msgs.msg import DiagnosticArray
    from geometry_msgs.msg import Twist
    from std_srvs.srv import SetBool

    from sim2real.deploy.crazyflie_messages import to_legacy
    from sim2real.deploy.messages import NEWEST

    arguments = ["-p", "robot:=crazyflie", "-p", "target:=test_slow_target:Slow"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sim2real.deploy.driver_node", "--ros-args", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])},
        stderr=subprocess.PIPE,
        text=True,
    )
    rclpy.init()
    node, said = rclpy.create_node("pilot"), []
    try:
        node.create_subscription(DiagnosticArray, "driver_diagnostics", lambda m: said.append(m.status[0]), 10)
        command, arm = node.create_publisher(Twist, "cmd_vel_legacy", NEWEST), node.create_client(SetBool, "arm")
        assert arm.wait_for_service(20.0)
        armed = arm.call_async(SetBool.Request(data=True))
        rclpy.spin_until_future_complete(node, armed, timeout_sec=5.0)
        assert armed.result().success
        message = Twist()
        message.linear.x, message.linear.y, message.linear.z, message.angular.z = to_legacy(0.32, 0.0, 0.0, 0.0)
        until = time.monotonic() + 6.0
        while time.monotonic() < until and not any("cannot keep real time" in status.message for status in said):
            command.publish(message)
            rclpy.spin_once(node, timeout_sec=0.05)
        assert "stood still for" in said[-1].message and "cannot keep real time" in said[-1].message
        assert said[-1].level != b"\0"
        begun = time.monotonic()
        disarmed = arm.call_async(SetBool.Request(data=False))
        rclpy.spin_until_future_complete(node, disarmed, timeout_sec=5.0)
        assert disarmed.result().success and time.monotonic() - begun < 1.5
        process.send_signal(signal.SIGTERM)
        assert "cannot keep real time" in process.communicate(timeout=5.0)[1]
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        node.destroy_node()
        rclpy.shutdown()
