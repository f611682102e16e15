"""What runs on the robot: bundle, locator, views."""

import json
import shutil

import cv2
import numpy as np
import pytest
from perception_bundles import HEIGHT_M, camera, make_red_bundle, red_dot
from typer.testing import CliRunner

from sim2real.cli.main import app
from sim2real.errors import BundleError, SpecError
from sim2real.runtime.camera import CameraCalibration
from sim2real.runtime.perception import (
    PerceptionBundle,
    table_homography,
    unusable,
    verify_perception,
)


@pytest.fixture
def bundle(tmp_path):
    return make_red_bundle(tmp_path / "red")


def test_the_homography_is_opencvs_projection_backwards():
    eye = camera()
    points = np.array([[0.2, -0.2, 0.03], [0.35, 0.1, 0.03], [0.25, 0.0, 0.03]])
    back = np.linalg.inv(eye.T_base_camera)
    turn = cv2.Rodrigues(back[:3, :3])[0]
    pixels = cv2.projectPoints(points, turn, back[:3, 3], eye.matrix, None)[0].reshape(-1, 2)
    found = np.concatenate((pixels, np.ones((3, 1))), axis=1) @ table_homography(eye, 0.03).T
    np.testing.assert_allclose(found[:, :2] / found[:, 2:], points[:, :2], atol=1e-9)
    with pytest.raises(SpecError, match="hand-eye"):
        table_homography(CameraCalibration(64, 64, np.eye(3)), 0.0)


def test_the_object_is_found_and_verify_accepts_it(bundle, tmp_path):
    made = PerceptionBundle.load(bundle)
    sighting = made.locator().locate(red_dot(camera(), (0.3, 0.1)))
    np.testing.assert_allclose(sighting.position, (0.3, 0.1, HEIGHT_M), atol=0.004)
    assert sighting.uncertainty_m == pytest.approx(0.004)
    assert verify_perception(made).ok
    done = CliRunner().invoke(app, ["verify", str(bundle), "--json", str(tmp_path / "report.json")])
    assert done.exit_code == 0 and json.loads((tmp_path / "report.json").read_text())["ok"]


def test_what_the_network_cannot_take_is_refused(bundle):
    locator = PerceptionBundle.load(bundle).locator()
    for image in (np.zeros((64, 64, 3), np.uint8), np.zeros((128, 128, 3), np.float32)):
        with pytest.raises(SpecError, match="the network takes uint8 images"):
            locator.locate(image)


def test_altered_and_foreign_bundles_are_refused(bundle, tmp_path):
    spec = json.loads((bundle / "spec.json").read_text())
    (bundle / "spec.json").write_text(json.dumps(spec | {"height_m": 0.1}))
    with pytest.raises(BundleError, match=r"spec\.json was altered"):
        PerceptionBundle.load(bundle)
    shutil.rmtree(bundle)
    make_red_bundle(bundle)
    (bundle / "network.onnx").write_bytes(b"\x80\x04pickle")
    with pytest.raises(BundleError, match="is a pickle"):
        PerceptionBundle.load(bundle)
    with pytest.raises(BundleError, match="no manifest"):
        PerceptionBundle.load(tmp_path)


def test_a_bundle_that_answers_differently_is_noticed(bundle):
    made = PerceptionBundle.load(bundle)
    golden = made.golden()
    golden["place"] = golden["place"] + np.float32(0.002)
    made.golden = lambda: golden
    report = verify_perception(made)
    assert not report.ok and "'place' differs by 2.00e-03 m" in report.message


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((8, 8, 3), np.uint8), "black"),
        (np.full((8, 8, 3), 255, np.uint8), "white"),
        (np.full((8, 8, 3), 128, np.uint8), "one colour"),
        (np.zeros((8, 8), np.uint8), "is wanted"),
        (np.arange(192, dtype=np.uint8).reshape(8, 8, 3), ""),
    ],
)
def test_images_in_which_nothing_can_be_seen(image, reason):
    assert reason in unusable(image) and bool(unusable(image)) == bool(reason)
