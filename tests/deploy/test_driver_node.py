"""The driver node over real ROS 2 topics."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="the node needs ROS 2; see `sim2real doctor`")
pytest.importorskip("drone_models", reason="the drone target needs sim2real[drivers]")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from robot_drivers.limits import WatchdogStage  # noqa: E402
from sim2real.deploy.crazyflie_messages import to_legacy  # noqa: E402
from sim2real.deploy.driver_node import NEWEST, DriverNode  # noqa: E402

pytestmark = pytest.mark.ros


class Pilot:
    """The other end of the node's topics."""

    def __init__(self, driver: DriverNode) -> None:
        self.driver = driver
        self.node = rclpy.create_node("pilot")
        self.got: dict[str, list[Any]] = {"pose": [], "twist": [], "ground_truth/odom": [], "driver_diagnostics": []}
        kinds = (PoseStamped, TwistStamped, Odometry, DiagnosticArray)
        for (topic, received), kind in zip(self.got.items(), kinds, strict=True):
            self.node.create_subscription(kind, topic, received.append, NEWEST)
        self.command = self.node.create_publisher(Twist, "cmd_vel_legacy", NEWEST)
        self.arm = self.node.create_client(SetBool, "arm")
        self.reset = self.node.create_client(Trigger, "reset")

    def send(self, thrust: float, roll: float = 0.0, pitch: float = 0.0) -> None:
        message = Twist()
        message.linear.x, message.linear.y, message.linear.z, message.angular.z = to_legacy(thrust, roll, pitch, 0.0)
        self.command.publish(message)

    def ask(self, client: Any, request: Any) -> Any:
        assert client.wait_for_service(timeout_sec=5.0)
        future = client.call_async(request)
        wait_until(future.done)
        return future.result()

    def position(self) -> np.ndarray[Any, Any]:
        p = self.got["ground_truth/odom"][-1].pose.pose.position
        return np.array([p.x, p.y, p.z])

    def figures(self) -> dict[str, str]:
        self.got["driver_diagnostics"].clear()
        wait_until(lambda: bool(self.got["driver_diagnostics"]))
        status = self.got["driver_diagnostics"][-1].status[0]
        return {"message": status.message} | {value.key: value.value for value in status.values}


def wait_until(done: Callable[[], bool], timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.01)


