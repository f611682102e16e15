"""The simulated camera is the one it was told to be: OpenCV finds its matrix, its lens and the board in its images."""

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from calibration.boards import Board
from calibration.intrinsics import board_pose, calibrate_camera
from sim2real.errors import SimulationError
from sim2real.images.lens import project
from sim2real.runtime.camera import CameraCalibration
from sim2real.sim.render.camera import FAR_M, SimCamera
from sim2real.sim.render.drawing import add_quad, load_texture, paint
from sim2real.sim.world import World

SIZE = (640, 480)
K = np.array([[590.0, 0, 312.0], [0, 588.0, 247.0], [0, 0, 1]])
LENS = np.array([-0.25, 0.08, 0.001, -0.0005, 0.0])
BOARD = Board("charuco", 6, 5, 0.03, 0.022)
CAMERAS = {
    "straight": CameraCalibration(*SIZE, K),
    "lens": CameraCalibration(*SIZE, K, "pinhole", LENS),
    "fisheye": CameraCalibration(*SIZE, K, "fisheye", np.array([0.03, -0.01, 0.004, 0.0])),
}


def pose(turn, place):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), place
    return result


T_BASE_CAMERA = pose([2.3, -0.4, 0.5], [0.2, 0.1, 0.6])


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("board") / "board.png"
    cv2.imwrite(str(file), BOARD.draw(8000.0))
    return file


def seen_at(picture, camera, T_camera_board, samples=2, cell=0):  # noqa: N803
    """An image of the board at a pose, in one cell of a world."""
    world = World(cell + 1, 0.01)
    where = T_BASE_CAMERA @ T_camera_board
    quat = Rotation.from_matrix(where[:3, :3]).as_quat()
    width, height = BOARD.size
    corners = ((0.0, height, 0.0), (width, height, 0.0), (width, 0.0, 0.0), (0.0, 0.0, 0.0))
    body = add_quad(world, corners, where[:3, 3], quat.tolist(), cell)
    paint(world, body, (1.0, 1.0, 1.0, 1.0), load_texture(world, picture))
    frame = SimCamera(camera, samples).render(world, T_BASE_CAMERA, cell)
    world.close()
    return frame


def poses(count):
    rng = np.random.default_rng(0)
    middle = 0.5 * np.array([*BOARD.size, 0.0])
    for _ in range(count):
        turn = rng.uniform(-0.6, 0.6, 3)
        place = np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.3, 0.55)])
        yield pose(turn, place - Rotation.from_rotvec(turn).as_matrix() @ middle)


@pytest.mark.parametrize("name", list(CAMERAS))
def test_a_rendered_board_gives_back_matrix_and_pose(picture, name):
    camera = CAMERAS[name]
    views, shifts = [], []
    for at in poses(8):
        found = BOARD.detect(seen_at(picture, camera, at).rgb, "view")
        assert found is not None
        where, error = board_pose(camera, found)
        assert error < 0.3  # px
        assert np.linalg.norm(where[:3, 3] - at[:3, 3]) < 1e-3
        views.append(found)
        shifts.append((found.pixels - project(camera, found.points, at)).mean(axis=0))
    # A renderer that samples corners of pixels in place of their middles is half a pixel off.
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1
    result = calibrate_camera(views, SIZE, camera.lens)
    got, wanted = (m[[0, 1, 0, 1], [0, 1, 2, 2]] for m in (result.camera.matrix, K))
    assert (np.abs(got - wanted) < 3.0 * result.std[:4] + 0.5).all() and (result.std[:4] < 4.0).all()


def test_the_lens_shows():
    """The same corner without the lens's coefficients is pixels away."""
    away = np.array([0.25, 0.18, 0.5])
    from sim2real.images import lens

    straight, bent = (lens.project(CAMERAS[n], away[None])[0] for n in ("straight", "lens"))
    assert np.linalg.norm(straight - bent) > 10.0


def test_depth_and_segmentation(picture):
    at = pose([0, 0, 0], [-0.09, -0.075, 0.4])
    frame = seen_at(picture, CAMERAS["lens"], at)
    board = frame.segmentation >= 0
    assert 0.05 < board.mean() < 0.5 and len(np.unique(frame.segmentation)) == 2
    np.testing.assert_allclose(frame.depth[board], 0.4, atol=2e-3)
    np.testing.assert_allclose(frame.depth[~board], FAR_M, rtol=1e-2)


def test_every_cell_is_seen_alone(picture):
    at = next(poses(1))
    first, other = (seen_at(picture, CAMERAS["straight"], at, 1, cell) for cell in (0, 3))
    assert np.abs(first.rgb.astype(float) - other.rgb).mean() < 0.1 and first.rgb.std() > 10  # single pixels round


def test_a_lens_that_cannot_be_drawn_is_refused():
    wild = CameraCalibration(*SIZE, K, "pinhole", np.array([-3.0, 9.0, 0.0, 0.0, -20.0]))
    with pytest.raises(SimulationError, match="bends the image's border too far"):
        SimCamera(wild)
