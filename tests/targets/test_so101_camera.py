"""Photographs of the SO-101 target, and push from what is seen on them."""

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the target needs sim2real[drivers]")

from arm_bundles import make_controller_bundle
from perception_bundles import camera, make_red_bundle

from robot_drivers.limits import DriverError
from sim2real.errors import ConfigError, SpecError
from sim2real.evaluate.table import run_cell
from sim2real.evaluate.target_images import write_target_dataset
from sim2real.images.dataset import read_dataset
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.perception import PerceptionBundle
from sim2real.targets.so101 import ArmTarget
from sim2real.targets.so101_arm import START_ABOVE_RAD
from sim2real.targets.so101_camera import CLASSES, So101Camera

PLACE = np.array([0.3, 0.12, 0.02])


@pytest.fixture(scope="module")
def eye():
    c = camera()
    try:
        made = So101Camera(c.width, c.height, c.matrix, c.T_base_camera)
    except DriverError as error:
        pytest.skip(f"no software OpenGL: {error}")
    yield made
    made.close()


def look(eye, seed, place=PLACE):
    eye.look(seed)
    eye.clear(np.array([[*place[:2], 0.05]]))
    return eye.photograph(START_ABOVE_RAD, place, truth=True)


def test_the_object_is_where_the_cameras_true_pose_puts_it(eye):
    off, shift = [], []
    for seed in range(8):
        photo = look(eye, seed)
        seen = np.linalg.inv(eye.T_base_camera) @ [*PLACE, 1.0]
        pixel = (camera().matrix @ (seen[:3] / seen[2]))[:2]
        rows, columns = np.nonzero(photo.mask == 2)
        if photo.visible > 0.97:
            off.append(pixel - (columns.mean(), rows.mean()))
        shift.append(np.linalg.norm(eye.T_base_camera[:3, 3] - camera().T_base_camera[:3, 3]))
    assert len(off) >= 4 and np.abs(np.mean(off, axis=0)).max() < 0.4
    assert 0.001 < np.mean(shift) < 0.02, "the pose errs as a calibration does"


def test_looks_differ_and_the_same_seed_gives_the_same_photograph(eye):
    first, other, again = look(eye, 5), look(eye, 6), look(eye, 5)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert np.abs(first.rgb.astype(float) - other.rgb).mean() > 10
    assert first.rgb.shape == (128, 128, 3) and set(np.unique(first.mask)) <= set(CLASSES)
    eye.look(5, frame=1)
    eye.clear(np.array([[*PLACE[:2], 0.05]]))
    grain = np.abs(eye.photograph(START_ABOVE_RAD, PLACE).rgb.astype(float) - first.rgb)
    assert 0.0 < grain.mean() < 8.0


def test_something_before_the_object_hides_part_of_it(eye):
    hidden = []
    for seed in range(10):
        open_view = look(eye, seed).visible
        eye.obstruct(PLACE[:2], seed)
        hidden.append(open_view - eye.photograph(START_ABOVE_RAD, PLACE, truth=True).visible)
    assert min(hidden) > -0.01 and np.mean(hidden) > 0.05


def test_a_closed_camera_says_so():
    c = camera()
    try:
        made = So101Camera(c.width, c.height, c.matrix, c.T_base_camera)
    except DriverError as error:
        pytest.skip(f"no software OpenGL: {error}")
    made.close()
    made.close()
    with pytest.raises(DriverError, match="closed"):
        made.photograph(START_ABOVE_RAD, PLACE)


@pytest.mark.slow
def test_datasets_of_photographs(eye, tmp_path):
    arm = Arm(robot_folder("so101"))

    def write(name, count, split):
        return write_target_dataset(tmp_path / name, camera(), arm.chain, arm.ee, count, split, lambda *_: None)

    assert write("a", 2, "labelled") == 2 and write("a", 4, "labelled") == 4
    assert write("b", 4, "labelled") == 4
    a, b = read_dataset(tmp_path / "a"), read_dataset(tmp_path / "b")
    np.testing.assert_array_equal(a.images, b.images)
    assert (a.column("visible") >= 0.35).all() and a.masks.max() <= 4
    assert write("c", 2, "unlabelled") == 2
    secret = read_dataset(tmp_path / "c")
    assert secret.masks is None and set(secret.frames[0]) == {"image"}
    assert np.abs(secret.images[0].astype(float) - a.images[0]).mean() > 5
    with pytest.raises(ConfigError, match="another split or scene set"):
        write("a", 6, "test")
    other = tmp_path / "d"
    write_target_dataset(other, camera(), arm.chain, arm.ee, 1, "labelled", lambda *_: None, scene_set=1)
    assert np.abs(read_dataset(other).images[0].astype(float) - a.images[0]).mean() > 5


def test_a_target_is_seen_through_what_it_is_given_at_the_cameras_rate_and_delay():
    seen = []

    def see(joint_pos, puck_pos):
        seen.append(joint_pos)
        return None if len(seen) > 4 else np.array([len(seen), 0.0, 0.0])

    target = ArmTarget("fresh", 0, puck=True, see=see)
    seen.clear()
    target.reset(START_ABOVE_RAD, np.array([0.3, 0.0]))
    reported = []
    for _ in range(50):
        target.advance(0.02)
        reported.append(target.estimate()[2][0])
    assert 22 <= len(seen) <= 31  # 30 Hz for a second, in steps of 20 ms
    assert reported[0] == 1 and reported[-1] == 4, "what is not seen stays where it was seen last"
    assert reported.index(2) * 0.02 >= 0.04 - 1e-9


def test_push_from_pixels(eye, tmp_path):
    """The network is a rule without training: this is about the wiring, not about success."""
    locator = PerceptionBundle.load(make_red_bundle(tmp_path / "red")).locator()
    bundle = PolicyBundle.load(make_controller_bundle(tmp_path / "push", "so101_push"))
    bundle.provenance["config"]["task"] = {"name": "push", "episode_s": 0.6}
    looked = []
    find = locator.locate
    locator.locate = lambda image: looked.append(image) or find(image)
    result = run_cell(bundle, "so101", "fresh", 2, 3, record=True, locator=locator)
    assert result.distance.shape == (30, 2) and np.isfinite(result.distance).all()
    assert len(looked) > 2 * 0.6 * 15 and looked[0].shape == (128, 128, 3)
    assert np.abs(looked[0].astype(float) - looked[1]).mean() > 5, "every episode looks different"
    reach = PolicyBundle.load(make_controller_bundle(tmp_path / "reach", "so101_reach"))
    with pytest.raises(SpecError, match="no object to find"):
        run_cell(reach, "so101", "fresh", 1, 0, locator=locator)
