"""The perception node: a camera's images in, where the object is out.

Run it as ``python -m sim2real.deploy.perception_node --ros-args -p bundle:=PATH``.
"""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from sim2real.deploy.executor import positive_parameter, run_node
from sim2real.deploy.messages import NEWEST, Channel
from sim2real.errors import AdaptationError, BundleError, ConfigError, SpecError
from sim2real.runtime.camera import CameraCalibration, camera_of_info, is_rectified
from sim2real.runtime.perception import PerceptionBundle, PerceptionSpec, unusable, verify_perception
from sim2real.runtime.translation import Translator, typical_time_s

# Best effort takes images from reliable and from best-effort cameras; an old image is worth nothing.
IMAGES = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
ENCODINGS = ("rgb8", "bgr8")
MOST_OUTSIDE = 0.02  # of the network's view may lie outside the camera's
_UNKNOWN_RAD2 = math.pi**2  # variance of angles that nothing is known of
_HEIGHT_STD_M = 0.005


class View:
    """Turns a camera's images into those a network was trained for: without its lens, cut, and resized.

    Args:
        camera: The real one.
        wanted: The network's, without lens.

    Raises:
        SpecError: The camera sees too little of what the network is to see.
    """

    def __init__(self, camera: CameraCalibration, wanted: CameraCalibration) -> None:
        self._size = (camera.height, camera.width)
        self._wanted = (wanted.width, wanted.height)
        # Many of the camera's pixels make one of the network's: look up finely, then average.
        self._fine = max(1, min(8, round(camera.matrix[0, 0] / wanted.matrix[0, 0])))
        width, height = self._fine * wanted.width, self._fine * wanted.height
        matrix = wanted.matrix.copy()
        matrix[:2] *= self._fine
        matrix[0, 2] += 0.5 * (self._fine - 1)  # (0, 0) is the middle of a pixel
        matrix[1, 2] += 0.5 * (self._fine - 1)
        maps = cv2.fisheye.initUndistortRectifyMap if camera.lens == "fisheye" else cv2.initUndistortRectifyMap
        self._maps = maps(camera.matrix, camera.distortion, np.eye(3), matrix, (width, height), cv2.CV_32FC1)
        across, down = self._maps
        outside = (across < -0.5) | (across > camera.width - 0.5) | (down < -0.5) | (down > camera.height - 0.5)
        self.outside = float(outside.mean())
        if self.outside > MOST_OUTSIDE:
            wide, narrow = (f"{c.width} x {c.height}, fx {c.matrix[0, 0]:.0f} px" for c in (camera, wanted))
            raise SpecError(
                f"the camera ({wide}) sees {1 - self.outside:.0%} of what the network was trained to see ({narrow}); "
                "use a wider lens, or train with this camera's calibration (render.camera)"
            )

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The network's image of a camera's image [H, W, 3].

        Raises:
            SpecError: The image is of another size than its CameraInfo.
        """
        if image.shape[:2] != self._size:
            raise SpecError(
                f"the image is {image.shape[1]} x {image.shape[0]}, camera_info says {self._size[1]} x {self._size[0]}"
            )
        seen = cv2.remap(image, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if self._fine > 1:
            seen = cv2.resize(seen, self._wanted, interpolation=cv2.INTER_AREA)
        return np.asarray(seen, dtype=np.uint8)


def read_image(message: Image) -> NDArray[np.uint8]:
    """RGB [H, W, 3] from an Image message.

    Raises:
        SpecError: Another encoding, or fewer bytes than its size says.
    """
    if message.encoding not in ENCODINGS:
        raise SpecError(f"image encoding '{message.encoding}' is not taken; publish one of {', '.join(ENCODINGS)}")
    height, width, step = message.height, message.width, message.step
    if not (height and width and step >= 3 * width and len(message.data) == step * height):
        raise SpecError(
            f"the image says {width} x {height} with {step} bytes a row, but carries {len(message.data)} bytes"
        )
    rows = np.frombuffer(message.data, dtype=np.uint8).reshape(height, step)[:, : 3 * width]
    image = rows.reshape(height, width, 3)
    return np.ascontiguousarray(image[..., ::-1] if message.encoding == "bgr8" else image)


def load_translator(run: Path, spec: PerceptionSpec, budget_s: float) -> Translator:
    """The generator that goes before a network, checked and timed here.

    Raises:
        ConfigError: No finished adaptation there.
        AdaptationError: Its gate refused it, it goes the other way, takes images of another size, or is too slow here.
    """
    translator = Translator(run)
    if translator.towards != "canonical":
        raise AdaptationError(
            f"the generator of {run} makes rendered images look like a camera's; in front of a network goes one that "
            "makes canonical images of a camera's: 'sim2real adapt --preset rcan'"
        )
    if not translator.objects_judged:
        raise AdaptationError(
            f"nobody has seen whether the generator of {run} moves or invents objects; run 'sim2real adapt check' with "
            "images that have masks"
        )
    translator.need_size(spec.height, spec.width)
    takes_s = typical_time_s(translator)
    if takes_s > budget_s:
        raise AdaptationError(
            f"the generator of {run} takes {1e3 * takes_s:.1f} ms an image here, adapt_budget_ms allows "
            f"{1e3 * budget_s:g}; allow more, or train a smaller one (generator.width)"
        )
    return translator


class PerceptionNode(Node):
    """Finds one object in a camera's images.

    Reads ``image`` (sensor_msgs/Image, rgb8 or bgr8) and ``camera_info``. Publishes ``object_pose`` (PoseStamped,
    the image's stamp) while the network is sure enough, and ``object_pose_with_covariance`` for every image that can be
    used; ``perception_diagnostics`` once a second.

    Parameters: ``bundle``; ``max_uncertainty_m``, the largest standard deviation of what ``object_pose`` carries;
    ``frame``, the name of the robot's base frame; ``adapt``, the run of a generator that makes canonical images of the
    camera's before the network sees them (none by default); ``adapt_budget_ms``, the longest that may take. A generator
    that takes longer is refused at the start; an image for which it does so later is refused. ``rectified``: the images
    are without lens, of the matrix P of camera_info (so by default where ``image`` is remapped to an ``image_rect``
    topic); ``image_timeout_s``, the age of the newest image from which diagnostics warn.

    Args:
        settings: Parameter values that replace the defaults; for tests.

    Raises:
        BundleError: The bundle cannot be used, or does not do here what it did where it was exported.
        ConfigError: ``adapt`` is no finished adaptation.
        AdaptationError: The generator was refused by its gate, goes the other way, takes images of another size, or is
            too slow here.
    """

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        overrides = [Parameter(name, value=value) for name, value in (settings or {}).items()]
        super().__init__("perception", parameter_overrides=overrides)
        path = str(self.declare_parameter("bundle", "").value)
        if not path:
            raise BundleError("parameter 'bundle' names no perception bundle; make one with 'sim2real train'")
        self._most_m = positive_parameter(self, "max_uncertainty_m", 0.03)
        self._frame = str(self.declare_parameter("frame", "base").value)
        bundle = PerceptionBundle.load(path)
        replayed = verify_perception(bundle)
        if not replayed.ok:
            raise BundleError(f"the golden trace does not replay here: {replayed.message}")
        self._locator = bundle.locator()
        run = str(self.declare_parameter("adapt", "").value)
        self._budget_s = 1e-3 * positive_parameter(self, "adapt_budget_ms", 20.0)
        self._translator = load_translator(Path(run), bundle.spec, self._budget_s) if run else None
        self._camera = bundle.spec.camera()
        self._view: View | None = None
        self._info: tuple[Any, ...] = ()
        self._images = Channel()
        self.counts = dict.fromkeys(("images", "published", "unsure", "refused", "adapted_late"), 0)
        self.trouble = "no camera_info has arrived yet"
        self._took_s = self._adapt_s = self._uncertainty_m = math.nan
        self._pose = self.create_publisher(PoseStamped, "object_pose", NEWEST)
        self._all = self.create_publisher(PoseWithCovarianceStamped, "object_pose_with_covariance", NEWEST)
        self._diagnostics = self.create_publisher(DiagnosticArray, "perception_diagnostics", 10)
        self.create_subscription(CameraInfo, "camera_info", self._on_info, IMAGES)
        self._image_topic = self.create_subscription(Image, "image", self._on_image, IMAGES).topic_name
        rectified = self.declare_parameter("rectified", is_rectified(self._image_topic))
        self._rectified = bool(rectified.value)
        self._most_age_s = positive_parameter(self, "image_timeout_s", 0.5)
        self.create_timer(1.0, self._publish_diagnostics)
        self.get_logger().info(f"finds: {bundle.spec.object}; bundle {path}")

    def _on_info(self, message: CameraInfo) -> None:
        info = (message.width, message.height, message.distortion_model, tuple(message.k), tuple(message.d),
                tuple(message.p), message.binning_x, message.binning_y, str(message.roi))  # fmt: skip
        if info == self._info:
            return
        self._info, self._view = info, None
        try:
            camera = camera_of_info(message, rectified=self._rectified)
            self._view = View(camera, self._camera)
        except (ConfigError, SpecError) as error:
            self._refuse(str(error))
            return
        self.trouble = ""
        projection = np.array(message.p).reshape(3, 4)[:, :3]
        if (
            projection[0, 0] > 0
            and not self._rectified
            and not np.allclose(projection, np.array(message.k).reshape(3, 3))
        ):
            self.get_logger().info(
                f"images of {self._image_topic} are taken as raw, with the lens of camera_info; for rectified images "
                "remap 'image' to the topic image_rect, or set rectified:=true"
            )

    def _on_image(self, message: Image) -> None:
        if not self._images.arrived(message.header.stamp, time.monotonic()):
            self._refuse("images come with old stamps; is the camera's clock running?")
            return
        self.counts["images"] += 1
        if self._view is None:
            self._refuse(self.trouble or "no camera_info has arrived yet")
            return
        began = time.perf_counter()
        try:
            seen = self._view.apply(read_image(message))
            reason = unusable(seen)
            if reason:
                raise SpecError(f"the image cannot be used: {reason}")
            sighting = self._locator.locate(self._adapted(seen))
        except (AdaptationError, SpecError) as error:
            self._refuse(str(error))
            return
        self._took_s, self._uncertainty_m = time.perf_counter() - began, sighting.uncertainty_m
        self.trouble = ""
        everything = PoseWithCovarianceStamped()
        everything.header.stamp, everything.header.frame_id = message.header.stamp, self._frame
        pose = everything.pose.pose
        pose.position.x, pose.position.y, pose.position.z = sighting.position.tolist()
        pose.orientation.w = 1.0
        everything.pose.covariance = np.diag(
            [*np.square(sighting.std), _HEIGHT_STD_M**2, *([_UNKNOWN_RAD2] * 3)]
        ).ravel()  # fmt: skip
        self._all.publish(everything)
        if sighting.uncertainty_m > self._most_m:
            self.counts["unsure"] += 1
            return
        self._pose.publish(PoseStamped(header=everything.header, pose=pose))
        self.counts["published"] += 1

    def _adapted(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The network's view of the camera's image [H, W, 3]."""
        if self._translator is None:
            return image
        began = time.perf_counter()
        adapted = self._translator(image[None])[0]
        self._adapt_s = time.perf_counter() - began
        if self._adapt_s > self._budget_s:
            self.counts["adapted_late"] += 1
            raise SpecError(
                f"the generator took {1e3 * self._adapt_s:.0f} ms, adapt_budget_ms allows {1e3 * self._budget_s:g}; "
                "the image is too old by now"
            )
        reason = unusable(adapted)
        if reason:
            raise SpecError(f"what the generator makes of the image cannot be used: {reason}")
        return adapted

    def _refuse(self, reason: str) -> None:
        self.counts["refused"] += 1
        self.trouble = reason
        self.get_logger().warning(f"refused: {reason}", throttle_duration_sec=2.0)

    def diagnosed(self, age_s: float) -> str:
        """Reason why the node does not see, with a newest image of this age; empty where it does."""
        if not self.counts["images"]:
            return f"no image has arrived on {self._image_topic}" + (f"; {self.trouble}" if self.trouble else "")
        if age_s > self._most_age_s:
            said = f"no image for {age_s:.1f} s, image_timeout_s is {self._most_age_s:g}"
            return f"{self.trouble}; {said}" if self.trouble else said
        return self.trouble

    def _publish_diagnostics(self) -> None:
        age_s = time.monotonic() - self._images.arrival_s
        trouble = self.diagnosed(age_s)
        values = {name: str(count) for name, count in self.counts.items()}
        values |= {
            "took_ms": f"{1e3 * self._took_s:.2f}",
            "adapt_ms": f"{1e3 * self._adapt_s:.2f}",
            "uncertainty_mm": f"{1e3 * self._uncertainty_m:.1f}",
            "data_age_ms": f"{1e3 * age_s:.0f}",
        }
        status = DiagnosticStatus(name=self.get_fully_qualified_name(), message=trouble or "sees")
        status.level = DiagnosticStatus.WARN if trouble else DiagnosticStatus.OK
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(argv: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Returns:
        0 after a requested end, 1 if the bundle cannot be used.
    """
    return run_node("perception", PerceptionNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
