"""Mistakes that people make when they calibrate: each is noticed, named, and nothing wrong is written."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from real_data import excerpt, real_data, whole
from scipy.spatial.transform import Rotation
from test_calibration import CHARUCO, SIZE, STRAIGHT, photograph, pose, samples, view_poses
from test_collect import make_bag

from calibration.boards import Board
from calibration.find import check_size, find_board
from calibration.hand_eye import JOINT_FIT, _best, hand_eye
from calibration.hand_eye_checks import oddities, unseen
from calibration.hand_eye_fit import Problem
from calibration.latency import camera_latency
from sim2real.cli.main import main
from sim2real.errors import ConfigError
from sim2real.images.dataset import DatasetWriter
from sim2real.images.files import read_images, read_poses
from sim2real.runtime.camera import CameraCalibration, load_camera

GRID = Board("grid", 4, 3, 0.03, 0.01, "4X4_250")
GRID_OPTIONS = ["--board", "grid", "--square", "0.03", "--gap", "0.01", "--dictionary", "DICT_4X4_250"]


@pytest.fixture(name="grid_pictures")
def _grid_pictures(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index, at in enumerate(view_poses(GRID, 4)):
        cv2.imwrite(str(folder / f"{index}.png"), photograph(GRID, STRAIGHT, at))
    STRAIGHT.save(tmp_path / "camera.yaml")
    return folder


def run(capsys, *arguments):
    """Exit status, and everything that was printed, of one command."""
    status = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capsys.readouterr()
    return status, " ".join((captured.out + captured.err).split())


def save_pairs(path, arm, seen):
    path.write_text(json.dumps([[a.tolist(), b.tolist()] for a, b in zip(arm, seen, strict=True)]))
    return path


# Boards


def test_exchanged_columns_and_rows_are_put_right_and_said(grid_pictures, capsys):
    right, wrong = (grid_pictures.parent / name for name in ("right.json", "wrong.json"))
    arguments = ["calibrate", "pose", grid_pictures, "--camera", grid_pictures.parent / "camera.yaml", *GRID_OPTIONS]
    status, said = run(capsys, *arguments, "--columns", 4, "--rows", 3, "--json", right)
    assert status == 0 and "exchanged" not in said
    status, said = run(capsys, *arguments, "--columns", 3, "--rows", 4, "--json", wrong)
    assert status == 0 and "fits as --columns 4 --rows 3, not as --columns 3 --rows 4" in said
    assert json.loads(right.read_text()) == json.loads(wrong.read_text())


def test_an_exchanged_charuco_board_is_put_right(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), photograph(CHARUCO, STRAIGHT, view_poses(CHARUCO, 1)[0]))
    seen = find_board(Board("charuco", 5, 6, 0.03, 0.022), tmp_path)
    assert (seen.board.columns, seen.board.rows) == (6, 5) and len(seen.found) == 1 and "exchanged" in seen.notes[0]


def test_a_charuco_board_of_the_other_kind_is_named(tmp_path):
    old = Board("charuco", 5, 6, 0.03, 0.022, legacy=True)
    cv2.imwrite(str(tmp_path / "a.png"), photograph(old, STRAIGHT, view_poses(old, 1)[0]))
    with pytest.raises(ConfigError, match="fits as --columns 5 --rows 6 with --legacy"):
        find_board(Board("charuco", 5, 6, 0.03, 0.022), tmp_path)


def test_a_board_that_fits_neither_way_is_an_error(grid_pictures, capsys):
    camera, out = grid_pictures.parent / "camera.yaml", grid_pictures.parent / "new.yaml"
    wrong = [*GRID_OPTIONS, "--columns", 6, "--rows", 2]
    status, said = run(capsys, "calibrate", "pose", grid_pictures, "--camera", camera, *wrong)
    assert status == 2 and "the board fits no image" in said and "and exchanged" in said
    status, said = run(capsys, "calibrate", "camera", grid_pictures, "--out", out, *wrong)
    assert status == 2 and "px off, 3 are allowed" in said and not out.exists()


def test_another_dictionary_is_named(grid_pictures, capsys):
    camera = grid_pictures.parent / "camera.yaml"
    options = [*GRID_OPTIONS[:-1], "APRILTAG_36h11", "--columns", 4, "--rows", 3]
    status, said = run(capsys, "calibrate", "pose", grid_pictures, "--camera", camera, *options)
    assert status == 2 and "12 markers of the dictionary 4X4_50" in said and "found in none of 4 images" in said


def test_part_of_a_chessboard_is_noticed(tmp_path):
    board = Board("chessboard", 8, 6, 0.025)
    for index, at in enumerate(view_poses(board, 5)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), photograph(board, STRAIGHT, at))
    assert not find_board(board, tmp_path).notes
    part = find_board(Board("chessboard", 7, 6, 0.025), tmp_path)
    assert "8 x 6 were found" in part.notes[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--columns", 40, "--rows", 40], "has 800 markers, the dictionary '5X5_250' only 250"),
        (["--square", 25], "squares of 25 m?"),
        (["--square", 1e-7], "cannot be printed"),
        (["--board", "grid"], "a grid needs --gap"),
        (["--board", "chessboard", "--gap", 0.01], "--gap is between the markers of a grid"),
    ],
)
def test_boards_that_cannot_be_are_one_clear_error(tmp_path, capsys, options, said):
    status, text = run(capsys, "calibrate", "board", tmp_path / "b.png", *options)
    assert status == 2 and said in text and not list(tmp_path.iterdir())


def test_boards_are_printed_into_new_folders_with_markers_in_proportion(tmp_path, capsys):
    first, second = tmp_path / "new" / "a.png", tmp_path / "new" / "b.png"
    assert run(capsys, "calibrate", "board", first, "--square", 0.015)[0] == 0
    assert run(capsys, "calibrate", "board", second, "--square", 0.015, "--marker", 0.011)[0] == 0
    assert first.read_bytes() == second.read_bytes()
    (tmp_path / "file").write_text("")
    status, said = run(capsys, "calibrate", "board", tmp_path / "file" / "b.png")
    assert status == 2 and "cannot be written" in said


# Cameras


def test_a_camera_of_another_resolution_is_refused_with_both_sizes(grid_pictures, capsys):
    large = CameraCalibration(1280, 960, np.array([[1180.0, 0, 624], [0, 1176, 494], [0, 0, 1]]))
    file = grid_pictures.parent / "large.yaml"
    large.save(file)
    images, poses = grid_pictures, grid_pictures.parent / "poses.yaml"
    poses.write_text("0.png: [0, 0, 0, 0, 0, 0, 1]\n")
    options = ["--camera", file, *GRID_OPTIONS, "--columns", 4, "--rows", 3]
    track = grid_pictures.parent / "joints.csv"
    track.write_text("time,a\n0,0\n1,1\n")
    for command in (
        ["pose", images],
        ["hand-eye", images, "--setup", "eye-to-hand", "--poses", poses],
        ["latency", images, "--joints", track, "--joint", "a"],
    ):
        status, said = run(capsys, "calibrate", *command, *options)
        assert status == 2 and "of 1280 x 960, the images are 640 x 480" in said, command
    check_size(large, (1280, 960))


def test_one_image_that_does_not_fit_is_left_out_and_named(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for index, at in enumerate(view_poses(GRID, 3)):
        image = photograph(GRID, STRAIGHT, at)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(image, SIZE) if index else _sheared(image))
    STRAIGHT.save(tmp_path / "c.yaml")
    arguments = ["pose", folder, "--camera", tmp_path / "c.yaml", "--json", tmp_path / "o.json", *GRID_OPTIONS]
    status, said = run(capsys, "calibrate", *arguments, "--columns", 4, "--rows", 3)
    assert status == 1 and "Left out: 0.png: the board does not fit" in said
    assert set(json.loads((tmp_path / "o.json").read_text())) == {"1.png", "2.png"}


def _sheared(image):
    """Bent as a sheet of paper bends: no flat board looks so."""
    y, x = np.indices(image.shape, dtype=np.float32)
    return cv2.remap(image, x + 25 * np.sin(y / 40).astype(np.float32), y, cv2.INTER_LINEAR, borderValue=128)


def test_places_that_cannot_be_written_are_noticed_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "c.yaml"):
        status, said = run(capsys, "calibrate", "camera", tmp_path / "no_images", "--out", out)
        assert status == 2 and ("is a folder" in said or "cannot be written" in said)


def test_real_aruco_grid_named_by_its_longer_side(tmp_path, capsys):
    image = real_data("calibration") / "charuco_moveit" / "test_aruco_marker_detection.png"
    matrix = np.array([[590.6972346, 0, 322.33104773], [0, 592.84676713, 247.40030325], [0, 0, 1]])
    lens = np.array([0.15405498, -0.24916842, 0.00350791, -0.00110041, 0])
    CameraCalibration(*SIZE, matrix, "pinhole", lens).save(tmp_path / "c.yaml")
    options = ["--board", "grid", "--columns", 4, "--rows", 3, "--square", 0.0256, "--gap", 0.0066]
    options += ["--dictionary", "DICT_4X4_250", "--camera", tmp_path / "c.yaml", "--json", tmp_path / "o.json"]
    status, said = run(capsys, "calibrate", "pose", image, *options)
    assert status == 0 and "columns and rows were exchanged" in said
    assert json.loads((tmp_path / "o.json").read_text())[image.name]["rms_px"] < 1.0


@pytest.mark.parametrize(("recordings", "views", "within"), [(whole, 13, 0.005), (excerpt, 6, 0.01)])
def test_real_chessboard_as_opencv_fits_it(tmp_path, capsys, recordings, views, within):
    folder = recordings("calibration") / "chessboard_opencv"
    board = ["--board", "chessboard", "--rows", 6, "--square", 0.025, "--out", tmp_path / "c.yaml"]
    figures = tmp_path / "f.json"
    status, said = run(capsys, "calibrate", "camera", folder, "--opencv", *board, "--columns", 9, "--json", figures)
    found = json.loads(figures.read_text())
    assert status == 0 and "Note:" not in said and found["rms_px"] <= 0.3926
    assert not any(view["dropped"] for view in found["views"].values()) and len(found["views"]) == views
    np.testing.assert_allclose(
        [found[name] for name in ("fx", "fy", "cx", "cy")], [535.916, 535.916, 342.283, 235.571], rtol=within
    )
    status, said = run(capsys, "calibrate", "camera", folder, *board, "--columns", 8)
    assert "9 x 6 were found" in said


# Hand-eye


def in_view(count=20, seed=0):
    """T_base_ee and T_camera_board of a camera that has the board in view, as OpenCV's frames have it."""
    rng = np.random.default_rng(seed)
    board = np.array([pose(rng.uniform(-0.5, 0.5, 3), [*rng.uniform(-0.15, 0.15, 2), 0.7]) for _ in range(count)])
    camera, on_hand = pose([np.pi, 0, 0], [0.4, 0.0, 1.2]), pose([np.pi, 0.1, 0], [0.02, 0.0, 0.06])
    return camera @ board @ np.linalg.inv(on_hand), board


