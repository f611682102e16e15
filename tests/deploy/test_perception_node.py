"""The perception node over real ROS 2 topics."""

import itertools
import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

rclpy = pytest.importorskip("rclpy", reason="the node needs ROS 2; see `sim2real doctor`")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped  # noqa: E402
from perception_bundles import camera, leave_run, make_red_bundle, red_dot  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from sim2real.deploy.perception_node import PerceptionNode, View, load_translator, read_image  # noqa: E402
from sim2real.errors import AdaptationError, ConfigError, SpecError  # noqa: E402
from sim2real.runtime.camera import LENSES, CameraCalibration, camera_of_info  # noqa: E402
from sim2real.runtime.perception import PerceptionBundle  # noqa: E402
from sim2real.runtime.translation import file_hashes  # noqa: E402

pytestmark = pytest.mark.ros

PLACE = (0.28, 0.08)


def info_of(calibration):
    return CameraInfo(
        width=calibration.width, height=calibration.height, distortion_model=LENSES[calibration.lens][0],
        d=calibration.distortion.tolist(), k=calibration.matrix.ravel().tolist(),
    )  # fmt: skip


def message_of(image, stamp_s, encoding="rgb8"):
    height, width = image.shape[:2]
    data = np.ascontiguousarray(image[..., ::-1] if encoding == "bgr8" else image).tobytes()
    message = Image(height=height, width=width, encoding=encoding, step=3 * width, data=data)
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp_s), round(1e9 * (stamp_s % 1))
    message.header.frame_id = "camera_optical"
    return message


def big_camera():
    """A 640 x 480 camera with a lens at the network's camera's place."""
    small = camera()
    matrix = np.array([[420.0, 0, 321.0], [0, 421.0, 238.0], [0, 0, 1]])
    distortion = np.array([-0.12, 0.02, 0.001, -0.0005, 0.0])
    return CameraCalibration(640, 480, matrix, "pinhole", distortion, T_base_camera=small.T_base_camera)


def big_picture(place):
    """What the big camera sees of a red disc."""
    eye = big_camera()
    back = np.linalg.inv(eye.T_base_camera)
    at = np.array([[*place, 0.02]])
    u, v = cv2.projectPoints(at, cv2.Rodrigues(back[:3, :3])[0], back[:3, 3], eye.matrix, eye.distortion)[0].ravel()
    image = np.full((480, 640, 3), 80, np.uint8)
    image[::20] = 120
    cv2.circle(image, (round(u), round(v)), 9, (220, 20, 20), -1)
    return image


class Rig:
    def __init__(self, bundle, **settings):
        rclpy.init()
        self.node = PerceptionNode({"bundle": str(bundle), **settings})
        self.other = rclpy.create_node("camera")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.other)
        self.images = self.other.create_publisher(Image, "image", 1)
        self.infos = self.other.create_publisher(CameraInfo, "camera_info", 1)
        self.poses, self.all, self.status = [], [], []
        for kind, topic, kept in (
            (PoseStamped, "object_pose", self.poses),
            (PoseWithCovarianceStamped, "object_pose_with_covariance", self.all),
            (DiagnosticArray, "perception_diagnostics", self.status),
        ):
            self.other.create_subscription(kind, topic, kept.append, 10)
        self.stamp = 100.0
        self.until(lambda: self.images.get_subscription_count() and self.infos.get_subscription_count())

    def until(self, done, seconds=10.0):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "timed out"
            self.executor.spin_once(timeout_sec=0.02)

    def show(self, image, calibration, encoding="rgb8"):
        """Publish until the node has counted the image."""
        self.stamp += 0.1
        before = sum(self.node.counts[name] for name in ("images", "refused"))
        self.infos.publish(info_of(calibration))
        for _ in range(5):
            self.executor.spin_once(timeout_sec=0.02)
        self.images.publish(message_of(image, self.stamp, encoding))
        self.until(lambda: sum(self.node.counts[name] for name in ("images", "refused")) > before)
        for _ in range(5):
            self.executor.spin_once(timeout_sec=0.02)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.other.destroy_node()
        rclpy.shutdown()


@pytest.fixture
def rig(tmp_path):
    made = Rig(make_red_bundle(tmp_path / "red"))
    yield made
    made.close()


def test_the_object_is_published_with_the_images_stamp_and_its_uncertainty(rig):
    rig.show(red_dot(camera(), PLACE), camera())
    rig.until(lambda: rig.poses and rig.all)
    pose, full = rig.poses[-1], rig.all[-1]
    assert (pose.header.stamp.sec, pose.header.stamp.nanosec, pose.header.frame_id) == (100, 100000000, "base")
    assert full.header.stamp == pose.header.stamp
    p = pose.pose.position
    np.testing.assert_allclose((p.x, p.y, p.z), (*PLACE, 0.02), atol=0.004)
    covariance = np.array(full.pose.covariance).reshape(6, 6)
    np.testing.assert_allclose(np.diag(covariance)[:2], 0.004**2, rtol=1e-4)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_another_camera_is_undistorted_cut_and_resized(rig, encoding):
    rig.show(big_picture(PLACE), big_camera(), encoding)
    rig.until(lambda: rig.poses)
    p = rig.poses[-1].pose.position
    np.testing.assert_allclose((p.x, p.y), PLACE, atol=0.004)


