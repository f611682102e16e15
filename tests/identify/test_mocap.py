"""The end effector against motion capture whose frame, markers and clock nobody knows."""

import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sim2real.identify.arm.mocap import mocap_gap
from sim2real.identify.arm.replay import MotionReplay
from sim2real.recordings.mocap import read_mocap
from sim2real.recordings.tables import LogError
from sim2real.robots import load_arm
from sim2real.runtime.kinematics import Chain

ARM = load_arm("so101")
BASE = Rotation.from_euler("xyz", [0.3, -0.5, 2.1])  # of the base in the frame of motion capture
SHIFT, MARKER = np.array([1.2, -0.4, 0.9]), np.array([0.02, 0.03, -0.01])
MOUNTED = Rotation.from_euler("xyz", [1.0, 0.2, -0.7])
LATE_S = 1.37


def recording(seed=0, seconds=20.0, simulated=0.0):
    """A motion of all joints; the simulated elbow is off by ``simulated`` rad."""
    rng, t = np.random.default_rng(seed), np.arange(0.0, seconds, 0.02)
    q = np.tile(ARM.rest, (len(t), 1))
    for joint in range(q.shape[1]):
        for k in range(1, 5):
            a, b = 0.35 * rng.normal(size=2) / k
            q[:, joint] += a * np.sin(0.8 * k * t) + b * np.cos(0.8 * k * t)
    off = np.zeros(q.shape[1])
    off[2] = simulated
    return MotionReplay(f"m{seed}", t, q + off, q, q)


def watch(motion, chain=ARM.chain, noise=1e-4, rate=100.0, seed=0):
    """Time, positions and quaternions as motion capture that began before the recording has them."""
    rng, t = np.random.default_rng(seed), np.arange(0.0, motion.time[-1] + 4.0, 1.0 / rate)
    q = np.stack([np.interp(t - LATE_S, motion.time, column) for column in motion.measured.T], axis=1)
    place, turned = chain.frames(q)[ARM.ee]
    position = BASE.apply(place + turned @ MARKER) + SHIFT + noise * rng.normal(size=place.shape)
    return t, position, (BASE * Rotation.from_matrix(turned) * MOUNTED).as_quat()


def write(path, time, position, quat=None):
    """An .npz as people write it, with times of another clock."""
    np.savez(path, t=time + 1.7e9, pos=position, **({} if quat is None else {"quat": quat}))
    return path


def test_frame_markers_and_clock_are_found_and_nothing_is_left(tmp_path):
    motion = recording(simulated=0.02)
    gap = mocap_gap(ARM, [motion], [read_mocap(write(tmp_path / "a.npz", *watch(motion)))])
    assert gap["per_motion"]["m0"]["time_offset_s"] == pytest.approx(LATE_S, abs=1e-3)
    found = gap["T_mocap_base"]
    np.testing.assert_allclose(found["position_m"], SHIFT, atol=5e-4)
    assert (Rotation.from_quat(found["quat_xyzw"]).inv() * BASE).magnitude() < 2e-3
    np.testing.assert_allclose(gap["marker_in_ee_m"], MARKER, atol=5e-4)
    assert gap["encoders"]["median_mm"] < 0.4 and gap["encoders"]["p95_deg"] < 0.1
    # The elbow's 0.02 rad is a rotation of as much, and turns what is beyond it.
    assert gap["simulated"]["median_deg"] == pytest.approx(np.degrees(0.02), rel=0.05)
    elbow, tip = (ARM.chain.frames(motion.measured)[n][0] for n in (ARM.chain.joints[2].child, ARM.ee))
    assert gap["added"]["median_mm"] == pytest.approx(gap["simulated"]["median_mm"], rel=0.2)
    assert 5.0 < gap["added"]["median_mm"] < 20.0 * np.sqrt(((tip - elbow) ** 2).sum(axis=1)).max() * 1.2


