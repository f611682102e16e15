"""Objects that a translation has invented, found by edges and colours alone."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.adapt.edges import (
    correlation,
    dilated,
    edge_gain,
    edge_strength,
)
from sim2real.adapt.objects import LEAST_AREA
from sim2real.types import Array, Image

STRONG_EDGE = 60.0  # of a step of about 30 of 255, see ``edge_strength``
OBJECT_AREA, OBJECT_SIDES, OBJECT_LENGTH = 16, (4, 48), 3.5  # px, sides in px and their ratio, of an image of 128 px
OBJECT_CONTRAST = 50.0  # of an invented thing to what is around it, of 255
ALIKE = 0.3  # correlation of edges from which new ones are the input's, only stronger
NEW_BACKGROUND = 0.05  # fraction of strong new edges, in the middle, from which all is new and nothing stands out


def invented(before: Image, after: Image, objects: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Array]:
    """Find objects that a translation shows and the input does not; without training and without classes.

    A thing is a closed, compact group of strong edges, away from every object and from the image's border, where the
    input has hardly an edge, and those run along other lines; inside it the colour is another than around it, in the
    input it is not. Recolouring, light, shadows with soft edges, noise and blur make no such groups. It does not see
    what touches an object or an edge of the background, or has little contrast: ``with_copies`` tells how much it
    does see.

    Args:
        before: Rendered images [N, H, W, 3].
        after: Their translations.
        objects: Where the simulator has objects [N, H, W].

    Returns:
        Whether there is such a thing [N], and the fraction of the background [N] that is covered by new edges.
    """
    found, fraction = np.zeros(len(before), bool), np.zeros(len(before))
    for row, mask in enumerate(objects):
        first, then = edge_strength(before[row]), edge_strength(after[row])
        new, away = _new_edges(first, then, mask)
        fraction[row] = new.sum() / max(away.sum(), 1)
        outlines, _ = cv2.findContours(
            cv2.morphologyEx(new.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)),
            cv2.RETR_EXTERNAL,
            cv2.CHAIN_APPROX_NONE,
        )
        found[row] = any(_is_object(outline, before[row], after[row], first, then) for outline in outlines)
    return found, fraction


def _new_edges(
    first: NDArray[np.float32], then: NDArray[np.float32], objects: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Edges [H, W] that only the translation has, and where it was looked for them: away from objects and border."""
    scale = min(first.shape) / 128.0
    away = ~dilated(objects, max(2, round(3 * scale)))
    border = max(1, round(4 * scale))
    away[:border] = away[-border:] = False
    away[:, :border] = away[:, -border:] = False
    if not away.any():
        return away, away
    gain = edge_gain(first, then)
    everywhere = 4.0 * float(np.median(then[away]))  # noise and texture
    known = 3.0 * gain * cv2.dilate(first, np.ones((5, 5), np.uint8))
    return away & (then > np.maximum(max(STRONG_EDGE * min(gain, 1.0), everywhere), known)), away


def _is_object(
    outline: NDArray[Any], before: Image, after: Image, first: NDArray[np.float32], then: NDArray[np.float32]
) -> bool:
    """True where new edges with this outline are an object, see ``invented``."""
    scale = min(first.shape) / 128.0
    left, top, width, height = cv2.boundingRect(outline)
    short, long = min(width, height), max(width, height)
    if short < max(2.0, OBJECT_SIDES[0] * scale) or long > min(OBJECT_SIDES[1] * scale, OBJECT_LENGTH * short):
        return False
    reach = max(3, round(4 * scale))
    window = tuple(
        slice(max(0, start - reach - 1), start + side + reach + 1) for start, side in ((top, height), (left, width))
    )
    corner = np.array([window[1].start, window[0].start])
    hull, filled = np.zeros(first[window].shape, np.uint8), np.zeros(first[window].shape, np.uint8)
    cv2.fillPoly(hull, [cv2.convexHull(outline) - corner], 1)
    cv2.drawContours(filled, [outline - corner], -1, 1, -1)
    area = int(hull.sum())
    if area < max(4.0, OBJECT_AREA * scale**2) or filled.sum() < 0.4 * area:
        return False
    near = dilated(hull, 2)
    if correlation(first[window][near], then[window][near]) > ALIKE:
        return False
    core = cv2.erode(hull, np.ones((3, 3), np.uint8)) > 0
    core = core if core.sum() >= 4 else hull > 0
    ring = dilated(hull, reach) & ~dilated(hull, 1)
    lines = [np.median(x[window][core], axis=0) - np.median(x[window][ring], axis=0) for x in (before, after)]
    contrast = float(np.linalg.norm(lines[1]))
    if contrast < OBJECT_CONTRAST * min(edge_gain(first, then), 1.0) or np.linalg.norm(lines[0]) > 0.4 * contrast:
        return False
    around = after[window][ring].astype(np.float64)
    alike = (around - np.median(around, axis=0)) @ lines[1] > 0.5 * contrast**2
    return float(alike.mean()) <= 0.4


def with_copies(
    images: Image, masks: Image, number: int, objects: NDArray[np.bool_]
) -> tuple[Image, NDArray[np.bool_]]:
    """Images in which the largest object of a class is there twice, to find out whether ``invented`` would see it.

    Args:
        images: [N, H, W, 3].
        masks: Class numbers [N, H, W].
        number: The object's class.
        objects: Where any object is [N, H, W]; the copy touches none.

    Returns:
        Images [N, H, W, 3], and which of them have a copy [N].
    """
    random = np.random.default_rng(0)
    result, placed = images.copy(), np.zeros(len(images), bool)
    height, width = masks.shape[1:]
    scale = min(height, width) / 128.0
    distance, border = max(3, round(5 * scale)), max(2, round(5 * scale))
    for row in range(len(images)):
        count, parts, stats, _ = cv2.connectedComponentsWithStats((masks[row] == number).astype(np.uint8))
        if count < 2:
            continue
        part = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        left, top, w, h = stats[part, :4]
        if stats[part, cv2.CC_STAT_AREA] < max(4.0, 2 * LEAST_AREA * scale**2) or max(w, h) > OBJECT_SIDES[1] * scale:
            continue
        one, taken = parts[top : top + h, left : left + w] == part, dilated(objects[row], distance)
        for _ in range(30):
            y, x = (
                int(random.integers(border, side - border - length + 1)) for side, length in ((height, h), (width, w))
            )
            here = slice(y, y + h), slice(x, x + w)
            if not taken[here][one].any():
                result[row][here][one] = images[row, top : top + h, left : left + w][one]
                placed[row] = True
                break
    return result, placed
