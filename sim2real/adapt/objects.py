"""What became of the objects in translated images: by a detector that knows classes, and by edges and colours alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.adapt.domains import objects_of
from sim2real.types import Array, Image

FEWEST_PIXELS = 6  # inside, beside and around an object, under which its colours are not known
LEAST_CONTRAST = 25.0  # of an object to what is around it, of 255
LEAST_AREA = 12  # pixels of an object in an image of 128 px, under which it counts as hidden
STRONG_EDGE = 60.0  # of a step of about 30 of 255, see ``_edges``
SEEN_EDGE = 30.0  # of an outline that can be looked for again
GONE = 0.5  # of an outline's strength, and of its correlation, under which it is gone
THING_AREA, THING_SIDES, THING_LENGTH = 16, (4, 48), 3.5  # px, sides in px and their ratio, of an image of 128 px
THING_CONTRAST = 50.0  # of an invented thing to what is around it, of 255
ALIKE = 0.3  # correlation of edges from which new ones are the input's, only stronger
NEW_BACKGROUND = 0.05  # share of strong new edges, in the middle, from which all is new and nothing stands out


@dataclass(frozen=True)
class ObjectChange:
    """What became of the objects of one class, one value an image.

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
        drift = np.where(kept, np.linalg.norm(_centres(a) - _centres(b), axis=1), np.nan)
        result[number] = ObjectChange(
            iou=iou,
            drift_px=drift,
            removed=found & ~kept,
            invented=np.array(
                [_apart(after_, near, 4 * least) for after_, near in zip(b, _widened(a | t, margin), strict=True)]
            ),
        )
    return result


def edge_drift(before: Image, after: Image, masks: NDArray[np.bool_], reach: int) -> tuple[Array, Array]:
    """How far the edges of an object have moved, without knowing what the object is.

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
        template = _edges(before[row])[top:bottom, left:right]
        search = np.pad(_edges(after[row]), reach)[top : bottom + 2 * reach, left : right + 2 * reach]
        inside = window[top:bottom, left:right].astype(np.float32)
        found = cv2.matchTemplate(search, template, cv2.TM_CCOEFF_NORMED, mask=inside)
        found = np.where(np.isfinite(found), found, -1.0)
        best = np.unravel_index(np.argmax(found), found.shape)
        drift[row], match[row] = np.hypot(best[0] - reach, best[1] - reach), found[best]
    return drift, match


def spill(before: Image, after: Image, masks: Image, number: int, reach: int) -> Array:
    """Share of an object's surroundings that a translation has given the object's colour: a smear that touches it.

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
        places = [_between(image[row].astype(np.float64), core, far) for image in (before, after)]
        if places[0] is None or places[1] is None:
            continue
        first, then = places[0][band], places[1][band]
        result[row] = float(((then > 0.5) & (then - first > 0.4)).mean())
    return result


def vanished(before: Image, after: Image, masks: Image) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """How many objects can be seen before, and how many of these have no outline after; asks for no training.

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
        first, then = _edges(before[row]), _edges(after[row])
        gain = min(_gain(first, then), 1.0)
        for number, (seen, gone) in result.items():
            states = _outlines(mask == number, first, then, gain)
            seen[row], gone[row] = len(states), sum(states)
    return result


def _outlines(
    mask: NDArray[np.bool_], first: NDArray[np.float32], then: NDArray[np.float32], gain: float
) -> list[bool]:
    """Whether the outline is gone, of every connected part of a mask [H, W] whose outline shows before."""
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
        near = _wider(one, 2)
        weak = float(then[window][outline].mean()) < GONE * gain * strength
        states.append(weak and _correlation(first[window][near], then[window][near]) < GONE)
    return states


def invented(before: Image, after: Image, objects: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Array]:
    """Whether a translation shows a thing that the input does not have; asks for no training and knows no classes.

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
        Whether there is such a thing [N], and the share of the background [N] that is covered by new edges.
    """
    found, share = np.zeros(len(before), bool), np.zeros(len(before))
    for row, mask in enumerate(objects):
        first, then = _edges(before[row]), _edges(after[row])
        new, away = _new_edges(first, then, mask)
        share[row] = new.sum() / max(away.sum(), 1)
        outlines, _ = cv2.findContours(
            cv2.morphologyEx(new.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)),
            cv2.RETR_EXTERNAL,
            cv2.CHAIN_APPROX_NONE,
        )
        found[row] = any(_is_thing(outline, before[row], after[row], first, then) for outline in outlines)
    return found, share


def _new_edges(
    first: NDArray[np.float32], then: NDArray[np.float32], objects: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Edges [H, W] that only the translation has, and where it was looked for them: away from objects and border."""
    scale = min(first.shape) / 128.0
    away = ~_wider(objects, max(2, round(3 * scale)))
    border = max(1, round(4 * scale))
    away[:border] = away[-border:] = False
    away[:, :border] = away[:, -border:] = False
    if not away.any():
        return away, away
    gain = _gain(first, then)
    everywhere = 4.0 * float(np.median(then[away]))  # noise and texture
    known = 3.0 * gain * cv2.dilate(first, np.ones((5, 5), np.uint8))
    return away & (then > np.maximum(max(STRONG_EDGE * min(gain, 1.0), everywhere), known)), away