@pytest.fixture
def pilot() -> Iterator[Pilot]:
    rclpy.init()
    executor = SingleThreadedExecutor()
    driver = DriverNode({"variant": "cf2x_P250", "condition": "fresh", "seed": 4, "rate_hz": 100.0})
    pilot = Pilot(driver)
    executor.add_node(driver)
    executor.add_node(pilot.node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        wait_until(lambda: all(pilot.got[name] for name in ("pose", "twist", "ground_truth/odom")))
        wait_until(lambda: pilot.command.get_subscription_count() == 1)
        yield pilot
    finally:
        executor.shutdown()
        thread.join(timeout=5.0)
        driver.close()
        driver.destroy_node()
        pilot.node.destroy_node()
        rclpy.shutdown()


def test_nothing_moves_before_arming_and_a_command(pilot: Pilot) -> None:
    start = pilot.position()
    pilot.send(0.5)
    time.sleep(0.3)
    assert np.array_equal(pilot.position(), start)
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    time.sleep(0.3)
    assert np.array_equal(pilot.position(), start)
    pilot.send(float("nan"))
    time.sleep(0.2)
    assert np.array_equal(pilot.position(), start)
    figures = pilot.figures()
    assert (figures["refused"], figures["commands"], figures["armed"]) == ("2", "0", "True")


def test_state_comes_at_the_rate_and_as_specified(pilot: Pilot) -> None:
    pilot.got["pose"].clear()
    begin = time.monotonic()
    time.sleep(1.0)
    rate = len(pilot.got["pose"]) / (time.monotonic() - begin)
    assert rate == pytest.approx(100.0, rel=0.15)
    pose, truth = pilot.got["pose"][-1], pilot.got["ground_truth/odom"][-1]
    assert pose.header.frame_id == truth.header.frame_id == "world"
    p = pose.pose.position
    assert 0.0 < np.linalg.norm(np.array([p.x, p.y, p.z]) - pilot.position()) < 0.02  # an estimate, not the truth
    assert np.abs(pilot.position() - [0.0, 0.0, 1.5]).max() <= 1.0
    q = pose.pose.orientation
    assert q.x**2 + q.y**2 + q.z**2 + q.w**2 == pytest.approx(1.0)


def test_watchdog_holds_and_lands_and_reset_starts_anew(pilot: Pilot) -> None:
    start = pilot.position()
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    for _ in range(25):
        pilot.send(0.33, roll=2.0)  # beyond the limit of 0.52
        time.sleep(0.02)
    wait_until(lambda: np.linalg.norm(pilot.position() - start) > 0.05)
    time.sleep(0.5)
    tilt = pilot.got["ground_truth/odom"][-1].pose.pose.orientation
    assert abs(tilt.x) < 0.1  # level again, held by the watchdog
    time.sleep(0.7)
    figures = pilot.figures()
    assert figures["watchdog"] == "land" and figures["message"] == "no commands: land"
    assert int(figures["clamped"]) > 10

    answer = pilot.ask(pilot.reset, Trigger.Request())
    assert (answer.success, answer.message) == (True, "seed 5")
    time.sleep(0.1)
    again = pilot.position()
    time.sleep(0.3)
    assert np.array_equal(pilot.position(), again) and not np.allclose(again, start)
    assert pilot.figures()["armed"] == "False"


def test_refused_commands_do_not_keep_it_flying(pilot: Pilot) -> None:
    """A policy that sends NaN is as silent as one that sends nothing."""
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    pilot.send(0.33)
    wait_until(lambda: pilot.figures()["commands"] == "1")
    end = time.monotonic() + 1.4
    while time.monotonic() < end:
        pilot.send(float("nan"))
        time.sleep(0.02)
    assert pilot.driver._stage is WatchdogStage.LAND
    assert pilot.driver._counts["commands"] == 1 and pilot.driver._counts["refused"] > 10


def test_arming_again_does_not_land_a_robot_that_nobody_has_commanded_yet(pilot: Pilot) -> None:
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    pilot.send(0.33)
    wait_until(lambda: pilot.driver._stage is WatchdogStage.LAND)
    pilot.ask(pilot.reset, Trigger.Request())
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    time.sleep(0.2)
    assert pilot.driver._stage is WatchdogStage.IDLE
    pilot.send(0.33)
    wait_until(lambda: pilot.driver._stage is WatchdogStage.LAND)
    assert pilot.ask(pilot.arm, SetBool.Request(data=False)).success
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    time.sleep(0.2)
    assert pilot.driver._stage is WatchdogStage.IDLE


def test_arming_what_is_armed_does_not_keep_a_silent_pilots_robot_going(pilot: Pilot) -> None:
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    pilot.send(0.33)
    wait_until(lambda: pilot.driver._stage is WatchdogStage.OK)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
        time.sleep(0.05)
    assert pilot.driver._stage is WatchdogStage.LAND


def test_of_two_that_command_none_is_obeyed(pilot: Pilot) -> None:
    assert pilot.ask(pilot.arm, SetBool.Request(data=True)).success
    pilot.send(0.33)
    wait_until(lambda: pilot.figures()["commands"] == "1")
    other = rclpy.create_node("intruder")
    try:
        other.create_publisher(Twist, "cmd_vel_legacy", NEWEST)
        wait_until(lambda: pilot.driver._commanders == 2)
        end = time.monotonic() + 1.4
        while time.monotonic() < end:
            pilot.send(0.33)
            time.sleep(0.02)
        assert pilot.driver._stage is WatchdogStage.LAND and pilot.driver._counts["commands"] == 1
        assert "2 nodes publish commands, none of them is obeyed" in pilot.figures()["message"]
    finally:
        other.destroy_node()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_cleanly(number: int) -> None:
    command = [sys.executable, "-m", "sim2real.deploy.driver_node", "--ros-args", "-p", "variant:=cf2x_T350"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    rclpy.init()
    node = rclpy.create_node("listener")
    poses: list[PoseStamped] = []
    try:
        node.create_subscription(PoseStamped, "pose", poses.append, NEWEST)
        end = time.monotonic() + 15.0
        while not poses and time.monotonic() < end:
            rclpy.spin_once(node, timeout_sec=0.1)
        assert poses
        process.send_signal(number)
        output, _ = process.communicate(timeout=5.0)
    finally:
        process.kill()
        node.destroy_node()
        rclpy.shutdown()
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_a_wrong_parameter_is_explained() -> None:
    command = [sys.executable, "-m", "sim2real.deploy.driver_node", "--ros-args", "-p", "airframe:=cf9"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    assert "unknown airframe 'cf9'; known: cf2x_L250" in result.stderr
    assert "Traceback" not in result.stderr
