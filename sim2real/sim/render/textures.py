"""Textures for what is rendered: made from nothing, or cut from a folder of photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.errors import ConfigError
from sim2real.types import Image

SIDE_PX = 64
KINDS = ("flat", "gradient", "checker", "stripes", "noise", "print")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def procedural(rng: np.random.Generator, kind: str | None = None) -> Image:
    """One texture [SIDE_PX, SIDE_PX, 3]: ``flat``, ``gradient``, ``checker``, ``stripes``, ``noise`` or ``print``."""
    kind = kind or str(rng.choice(KINDS))
    first, second = rng.uniform(0.0, 255.0, (2, 3))
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    angle = rng.uniform(0.0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    fraction = np.zeros_like(x)
    if kind == "gradient":
        fraction = (along - along.min()) / np.ptp(along)
    elif kind == "checker":
        cells = rng.integers(2, 12)
        fraction = (np.floor(x * cells) + np.floor(y * cells)) % 2
    elif kind == "stripes":
        fraction = np.floor(along * rng.integers(2, 16)) % 2
    elif kind == "noise":
        fraction = _noise(rng)
    image = _print(rng) if kind == "print" else first + fraction[..., None] * (second - first)
    return np.asarray(np.clip(image + rng.normal(0.0, rng.uniform(0.0, 8.0), image.shape), 0, 255), dtype=np.uint8)


def _print(rng: np.random.Generator) -> NDArray[np.float64]:
    """Ellipses and rectangles of any colours on one ground, as on cloths, posters and packages."""
    image = np.tile(rng.uniform(0.0, 255.0, 3), (SIDE_PX, SIDE_PX, 1))
    for _ in range(rng.integers(5, 30)):
        (x, y), (w, h) = rng.uniform(0.0, SIDE_PX, 2).astype(int), rng.uniform(1.0, 0.12 * SIDE_PX, 2).astype(int)
        colour, angle = rng.uniform(0.0, 255.0, 3).tolist(), float(rng.uniform(0.0, 180.0))
        if rng.uniform() < 0.5:
            cv2.ellipse(image, ((int(x), int(y)), (2 * int(w), 2 * int(h)), angle), colour, -1)
        else:
            corners = cv2.boxPoints(((int(x), int(y)), (2 * int(w), 2 * int(h)), angle)).astype(np.int32)
            cv2.fillPoly(image, [corners], colour)
    return image


def _noise(rng: np.random.Generator) -> NDArray[np.float64]:
    """Clouds: random grids of several fineness, enlarged and added up."""
    total = np.zeros((SIDE_PX, SIDE_PX))
    for octave in range(5):
        grid = rng.uniform(0.0, 1.0, (2 + 2**octave, 2 + 2**octave))
        total += 0.6**octave * cv2.resize(grid, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    return (total - total.min()) / np.ptp(total)


def from_photographs(folder: Path, rng: np.random.Generator, count: int) -> list[Image]:
    """``count`` square cuttings from the photographs of a folder.

    Raises:
        ConfigError: The folder holds no images, or one that cannot be read.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ConfigError(f"{folder} holds no photographs ({', '.join(SUFFIXES)})")
    cuttings = []
    for index in range(count):
        file = files[index % len(files)]
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise ConfigError(f"{file} cannot be read as an image; remove it or save it again")
        side = int(rng.uniform(0.3, 1.0) * min(image.shape[:2]))
        top, left = (int(rng.integers(0, size - side + 1)) for size in image.shape[:2])
        cut = cv2.resize(image[top : top + side, left : left + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        cuttings.append(np.ascontiguousarray(cut[..., ::-1]))
    return cuttings
