"""Changes of objects in translated images: by a detector that knows classes, and by edges and colours alone."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.adapt.domains import objects_of
from sim2real.adapt.edges import (
    FEWEST_PIXELS,
    SEEN_EDGE,
    all_dilated,
    centres,
    correlation,
    dilated,
    edge_gain,
    edge_strength,
    has_separate_part,
    overlap,
)
from sim2real.types import Array, Image

LEAST_CONTRAST = 25.0  # of an object to what is around it, of 255
LEAST_AREA = 12  # pixels of an object in an image of 128 px, under which it counts as hidden
GONE = 0.5  # of an outline's strength, and of its correlation, under which it is gone


@dataclass(frozen=True)
class ObjectChange:
    """Change of the objects of one class, one value an image.

    Attributes:
        iou: Between what a detector finds before and after; NaN where it finds nothing before.
        drift_px: Distance between the centres of both; NaN where one is missing.
        removed: Found before, not after.
        invented: A piece is found after that touches nothing of what was found before or is in the truth.
    """

    iou: Array
    drift_px: Array
    removed: NDArray[np.bool_]
    invented: NDArray[np.bool_]


def object_changes(before: Image, after: Image, truth: Image, classes: int) -> dict[int, ObjectChange]:
    """Compare what one detector finds in images and in their translations.

    Args:
        before: Class numbers [N, H, W] that the detector gives for the input.
        after: For the output.
        truth: The simulator's masks [N, H, W].
        classes: Number of classes, background (0) included.

    Returns:
        One entry for every class but the background.
    """
    least = max(2.0, LEAST_AREA * truth.shape[1] * truth.shape[2] / 128.0**2)
    margin = max(1, round(2 * min(truth.shape[1:]) / 128.0))
    result = {}
    for number in range(1, classes):
        a, b, t = (before == number), (after == number), (truth == number)
        area_a, area_b, area_t = (x.sum(axis=(1, 2)) for x in (a, b, t))
        union = (a | b).sum(axis=(1, 2))
        found = (area_a >= least) & (area_t >= least) & (overlap(a, t) > 0.3)
        iou = np.where(found, (a & b).sum(axis=(1, 2)) / np.maximum(union, 1), np.nan)
        kept = found & (area_b >= 0.25 * area_a)
        drift = np.where(kept, np.linalg.norm(centres(a) - centres(b), axis=1), np.nan)
        result[number] = ObjectChange(
            iou=iou,
            drift_px=drift,
            removed=found & ~kept,
            invented=np.array(
                [
                    has_separate_part(after_, near, 4 * least)
                    for after_, near in zip(b, all_dilated(a | t, margin), strict=True)
                ]
            ),
        )
    return result


def edge_drift(before: Image, after: Image, masks: NDArray[np.bool_], reach: int) -> tuple[Array, Array]:
    """Measure how far the edges of an object have moved, without knowing what the object is.

    The strengths of edges in and around the mask are looked for in the translation, at all shifts up to ``reach``, by
    normalized correlation. It asks for no training and bears any change of colour, but sees no further than
    ``reach``, and an object that has hardly an edge in the rendered image cannot be followed.

    Args:
        before: Rendered images [N, H, W, 3].
        after: Their translations.
        masks: Of one object [N, H, W].
        reach: Largest shift, px.

    Returns:
        Shift of the best match [N] in px and its correlation [N] in -1 .. 1; NaN where there is no object.
    """
    drift, match = np.full(len(before), np.nan), np.full(len(before), np.nan)
    border = max(2, reach // 4)
    for row, mask in enumerate(masks):
        if not mask.any():
            continue
        window = cv2.dilate(mask.astype(np.uint8), np.ones((2 * border + 1,) * 2, np.uint8))
        ys, xs = np.nonzero(window)
        top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
        template = edge_strength(before[row])[top:bottom, left:right]
        search = np.pad(edge_strength(after[row]), reach)[top : bottom + 2 * reach, left : right + 2 * reach]
        inside = window[top:bottom, left:right].astype(np.float32)
        found = cv2.matchTemplate(search, template, cv2.TM_CCOEFF_NORMED, mask=inside)
        found = np.where(np.isfinite(found), found, -1.0)
        best = np.unravel_index(np.argmax(found), found.shape)
        drift[row], match[row] = np.hypot(best[0] - reach, best[1] - reach), found[best]
    return drift, match


def spill(before: Image, after: Image, masks: Image, number: int, reach: int) -> Array:
    """Fraction of an object's surroundings that a translation has given the object's colour: a smear that touches it.

    Every pixel up to ``reach`` from the object's edge (but for the one at the edge, which is of both) is placed on the
    line from the colour of what lies further out (0) to the object's (1), before and after. What comes to lie beyond
    one half, and 0.4 further than it did, is counted. Only surroundings of one class take part, the most frequent one.
    A change of the light or of colours moves all three alike; a shadow goes along another line.

    Args:
        before: Rendered images [N, H, W, 3].
        after: Their translations.
        masks: Class numbers [N, H, W].
        number: The object's class.
        reach: px.

    Returns:
        [N] in 0 .. 1; NaN where there is no object, nothing around it, or no difference of colour after.
    """
    result = np.full(len(before), np.nan)
    for row, mask in enumerate(masks):
        inside = mask == number
        if not inside.any():
            continue
        distance = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 3)
        wide = (distance > 1) & (distance <= 3 * reach)
        surface = wide & (mask == np.bincount(mask[wide].ravel()).argmax()) if wide.any() else wide
        band, far = surface & (distance > 1.5) & (distance <= reach + 1), surface & (distance > reach + 1)
        core = inside & (cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        if min(band.sum(), far.sum(), core.sum()) < FEWEST_PIXELS:
            continue
        positions = [_between(image[row].astype(np.float64), core, far) for image in (before, after)]
        if positions[0] is None or positions[1] is None:
            continue
        first, then = positions[0][band], positions[1][band]
        result[row] = float(((then > 0.5) & (then - first > 0.4)).mean())
    return result


def vanished(before: Image, after: Image, masks: Image) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Count objects that are seen before, and those of them without an outline after; without training.

    Every connected part of a class is an object. It is gone where its outline has lost half of its strength, beyond
    what the whole image has lost, and what is left runs along other lines. An object whose outline hardly shows before
    is not counted; one that a change of colours makes equal to what is around it is gone.

    Args:
        before: Rendered images [N, H, W, 3].
        after: Their translations.
        masks: Class numbers [N, H, W].

    Returns:
        For every object of ``objects_of``: how many are seen before [N], and how many of these are gone after [N].
    """
    result = {int(n): (np.zeros(len(before), np.int64), np.zeros(len(before), np.int64)) for n in objects_of(masks)}
    for row, mask in enumerate(masks):
        first, then = edge_strength(before[row]), edge_strength(after[row])
        gain = min(edge_gain(first, then), 1.0)
        for number, (seen, gone) in result.items():
            states = _outlines(mask == number, first, then, gain)
            seen[row], gone[row] = len(states), sum(states)
    return result


