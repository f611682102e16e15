"""Small datasets of two looks: a square (rendered: flat and grey; camera: coloured light, texture, noise)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim2real.images.dataset import DatasetWriter

SIDE = 32
CLASSES = {0: "background", 1: "object"}


def scenes(count: int, camera: bool, seed: int, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images [N, S, S, 3] with one object each, and its masks [N, S, S]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    images, masks = [], []
    for _ in range(count):
        centre, half = rng.uniform(0.3, 0.7, 2) * side, rng.uniform(0.14, 0.2) * side
        mask = (abs(x - centre[0]) < half) & (abs(y - centre[1]) < half)
        if camera:
            image = np.array([0.75, 0.6, 0.35]) + 0.1 * np.sin(x / 2 + rng.uniform(0, 6))[..., None]
            image = np.where(mask[..., None], np.array([0.15, 0.3, 0.55]), image)
            image = image * rng.uniform(0.8, 1.1) + 0.04 * rng.standard_normal(image.shape)
        else:
            image = np.full((side, side, 3), 0.45) + 0.02 * rng.standard_normal((side, side, 3))
            image = np.where(mask[..., None], 0.8, image)
        images.append((255 * image.clip(0, 1)).astype(np.uint8))
        masks.append(mask.astype(np.uint8))
    return np.stack(images), np.stack(masks)


def write_scenes(folder: Path, count: int, camera: bool, seed: int, masks: bool = True) -> Path:
    """The same as a dataset; frames know where the object is."""
    images, truth = scenes(count, camera, seed)
    with DatasetWriter(folder, SIDE, SIDE, CLASSES, {"seed": seed}) as writer:
        for i in range(count):
            writer.add(images[i], truth[i] if masks else None, object_pos=[0.01 * i, 0.0, 0.0], label=i % 3)
    return folder
