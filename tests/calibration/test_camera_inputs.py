"""Images and calibrations of cameras as people have them: each is read as it is meant, or refused with the cause."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image as Picture
from test_calibration import CAMERA, CHARUCO, CHESS, SIZE, STRAIGHT, photograph, planted, pose, view_poses
from test_calibration_mistakes import run

from calibration.boards import Board, Detection, on_one_line
from calibration.find import find_board
from calibration.intrinsics import board_pose, calibrate_camera
from calibration.verdict import judge, refuse_two_cameras, refuse_useless
from sim2real.errors import ConfigError
from sim2real.images.dataset import read_color, read_dataset
from sim2real.images.files import read_images
from sim2real.images.lens import project
from sim2real.images.messages import decode_image, eight_bits
from sim2real.runtime.camera import CameraCalibration, camera_of_info, is_rectified, load_camera

# Images


def test_an_orientation_in_exif_turns_no_pixels(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :8] = 255
    exif = Picture.Exif()
    exif[0x0112] = 3
    Picture.fromarray(image).save(tmp_path / "a.jpg", exif=exif)
    ((_, _, read),) = list(read_images(tmp_path))
    assert read[:, :4].min() > 200 and read[:, -4:].max() < 50


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_images_of_more_than_8_bits_are_as_bright_as_others(tmp_path, bits):
    grey = np.tile(np.arange(256, dtype=np.uint16), (32, 1))
    wide = grey << (bits - 8)
    cv2.imwrite(str(tmp_path / "a.png"), wide)
    ((_, _, read),) = list(read_images(tmp_path))
    np.testing.assert_array_equal(read[..., 0], grey)
    np.testing.assert_array_equal(eight_bits(wide), grey)
    if bits == 16:
        np.testing.assert_array_equal(read_color(tmp_path / "a.png")[..., 1], grey)
    else:  # for training, one image says too little of the sensor's bits
        with pytest.raises(ConfigError, match=f"values up to {255 << (bits - 8)} of 65535"):
            read_color(tmp_path / "a.png")


@pytest.mark.parametrize("order", [0, 1])
def test_messages_of_16_bits_and_nv12_are_read(order):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    data = grey.astype(">u2" if order else "<u2").tobytes()
    message = SimpleNamespace(encoding="mono16", width=16, height=16, step=32, is_bigendian=order)
    message.data = np.frombuffer(data, np.uint8)
    np.testing.assert_array_equal(decode_image(message, "x"), grey >> 8)
    rgb = np.stack([grey, 0 * grey, 0 * grey], axis=-1)
    message.encoding, message.step = "rgb16", 96
    message.data = np.frombuffer(rgb.astype(">u2" if order else "<u2").tobytes(), np.uint8)
    np.testing.assert_array_equal(decode_image(message, "x")[..., 2], grey >> 8)
    nv12 = SimpleNamespace(encoding="nv12", width=16, height=16, step=16, data=np.full(16 * 24, 128, np.uint8))
    assert decode_image(nv12, "x").shape == (16, 16, 3) and np.ptp(decode_image(nv12, "x")) == 0
    nv12.data = nv12.data[:-1]
    with pytest.raises(ConfigError, match="its publisher is broken"):
        decode_image(nv12, "x")


@pytest.mark.parametrize(
    ("name", "said"), [("a.tar.gz", "is an archive: unpack it"), ("a.mp4", "is a video: extract"), ("a", "one of left")]
)
def test_what_is_no_folder_of_images_is_named(tmp_path, name, said):
    if name == "a":
        (tmp_path / "a" / "left").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "a" / "left" / "0.png"), np.zeros((9, 9), np.uint8))
        with pytest.raises(ConfigError, match=said):
            read_dataset(tmp_path / "a")
    else:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=said):
        list(read_images(tmp_path / name))


# Boards


def test_corners_on_one_line_leave_out_their_view_alone(tmp_path):
    points = np.array([[0.03 * i, 0.03, 0] for i in range(6)])
    line = Detection("edge", project(STRAIGHT, points, pose([0.3, 0, 0], [-0.1, 0, 0.5])), points)
    assert on_one_line(line, 0.03) and not on_one_line(planted(STRAIGHT, view_poses(CHESS, 1), 0.1)[0], CHESS.square)
    for index, at in enumerate(view_poses(CHARUCO, 2)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), photograph(CHARUCO, STRAIGHT, at))
    picture = photograph(CHARUCO, STRAIGHT, view_poses(CHARUCO, 1)[0])
    found = CHARUCO.detect(picture)
    row = found.points[:, 1] == found.points[:, 1].max()  # its last row of corners, and the squares on both sides
    low = found.pixels[row].mean(axis=0)[1]
    picture[: int(low - 12)] = 128
    if CHARUCO.detect(picture) is not None:
        cv2.imwrite(str(tmp_path / "9_edge.png"), picture)
        seen = find_board(CHARUCO, tmp_path)
        assert [d.name for d in seen.found] == ["0.png", "1.png"] and "9_edge.png" in " ".join(
            (*seen.notes, *seen.missed)
        )


def test_one_marker_of_any_number_is_a_board():
    big = Board("grid", 3, 1, 0.05, 0.02, "APRILTAG_36h11")
    row = view_poses(big, 2)
    for at in row:
        found = big.detect(photograph(big, STRAIGHT, at))
        assert found is not None and len(found.points) == 12
        assert np.linalg.norm(board_pose(STRAIGHT, found)[0][:3, 3] - at[:3, 3]) < 3e-3
    one = Board("grid", 1, 1, 0.08, 0.02, "APRILTAG_36h11")
    at = view_poses(one, 1)[0]
    picture = photograph(one, STRAIGHT, at)
    found = one.detect(picture)
    assert np.linalg.norm(board_pose(STRAIGHT, found)[0][:3, 3] - at[:3, 3]) < 3e-3
    assert one.detect(photograph(big, STRAIGHT, row[0])) is None  # three markers: which is it?
    with pytest.raises(ConfigError, match="one row, or one marker, is enough"):
        Board("chessboard", 9, 1, 0.02)
    with pytest.raises(ConfigError, match="lie on one line"):
        Board("charuco", 7, 2, 0.03, 0.02)


# Verdicts


def test_views_that_fix_no_focal_length_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    flat = [pose(np.radians(rng.uniform(-1, 1, 3)), [*rng.uniform(-0.15, -0.05, 2), 0.5]) for _ in range(12)]
    views = planted(STRAIGHT, flat, 0.15)
    verdict = judge(calibrate_camera(views, SIZE), views, SIZE)
    assert verdict.word == "do not use" and "tilt the board" in verdict.reasons[0]
    with pytest.raises(ConfigError, match=r"nothing was written: fx is .* 3% is allowed"):
        refuse_useless(verdict)


def test_a_good_calibration_is_called_good_and_a_better_lens_is_named():
    rng = np.random.default_rng(0)
    places = [(x, y) for x in (-0.28, -0.1, 0.08) for y in (-0.22, -0.07, 0.08)] * 2
    at = [pose(rng.uniform(-0.6, 0.6, 3), [x, y, rng.uniform(0.4, 0.65)]) for x, y in places]
    views = planted(CAMERA, np.array(at), 0.1)
    verdict = judge(calibrate_camera(views, SIZE), views, SIZE)
    assert verdict.word == "good" and not verdict.reasons and set(verdict.lenses) == {"pinhole", "rational", "fisheye"}
    wide = CameraCalibration(*SIZE, np.array([[200.0, 0, 320], [0, 200, 240], [0, 0, 1]]), "fisheye", np.zeros(4))
    near = [pose(rng.uniform(-0.6, 0.6, 3), [*rng.uniform(-0.4, 0.2, 2), rng.uniform(0.2, 0.3)]) for _ in range(15)]
    views = planted(wide, np.array(near), 0.1)
    verdict = judge(calibrate_camera(views, SIZE, "pinhole"), views, SIZE)
    assert verdict.word != "good" and any(
        "--lens fisheye fits views not seen better" in said for said in verdict.reasons
    )


def test_a_wide_fisheye_lens_is_found_from_any_views():
    matrix = np.array([[228.0, 0, 472], [0, 227, 304], [0, 0, 1]])
    lens = CameraCalibration(960, 600, matrix, "fisheye", np.array([0.026, -0.028, 0.025, -0.009]))
    rng = np.random.default_rng(1)
    at = [pose(rng.uniform(-0.7, 0.7, 3), [*rng.uniform(-0.45, 0.25, 2), rng.uniform(0.15, 0.3)]) for _ in range(12)]
    result = calibrate_camera(planted(lens, np.array(at), 0.06), (960, 600), "fisheye")
    off = np.abs(result.camera.matrix - matrix)[[0, 1, 0, 1], [0, 1, 2, 2]]
    assert (off < 4 * result.std[:4] + 0.05).all() and result.camera.held_out_px < 0.15


def test_two_cameras_in_one_folder_are_told_apart_by_name_and_focal_length():
    other = CameraCalibration(*SIZE, np.array([[640.0, 0, 320], [0, 640, 240], [0, 0, 1]]))
    views = [
        Detection(f"{name}-{d.name[1:]}.png", d.pixels, d.points)
        for name, camera, seed in (("left", STRAIGHT, 1), ("right", other, 2))
        for d in planted(camera, view_poses(CHESS, 8, seed), 0.1, seed)
    ]
    with pytest.raises(ConfigError, match=r"left-\* and right-\* are two cameras: fx is 5[89]. .* and 6[34]."):
        refuse_two_cameras(views, SIZE, "pinhole")
    same = [Detection(d.name.replace("right", "far"), d.pixels, d.points) for d in views[:8]]
    half = [Detection(d.name.replace("left", "near"), d.pixels, d.points) for d in views[:4]]
    refuse_two_cameras([*same[4:], *half], SIZE, "pinhole")


def test_a_calibration_comes_with_its_verdict_and_a_picture(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for index, at in enumerate(view_poses(CHARUCO, 8)):
        cv2.imwrite(str(folder / f"{index}.png"), photograph(CHARUCO, STRAIGHT, at, scale=2))
    options = ["--columns", 6, "--rows", 5, "--out", tmp_path / "c.yaml"]
    status, said = run(capsys, "calibrate", "camera", folder, *options)
    assert status == 0 and "Verdict: usable." in said and "Views not seen, by lens model: pinhole" in said
    assert cv2.imread(str(tmp_path / "c.png")).shape[1] > 1000


# Calibrations


def info(model="plumb_bob", d=(), p=None, **more):
    k = [100.0, 0, 60, 0, 101, 45, 0, 0, 1]
    return SimpleNamespace(width=128, height=96, distortion_model=model, k=k, d=list(d), p=p or [0.0] * 12, **more)


@pytest.mark.parametrize(
    ("model", "d", "lens", "wanted"),
    [
        ("plumb_bob", [0.1, -0.2, 0.01, 0.02], "pinhole", [0.1, -0.2, 0.01, 0.02, 0]),
        ("plumb_bob", [], "pinhole", [0] * 5),
        ("plumb_bob", [0.1, -0.2, 0, 0, 0, 0, 0, 0], "pinhole", [0.1, -0.2, 0, 0, 0]),
        ("rational_polynomial", [*range(1, 9), 0, 0, 0, 0], "rational", [*range(1, 9)]),
        ("fisheye", [0.1, 0.2, 0.3, 0.4], "fisheye", [0.1, 0.2, 0.3, 0.4]),
        ("none", [], "pinhole", [0] * 5),
        ("", [], "pinhole", [0] * 5),
    ],
)
def test_lenses_are_read_alike_from_messages_and_files(tmp_path, model, d, lens, wanted):
    file = tmp_path / "c.yaml"
    file.write_text(
        f"image_width: 128\nimage_height: 96\ncamera_matrix: {{data: [100, 0, 60, 0, 101, 45, 0, 0, 1]}}\n"
        f'distortion_model: "{model}"\ndistortion_coefficients: {{data: {d}}}\n'
    )
    for camera in (camera_of_info(info(model, d)), load_camera(file)):
        assert camera.lens == lens
        np.testing.assert_array_equal(camera.distortion, wanted)


@pytest.mark.parametrize(("model", "d"), [("rational_polynomial", [0.1] * 12), ("none", [0.1]), ("radtan", [0.1] * 4)])
def test_lenses_that_cannot_be_kept_are_refused(model, d):
    with pytest.raises(ConfigError, match=r"coefficients that are not zero|is not known"):
        camera_of_info(info(model, d))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n", "OpenCV's own FileStorage"),
        ("cam0:\n  camera_model: pinhole\n  intrinsics: [1, 1, 1, 1]\n", "a camchain of Kalibr"),
        ("height: 480\nd:\n- 0.1\nk:\n- 590.0\n---\n", "the output of 'ros2 topic echo'"),
        ("# oST version 5.0 parameters\n[narrow_stereo]\n", "the ost.yaml beside it"),
    ],
)
def test_calibrations_of_other_tools_are_named(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_camera(tmp_path / "c.yaml")


def test_a_rectified_image_has_the_matrix_of_p_and_no_lens():
    p = [90.0, 0, 62, -9, 0, 91, 46, 0, 0, 0, 1, 0]
    camera = camera_of_info(info(d=[0.1, -0.2], p=p), rectified=True)
    np.testing.assert_array_equal(camera.matrix, [[90, 0, 62], [0, 91, 46], [0, 0, 1]])
    assert not camera.distortion.any() and camera_of_info(info(d=[0.1], p=p)).distortion[0] == 0.1
    with pytest.raises(ConfigError, match="P is zero"):
        camera_of_info(info(), rectified=True)
    rectified = ("/camera/image_rect", "/a/image_rect_color", "image_rect/compressed", "/cam/color/image_rect_raw")
    assert all(map(is_rectified, rectified))
    assert not any(map(is_rectified, ("/camera/image_raw", "/rectangle/image", "/direct/image_color")))


def test_binning_and_a_region_of_interest_change_the_matrix_as_rep_104_says():
    roi = SimpleNamespace(x_offset=20, y_offset=10, width=64, height=48)
    camera = camera_of_info(info(binning_x=2, binning_y=2, roi=roi))
    assert (camera.width, camera.height) == (32, 24)
    at = np.array([[0.05, -0.02, 0.4]])
    full = project(camera_of_info(info()), at)[0]
    np.testing.assert_allclose(project(camera, at)[0], (full - (20, 10) + 0.5) / 2 - 0.5, atol=1e-9)
