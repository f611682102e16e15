"""The Franka driver with its real client, on Franka's network protocol as franky-sim serves it from MuJoCo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robot_drivers import load_driver
from robot_drivers.franka import JOINTS, FrankaDriver
from robot_drivers.limits import DriverError

SIM = Path(sys.executable).parent / "franky-sim"
pytestmark = [pytest.mark.slow, pytest.mark.realtime]

MOVES = """
import sys, time
from robot_drivers import load_driver
driver = load_driver("franka")
driver.connect()
driver.arm(True)
here = driver.read().joint_pos
sys.stdout.write("moving\\n"), sys.stdout.flush()
for k in range(400):
    target = here.copy()
    target[0] += 0.05 * k
    sent = driver.command(dict(zip(driver.read().joint_names, target.tolist())))
    sys.stdout.write(f"{sent['fr3_joint1']}\\n"), sys.stdout.flush()
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def simulator():
    pytest.importorskip("franky", reason="Franka's client; pip install franky-control")
    if not SIM.is_file():
        pytest.skip("Franka's protocol is served by franky-sim; pip install franky-sim")
    process = subprocess.Popen([SIM, "-s", "mujoco"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    process.terminate()
    process.wait(10)


def connect() -> FrankaDriver:
    driver, last = load_driver("franka"), None
    for _ in range(30):
        try:
            driver.connect()
            return driver
        except DriverError as error:
            last = error
            time.sleep(1.0)
    raise AssertionError(last)


@pytest.fixture
def driver(simulator):
    made = connect()
    yield made
    made.disconnect()


def send(driver: FrankaDriver, target: np.ndarray, seconds: float) -> None:
    """Command a pose at 20 Hz."""
    for _ in range(round(20 * seconds)):
        driver.command(dict(zip(JOINTS, target.tolist(), strict=True)))
        time.sleep(0.05)


def assert_still(driver: FrankaDriver) -> None:
    """Positions tell: the simulated wrist chatters at its torque limit, so that its velocity does not."""
    before = driver.read().joint_pos
    time.sleep(0.5)
    np.testing.assert_allclose(driver.read().joint_pos, before, atol=3e-3)


def test_nothing_moves_before_arming(driver):
    here = driver.read().joint_pos
    with pytest.raises(DriverError, match="not armed"):
        driver.command(dict(zip(JOINTS, (here + 0.1).tolist(), strict=True)))
    time.sleep(0.3)
    np.testing.assert_allclose(driver.read().joint_pos, here, atol=2e-3)


def test_it_goes_where_it_is_sent_within_limits(driver):
    driver.arm(True)
    here = driver.read().joint_pos
    target = here + np.array([0.25, 0.1, 0, 0, -0.2, 0, 0.3])
    sent = driver.command(dict(zip(JOINTS, target.tolist(), strict=True)))
    assert all(abs(sent[joint] - q) <= 0.2001 for joint, q in zip(JOINTS, here, strict=True))  # slew, not a jump
    send(driver, target, 4.0)
    state = driver.read()
    np.testing.assert_allclose(state.joint_pos, target, atol=5e-3)
    far = driver.command(dict(zip(JOINTS, [9.0] * 7, strict=True)))
    assert max(far.values()) <= 4.51
    with pytest.raises(DriverError, match="exactly"):
        driver.command({"fr3_joint1": 0.0})
    assert abs(np.linalg.norm(state.quat) - 1.0) < 1e-6


def test_silence_stops_it_before_the_last_command(driver):
    driver.arm(True)
    here = driver.read().joint_pos
    target = here - np.array([0.8, 0, 0, 0, 0, 0, 0])
    send(driver, target, 0.6)
    assert abs(driver.read().joint_vel[0]) > 0.1
    time.sleep(1.5)
    assert_still(driver)
    assert target[0] - 5e-3 < driver.read().joint_pos[0] < here[0] - 0.05


def test_a_client_killed_in_motion_leaves_a_still_arm_and_the_next_one_goes_on(driver):
    driver.disconnect()
    client = subprocess.Popen([sys.executable, "-c", MOVES], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None and client.stdout.readline() == "moving\n"
    time.sleep(1.5)
    client.send_signal(signal.SIGKILL)
    client.wait()
    time.sleep(1.0)
    again = connect()
    try:
        assert_still(again)
        again.arm(True)
        here = again.read().joint_pos
        target = here + np.array([0, 0, 0, 0, 0, 0.2, 0])
        send(again, target, 3.0)
        np.testing.assert_allclose(again.read().joint_pos, target, atol=5e-3)
    finally:
        again.disconnect()


@pytest.mark.parametrize("whole_group", [False, True], ids=["a debugger", "Ctrl-Z"])
def test_a_client_stopped_in_motion_leaves_an_arm_that_comes_to_rest_before_its_last_command(driver, whole_group):
    driver.arm(True)
    home = np.array([0.0, 0.0, 0.0, -1.57, 0.0, 1.57, 0.785])
    send(driver, home, 4.0)
    driver.disconnect()
    client = subprocess.Popen([sys.executable, "-c", MOVES], stdout=subprocess.PIPE, text=True, process_group=0)
    assert client.stdout is not None and client.stdout.readline() == "moving\n"
    time.sleep(0.8)
    (os.killpg if whole_group else os.kill)(client.pid, signal.SIGSTOP)
    time.sleep(1.5)
    client.kill()
    last = float(client.communicate()[0].split()[-1])
    after = connect()
    try:
        gone = after.read().joint_pos[0]
        assert 0.05 < gone < last + 5e-3, "it moved, and not to where nobody sent it"
        assert_still(after)
    finally:
        after.disconnect()


def test_nobody_there_is_one_clear_error():
    pytest.importorskip("franky", reason="Franka's client; pip install franky-control")
    with pytest.raises(DriverError, match=r"no Franka at 127\.0\.0\.9.*franky-sim"):
        load_driver("franka", host="127.0.0.9").connect()
    with pytest.raises(DriverError, match="share of the arm's limits"):
        load_driver("franka", dynamics=2.0)
    with pytest.raises(DriverError, match="known: fr3, panda"):
        load_driver("franka", model="fr4")
