"""Edges, and shapes of masks, that objects are followed by."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.types import Array, Image

FEWEST_PIXELS = 6  # inside, beside and around an object, under which its colours are not known
SEEN_EDGE = 30.0  # of an outline that can be looked for again


def edge_gain(first: NDArray[np.float32], then: NDArray[np.float32]) -> float:
    """Factor by which strong edges [H, W] have become stronger, in the middle; within 0.25 and 3."""
    strong = first > SEEN_EDGE
    return float(np.clip(np.median(then[strong] / first[strong]), 0.25, 3.0)) if strong.sum() > FEWEST_PIXELS else 1.0


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation coefficient of two arrays of one shape, -1 to 1."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-6))


def dilated(mask: NDArray[Any], margin: int) -> NDArray[np.bool_]:
    """A mask [H, W], wider by ``margin`` px on every side."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8)) > 0


def edge_strength(image: Image) -> NDArray[np.float32]:
    """Gradient [H, W] of the strongest colour channel of an image [H, W, 3], a little blurred."""
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8)
    parts = [cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)]
    return np.hypot(*parts).max(axis=-1)


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Array:
    """Intersection over union [N] of masks [N, H, W]; 0 where both are empty."""
    return (a & b).sum(axis=(1, 2)) / np.maximum((a | b).sum(axis=(1, 2)), 1)


def has_separate_part(mask: NDArray[np.bool_], near: NDArray[np.bool_], least: float) -> bool:
    """True where a connected part of at least ``least`` pixels touches nothing of ``near`` [H, W]."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    touching = np.unique(parts[near])
    return any(stats[i, cv2.CC_STAT_AREA] >= least and i not in touching for i in range(1, count))


def all_dilated(masks: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """Masks [N, H, W], each wider by ``margin`` px on every side."""
    return np.stack([dilated(mask, margin) for mask in masks])


def centres(masks: NDArray[np.bool_]) -> Array:
    """Centre [N, 2] of the largest connected part of every mask, px; 0 for an empty one."""
    result = np.zeros((len(masks), 2))
    for row, mask in enumerate(masks):
        _, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if len(stats) > 1:
            result[row] = centroids[1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])]
    return result