def good(mm=1.0, degrees=0.1):
    """The same with noise on the board's poses."""
    arm, seen = in_view(24)
    rng = np.random.default_rng(1)
    seen[:, :3, 3] += 1e-3 * mm * rng.standard_normal((24, 3))
    turns = Rotation.from_rotvec(np.radians(degrees) * rng.standard_normal((24, 3))).as_matrix()
    seen[:, :3, :3] = seen[:, :3, :3] @ turns
    return arm, seen


def reordered(quat_order, poses):
    result = poses.copy()
    quat = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    result[:, :3, :3] = Rotation.from_quat(quat[:, quat_order]).as_matrix()
    return result


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda arm, seen: (np.roll(arm, 1, axis=0), seen), "belongs to the sample before it"),
        (lambda arm, seen: (reordered([3, 0, 1, 2], arm), seen), "arm's quaternions are in the order qw"),
        (lambda arm, seen: (arm[np.random.default_rng(0).permutation(24)], seen), "Likely causes"),
    ],
    ids=["one late", "wxyz", "shuffled"],
)
def test_samples_that_fit_no_camera_are_refused_with_the_cause(spoil, cause):
    assert not hand_eye(*good(), "eye-to-hand").warnings
    warnings = hand_eye(*spoil(*good()), "eye-to-hand").warnings
    assert any("fit no camera" in text and cause in text for text in warnings), warnings


