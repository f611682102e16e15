"""Points to pixels, through any of the lenses."""

from __future__ import annotations

import cv2
import numpy as np

from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Array


def project(camera: CameraCalibration, points: Array, T_camera_points: Array | None = None) -> Array:  # noqa: N803
    """Pixels [N, 2] of points [N, 3] m, given in the camera's frame or in that of ``T_camera_points`` [4, 4]."""
    if not len(points):
        return np.empty((0, 2))
    pose = np.eye(4) if T_camera_points is None else T_camera_points
    rotation, translation = cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3]
    if camera.lens == "fisheye":
        pixels = cv2.fisheye.projectPoints(points[:, None], rotation, translation, camera.matrix, camera.distortion)[0]
    else:
        pixels = cv2.projectPoints(points, rotation, translation, camera.matrix, camera.distortion)[0]
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
