"""Textures and coarse meshes of the scene before the target's camera; see ``so101_camera.py``."""

from __future__ import annotations

from importlib.resources.abc import Traversable

import numpy as np
from numpy.typing import NDArray

from sim2real.types import Array, Image

TEXTURE_PX = 128


def coarse_mesh(path: Traversable, cell_m: float) -> tuple[Array, NDArray[np.int32]]:
    """Vertices [V, 3] m and triangles [F, 3] of a binary STL file, with vertices of one cell of a grid made one.

    The arm's 320,000 triangles are far finer than a pixel and take most of the time of a software renderer.
    """
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    corners = np.frombuffer(path.read_bytes(), record, offset=84)["corners"].astype(np.float64).reshape(-1, 3)
    _, cell = np.unique(np.floor(corners / cell_m).astype(np.int64), axis=0, return_inverse=True)
    cell = cell.ravel()
    sums = np.stack([np.bincount(cell, corners[:, axis]) for axis in range(3)], axis=1)
    vertices: Array = np.asarray(sums, dtype=np.float64) / np.bincount(cell)[:, None]
    faces = np.asarray(cell.reshape(-1, 3), dtype=np.int32)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[whole]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return vertices, faces[np.sort(first)]


def texture(rng: np.random.Generator, index: int) -> Image:
    """Wood, cloth, stone, print, room or plaster [TEXTURE_PX, TEXTURE_PX, 3]."""
    side = TEXTURE_PX
    y, x = np.mgrid[0:side, 0:side] / side
    rough = _fractal(rng)
    base, other = rng.uniform(30, 235, (2, 3))
    kind = index % 6
    if kind == 0:  # wood: stretched grain in browns
        base = np.array([150.0, 105.0, 65.0]) * rng.uniform(0.5, 1.4)
        share = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(3, 9) * x + 1.5 * rough))
        image = base * (0.75 + 0.35 * share[..., None])
    elif kind == 1:  # cloth: a weave
        threads = rng.integers(10, 40)
        share = 0.5 + 0.25 * (np.sin(2 * np.pi * threads * x) + np.sin(2 * np.pi * threads * y))
        image = base * (0.7 + 0.4 * share[..., None])
    elif kind == 2:  # stone
        image = base + (other - base) * (np.abs(2 * rough - 1) ** 0.7)[..., None]
    elif kind == 3:  # print: discs and bars
        image = np.tile(base, (side, side, 1))
        for _ in range(12):
            cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.2)
            inside = np.hypot(x - cx, y - cy) < r if rng.uniform() < 0.5 else (abs(x - cx) < r) & (abs(y - cy) < r / 3)
            image[inside] = rng.uniform(0, 255, 3)
    elif kind == 4:  # a room out of focus: large rectangles, blurred by sampling
        image = np.tile(base, (side, side, 1))
        for _ in range(8):
            (x0, y0), (w, h) = rng.uniform(-0.2, 0.9, 2), rng.uniform(0.1, 0.6, 2)
            soft = np.clip(20 * np.minimum.reduce([x - x0, x0 + w - x, y - y0, y0 + h - y]), 0, 1)[..., None]
            image = image * (1 - soft) + soft * rng.uniform(20, 245, 3)
    else:  # plaster: nearly one colour
        image = base * (0.9 + 0.2 * rough[..., None])
    return np.asarray(np.clip(image + rng.normal(0, 4, image.shape), 0, 255), dtype=np.uint8)


def _fractal(rng: np.random.Generator) -> Array:
    """Noise with a spectrum of 1/f², from random phases; 0 to 1."""
    frequency = np.fft.fftfreq(TEXTURE_PX)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    radius[0, 0] = np.inf
    spectrum = np.exp(2j * np.pi * rng.uniform(0, 1, radius.shape)) / radius**1.6
    field = np.real(np.fft.ifft2(spectrum))
    return (field - field.min()) / np.ptp(field)