def test_nothing_is_written_of_samples_that_fit_no_camera(tmp_path, capsys):
    arm, seen = good()
    file, out, figures = (tmp_path / name for name in ("pairs.json", "out.yaml", "out.json"))
    command = ["calibrate", "hand-eye", file, "--setup", "eye-to-hand", "--out", out, "--json", figures]
    save_pairs(file, np.roll(arm, 1, axis=0), seen)
    status, said = run(capsys, *command)
    assert status == 1 and "fit no camera" in said and "Nothing was written" in said and not out.exists()
    assert "T_base_camera" not in json.loads(figures.read_text())
    save_pairs(file, arm, seen)
    assert run(capsys, *command)[0] == 0 and out.exists() and "T_base_camera" in json.loads(figures.read_text())


def test_millimetres_are_refused_at_once():
    arm, seen = good()
    large = seen.copy()
    large[:, :3, 3] *= 1000.0
    with pytest.raises(ConfigError, match=r"T_camera_board, sample .*Millimetres"):
        hand_eye(arm, large, "eye-to-hand")


def test_noise_is_noticed():
    assert not hand_eye(*good(), "eye-to-hand").notes
    result = hand_eye(*good(5.0, 1.1), "eye-to-hand")
    assert "noisy samples" in result.notes[0] and not result.warnings


