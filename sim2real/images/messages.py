"""ROS 2 messages as arrays. Messages of rclpy and of rosbags are read alike, by their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

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
    "nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21,
}  # fmt: skip
# Sixteen bits a channel, in the byte order that ``is_bigendian`` says; converted as the same of eight bits.
_WIDE = {
    "mono16": "mono8", "bgr16": "bgr8", "16UC3": "bgr8", "rgb16": "rgb8", "rgba16": "rgba8",
    "bgra16": "bgra8", **{f"bayer_{order}16": f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")},
}  # fmt: skip
BITS = (8, 10, 12, 14, 16)  # of sensors, whose values come in 16 bits


def eight_bits(image: NDArray[Any]) -> Image:
    """An image in 8 bits a channel; of 16, the sensor's bits are the fewest that its brightest pixel needs.

    Raises:
        ConfigError: Neither 8 nor 16 bits a channel.
    """
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise ConfigError(f"images of {image.dtype} are not read; 8 or 16 bits a channel are")
    bits = next(bits for bits in BITS if int(image.max(initial=0)) < 2**bits)
    return np.asarray(image >> (bits - 8), dtype=np.uint8)


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
    encoding = _WIDE.get(message.encoding, message.encoding)
    if encoding not in _ENCODINGS:
        known = ", ".join((*_ENCODINGS, *_WIDE))
        raise ConfigError(f"{source}: image encoding '{message.encoding}' is not known; known: {known}")
    planar = encoding in ("nv12", "nv21")  # brightness, then colour of half the rows
    height = message.height * 3 // 2 if planar else message.height
    wide = 2 if message.encoding in _WIDE else 1
    channels = max(1, message.step // (wide * max(message.width, 1)))
    if data.size != height * message.step or message.step < wide * message.width or not data.size:
        size = f"{message.width} x {message.height} of {message.step} bytes a row"
        raise ConfigError(f"{source}: an image of {size} holds {data.size} bytes; its publisher is broken")
    rows = data.reshape(height, message.step)[:, : wide * message.width * channels]
    if wide == 2:
        order = ">u2" if getattr(message, "is_bigendian", 0) else "<u2"
        rows = eight_bits(np.ascontiguousarray(rows).view(order).astype(np.uint16))
    image = rows.reshape(height, message.width, channels)
    conversion = _ENCODINGS[encoding]
    image = image[:, :, 0] if channels == 1 else image
    try:
        return np.ascontiguousarray(image if conversion is None else cv2.cvtColor(image, conversion))
    except cv2.error as error:
        raise ConfigError(f"{source}: {channels} channels a pixel are not '{message.encoding}'") from error


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


def camera_of(info: Any, name: str = "camera", rectified: bool = False) -> CameraCalibration:
    """The calibration in a CameraInfo; of ``rectified`` images, without lens.

    Raises:
        CollectionError: It is not calibrated, or its lens model is not known.
    """
    try:
        return camera_of_info(info, name, rectified)
    except ConfigError as error:
        raise CollectionError(f"{error}. Give one as --camera FILE, or record without with --no-info") from error
