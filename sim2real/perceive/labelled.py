"""Images that say where the object is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import ConfigError
from sim2real.images.dataset import read_dataset
from sim2real.images.lens import project
from sim2real.perceive.config import LocalizeConfig
from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Array, Image


@dataclass(frozen=True)
class Labelled:
    """Images with where the object is in them.

    Attributes:
        images: [N, H, W, 3].
        position: [N, 2] m in the base frame.
        pixels: Columns and rows of the object [N, 2].
    """

    images: Image
    position: Array
    pixels: Array

    def rows(self, index: slice | NDArray[np.int64]) -> Labelled:
        """Some of them."""
        return Labelled(self.images[index], self.position[index], self.pixels[index])

    def with_rows_of(self, other: Labelled) -> Labelled:
        """These and then the others."""
        return Labelled(
            np.concatenate((self.images, other.images)),
            np.concatenate((self.position, other.position)),
            np.concatenate((self.pixels, other.pixels)),
        )


def load_labelled(folder: Path, count: int | None = None) -> Labelled:
    """A rendered dataset, or its first ``count`` images.

    Raises:
        ConfigError: Labels are missing.
    """
    data = read_dataset(folder)
    rows = slice(0, count)
    return Labelled(data.images[rows], data.column("object_pos")[rows, :2], data.column("object_pixel")[rows])


def load_real_images(folder: Path, config: LocalizeConfig, camera: CameraCalibration) -> Labelled:
    """Read real images with positions: the pixel of each object follows from the camera.

    Args:
        folder: Dataset of images of the camera's size; ``object_pos`` of every frame m in the base frame, and where it
            is known ``T_base_camera`` of that very image.
        config: The experiment.
        camera: Where frames do not say.

    Raises:
        ConfigError: Places are missing, or images are of another size.
    """
    data = read_dataset(folder)
    if data.images.shape[1:3] != (camera.height, camera.width):
        raise ConfigError(
            f"{folder} holds images of {data.images.shape[2]} x {data.images.shape[1]}, the experiment's camera makes "
            f"{camera.width} x {camera.height}"
        )
    position = data.column("object_pos")
    known = "T_base_camera" in data.frames[0]
    poses = data.column("T_base_camera") if known else np.tile(camera.T_base_camera, (len(position), 1, 1))  # type: ignore[arg-type]
    pixels = [project(camera, where[None], np.linalg.inv(pose))[0] for where, pose in zip(position, poses, strict=True)]
    return Labelled(data.images, position[:, :2], np.array(pixels))
