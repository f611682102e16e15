"""Calibration against planted truth, against OpenCV alone, and on real photographs and poses."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml
from real_data import excerpt, real_data, whole
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from calibration.boards import Board, Detection
from calibration.hand_eye import hand_eye
from calibration.intrinsics import board_pose, calibrate_camera
from calibration.latency import camera_latency, rotation_angle
from calibration.sheet import described, sheet
from sim2real.cli.main import app, main
from sim2real.errors import ConfigError
from sim2real.images.dataset import DatasetWriter
from sim2real.images.files import read_pose_pairs, read_poses
from sim2real.images.lens import project
from sim2real.runtime.camera import CameraCalibration, load_camera

SIZE = (640, 480)
K = np.array([[590.0, 0, 312.0], [0, 588.0, 247.0], [0, 0, 1]])
CAMERA = CameraCalibration(*SIZE, K, "pinhole", np.array([-0.25, 0.08, 0.001, -0.0005, 0.0]))
STRAIGHT = CameraCalibration(*SIZE, K)
CHARUCO = Board("charuco", 6, 5, 0.03, 0.022)
CHESS = Board("chessboard", 8, 6, 0.025)


def pose(turn, place):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), place
    return result


def view_poses(board, count, seed=0):
    """T_camera_board with the board's middle in view, tilted."""
    rng = np.random.default_rng(seed)
    middle = 0.5 * np.array([*board.size, 0.0])
    result = []
    for _ in range(count):
        turn = rng.uniform(-0.6, 0.6, 3)
        place = np.array([*rng.uniform(-0.08, 0.08, 2), rng.uniform(0.35, 0.6)])
        result.append(pose(turn, place - Rotation.from_rotvec(turn).as_matrix() @ middle))
    return np.array(result)


def corners(board):
    points = np.zeros((board.columns * board.rows, 3))
    points[:, :2] = board.square * np.mgrid[0 : board.columns, 0 : board.rows].T.reshape(-1, 2)
    return points


def planted(camera, poses, noise_px, seed=1, board=CHESS):
    rng = np.random.default_rng(seed)
    points = corners(board)
    return [
        Detection(f"v{i}", project(camera, points, p) + noise_px * rng.standard_normal((len(points), 2)), points)
        for i, p in enumerate(poses)
    ]