def test_bad_images_and_cameras_are_refused_with_a_reason(rig):
    rig.show(np.zeros((128, 128, 3), np.uint8), camera())
    assert "black" in rig.node.trouble
    rig.show(red_dot(camera(), PLACE)[:64], camera())
    assert "camera_info says 128 x 128" in rig.node.trouble
    tele = big_camera()
    matrix = tele.matrix.copy()
    matrix[0, 0] = matrix[1, 1] = 1500.0
    rig.show(big_picture(PLACE), CameraCalibration(640, 480, matrix))
    assert "use a wider lens" in rig.node.trouble
    assert not rig.poses and rig.node.counts["published"] == 0
    rig.show(red_dot(camera(), PLACE), camera())
    rig.until(lambda: rig.poses)
    assert rig.node.trouble == ""
    rig.stamp -= 0.1  # an old stamp again
    rig.images.publish(message_of(red_dot(camera(), PLACE), rig.stamp))
    rig.until(lambda: "old stamps" in rig.node.trouble)
    rig.status.clear()
    rig.until(lambda: rig.status)
    assert "old stamps" in rig.status[-1].status[0].message


def test_an_unsure_network_is_held_back(tmp_path):
    rig = Rig(make_red_bundle(tmp_path / "unsure", std_m=0.05), max_uncertainty_m=0.03)
    try:
        rig.show(red_dot(camera(), PLACE), camera())
        rig.until(lambda: rig.all)
        assert rig.node.counts["unsure"] == 1 and not rig.poses
    finally:
        rig.close()


def test_messages_that_are_no_images_are_explained():
    image = message_of(red_dot(camera(), PLACE), 1.0)
    image.encoding = "mono8"
    with pytest.raises(SpecError, match="'mono8' is not taken"):
        read_image(image)
    image = message_of(red_dot(camera(), PLACE), 1.0)
    image.data = image.data[:-5]
    with pytest.raises(SpecError, match="carries 49147 bytes"):
        read_image(image)
    with pytest.raises(ConfigError, match="'mystery' is not known"):
        camera_of_info(
            CameraInfo(width=64, height=64, distortion_model="mystery", d=[0.1], k=np.eye(3).ravel().tolist())
        )
    with pytest.raises(ConfigError, match="not calibrated"):
        camera_of_info(CameraInfo(width=64, height=64, distortion_model="plumb_bob"))


def test_a_view_of_the_same_camera_changes_nothing():
    image = red_dot(camera(), PLACE)
    np.testing.assert_array_equal(View(camera(), camera()).apply(image), image)