def test_many_samples_left_out_are_noticed():
    arm, seen = good()
    seen[[3, 9, 15]] = seen[[9, 15, 3]]
    result = hand_eye(arm, seen, "eye-to-hand")
    assert {3, 9, 15} <= set(result.dropped) and "of 24 samples did not fit" in result.notes[0]


@pytest.mark.parametrize("setup", ["eye-to-hand", "eye-in-hand"])
@pytest.mark.parametrize(
    ("part", "turn", "shift", "said"),
    [
        (slice(12, None), [0, 0, np.radians(20)], [0, 0, 0], "20.* before sample 12"),
        (slice(8, 16), [0, 0, 0], [0.05, 0, 0], "49 mm .* from sample 8 to 15"),
        (slice(0, 10), [0, 0, 0], [0.02, 0, 0], "mm .* before sample 10"),
    ],
    ids=["turned halfway", "moved for a while", "moved halfway"],
)
def test_a_board_that_moved_or_turned_is_noticed(setup, part, turn, shift, said):
    arm, seen, _ = samples(setup, 24, 1.0, 0.1)
    seen[part] = seen[part] @ pose(turn, shift)
    result = hand_eye(arm, seen, setup)
    assert len(result.warnings) == 1
    assert re.search(f"moved by .*{said}", result.warnings[0]), result.warnings


def test_still_boards_are_not_said_to_have_moved():
    for seed in range(6):
        arm, seen, _ = samples("eye-in-hand", 10 + 3 * seed, 5.0, 1.1, seed)
        assert not hand_eye(arm, seen, "eye-in-hand").warnings


def test_exchanged_and_doubly_inverted_samples_are_noticed():
    arm, board = in_view()
    assert unseen(arm, board) == ("", "")
    inverted = (np.linalg.inv(arm), np.linalg.inv(board))
    assert "both sets of poses look inverted" in unseen(*inverted)[0]
    assert "both sets of poses look inverted" in hand_eye(*inverted, "eye-to-hand").warnings[0]
    low = arm.copy()
    low[:, 2, 3] -= 0.6  # a table below the base
    assert "look exchanged;" in unseen(board, low)[0]
    assert not oddities(board, pose([0, 0, 0], [0, 0, 0.1]), pose([0, 0, 0], [0.4, 0, 1.2]))
    assert "on the hand would be 1.26 m" in oddities(board, pose([0, 0, 0], [0.4, 0, 1.2]), np.eye(4))[0]


@pytest.mark.slow
def test_real_samples_exchanged_or_inverted_are_noticed():
    pairs = json.loads((real_data("calibration") / "handeye_moveit" / "pose_samples.json").read_text())
    arm, board = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    assert "look exchanged" in hand_eye(board, arm, "eye-to-hand").warnings[0]
    said = " ".join(hand_eye(np.linalg.inv(arm), np.linalg.inv(board), "eye-to-hand").notes)
    assert "both sets of poses are inverted" in said and "off the camera's axis" in said
    assert not hand_eye(arm, board, "eye-to-hand").notes