def _is_thing(
    outline: NDArray[Any], before: Image, after: Image, first: NDArray[np.float32], then: NDArray[np.float32]
) -> bool:
    """Whether new edges with this outline are a thing, see ``invented``."""
    scale = min(first.shape) / 128.0
    left, top, width, height = cv2.boundingRect(outline)
    short, long = min(width, height), max(width, height)
    if short < max(2.0, THING_SIDES[0] * scale) or long > min(THING_SIDES[1] * scale, THING_LENGTH * short):
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
    if area < max(4.0, THING_AREA * scale**2) or filled.sum() < 0.4 * area:
        return False
    near = _wider(hull, 2)
    if _correlation(first[window][near], then[window][near]) > ALIKE:
        return False
    core = cv2.erode(hull, np.ones((3, 3), np.uint8)) > 0
    core = core if core.sum() >= 4 else hull > 0
    ring = _wider(hull, reach) & ~_wider(hull, 1)
    lines = [np.median(x[window][core], axis=0) - np.median(x[window][ring], axis=0) for x in (before, after)]
    contrast = float(np.linalg.norm(lines[1]))
    if contrast < THING_CONTRAST * min(_gain(first, then), 1.0) or np.linalg.norm(lines[0]) > 0.4 * contrast:
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
        if stats[part, cv2.CC_STAT_AREA] < max(4.0, 2 * LEAST_AREA * scale**2) or max(w, h) > THING_SIDES[1] * scale:
            continue
        one, taken = parts[top : top + h, left : left + w] == part, _wider(objects[row], distance)
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


def _gain(first: NDArray[np.float32], then: NDArray[np.float32]) -> float:
    """How much stronger the input's edges have become, in the middle."""
    strong = first > SEEN_EDGE
    return float(np.clip(np.median(then[strong] / first[strong]), 0.25, 3.0)) if strong.sum() > FEWEST_PIXELS else 1.0


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-6))


def _wider(mask: NDArray[Any], margin: int) -> NDArray[np.bool_]:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8)) > 0


def _between(image: Array, core: NDArray[np.bool_], far: NDArray[np.bool_]) -> Array | None:
    """Where each pixel's colour [H, W] lies on the line from that of ``far`` (0) to that of ``core`` (1).

    None where both are too alike for their own spread.
    """
    here, there = np.median(image[core], axis=0), np.median(image[far], axis=0)
    line = here - there
    length = float(np.linalg.norm(line))
    spread = float(np.abs((image[far] - there) @ line).mean()) / max(length, 1e-9)
    if length < max(LEAST_CONTRAST, 2.5 * spread):
        return None
    return (image - there) @ line / length**2


def _edges(image: Image) -> NDArray[np.float32]:
    """Strength of the strongest colour channel's gradient, a little blurred."""
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8)
    parts = [cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)]
    return np.hypot(*parts).max(axis=-1)


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Array:
    """Intersection over union [N] of masks [N, H, W]; 0 where both are empty."""
    return (a & b).sum(axis=(1, 2)) / np.maximum((a | b).sum(axis=(1, 2)), 1)


def _apart(mask: NDArray[np.bool_], near: NDArray[np.bool_], least: float) -> bool:
    """Whether a connected part of at least ``least`` pixels touches nothing of ``near``."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    touching = np.unique(parts[near])
    return any(stats[i, cv2.CC_STAT_AREA] >= least and i not in touching for i in range(1, count))


def _widened(masks: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    return np.stack([_wider(mask, margin) for mask in masks])


def _centres(masks: NDArray[np.bool_]) -> Array:
    """Centre [N, 2] of the largest connected part of every mask, px; 0 for an empty one."""
    centres = np.zeros((len(masks), 2))
    for row, mask in enumerate(masks):
        _, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if len(stats) > 1:
            centres[row] = centroids[1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])]
    return centres
