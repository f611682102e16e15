"""ROS 2 messages as arrays. Messages of rclpy and of rosbags are read alike, by their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from sim2real.errors import CollectionError, ConfigError
from sim2real.recordings.bags import seconds
from sim2real.runtime.camera import CameraCalibration, camera_of_info
from sim2real.types import Array, Image

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE, JOINTS_TYPE = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/JointState"
POSE_TYPE = "geometry_msgs/msg/PoseStamped"
# ROS's encodings (sensor_msgs/image_encodings.hpp) → OpenCV's conversion to BGR; None: it is BGR or grey already.
_ENCODINGS = {
    "mono8": None, "8UC1": None, "bgr8": None, "8UC3": None, "rgb8": cv2.COLOR_RGB2BGR,
    "rgba8": cv2.COLOR_RGBA2BGR, "bgra8": cv2.COLOR_BGRA2BGR,
    "bayer_rggb8": cv2.COLOR_BayerRGGB2BGR, "bayer_bggr8": cv2.COLOR_BayerBGGR2BGR,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2BGR, "bayer_grbg8": cv2.COLOR_BayerGRBG2BGR,
    "yuv422": cv2.COLOR_YUV2BGR_UYVY, "uyvy": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2, "yuyv": cv2.COLOR_YUV2BGR_YUY2,
}  # fmt: skip


def stamp_of(message: Any) -> float:
    """Seconds of a message's header."""
    return seconds(message.header.stamp)


def decode_image(message: Any, source: object) -> Image:
    """Pixels of a ``sensor_msgs`` Image or CompressedImage, of rclpy or rosbags.

    Args:
        message: The message.
        source: Where it comes from; named in errors.

    Returns:
        [H, W, 3] BGR, or [H, W] grey.

    Raises:
        ConfigError: An unknown encoding, or data that do not fit the size.
    """
    data = np.asarray(message.data, dtype=np.uint8)
    if not hasattr(message, "encoding"):
        compressed = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if compressed is None:
            raise ConfigError(f"{source}: a compressed image ({message.format}) cannot be decoded")
        return np.asarray(compressed, dtype=np.uint8)
    if message.encoding not in _ENCODINGS:
        raise ConfigError(f"{source}: image encoding '{message.encoding}' is not known; known: {', '.join(_ENCODINGS)}")
    channels = max(1, message.step // max(message.width, 1))
    if data.size != message.height * message.step or message.step < message.width or not data.size:
        size = f"{message.width} x {message.height} of {message.step} bytes a row"
        raise ConfigError(f"{source}: an image of {size} holds {data.size} bytes; its publisher is broken")
    rows = data.reshape(message.height, message.step)
    image = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    conversion = _ENCODINGS[message.encoding]
    image = image[:, :, 0] if channels == 1 else image
    try:
        return np.ascontiguousarray(image if conversion is None else cv2.cvtColor(image, conversion))
    except cv2.error as error:
        raise ConfigError(f"{source}: {channels} bytes a pixel are not '{message.encoding}'") from error


def rgb_of(message: Any) -> Image:
    """Pixels [H, W, 3] RGB of an Image or CompressedImage.

    Raises:
        ConfigError: An unknown encoding, or data that are no image.
    """
    image = decode_image(message, "the image topic")
    conversion = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(image, conversion), dtype=np.uint8)


def joints_of(message: Any, names: Sequence[str]) -> Array | None:
    """Positions [J] rad of these joints in a JointState; None where one is missing or not finite."""
    known = dict(zip(message.name, message.position, strict=False))
    if any(name not in known for name in names):
        return None
    position = np.array([known[name] for name in names], dtype=np.float64)
    return position if np.isfinite(position).all() else None


def pose_of(message: Any) -> Array | None:
    """x, y, z, qx, qy, qz, qw of a PoseStamped; None where it is no pose."""
    p, q = message.pose.position, message.pose.orientation
    pose = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w], dtype=np.float64)
    length = float(np.linalg.norm(pose[3:]))
    if not np.isfinite(pose).all() or abs(length - 1.0) > 0.01:
        return None
    pose[3:] /= length
    return pose


def camera_of(info: Any, name: str = "camera") -> CameraCalibration:
    """The calibration in a CameraInfo.

    Raises:
        CollectionError: It is not calibrated, or its lens model is not known.
    """
    try:
        return camera_of_info(info, name)
    except ConfigError as error:
        raise CollectionError(f"{error}. Give one as --camera FILE, or record without with --no-info") from error