def photograph(board, camera, T_camera_board, scale=4):  # noqa: N803
    """The board as a camera without distortion sees it, with soft edges."""
    density = 4000.0
    margin = 0.02
    picture = board.draw(density, margin)
    to_board = np.array([[1 / density, 0, -margin], [0, 1 / density, -margin], [0, 0, 1.0]])
    # A pixel's centre is its coordinate: in the enlarged image it lies half an enlarged pixel off.
    enlarge = np.array([[scale, 0, 0.5 * (scale - 1)], [0, scale, 0.5 * (scale - 1)], [0, 0, 1.0]])
    pixel = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])  # pixel indices of the picture to its edges
    whole = enlarge @ camera.matrix @ T_camera_board[:3][:, [0, 1, 3]] @ to_board @ pixel
    large = cv2.warpPerspective(
        picture, whole, (scale * camera.width, scale * camera.height), flags=cv2.INTER_LINEAR, borderValue=128
    )
    return cv2.resize(large, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(
    "board",
    [CHARUCO, Board("grid", 4, 3, 0.03, 0.01, "APRILTAG_36h11"), Board("grid", 4, 3, 0.03, 0.01, "4X4_250")],
    ids=["charuco", "apriltags", "aruco"],
)
def test_boards_are_found_where_they_are(board):
    for at in view_poses(board, 4):
        found = board.detect(photograph(board, STRAIGHT, at), "picture")
        assert found is not None and len(found.points) >= 12
        seen, error = board_pose(STRAIGHT, found)
        assert error < (0.35 if board.kind == "charuco" else 0.7)  # a marker's outer corners are worse known
        assert np.linalg.norm(seen[:3, 3] - at[:3, 3]) < 2e-3
        assert Rotation.from_matrix(seen[:3, :3].T @ at[:3, :3]).magnitude() < 0.015
    assert board.detect(np.full((480, 640), 200, np.uint8)) is None


def test_a_chessboard_is_found_where_it_is():
    inner = np.array([CHESS.square, CHESS.square, 0.0])  # its frame begins at an inner corner, the picture at the edge
    for at in view_poses(CHESS, 4):
        found = CHESS.detect(photograph(CHESS, STRAIGHT, at))
        assert found is not None
        seen = board_pose(STRAIGHT, found)[0]
        first = (at @ [*inner, 1])[:3]
        last = (at @ [*(inner + corners(CHESS)[-1]), 1])[:3]
        ends = [(seen @ [*corners(CHESS)[i], 1])[:3] for i in (0, -1)]
        straight = [np.linalg.norm(a - b) for a, b in zip(ends, (first, last), strict=True)]
        turned = [np.linalg.norm(a - b) for a, b in zip(ends, (last, first), strict=True)]
        assert min(max(straight), max(turned)) < 2e-3  # a chessboard looks the same turned by half a turn


def test_paper_has_the_board_s_size(tmp_path):
    board = Board("charuco", 5, 7, 0.03, 0.02)
    board.print_to(tmp_path / "b.png", margin=0.01)
    height, width = cv2.imread(str(tmp_path / "b.png"), 0).shape
    assert width == pytest.approx(0.17 / 0.0254 * 600, abs=2) and height == pytest.approx(0.23 / 0.0254 * 600, abs=2)
    with pytest.raises(ConfigError, match="neither"):
        board.print_to(tmp_path / "b.jpg")


@pytest.mark.parametrize(
    ("board", "paper"),
    [
        (Board("charuco", 5, 7, 0.03, 0.022), (210, 297)),
        (Board("charuco", 7, 5, 0.03, 0.022), (297, 210)),
        (Board("chessboard", 8, 5, 0.03), (297, 420)),
        (Board("grid", 2, 2, 0.2, 0.05), (466, 492)),
    ],
    ids=["A4", "A4 across", "A3", "its own size"],
)
def test_a_sheet_is_of_a_size_that_printers_have_and_has_a_ruler(tmp_path, board, paper):
    board.print_to(tmp_path / "b.pdf")
    text = (tmp_path / "b.pdf").read_bytes()
    box = [float(x) for x in text.split(b"/MediaBox [")[1].split(b"]")[0].split()]
    np.testing.assert_allclose(np.array(box[2:]) / 72 * 25.4, paper, atol=0.1)
    density = 5000.0
    page = sheet(board, density)
    left, width = round(0.008 * density), round(0.1 * density)
    base = page.shape[0] - round(0.034 * density) + round(0.008 * density)
    ink = np.flatnonzero(page[base] < 128)
    assert (ink[0], ink[-1] + 1, len(ink)) == (left, left + width, width)  # 100 mm without a gap
    pattern = board.draw(density)
    found = cv2.matchTemplate(page, pattern, cv2.TM_SQDIFF)
    assert found.min() == pytest.approx(0.0, abs=1e-3 * pattern.size)  # the board itself is not scaled
    assert str(board.columns) in described(board)[0] and "mm" in described(board)[0]


@pytest.mark.parametrize("lens", ["pinhole", "rational", "fisheye"])
def test_planted_cameras_come_back_within_their_intervals(lens):
    distortion = {
        "pinhole": [-0.25, 0.08, 0.001, -0.0005, 0.0],
        "rational": [-0.2, 0.05, 0.0, 0.0, 0.0, 0.05, 0.0, 0.0],
        "fisheye": [0.02, -0.01, 0.005, 0.0],
    }
    truth = CameraCalibration(*SIZE, K, lens, np.array(distortion[lens]))
    views = planted(truth, view_poses(CHESS, 18), 0.2)
    result = calibrate_camera(views, SIZE, lens)
    wanted = K[[0, 1, 0, 1], [0, 1, 2, 2]]
    got = result.camera.matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
    assert (np.abs(got - wanted) < 4.0 * result.std[:4] + 0.05).all() and (result.std[:4] < 5.0).all()
    assert result.camera.rms_px == pytest.approx(0.2 * np.sqrt(2), rel=0.1)
    assert 0.95 < result.camera.held_out_px / result.camera.rms_px < 1.3
    assert not any(view.dropped for view in result.views)


def test_stated_deviations_are_those_of_repeated_calibrations():
    poses = view_poses(CHESS, 12)
    got, std = [], []
    for seed in range(20):
        result = calibrate_camera(planted(CAMERA, poses, 0.3, seed), SIZE)
        got.append(result.camera.matrix[[0, 0], [0, 2]])
        std.append(result.std[[0, 2]])
    assert np.std(got, axis=0) == pytest.approx(np.mean(std, axis=0), rel=0.5)


def test_a_bad_view_is_dropped_and_named_and_what_is_missing_is_said():
    views = planted(CAMERA, view_poses(CHESS, 10), 0.1)
    views[4] = Detection(
        "bent", views[4].pixels + 3.0 * np.random.default_rng(0).standard_normal((48, 2)), corners(CHESS)
    )
    result = calibrate_camera(views, SIZE)
    assert [view.name for view in result.views if view.dropped] == ["bent"] and "px" in result.views[4].dropped
    assert result.camera.rms_px < 0.2
    assert calibrate_camera(views, SIZE, keep_all=True).camera.rms_px > 0.5
    flat = [pose([0, 0, 0.1 * i], [-0.09 + 0.01 * i, -0.06, 0.5]) for i in range(6)]
    said = " ".join(calibrate_camera(planted(CAMERA, flat, 0.1), SIZE).advice)
    assert "tilt" in said and "same distance" in said and "corner of the image" in said and "few" in said
    with pytest.raises(ConfigError, match="at least 3"):
        calibrate_camera(views[:2], SIZE)


def test_a_calibration_comes_back_from_its_file(tmp_path):
    full = CameraCalibration(
        *SIZE, K, "fisheye", np.array([0.1, 0.2, 0.3, 0.4]), np.eye(8), 0.3, 0.4, pose([1, 2, 3], [4, 5, 6]), None,
        0.03, 0.002, "2026-01-01", "wrist",
    )  # fmt: skip
    full.save(tmp_path / "c.yaml")
    ros = yaml.safe_load((tmp_path / "c.yaml").read_text())
    assert ros["distortion_model"] == "equidistant" and ros["projection_matrix"]["data"][3] == 0.0
    again = load_camera(tmp_path / "c.yaml")
    for name in ("matrix", "distortion", "covariance", "T_base_camera"):
        np.testing.assert_array_equal(getattr(again, name), getattr(full, name))
    assert again.T_ee_camera is None and (again.latency_s, again.name, again.lens) == (0.03, "wrist", "fisheye")
    for broken in ("x", "image_width: 640", "image_width: 640\nimage_height: 480\ndistortion_model: odd\n"):
        (tmp_path / "d.yaml").write_text(broken)
        with pytest.raises(ConfigError, match=r"d\.yaml"):
            load_camera(tmp_path / "d.yaml")


def arm_poses(count, seed=0):
    rng = np.random.default_rng(seed)
    middle = np.array([0.4, 0.0, 0.3])
    return np.array([pose(rng.uniform(-0.9, 0.9, 3), rng.uniform(-0.2, 0.2, 3) + middle) for _ in range(count)])


def samples(setup, count=20, mm=0.0, degrees=0.0, seed=0):
    """T_base_ee, T_camera_board and the truth, with noise on the board's poses."""
    rng = np.random.default_rng([seed, 1])
    arm = arm_poses(count, seed)
    if setup == "eye-to-hand":  # above the arm, looking down at a board on the hand
        camera, board = pose([3.0, 0.3, -0.2], [0.5, -0.25, 1.3]), pose([2.9, 0.4, -0.3], [0.03, 0.02, 0.1])
        a = np.linalg.inv(arm)
    else:  # on the hand, looking up at a board overhead
        camera, board, a = pose([0.1, 0.2, 1.1], [0.05, 0.02, 0.06]), pose([0.1, -0.2, 0.3], [0.4, 0.05, 1.8]), arm
    seen = np.linalg.inv(a @ camera) @ board
    for one in seen:
        one[:3, :3] = one[:3, :3] @ Rotation.from_rotvec(np.radians(degrees) * rng.standard_normal(3)).as_matrix()
        one[:3, 3] += 1e-3 * mm * rng.standard_normal(3)
    return arm, seen, camera


def camera_of(result):
    return result.T_base_camera if result.T_base_camera is not None else result.T_ee_camera


@pytest.mark.parametrize("setup", ["eye-to-hand", "eye-in-hand"])
def test_hand_eye_finds_the_camera_exactly(setup):
    arm, seen, truth = samples(setup)
    result = hand_eye(arm, seen, setup)
    np.testing.assert_allclose(camera_of(result), truth, atol=1e-6)
    assert (result.T_base_camera is None) == (setup == "eye-in-hand") and not result.warnings and not result.dropped


@pytest.mark.slow
@pytest.mark.parametrize(("mm", "degrees", "most"), [(1.0, 1.0, 0.5), (3.0, 0.5, 1.0), (1.0, 0.1, 1.03)])
def test_hand_eye_with_noise_is_never_worse_than_a_solver_alone_and_says_how_sure_it_is(mm, degrees, most):
    """Root mean square error of the camera's place over many sets of samples, against each of OpenCV's solvers."""
    ours, theirs, shares = [], {}, []
    for seed in range(12):
        arm, seen, truth = samples("eye-to-hand", 20, mm, degrees, seed)
        result = hand_eye(arm, seen, "eye-to-hand")
        off = result.T_base_camera[:3, 3] - truth[:3, 3]
        ours.append(off @ off)
        shares.append(1e3 * np.abs(off) / result.std_mm)
        a = np.linalg.inv(arm)
        parts = (a[:, :3, :3], a[:, :3, 3], seen[:, :3, :3], seen[:, :3, 3])
        for method in range(5):
            place = cv2.calibrateHandEye(*(list(part) for part in parts), method=method)[1].ravel() - truth[:3, 3]
            theirs.setdefault(method, []).append(place @ place)
    best = min(np.mean(errors) for errors in theirs.values())
    assert np.sqrt(np.mean(ours)) <= most * np.sqrt(best)
    assert 0.35 < np.mean(np.array(shares) < 1.0) < 0.95  # 68 % would be exact


@pytest.mark.slow
def test_hand_eye_notices_what_is_wrong():
    arm, seen, truth = samples("eye-to-hand", 24, 1.0, 0.1)
    swapped = seen.copy()
    swapped[[5, 15]] = swapped[[15, 5]]
    result = hand_eye(arm, swapped, "eye-to-hand")
    assert set(result.dropped) == {5, 15} and np.linalg.norm(result.T_base_camera[:3, 3] - truth[:3, 3]) < 2e-3
    assert "arm's poses look inverted" in hand_eye(np.linalg.inv(arm), seen, "eye-to-hand").warnings[0]
    assert "arm's poses look inverted" in hand_eye(arm, seen, "eye-in-hand").warnings[0]
    assert "board's poses look inverted" in hand_eye(arm, np.linalg.inv(seen), "eye-to-hand").warnings[0]
    moved = seen.copy()
    moved[14:] = moved[14:] @ pose([0, 0, 0], [0.015, 0, 0])
    assert "moved by" in hand_eye(arm, moved, "eye-to-hand").warnings[0]
    assert not hand_eye(arm, seen, "eye-to-hand").warnings
    about_one = np.array([pose([0, 0, a], [0.3, 0, 0.1 * a]) for a in np.linspace(0, 1, 10)])
    with pytest.raises(ConfigError, match="about one axis"):
        hand_eye(about_one, seen[:10], "eye-to-hand")
    with pytest.raises(ConfigError, match="too little rotation: the hand turns by"):
        hand_eye(np.tile(arm[:1], (10, 1, 1)), seen[:10], "eye-to-hand")
    mirrored = arm.copy()
    mirrored[3, :3, 0] *= -1
    with pytest.raises(ConfigError, match="T_base_ee, sample 3: not a pose; it mirrors"):
        hand_eye(mirrored, seen, "eye-to-hand")


def test_hand_eye_from_pictures(tmp_path):
    """A camera beside an arm that holds a board, from pictures to the file: within a millimetre."""
    camera = pose([np.pi - 0.2, 0.0, 0.0], [0.4, 0.05, 0.95])
    on_hand = pose([0.1, 0.0, 0.2], [-0.09, -0.07, 0.05])
    rows = ["image,x,y,z,qx,qy,qz,qw"]
    writer = DatasetWriter(tmp_path / "collected", *SIZE)
    for index, turn in enumerate(np.random.default_rng(3).uniform(-0.45, 0.45, (12, 3))):
        arm = pose(turn, np.array([0.4, 0.1, 0.45]) + 0.1 * turn)
        at = np.linalg.inv(camera) @ arm @ on_hand
        # The camera looks at the board's face: z of the board points away from it.
        face = at @ pose([np.pi, 0, 0], [0, CHARUCO.size[1], 0])
        picture = photograph(CHARUCO, STRAIGHT, face)
        cv2.imwrite(str(tmp_path / f"{index:02d}.png"), picture)
        writer.add(np.dstack([picture] * 3), stamp_s=float(index), T_base_ee=arm)
        quat = Rotation.from_matrix(arm[:3, :3]).as_quat()
        rows.append(",".join([f"{index:02d}.png", *(f"{x:.9f}" for x in (*arm[:3, 3], *quat))]))
    (tmp_path / "poses.csv").write_text("\n".join(rows))
    STRAIGHT.save(tmp_path / "camera.yaml")
    camera_file, poses = str(tmp_path / "camera.yaml"), str(tmp_path / "poses.csv")
    arguments = ["calibrate", "hand-eye", str(tmp_path), "--setup", "eye-to-hand", "--poses", poses]
    arguments += ["--camera", camera_file, "--columns", "6", "--rows", "5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = load_camera(tmp_path / "camera.yaml").T_base_camera
    assert np.linalg.norm(found[:3, 3] - camera[:3, 3]) < 1e-3, done.output
    assert np.degrees(Rotation.from_matrix(found[:3, :3].T @ camera[:3, :3]).magnitude()) < 0.1, done.output
    writer.close()
    arguments = [str(tmp_path / "collected") if a == str(tmp_path) else a for a in arguments]
    arguments[arguments.index("--poses") : arguments.index("--poses") + 2] = ["--out", str(tmp_path / "again.yaml")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(load_camera(tmp_path / "again.yaml").T_base_camera, found, atol=1e-7)


def test_latency_is_found_with_its_uncertainty():
    rng = np.random.default_rng(0)
    time = np.arange(0, 20, 0.01)
    joint = 0.4 * np.sin(2 * np.pi * 0.6 * time) + 0.2 * np.sin(2 * np.pi * 1.3 * time + 1)
    image_time = np.arange(0.5, 19.5, 1 / 30) + 0.002 * rng.standard_normal(570)
    shown = np.interp(image_time - 0.037, time, joint)
    boards = np.array(
        [pose(a * np.array([0.2, 0.9, 0.1]) + 0.002 * rng.standard_normal(3), [0, 0, 0.5]) for a in shown]
    )
    found = camera_latency(time, joint, image_time, rotation_angle(boards))
    assert abs(found.seconds - 0.037) < max(3 * found.std, 5e-4) and found.std < 2e-3 and found.explained > 0.99
    with pytest.raises(ConfigError, match="hardly moves"):
        camera_latency(time, 0.001 * joint, image_time, rotation_angle(boards))
    with pytest.raises(ConfigError, match="explains only"):
        camera_latency(time, joint, image_time, rng.standard_normal(570))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,x,y\na,1,2\n", "lacks the columns"),
        ("image,x,y,z,qx,qy,qz,qw\na.png,0,0,0,0,0,0,2\n", "quaternion's length is 2"),
        ("image,x,y,z,qx,qy,qz,qw\na.png,0,0,0,0,0,nan,1\n", "missing or not finite"),
        ("image,x,y,z,qx,qy,qz,qw\na.png,0,0,zero,0,0,0,1\n", "not numbers"),
    ],
)
def test_bad_poses_are_one_clear_error(tmp_path, content, said):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(ConfigError, match=said):
        read_poses(tmp_path / "p.csv")


def test_bad_images_and_boards_are_one_clear_error(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    camera = ["calibrate", "camera", str(folder), "--out", str(tmp_path / "c.yaml")]

    def said(*extra):
        with pytest.raises(SystemExit):
            main([*camera, *extra])
        return " ".join(capsys.readouterr().err.split())

    assert "holds no images" in said()
    (folder / "a.png").write_bytes(b"not an image")
    assert "a.png cannot be read" in said()
    cv2.imwrite(str(folder / "a.png"), np.zeros((48, 64), np.uint8))
    assert "found in 0 images" in said()
    cv2.imwrite(str(folder / "b.png"), np.zeros((40, 64), np.uint8))
    assert "one resolution" in said()
    assert "unknown marker dictionary" in said("--dictionary", "9X9")
    assert "smaller than its squares" in said("--marker", "0.05")
    assert not (tmp_path / "c.yaml").exists()


def test_real_chessboard_photographs():
    """OpenCV's own photographs; its published result is from corners refined in windows too large for one view."""
    folder = whole("calibration") / "chessboard_opencv"
    board = Board("chessboard", 9, 6, 0.025)
    images = [(path.name, cv2.imread(str(path))) for path in sorted(folder.glob("*.jpg"))]
    ours = calibrate_camera([board.detect(image, name) for name, image in images], SIZE, fixed_aspect=True)
    assert ours.camera.rms_px < 0.19 and ours.camera.held_out_px < 0.2
    theirs = [board.detect(image, name, window=10) for name, image in images]
    camera = calibrate_camera(theirs, SIZE, fixed_aspect=True, keep_all=True).camera
    assert camera.rms_px <= 0.3926
    np.testing.assert_allclose(camera.matrix[[0, 0, 1], [0, 2, 2]], [535.916, 342.283, 235.571], rtol=0.005)


def test_six_real_chessboard_photographs():
    """As many of OpenCV's photographs as come with the repository agree with what it found in all of its own."""
    folder = excerpt("calibration") / "chessboard_opencv"
    board = Board("chessboard", 9, 6, 0.025)
    found = [board.detect(cv2.imread(str(path)), path.name) for path in sorted(folder.glob("*.jpg"))]
    assert len(found) == 6
    camera = calibrate_camera(found, SIZE, fixed_aspect=True).camera
    assert camera.rms_px < 0.19 and camera.held_out_px < 0.21
    np.testing.assert_allclose(camera.matrix[[0, 0, 1], [0, 2, 2]], [535.916, 342.283, 235.571], rtol=0.01)


def test_real_charuco_photograph():
    image = cv2.imread(str(real_data("calibration") / "charuco_moveit" / "test_charuco_board_detection.jpg"))
    matrix = np.array([[590.6972346, 0, 322.33104773], [0, 592.84676713, 247.40030325], [0, 0, 1]])
    lens = np.array([0.15405498, -0.24916842, 0.00350791, -0.00110041, 0])
    found = Board("charuco", 5, 7, 0.1971 / 7, 0.0176, legacy=True).detect(image)
    at, error = board_pose(CameraCalibration(*SIZE, matrix, "pinhole", lens), found)
    assert error < 0.5
    np.testing.assert_allclose(at[:3, 3], [0.09752, 0.102848, 0.325596], rtol=0.01)
    np.testing.assert_allclose(
        Rotation.from_matrix(at[:3, :3]).as_euler("XYZ"), [2.88409, -0.147996, 1.13757], atol=0.01
    )


def test_real_hand_eye_poses():
    file = real_data("calibration") / "handeye_moveit" / "pose_samples.json"
    arm, seen = read_pose_pairs(file)
    result = hand_eye(arm, seen, "eye-to-hand")
    np.testing.assert_allclose(result.T_base_camera[:3, 3], [0.659, -0.249, 0.830], rtol=0.01)
    reference = Rotation.from_euler("XYZ", [0.230, -2.540, 1.950])
    assert (reference.inv() * Rotation.from_matrix(result.T_base_camera[:3, :3])).magnitude() < 0.01
    assert result.held_out_mm <= min(mm for mm, _ in result.per_solver.values()) and not result.warnings
