"""What ROS 2 messages hold, as arrays. The same for rclpy's and rosbags' messages: only fields are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from sim2real.errors import CollectionError, ConfigError
from sim2real.images.files import decode_image
from sim2real.runtime.camera import CameraCalibration, camera_of_info
from sim2real.types import Array, Image

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE, JOINTS_TYPE = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/JointState"
POSE_TYPE = "geometry_msgs/msg/PoseStamped"


def stamp_of(message: Any) -> float:
    """Seconds of a message's header."""
    stamp = message.header.stamp
    return float(stamp.sec + 1e-9 * stamp.nanosec)


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