def test_rounded_rotations_are_made_whole_and_said():
    arm, seen, truth = samples("eye-to-hand", 24)
    result = hand_eye(arm.round(3), seen.round(3), "eye-to-hand")
    assert np.linalg.norm(result.T_base_camera[:3, 3] - truth[:3, 3]) < 1e-3 and not result.warnings
    assert [note for note in result.notes if "T_base_ee: rotations of" in note and "made whole" in note]
    with pytest.raises(ConfigError, match="not orthonormal"):
        hand_eye(arm.round(1), seen, "eye-to-hand")


def test_a_solver_that_is_better_in_both_is_taken_and_no_other():
    solvers = {"tsai": (3.0, 0.5), "park": (1.8, 0.19), "horaud": (1.85, 0.1), "andreff": (np.nan, np.nan)}
    assert _best({JOINT_FIT: (2.0, 0.2)} | solvers) == ("horaud", (1.85, 0.1))  # park is nearer in millimetres alone
    assert _best({JOINT_FIT: (1.84, 0.15)} | solvers) == (JOINT_FIT, (1.84, 0.15))
    assert _best({JOINT_FIT: (1.9, 0.05)} | solvers) == (JOINT_FIT, (1.9, 0.05))


def test_held_out_errors_are_of_fits_that_had_not_seen_the_sample():
    arm, seen, _ = samples("eye-to-hand", 10, 3.0, 0.5)
    result = hand_eye(arm, seen, "eye-to-hand")
    problem = Problem(np.linalg.inv(arm), seen)
    for method, held in ((None, (result.kept_mm, result.kept_deg)), ("park", result.per_solver["park"])):
        errors = []
        for fold in range(5):
            rows = np.setdiff1d(np.arange(10), np.arange(fold, 10, 5))
            fit = problem.closed_form(rows, method) if method else problem.solve(rows)
            errors.append(problem.errors(*fit, np.arange(fold, 10, 5)))
        wanted = np.sqrt((np.concatenate(errors, axis=1) ** 2).mean(axis=1))
        np.testing.assert_allclose(held, wanted, rtol=1e-6)
    assert result.method == JOINT_FIT and not result.dropped
    assert result.held_out_mm > 1.05 * result.residual_mm and result.held_out_deg > 1.05 * result.residual_deg


def test_samples_left_out_count_in_the_error_of_samples_not_seen():
    arm, seen = good()
    seen[[3, 9]] = seen[[9, 3]]
    result = hand_eye(arm, seen, "eye-to-hand")
    assert set(result.dropped) == {3, 9} and not result.warnings
    assert result.held_out_mm > 10 * result.kept_mm and result.held_out_mm == pytest.approx(result.residual_mm, rel=0.1)


def test_poses_with_a_byte_order_mark_are_read(tmp_path):
    text = "image,x,y,z,qx,qy,qz,qw\na.png,1,2,3,0,0,0,1\n"
    (tmp_path / "p.csv").write_text(text, encoding="utf-8-sig")
    assert read_poses(tmp_path / "p.csv")["a.png"][2, 3] == 3.0


# Latency


