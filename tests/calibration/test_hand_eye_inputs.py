"""Hand-eye samples as people have them: frames of other tools, noisy arms, single markers, boards that look alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation
from test_calibration import STRAIGHT, pose, samples
from test_calibration_mistakes import good, reordered, run, save_pairs

from calibration.alternatives import settled
from calibration.boards import Board, Detection
from calibration.hand_eye import OPTICAL_FROM_LINK, hand_eye
from calibration.intrinsics import board_pose
from sim2real.errors import ConfigError
from sim2real.images.files import read_pose_pairs, read_poses
from sim2real.images.lens import project

X = pose([0.1, 0.2, 1.1], [0.05, 0.02, 0.06])


def seen_by_an_arm(points, count=12, px=0.1, arm_mm=0.0, arm_deg=0.0, seed=0):
    """T_base_ee with the arm's own errors, and corners, of a camera on the hand that sees the board."""
    rng = np.random.default_rng(seed)
    y = pose([3.0, 0.1, 0.2], [0.4, 0.0, 0.0])
    arm, seen = [], []
    for index in range(count):
        at = pose(rng.uniform(-0.6, 0.6, 3), [*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.3, 0.5)])
        pixels = project(STRAIGHT, points, at) + px * rng.standard_normal((len(points), 2))
        seen.append(Detection(str(index), pixels, points))
        off = pose(np.radians(arm_deg) * rng.standard_normal(3), 1e-3 * arm_mm * rng.standard_normal(3))
        arm.append(y @ np.linalg.inv(at) @ np.linalg.inv(X) @ off)
    return np.array(arm), seen


def chess(columns, rows, square=0.02):
    points = np.zeros((columns * rows, 3))
    points[:, :2] = square * np.mgrid[0:columns, 0:rows].T.reshape(-1, 2)
    return points


def boards(seen):
    return np.array([board_pose(STRAIGHT, one)[0] for one in seen])


def test_from_images_of_an_arm_that_is_not_exact_no_good_view_is_left_out_and_nothing_is_worse_than_from_pairs():
    for seed in range(3):
        arm, seen = seen_by_an_arm(chess(9, 6), 8, 0.2, 4.0, 0.4, seed)
        pairs = hand_eye(arm, boards(seen), "eye-in-hand")
        images = hand_eye(arm, boards(seen), "eye-in-hand", STRAIGHT, seen)
        assert not images.dropped and not pairs.dropped
        assert images.residual_mm < 1.03 * pairs.residual_mm and images.residual_deg < 1.03 * pairs.residual_deg
        assert set(images.summary(list("abcdefgh"))) >= {"T_base_board", "residual_mm", "held_out_mm", "held_out_deg"}


def test_from_images_of_an_exact_arm_corners_tell_more_than_poses():
    marker = chess(2, 2, 0.05)
    arm, seen = seen_by_an_arm(marker, 15, 0.2)
    pairs = hand_eye(arm, boards(seen), "eye-in-hand")
    images = hand_eye(arm, boards(seen), "eye-in-hand", STRAIGHT, seen)
    off = [1e3 * np.linalg.norm(result.T_ee_camera[:3, 3] - X[:3, 3]) for result in (pairs, images)]
    assert off[1] < 0.7 and off[1] < 0.5 * off[0], off


@pytest.mark.parametrize("frame", [pose([0.5 * np.pi, 0, 0], [0.1, 0, 0.05]), pose([0, 0.5 * np.pi, 0], [0, 0.1, 0])])
def test_boards_whose_z_lies_in_their_plane_are_taken(frame):
    arm, seen, truth = samples("eye-in-hand", 18, 0.5, 0.05)
    result = hand_eye(arm, seen @ frame, "eye-in-hand")
    assert not result.warnings and np.linalg.norm(result.T_ee_camera[:3, 3] - truth[:3, 3]) < 2e-3


def test_both_quaternions_in_another_order_are_named():
    arm, seen = good()
    said = hand_eye(reordered([3, 0, 1, 2], arm), reordered([3, 0, 1, 2], seen), "eye-to-hand").warnings[0]
    assert "quaternions of both arm and board are in the order qw" in said and "exchanged" not in said


