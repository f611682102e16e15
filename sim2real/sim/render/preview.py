"""A robot at its table under visual randomization, to look at."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from sim2real.robots.arm import Arm
from sim2real.runtime.camera import CameraCalibration
from sim2real.sim.render.drawing import add_object, move_object
from sim2real.sim.render.scenery import Scenery, audit_appearance
from sim2real.sim.world import World
from sim2real.types import Array, Image

EYE_M, TARGET_M = (0.75, 0.0, 0.55), (0.25, 0.0, 0.03)  # where a camera without a calibration stands and looks
FOCAL = 0.9  # of the image's width
OBJECT_M = np.array([0.3, 0.08, 0.02])


def preview_camera(size: int) -> CameraCalibration:
    """A camera without a lens, ``size`` px wide and high, that looks down at the table from the front."""
    matrix = np.array([[FOCAL * size, 0, 0.5 * (size - 1)], [0, FOCAL * size, 0.5 * (size - 1)], [0, 0, 1.0]])
    return CameraCalibration(size, size, matrix, T_base_camera=looking(np.array(EYE_M), np.array(TARGET_M)))


def looking(eye: Array, target: Array) -> Array:
    """T_base_camera [4, 4] of a camera at ``eye`` [3] m that looks at ``target`` [3] m, upright."""
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack((x, np.cross(z, x), z), axis=1), eye
    return pose


def preview(
    arm: Arm, camera: CameraCalibration, count: int, photographs: Path | None = None, egl: bool = False, seed: int = 0
) -> tuple[list[Image], Array, dict[str, float]]:
    """Render an arm with one object under visual randomization.

    Args:
        arm: The robot, in its rest pose.
        camera: With ``T_base_camera``.
        count: Number of images.
        photographs: Folder of images that half of the textures are cut from.
        egl: Render with OpenGL.
        seed: Of everything random.

    Returns:
        Images [H, W, 3], where the object is in each [N, 2] (column, row), and for each visual term the mean change of
        a pixel (0 to 255) by it alone.

    Raises:
        SimulationError: The lens or the renderer cannot be used.
    """
    assert camera.T_base_camera is not None
    with closing(World(1, 0.01, egl=egl)) as world:
        world.load_robots(arm.urdf, fixed_base=True)
        world.write_joints(np.array([0]), arm.rest[None], np.zeros((1, len(arm.rest))))
        body = add_object(world, "cylinder", 0.028, 0.04)
        move_object(world, body, OBJECT_M)
        scenery = Scenery(world, camera, camera.T_base_camera, objects=[body], photographs=photographs, seed=seed)
        images, at = [], []
        for _ in range(count):
            scenery.look()
            images.append(scenery.render().rgb)
            at.append(scenery.pixels(OBJECT_M[None])[0])
        return images, np.array(at), audit_appearance(scenery)
