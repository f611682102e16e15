"""A calibrated camera in the simulator: its matrix, lens and pose.

Bullet renders ideal pinhole images. The lens is added by looking up the ideal ray of every pixel; edges are softened by
rendering larger. Exposure, motion blur and noise are photometric terms of ``perceive/augment.yaml``.
Frames are OpenCV's: x to the right, y down, z along the view. ``T_base_camera`` is the camera's pose in the base frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.errors import SimulationError
from sim2real.runtime.camera import CameraCalibration
from sim2real.sim.render.drawing import DAYLIGHT, Light, see
from sim2real.sim.world import World
from sim2real.types import Array

NEAR_M, FAR_M = 0.02, 10.0
WIDEST = 3.0  # a lens that needs an ideal image so many times as wide cannot be rendered


@dataclass(frozen=True)
class Frame:
    """One image.

    Attributes:
        rgb: [H, W, 3], 8 bits.
        depth: Along the optical axis [H, W] m; ``FAR_M`` where nothing is.
        segmentation: Number of the body that is seen [H, W]; -1 where nothing is.
    """

    rgb: NDArray[np.uint8]
    depth: Array
    segmentation: NDArray[np.int32]


class SimCamera:
    """Draws what a calibrated camera would see.

    Args:
        camera: Matrix, lens and size.
        samples: Pixels drawn along each side of a pixel, for soft edges; 1 is fastest.

    Raises:
        SimulationError: The lens bends the image's border too far to be rendered from one ideal image.
    """

    def __init__(self, camera: CameraCalibration, samples: int = 1) -> None:
        if samples < 1:
            raise SimulationError(f"samples is {samples}; it is 1 or more")
        self.camera, self._samples = camera, samples
        width, height = camera.width, camera.height
        straight = not camera.distortion.any() and camera.lens != "fisheye"
        if straight:
            left, top, right, bottom = -0.5, -0.5, width - 0.5, height - 0.5
            rays = None
        else:
            # Where every pixel's ray would be in an ideal image of the same matrix.
            u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
            rays = _ideal(camera, np.stack((u.ravel(), v.ravel()), axis=1)).reshape(height, width, 2)
            (left, top), (right, bottom) = (np.floor(rays.min(axis=(0, 1))) - 2, np.ceil(rays.max(axis=(0, 1))) + 2)
            off = np.abs(_distorted(camera, rays.reshape(-1, 2)) - np.stack((u.ravel(), v.ravel()), axis=1)).max()
            too_wide = right - left > WIDEST * width or bottom - top > WIDEST * height
            if not np.isfinite(rays).all() or not off < 0.5 or too_wide:
                raise SimulationError(
                    "this lens bends the image's border too far to be drawn; calibrate with views in the corners, or "
                    "crop the image"
                )
        self._size = (round(samples * (right - left)), round(samples * (bottom - top)))
        self._projection = _projection(camera.matrix, left, top, right, bottom)
        # In the drawn image a pixel's centre lies half a pixel from its edge; a blur over an even number of pixels
        # moves what it blurs by half a pixel more.
        half = 0.5 if samples % 2 else 0.0
        self._lookup = None if rays is None else (samples * (rays - (left, top)) - half).astype(np.float32)

    def render(
        self,
        world: World,
        T_base_camera: Array,  # noqa: N803 (the transform's name says its direction)
        env_id: int = 0,
        light: Light = DAYLIGHT,
    ) -> Frame:
        """One image of one environment of a world.

        Args:
            world: What is rendered.
            T_base_camera: Pose of the camera in the environment's frame [4, 4].
            env_id: The robot's environment.
            light: On everything.
        """
        rgb, buffer, bodies = see(world, env_id, _view(T_base_camera), self._projection, *self._size, light)
        depth = FAR_M * NEAR_M / (FAR_M - (FAR_M - NEAR_M) * buffer.astype(np.float64))
        size = (self.camera.width, self.camera.height)
        if self._lookup is not None:
            x, y = self._lookup[..., 0], self._lookup[..., 1]
            if self._samples > 1:  # soften before looking up: one drawn pixel is not what a real one gathers
                rgb = cv2.blur(rgb, (self._samples, self._samples))
            rgb = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            depth = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            bodies = cv2.remap(bodies.astype(np.float32), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        elif self._samples > 1:
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
            depth, bodies = (
                cv2.resize(image, size, interpolation=cv2.INTER_NEAREST) for image in (depth, bodies.astype(np.float32))
            )
        return Frame(np.asarray(rgb, dtype=np.uint8), depth, np.asarray(bodies).astype(np.int32))


def _ideal(camera: CameraCalibration, pixels: Array) -> Array:
    """Pixels [N, 2] without the lens, of distorted pixels [N, 2]."""
    if camera.lens == "fisheye":
        points = cv2.fisheye.undistortPoints(pixels[:, None], camera.matrix, camera.distortion, P=camera.matrix)
    else:
        criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-8)
        points = cv2.undistortPointsIter(
            pixels[:, None], camera.matrix, camera.distortion, np.eye(3), camera.matrix, criteria
        )
    return np.asarray(points, dtype=np.float64).reshape(-1, 2)


def _distorted(camera: CameraCalibration, pixels: Array) -> Array:
    """Distort ideal pixels [N, 2] by the lens: the inverse of :func:`_ideal`, where it has one."""
    points = (np.concatenate((pixels, np.ones((len(pixels), 1))), axis=1) @ np.linalg.inv(camera.matrix).T)[:, None]
    still = np.zeros(3)
    through = cv2.fisheye.projectPoints if camera.lens == "fisheye" else cv2.projectPoints
    seen = through(points, still, still, camera.matrix, camera.distortion)[0]
    return np.asarray(seen, dtype=np.float64).reshape(-1, 2)


def _projection(matrix: Array, left: float, top: float, right: float, bottom: float) -> list[float]:
    """OpenGL's projection, by columns, of the part of the ideal image from (left, top) to (right, bottom), px."""
    (fx, _, cx), (_, fy, cy) = matrix[0], matrix[1]
    width, height = right - left, bottom - top
    # Pixel (u, v) goes to 2 (u - left) / width - 1 and 1 - 2 (v - top) / height.
    gl = np.zeros((4, 4))
    gl[0, 0], gl[0, 2] = 2.0 * fx / width, -(2.0 * (cx - left) / width - 1.0)
    gl[1, 1], gl[1, 2] = 2.0 * fy / height, 2.0 * (cy - top) / height - 1.0
    gl[2, 2], gl[2, 3] = -(FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2.0 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    gl[3, 2] = -1.0
    return [float(x) for x in gl.T.ravel()]


def _view(T_base_camera: Array) -> Array:  # noqa: N803
    """OpenGL's view matrix [4, 4]: x right, y up, z backwards."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    return flip @ np.linalg.inv(T_base_camera)
