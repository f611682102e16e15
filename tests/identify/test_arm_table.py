"""The table that an arm presses on, time offsets of recordings, and kinds of motion."""

import numpy as np
import pytest

from sim2real.errors import ConfigError
from sim2real.identify.arm.kinds import kinds_of
from sim2real.identify.arm.press import fit_table
from sim2real.identify.arm.replay import MotionReplay, align, replay, summary
from sim2real.identify.arm.table import DISPROVED_M, LowestPoint, Table, read_table
from sim2real.recordings.logs import JointLog
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm

ARM = Arm(robot_folder("so101"))
JOINTS = ARM.joints
TABLE = Table(-0.03, 1000.0)


def pressing(deep=0.5, name="m", seconds=8.0):
    """Commands that lower the arm from its rest pose and raise it again; nothing measured yet."""
    time = 0.02 * np.arange(round(seconds * 50))
    command = np.tile(ARM.rest, (len(time), 1))
    command[:, 1] += deep * np.sin(np.pi * time / time[-1]) ** 2
    return JointLog(name, JOINTS, time, command, np.tile(ARM.rest, (len(time), 1)))


def depth_for(height):
    """How far the shoulder must go for the lowest point to reach a height."""
    lowest = LowestPoint(ARM)
    deep = np.linspace(0.0, 1.6, 161)
    poses = np.tile(ARM.rest, (len(deep), 1))
    poses[:, 1] += deep
    heights = lowest.heights(poses)
    return float(deep[np.nonzero(heights < height)[0][0]])


def recorded(log, table):
    moved = replay(ARM, [log], ARM.nominal(), table)[0].simulated
    return JointLog(log.name, JOINTS, log.time, log.command, moved)


def test_the_lowest_point_is_that_of_a_box():
    """Stretched along x the gripper's boxes are lowest; turning the base moves the point, not its height."""
    lowest = LowestPoint(ARM)
    poses = np.tile(ARM.rest, (2, 1))
    poses[1, 0] += 0.7
    points = lowest.find(poses)[0]
    assert points[0, 2] == pytest.approx(points[1, 2], abs=1e-9) and np.abs(points[0] - points[1]).max() > 0.02
    frames = ARM.chain.frames(poses)
    assert points[0, 2] < min(frames[name][0][0, 2] for name in ARM.chain.link_names[3:])


def test_a_table_asks_what_virtual_work_says():
    """The load is the derivative of the spring's energy by every joint."""
    lowest, deep = LowestPoint(ARM), depth_for(TABLE.height_m) + 0.05
    pose = ARM.rest + np.array([0.3, deep, 0.0, 0.02, 0.1, 0.0])
    load, height = lowest.load(pose[None], TABLE, np.ones(1))
    assert height < 0.0 and np.abs(load).max() > 0.1

    def energy(q):
        return 0.5 * TABLE.stiffness * max(TABLE.height_m - lowest.find(q[None])[0][0, 2], 0.0) ** 2

    steps = 1e-5 * np.eye(6)
    np.testing.assert_allclose(load[0], [(energy(pose + s) - energy(pose - s)) / 2e-5 for s in steps], atol=1e-3)
    assert not lowest.load(pose[None], TABLE, np.zeros(1))[0].any()


def test_a_table_is_found_where_the_arm_pressed_and_nowhere_else():
    deep = depth_for(TABLE.height_m) + 0.1
    logs = [recorded(pressing(deep + 0.03 * i, f"m{i}"), TABLE) for i in range(2)]
    bare = replay(ARM, logs, ARM.nominal())
    before = summary(ARM, bare)["mean_joint_rmse_rad"]
    found = fit_table(ARM, logs, ARM.nominal(), bare)
    assert found is not None and found.height_m == pytest.approx(TABLE.height_m, abs=0.006)
    assert summary(ARM, replay(ARM, logs, ARM.nominal(), found))["mean_joint_rmse_rad"] < 0.3 * before
    free = [recorded(pressing(0.5 * depth_for(TABLE.height_m), f"m{i}"), None) for i in range(2)]
    assert fit_table(ARM, free, ARM.nominal(), replay(ARM, free, ARM.nominal())) is None


def test_a_motion_through_a_table_disproves_it():
    deep = recorded(pressing(depth_for(TABLE.height_m - DISPROVED_M) + 0.1), None)
    bare, there = (replay(ARM, [deep], ARM.nominal(), table)[0] for table in (None, TABLE))
    assert not there.table
    np.testing.assert_array_equal(bare.simulated, there.simulated)


def test_one_time_offset_a_recording_is_taken_out():
    time = 0.02 * np.arange(1000)
    wave = np.stack([np.sin(1.3 * time + k) for k in range(6)], axis=1)
    late = np.stack([np.interp(time - 0.05, time, column) for column in wave.T], axis=1)
    found = align(MotionReplay("late", time, wave, late, wave))
    assert found.offset_s == pytest.approx(0.05) and found.rmse.max() < 2e-3
    noise = wave + 0.02 * np.random.default_rng(0).standard_normal(wave.shape)
    assert align(MotionReplay("right", time, wave, noise, wave)).offset_s == 0.0


def test_kinds_are_motions_that_move_alike():
    def log(joint, hertz, k):
        time = 0.02 * np.arange(500)
        command = np.tile(ARM.rest, (500, 1))
        command[:, joint] += (0.3 + 0.02 * k) * np.sin(2 * np.pi * hertz * time)
        return JointLog(f"{joint}/{k}", JOINTS, time, command, command)

    logs = [log(joint, hertz, k) for k in range(3) for joint, hertz in ((0, 0.2), (0, 2.0), (3, 0.5))]
    kinds = kinds_of(logs, 3)
    assert sorted(np.bincount(kinds)) == [3, 3, 3]
    assert all(len(set(kinds[first::3])) == 1 for first in range(3))
    assert sorted(set(kinds_of(logs[:1] * 4, 3))) == [0, 1, 2]  # alike, and divided all the same


def test_tables_in_files_are_checked(tmp_path):
    file = tmp_path / "p.yaml"
    for text, found in (("a: 1", None), ("table: {height_m: -0.04, stiffness: 900}", Table(-0.04, 900.0))):
        file.write_text(text)
        assert read_table(file) == found
    for text in ("table: {height_m: -0.04}", "table: 3", "table: {height_m: .nan, stiffness: 9}",
                 "table: {height_m: 0, stiffness: -1}"):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ConfigError, match="its table needs"):
            read_table(file)