def test_a_link_that_is_longer_than_described_is_a_gap_of_the_encoders(tmp_path):
    text, motion = ARM.urdf.read_text(), recording()
    part = re.search(r'<joint name="wrist_flex".*?</joint>', text, re.DOTALL).group()
    x, y, z = map(float, re.search(r'xyz="([^"]*)"', part).group(1).split())
    length = np.sqrt(x * x + y * y + z * z)
    longer = " ".join(f"{v * (1.0 + 0.005 / length):.6f}" for v in (x, y, z))
    longer = text.replace(part, re.sub(r'xyz="[^"]*"', f'xyz="{longer}"', part, count=1))
    seen = read_mocap(write(tmp_path / "a.npz", *watch(motion, Chain(ARM.urdf, longer))))
    gap = mocap_gap(ARM, [motion], [seen])
    assert 1.0 < gap["encoders"]["median_mm"] < 8.0 and gap["encoders"]["p95_mm"] > 2.0
    assert gap["added"]["p95_mm"] < 1e-6


def test_rows_in_which_the_body_was_lost_are_left_out_and_counted(tmp_path):
    motion = recording()
    time, position, quat = watch(motion)
    lost = (time > 5.0) & (time < 6.0) | (np.arange(len(time)) % 17 == 0)
    rows = [f"{t:.4f}," + (",,,,,," if gone else ",".join(f"{v:.6f}" for v in (*p, *r)))
            for t, p, r, gone in zip(time, position, quat, lost, strict=True)]  # fmt: skip
    (tmp_path / "a.csv").write_text("\n".join(["time,pos_x,pos_y,pos_z,qx,qy,qz,qw", *rows]) + "\n")
    seen = read_mocap(tmp_path / "a.csv")
    assert seen.lost == pytest.approx(lost.mean()) and len(seen.time) == (~lost).sum()
    gap = mocap_gap(ARM, [motion], [seen])
    assert gap["encoders"]["median_mm"] < 0.4 and gap["encoders"]["median_deg"] < 0.05
    position[lost] = np.nan
    alone = mocap_gap(ARM, [motion], [read_mocap(write(tmp_path / "b.npz", time, position))])
    assert alone["encoders"]["median_mm"] < 0.4 and "median_deg" not in alone["encoders"]


def test_recordings_share_frame_and_markers_but_not_clocks(tmp_path):
    motions = [recording(seed) for seed in range(2)]
    seen = []
    for index, motion in enumerate(motions):
        time, position, quat = watch(motion, seed=index)
        later = time > index  # the second begins a second later
        seen.append(read_mocap(write(tmp_path / f"m{index}.npz", time[later], position[later], quat[later])))
    offsets = [row["time_offset_s"] for row in mocap_gap(ARM, motions, seen)["per_motion"].values()]
    assert offsets == pytest.approx([LATE_S - 0.01, LATE_S - 1.01], abs=1e-2)


def test_another_motion_another_unit_and_damaged_files_are_named(tmp_path):
    motion = recording()
    time, position, _ = watch(motion)
    with pytest.raises(LogError, match="divide millimetres by 1000"):
        mocap_gap(ARM, [motion], [read_mocap(write(tmp_path / "mm.npz", time, 1e3 * position))])
    with pytest.raises(LogError, match="another motion"):
        mocap_gap(ARM, [recording(5)], [read_mocap(write(tmp_path / "other.npz", time, position))])
    with pytest.raises(LogError, match="hardly seen"):
        read_mocap(write(tmp_path / "nan.npz", time, np.full_like(position, np.nan)))
    with pytest.raises(LogError, match="row 1 is no later"):
        read_mocap(write(tmp_path / "back.npz", time[::-1], position))
    (tmp_path / "no.csv").write_text("time,a,b\n0,1,2\n1,2,3\n")
    with pytest.raises(LogError, match="no columns x, y, z"):
        read_mocap(tmp_path / "no.csv")
    np.savez(tmp_path / "wide.npz", t=time, pos=position[:, :2])
    with pytest.raises(LogError, match=r"'pos' is \[\d+, 2\]"):
        read_mocap(tmp_path / "wide.npz")
