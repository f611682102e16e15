"""How far adapted images are from the camera's, and what became of the objects in them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional

from sim2real.adapt.networks import set_domain
from sim2real.torch_io import to_tensor

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

FEATURE_SEED = 20
FEWEST_PIXELS = 6  # inside, beside and around an object, under which its colours are not known
LEAST_CONTRAST = 25.0  # of an object to what is around it, of 255
LEAST_AREA = 12  # pixels of an object in an image of 128 px, under which it counts as hidden


class RandomFeatures(nn.Module):
    """Fixed features that need no download: a convolutional network with random weights, always the same.

    Mean and standard deviation over the image of every map after three layers, and of the image itself. Random
    convolutions rank generators much as trained features do where domains differ in colour, texture and contrast
    (Naeem et al. 2020 use them for domains that ImageNet does not know); they are blind to meaning. Values compare
    with other values of this function only, never with published FIDs.
    """

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(FEATURE_SEED)
        self.layers = nn.ModuleList()
        for inputs, outputs in ((3, 24), (24, 32), (32, 48)):
            layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            weight = torch.randn(layer.weight.shape, generator=random) * (2.0 / (9 * inputs)) ** 0.5
            layer.weight.data = weight
            self.layers.append(layer)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 214] of images [B, 3, H, W] in [0, 1]."""
        x = 2.0 * x - 1.0
        parts = [x.mean(dim=(2, 3)), x.std(dim=(2, 3))]
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
            parts += [x.mean(dim=(2, 3)), x.std(dim=(2, 3))]
        return torch.cat(parts, dim=1)


def features(images: Image, batch: int = 64) -> Array:
    """Features [N, F] of images [N, H, W, 3], see ``RandomFeatures``."""
    network = RandomFeatures()
    parts = [network(to_tensor(images[i : i + batch])) for i in range(0, len(images), batch)]
    return torch.cat(parts).double().numpy()


def frechet_distance(a: Array, b: Array) -> float:
    """FID's formula (Heusel et al. 2017) on any features [N, F]: ‖μ₁-μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½).

    Biased upwards where N is not much larger than F; see ``kernel_distance``.
    """
    difference = a.mean(axis=0) - b.mean(axis=0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # (Σ₁Σ₂)^½ has the trace of (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric.
    values, vectors = linalg.eigh(first)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    common = np.sqrt(np.maximum(linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2.0 * common)


def kernel_distance(a: Array, b: Array) -> float:
    """KID (Bińkowski et al. 2018): unbiased squared maximum mean discrepancy, kernel (x·y / F + 1)³.

    Features [N, F] are scaled by the standard deviation of ``b`` first, so that no feature drowns the others. May be
    a little below zero for samples of one distribution.
    """
    scale = b.std(axis=0) + 1e-6
    a, b = (a - b.mean(axis=0)) / scale, (b - b.mean(axis=0)) / scale

    def kernel(x: Array, y: Array) -> Array:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    n, m = len(a), len(b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2.0 * ab.mean())


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
    kernel = np.ones((2 * margin + 1,) * 2, np.uint8)
    return np.stack([cv2.dilate(mask.astype(np.uint8), kernel) for mask in masks]).astype(bool)


def _centres(masks: NDArray[np.bool_]) -> Array:
    """Centre [N, 2] of the largest connected part of every mask, px; 0 for an empty one."""
    centres = np.zeros((len(masks), 2))
    for row, mask in enumerate(masks):
        _, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if len(stats) > 1:
            centres[row] = centroids[1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])]
    return centres


@torch.no_grad()
def predict(network: nn.Module, images: Image, domain: int = 0, batch: int = 64) -> NDArray[np.int64]:
    """Classes that a task network gives: [N] of a classifier, [N, H, W] of a segmenter."""
    network.eval()
    set_domain(network, domain)
    parts = [network(to_tensor(images[i : i + batch])).argmax(dim=1) for i in range(0, len(images), batch)]
    return torch.cat(parts).numpy()


def class_ious(found: NDArray[np.int64], truth: Image, classes: int) -> dict[int, float]:
    """Intersection over union of all pixels together, for every class that is there, background left out."""
    return {
        c: float(((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum())
        for c in range(1, classes)
        if (truth == c).any()
    }


def mean_iou(found: NDArray[np.int64], truth: Image, classes: int) -> float:
    """Mean of ``class_ious``; NaN where there is nothing but background."""
    values = class_ious(found, truth, classes)
    return float(np.mean(list(values.values()))) if values else float("nan")