def _outlines(
    mask: NDArray[np.bool_], first: NDArray[np.float32], then: NDArray[np.float32], gain: float
) -> list[bool]:
    """Test every connected part of a mask [H, W] whose outline shows before: True where the outline is gone."""
    states = []
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] < max(2.0, LEAST_AREA * mask.size / 128.0**2):
            continue
        left, top, width, height = stats[part, :4]
        window = slice(max(0, top - 3), top + height + 3), slice(max(0, left - 3), left + width + 3)
        one = (parts[window] == part).astype(np.uint8)
        outline = cv2.morphologyEx(one, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        strength = float(first[window][outline].mean())
        if strength < SEEN_EDGE:
            continue
        near = dilated(one, 2)
        weak = float(then[window][outline].mean()) < GONE * gain * strength
        states.append(weak and correlation(first[window][near], then[window][near]) < GONE)
    return states


def _between(image: Array, core: NDArray[np.bool_], far: NDArray[np.bool_]) -> Array | None:
    """Position of each pixel's colour [H, W] on the line from that of ``far`` (0) to that of ``core`` (1).

    None where both are too alike for their own spread.
    """
    here, there = np.median(image[core], axis=0), np.median(image[far], axis=0)
    line = here - there
    length = float(np.linalg.norm(line))
    variation = float(np.abs((image[far] - there) @ line).mean()) / max(length, 1e-9)
    if length < max(LEAST_CONTRAST, 2.5 * variation):
        return None
    return (image - there) @ line / length**2