def test_poses_in_the_frame_of_camera_link_are_named_and_taken_with_an_option(tmp_path, capsys):
    arm, seen = good()
    pairs, out = tmp_path / "p.json", tmp_path / "c.yaml"
    save_pairs(pairs, arm, np.linalg.inv(OPTICAL_FROM_LINK) @ seen)
    command = ["calibrate", "hand-eye", pairs, "--setup", "eye-to-hand", "--out", out]
    status, said = run(capsys, *command)
    assert status == 1 and "--camera-frame link" in said and not out.exists()
    assert run(capsys, *command, "--camera-frame", "link")[0] == 0
    wanted = hand_eye(arm, seen, "eye-to-hand").T_base_camera
    np.testing.assert_allclose(yaml.safe_load(out.read_text())["T_base_camera"], wanted, atol=1e-6)


@pytest.mark.parametrize(("columns", "rows"), [(8, 6), (9, 6)])
def test_a_chessboard_found_upside_down_in_some_images_is_put_right(columns, rows):
    points = chess(columns, rows)
    arm, seen = seen_by_an_arm(points)
    turned = [Detection(d.name, d.pixels[::-1], points) if i in (2, 5, 6) else d for i, d in enumerate(seen)]
    poses, corners, count = settled(STRAIGHT, Board("chessboard", columns, rows, 0.02), arm, turned)
    assert count == 3
    np.testing.assert_allclose(poses, boards(seen), atol=1e-9)
    result = hand_eye(arm, poses, "eye-in-hand", STRAIGHT, corners)
    assert not result.warnings and np.linalg.norm(result.T_ee_camera[:3, 3] - X[:3, 3]) < 1e-3


def test_the_tilt_of_a_small_marker_that_moves_as_the_arm_does_is_taken():
    marker = chess(2, 2, 0.03)
    marker = marker[[0, 1, 3, 2]]
    arm, seen = seen_by_an_arm(marker, 14, 0.3, seed=4)
    alone = hand_eye(arm, boards(seen), "eye-in-hand")
    poses, corners, count = settled(STRAIGHT, Board("grid", 1, 1, 0.03, 0.01, "APRILTAG_36h11"), arm, seen)
    better = hand_eye(arm, poses, "eye-in-hand", STRAIGHT, corners)
    assert count and np.linalg.norm(better.T_ee_camera[:3, 3] - X[:3, 3]) < 3e-3, (alone.T_camera, better.T_camera)


# Files


def pairs_of_others():
    arm, seen, _ = samples("eye-in-hand", 6)

    def as_dict(p):
        quat = Rotation.from_matrix(p[:3, :3]).as_quat()
        return {
            "translation": dict(zip("xyz", p[:3, 3].tolist(), strict=True)),
            "rotation": dict(zip("xyzw", quat.tolist(), strict=True)),
        }

    both = list(zip(arm, seen, strict=True))
    flat = [{"effector_wrt_world": a.ravel().tolist(), "object_wrt_sensor": b.ravel().tolist()} for a, b in both]
    easy = {"samples": [{"robot": as_dict(a), "tracking": as_dict(b)} for a, b in both]}
    return arm, seen, {"moveit": flat, "easy": easy, "dicts": [[as_dict(a), as_dict(b)] for a, b in both]}


@pytest.mark.parametrize("kind", ["moveit", "easy", "dicts"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_samples_that_other_tools_save_are_read(tmp_path, kind, suffix):
    arm, seen, files = pairs_of_others()
    path = tmp_path / f"s{suffix}"
    path.write_text(json.dumps(files[kind]) if suffix == ".json" else yaml.safe_dump(files[kind]))
    for got, wanted in zip(read_pose_pairs(path), (arm, seen), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-9)


def test_rotation_vectors_are_read_and_other_pose_files_are_named(tmp_path):
    wanted = pose([0.4, -2.0, 1.0], [0.1, 0.2, 0.3])
    (tmp_path / "ur.csv").write_text("image,x,y,z,rx,ry,rz\na.png,0.1,0.2,0.3,0.4,-2.0,1.0\nb.png,0,0,0,0,0,0\n")
    read = read_poses(tmp_path / "ur.csv")
    np.testing.assert_allclose(read["a.png"], wanted, atol=1e-9)
    np.testing.assert_allclose(read["b.png"], np.eye(4), atol=1e-12)
    (tmp_path / "euler.csv").write_text("image,x,y,z,roll,pitch,yaw\na.png,0,0,0,0,0,90\n")
    with pytest.raises(ConfigError, match="Euler angles, of which neither order nor unit is known"):
        read_poses(tmp_path / "euler.csv")
    (tmp_path / "tf.txt").write_text(
        "At time 1.0\n- Translation: [0.5, 0.0, 0.4]\n- Rotation: in Quaternion [0, 0, 0, 1]\n"
    )
    with pytest.raises(ConfigError, match="output of tf2_echo"):
        read_poses(tmp_path / "tf.txt")
