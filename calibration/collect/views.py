"""Quality of an image, distance between views, and choice of the views that cover the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim2real.images.dataset import ImageDataset
from sim2real.types import Array, Image, Model

Vector = NDArray[np.float32]

MEASURED_WIDTH = 320  # sharpness is measured at this width, so that it does not depend on the camera's resolution
CELLS = (16, 12)  # columns and rows of the small image that stands for a view
BRIGHT, DARK = 250, 8  # grey values from which on, or up to which, a pixel tells nothing


class Gates(Model):
    """Limits that a frame must keep to be recorded.

    Attributes:
        blur: Least sharpness, as a fraction of what the sharp ones among the newest frames have; 0 keeps every frame.
        bright_share: Largest fraction of pixels that are white.
        dark_share: Largest fraction of pixels that are black.
        appearance: Two views look alike if no cell of a 16 x 12 grid differs by more, black to white being 1.
        joint_rad: Two poses are alike if no joint differs by more,
        ee_m: nor the end effector's position.
    """

    blur: float = Field(default=0.35, ge=0.0, lt=1.0)
    bright_share: float = Field(default=0.3, gt=0.0, le=1.0)
    dark_share: float = Field(default=0.6, gt=0.0, le=1.0)
    appearance: float = Field(default=0.04, gt=0.0)
    joint_rad: float = Field(default=0.03, gt=0.0)
    ee_m: float = Field(default=0.01, gt=0.0)


@dataclass(frozen=True)
class Look:
    """Measurements of one image.

    Attributes:
        sharpness: Variance of the Laplacian (Pech-Pacheco et al. 2000), here of its weaker direction, over the
            variance of the grey values, which takes out contrast and light. Compare it within one scene only.
        bright_share, dark_share: Of pixels that are white, or black.
        cells: The small image [12, 16, 3], 0 to 1.
    """

    sharpness: float
    bright_share: float
    dark_share: float
    cells: Vector


def look_at(image: Image) -> Look:
    """Measure an image [H, W, 3] RGB."""
    height, width = image.shape[:2]
    scale = MEASURED_WIDTH / width
    small = image
    if scale < 1.0:
        size = (MEASURED_WIDTH, max(1, round(scale * height)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    # Smoothed a little: neither the noise of single pixels nor how edges fall on them is sharpness. The two halves of
    # the Laplacian apart: motion blurs along its own direction only, and the other would hide it.
    smooth = cv2.GaussianBlur(grey, (3, 3), 0.0)
    edges = min(float(cv2.Sobel(smooth, cv2.CV_32F, dx, 2 - dx, ksize=3).var()) for dx in (0, 2))
    cells = cv2.resize(small, CELLS, interpolation=cv2.INTER_AREA).astype(np.float32) / 255.0
    return Look(
        edges / max(float(grey.var()), 1.0),
        float((grey >= BRIGHT).mean()),
        float((grey <= DARK).mean()),
        cells,
    )


def view_vector(gates: Gates, cells: Vector, joint_pos: Array | None = None, ee_pos: Array | None = None) -> Vector:
    """A view as one vector, in steps that make a difference: two are near-duplicates if every element is within 1.

    Args:
        gates: What makes a difference.
        cells: The small image [12, 16, 3].
        joint_pos: [J] rad.
        ee_pos: [3] m.

    Returns:
        [D]; views are compared by the largest difference of an element.
    """
    parts = [cells.ravel() / gates.appearance]
    if joint_pos is not None:
        parts.append(np.asarray(joint_pos) / gates.joint_rad)
    if ee_pos is not None:
        parts.append(np.asarray(ee_pos) / gates.ee_m)
    return np.concatenate(parts).astype(np.float32)


def distances(views: Vector, view: Vector) -> Vector:
    """Distance [N] of every one of ``views`` [N, D] from ``view`` [D], in steps that make a difference."""
    return np.abs(views - view).max(axis=1, initial=0.0)


def farthest_points(views: Vector, count: int) -> tuple[NDArray[np.int64], float]:
    """Which views to keep so that every view has a kept one near: farthest-point selection (Gonzalez 1985).

    The distance within which it covers is at most twice the best that any choice of as many could do.

    Args:
        views: [N, D] of :func:`view_vector`.
        count: How many to keep.

    Returns:
        Indices in ascending order, and the largest distance of any view to the nearest kept one.
    """
    if not len(views):
        return np.empty(0, dtype=np.int64), 0.0
    chosen = [0]
    nearest = distances(views, views[0])
    while len(chosen) < min(count, len(views)) and nearest.max() > 0.0:
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, distances(views, views[chosen[-1]]), out=nearest)
    return np.sort(np.array(chosen, dtype=np.int64)), float(nearest.max())


def candidate_vectors(dataset: ImageDataset, gates: Gates) -> list[Vector]:
    """Every frame of a dataset as :func:`calibration.collect.views.view_vector` has it, images read one at a time."""
    vectors = []
    for index, frame in enumerate(dataset.frames):
        image = replace_frames(dataset, [index]).images[0]
        joints = np.array(frame["joint_pos"]) if "joint_pos" in frame else None
        position = np.array(frame["T_base_ee"])[:3, 3] if "T_base_ee" in frame else None
        vectors.append(view_vector(gates, look_at(np.ascontiguousarray(image)).cells, joints, position))
    return vectors


def replace_frames(dataset: ImageDataset, indices: list[int]) -> ImageDataset:
    """The dataset with some of its frames only."""
    return replace(dataset, frames=[dataset.frames[index] for index in indices])