def test_the_process_explains_a_missing_bundle(tmp_path):
    command = [sys.executable, "-m", "sim2real.deploy.perception_node", "--ros-args", "-p", f"bundle:={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1 and "no manifest.json" in result.stderr and "Traceback" not in result.stderr


def make_run(folder, towards="canonical", passed=True, side=128, slow=0, objects_judged=True):
    """A generator that gives back an image with red and blue exchanged, as 'sim2real adapt' leaves one.

    With ``slow`` it also turns the image into itself so many times over, by convolutions.
    """
    swap = np.eye(3, dtype=np.float32)[::-1].reshape(3, 3, 1, 1).copy()
    stay = np.zeros((3, 3, 15, 15), np.float32)
    stay[:, :, 7, 7] = np.eye(3)
    names = ["image", *(f"step_{i}" for i in range(slow))]
    nodes = [
        helper.make_node("Conv", [a, "stay"], [b], pads=[7] * 4) for a, b in itertools.pairwise(names)
    ]  # fmt: skip
    graph = helper.make_graph(
        [*nodes, helper.make_node("Conv", [names[-1], "swap"], ["adapted"])],
        "swap",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, side, side])],
        [helper.make_tensor_value_info("adapted", TensorProto.FLOAT, ["n", 3, side, side])],
        [numpy_helper.from_array(swap, "swap"), numpy_helper.from_array(stay, "stay")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return leave_run(folder, model.SerializeToString(), passed, towards=towards, objects_judged=objects_judged)


def test_a_generator_before_the_network_sees_the_cameras_images_first(tmp_path):
    bundle, run = make_red_bundle(tmp_path / "red"), make_run(tmp_path / "swap")
    blue = np.ascontiguousarray(red_dot(camera(), PLACE)[..., ::-1])
    rig = Rig(bundle, adapt=str(run), adapt_budget_ms=1000.0)
    try:
        rig.show(blue, camera())
        rig.until(lambda: rig.poses)
        p = rig.poses[-1].pose.position
        np.testing.assert_allclose((p.x, p.y), PLACE, atol=0.004)
        rig.node._budget_s = 0.0  # as on a machine that has become busy
        rig.show(blue, camera())
        rig.status.clear()
        rig.until(lambda: rig.status)
        assert len(rig.poses) == 1, "what is too old by then is not believed"
        status = rig.status[-1].status[0]
        values = {value.key: value.value for value in status.values}
        assert float(values["adapt_ms"]) > 0 and values["adapted_late"] == "1"
        assert status.level == DiagnosticStatus.WARN and "adapt_budget_ms" in status.message
    finally:
        rig.close()


def test_generators_that_cannot_go_before_the_network_are_refused(tmp_path):
    spec = PerceptionBundle.load(make_red_bundle(tmp_path / "red")).spec
    for name, settings, message in (
        ("refused", {"passed": False}, "moves object"),
        ("other_way", {"towards": "camera"}, "--preset rcan"),
        ("unseen", {"objects_judged": False}, "images that have masks"),
        ("small", {"side": 64}, "takes images of 64 x 64, these are 128 x 128"),
        ("slow", {"slow": 6}, "adapt_budget_ms allows 0.5"),
    ):
        with pytest.raises(AdaptationError, match=message):
            load_translator(make_run(tmp_path / name, **settings), spec, 0.0005)
    with pytest.raises(ConfigError, match="no finished adaptation"):
        load_translator(tmp_path / "nothing", spec, 0.02)
    broken = make_run(tmp_path / "broken")
    (broken / "generator.onnx").write_bytes(b"not a network")
    with pytest.raises(AdaptationError, match=r"is not what gate\.json judged"):
        load_translator(broken, spec, 1.0)
    gate = json.loads((broken / "gate.json").read_text()) | {"files": file_hashes(broken)}
    (broken / "gate.json").write_text(json.dumps(gate))
    with pytest.raises(AdaptationError, match="cannot be loaded"):
        load_translator(broken, spec, 1.0)
    (broken / "gate.json").write_text('{"passed": tr')
    with pytest.raises(AdaptationError, match="adapt check"):
        load_translator(broken, spec, 1.0)


@pytest.mark.parametrize(("value", "said"), [("0", "above 0"), (".nan", "above 0"), ("[1.0]", "above 0"), ("30", "")])
def test_numbers_may_be_written_with_or_without_a_point(tmp_path, value, said):
    bundle = make_red_bundle(tmp_path / "red") if not said else tmp_path / "red"
    command = ["-m", "sim2real.deploy.perception_node", "--ros-args", "-p", f"adapt_budget_ms:={value}"]
    command += ["-p", f"bundle:={bundle}"]
    if said:
        make_red_bundle(tmp_path / "red")
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
        return
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    try:
        assert any("finds:" in line for line in process.stderr)
    finally:
        process.kill()
        process.wait()


def test_diagnostics_judge_the_age_of_images(tmp_path):
    """'sees' is said of images that come, and of nothing else."""
    rig = Rig(make_red_bundle(tmp_path / "red"), image_timeout_s=0.3)
    try:
        rig.infos.publish(info_of(camera()))
        rig.until(lambda: rig.node._view is not None)
        rig.status.clear()
        rig.until(lambda: rig.status)
        status = rig.status[-1].status[0]
        assert status.level == DiagnosticStatus.WARN and "no image has arrived on /image" in status.message
        rig.show(red_dot(camera(), PLACE), camera())
        rig.until(lambda: rig.all)
        assert rig.node.diagnosed(0.1) == "" and "no image for 0.4 s" in rig.node.diagnosed(0.4)
    finally:
        rig.close()


@pytest.mark.parametrize("rectified", [False, True])
def test_rectified_images_have_the_matrix_of_p_and_no_lens(tmp_path, rectified):
    eye = big_camera()
    new, _ = cv2.getOptimalNewCameraMatrix(eye.matrix, eye.distortion, (eye.width, eye.height), 0)
    picture = big_picture(PLACE)
    if rectified:
        picture = cv2.undistort(picture, eye.matrix, eye.distortion, None, new)
    rig = Rig(make_red_bundle(tmp_path / "red"), rectified=rectified)
    try:
        info = info_of(eye)
        info.p = [*new[0], 0.0, *new[1], 0.0, 0.0, 0.0, 1.0, 0.0]
        rig.infos.publish(info)
        rig.until(lambda: rig.node._view is not None)
        rig.stamp += 0.1
        rig.images.publish(message_of(picture, rig.stamp))
        rig.until(lambda: rig.poses)
        found = rig.poses[-1].pose.position
        assert np.hypot(found.x - PLACE[0], found.y - PLACE[1]) < 2e-3
    finally:
        rig.close()
