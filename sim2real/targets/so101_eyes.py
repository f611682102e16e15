"""A camera before every simulated SO-101, and the network that finds the object in its images."""

from __future__ import annotations

import numpy as np

from sim2real.runtime.perception import Locator
from sim2real.targets.so101_arm import Puck
from sim2real.targets.so101_camera import So101Camera
from sim2real.types import Array

UNSURE_M = 0.03  # a sighting less certain than that is none: the last one stays
_CLEAR_M = 0.05  # around start, goal and the path between


class Eyes:
    """One camera, looked through by one robot after the other.

    Args:
        locator: The network.
        puck: The object.
        seed: Of what every robot's surroundings look like.
        start: Of the objects [N, 3] m; nothing else stands there,
        goal: nor there [N, 3] m, nor between.

    Raises:
        DriverError: MuJoCo cannot render here.
    """

    def __init__(self, locator: Locator, puck: Puck, seed: int, start: Array, goal: Array) -> None:
        camera = locator.spec.camera()
        assert camera.T_base_camera is not None
        self._camera = So101Camera(camera.width, camera.height, camera.matrix, camera.T_base_camera, puck, seed)
        self._locator, self._seed = locator, seed
        self._clear = [
            np.array([[*(a + fraction * (b - a)), _CLEAR_M] for fraction in (0.0, 0.33, 0.67, 1.0)])
            for a, b in zip(start[:, :2], goal[:, :2], strict=True)
        ]
        self._frames = [0] * len(start)

    def see(self, index: int, joint_pos: Array, object_pos: Array) -> Array | None:
        """Locate the object of one robot.

        Args:
            index: Which robot.
            joint_pos: Its joint positions [6] rad.
            object_pos: True centre of its object [3] m.

        Returns:
            Where the object seems to be [3] m; None where the network is not sure.
        """
        self._frames[index] += 1
        self._camera.look((self._seed, 7, index), self._frames[index])
        self._camera.clear(self._clear[index])
        sighting = self._locator.locate(self._camera.photograph(joint_pos, object_pos).rgb)
        return sighting.position if sighting.uncertainty_m <= UNSURE_M else None

    def close(self) -> None:
        """Free the camera; harmless when closed."""
        self._camera.close()