def swung(motion, late, seconds=20.0, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(0, seconds, 0.01)
    image_time = np.arange(1.0, seconds - 1.0, 1 / 30)
    return time, motion(time), image_time, motion(image_time - late) + 0.002 * rng.standard_normal(len(image_time))


def chirp(t):
    return 0.3 * np.sin(2 * np.pi * (0.1 * t + 0.01 * t**2))


@pytest.mark.parametrize("hz", [1.0, 2.0])
def test_a_motion_that_repeats_is_refused(hz):
    for late in (0.04, 0.45):
        with pytest.raises(ConfigError, match="the motion repeats"):
            camera_latency(*swung(lambda t: 0.3 * np.sin(2 * np.pi * hz * t), late))
    with pytest.raises(ConfigError, match="the motion repeats"):  # with no noise at all, too
        t = np.arange(0, 20, 0.01)
        camera_latency(t, np.sin(2 * np.pi * hz * t), t, np.sin(2 * np.pi * hz * t))


def test_latency_beyond_what_a_camera_can_be_is_refused():
    for late in (0.04, 0.3, 0.45):
        found = camera_latency(*swung(chirp, late))
        assert abs(found.seconds - late) < 3 * found.std + 5e-4 and found.std < 2e-3
    for late in (0.6, 0.5, -0.05, -0.2):
        with pytest.raises(ConfigError, match="-50 to 500 ms are possible"):
            camera_latency(*swung(chirp, late))


def test_latency_from_a_bag_is_written_and_from_a_swing_that_repeats_is_not(tmp_path, capsys):
    """Pictures of a turning board in a bag; images without the board or with a bent one keep the others' stamps."""
    pytest.importorskip("rosbags")
    file, track, middle = tmp_path / "c.yaml", tmp_path / "j.csv", 0.5 * np.array([*GRID.size, 0.0])
    STRAIGHT.save(file)
    joints = np.arange(100.0, 114.0, 0.02)
    stamps = np.arange(101.2, 113.0, 0.2)

    def film(name, motion):
        pictures = []
        for stamp in stamps:
            turn = [0.2, motion(stamp - 100.0 - 0.08), 0.0]
            at = pose(turn, [0.0, 0.0, 0.4] - Rotation.from_rotvec(turn).as_matrix() @ middle)
            pictures.append(photograph(GRID, STRAIGHT, at, scale=2))
        pictures[7], pictures[20] = np.full((480, 640), 200, np.uint8), _sheared(pictures[20])
        bag = make_bag(
            tmp_path / name, [("image", t, np.dstack([p] * 3)) for t, p in zip(stamps, pictures, strict=True)]
        )
        rows = [f"{t},{motion(t - 100.0)}" for t in joints]
        track.write_text("\n".join(["time,elbow", *rows]), encoding="utf-8-sig")
        options = [*GRID_OPTIONS, "--columns", 4, "--rows", 3, "--camera", file, "--joints", track, "--joint", "elbow"]
        return run(capsys, "calibrate", "latency", bag, *options)

    status, said = film("repeats", lambda t: 0.3 * np.sin(2 * np.pi * 1.0 * t))
    assert status == 2 and "the motion repeats" in said and load_camera(file).latency_s is None
    status, said = film("chirp", lambda t: 0.3 * np.sin(2 * np.pi * (0.1 * t + 0.015 * t**2)))
    assert status == 0 and "does not fit" in said, said
    assert abs(load_camera(file).latency_s - 0.08) < 0.01

    # The same from a dataset of 'sim2real collect --all --robot', whose joints are those at the images' stamps.
    positions = np.interp(stamps - 0.05, *np.loadtxt(track, delimiter=",", skiprows=1, encoding="utf-8-sig").T)
    about = {"joint_names": ["elbow"]}
    with DatasetWriter(tmp_path / "collected", 640, 480, about=about) as writer:
        bag = tmp_path / "chirp"
        for (_, stamp, image), position in zip(read_images(bag), positions, strict=True):
            writer.add(np.ascontiguousarray(image[..., ::-1]), stamp_s=stamp, joint_pos=np.array([position]))
    options = [*GRID_OPTIONS, "--columns", 4, "--rows", 3, "--camera", file]
    status, said = run(capsys, "calibrate", "latency", tmp_path / "collected", "--joint", "wrist", *options)
    assert status == 2 and "has no joint 'wrist'; it has elbow" in said
    status, said = run(capsys, "calibrate", "latency", bag, "--joint", "elbow", *options)
    assert status == 2 and "--joints" in said
    replace(load_camera(file), latency_s=None).save(file)
    # A part of the latency was known when it was collected: the joints are those of so much before the stamps.
    replace(STRAIGHT, latency_s=0.05).save(tmp_path / "collected" / "camera.yaml")
    status, said = run(capsys, "calibrate", "latency", tmp_path / "collected", "--joint", "elbow", *options)
    assert status == 0 and abs(load_camera(file).latency_s - 0.08) < 0.015, said


def test_latency_that_is_hardly_known_is_refused():
    time, joint, image_time, shown = swung(lambda t: 0.3 * np.sin(2 * np.pi * 0.08 * t), 0.1)
    slip = 0.04 * np.sin(2 * np.pi * 0.21 * image_time + 1)  # the board slips on the hand
    with pytest.raises(ConfigError, match="give or take"):
        camera_latency(time, joint, image_time, shown + slip)
