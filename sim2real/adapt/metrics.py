"""Distance of adapted images from the camera's, and accuracy of networks on them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional

from sim2real.adapt.networks import set_domain
from sim2real.learn.torch_io import to_tensor
from sim2real.types import Array, Image

FEATURE_SEED = 20


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


def kernel_distance(a: Array, b: Array, like: Array | None = None) -> float:
    """KID (Bińkowski et al. 2018): unbiased squared maximum mean discrepancy, kernel (x·y / F + 1)³.

    Features [N, F] are first moved and scaled by mean and standard deviation of ``like``, features [M, F] of more
    images of ``b``'s kind (by default ``b``), so that no feature drowns the others: of a handful of images some feature
    hardly varies by chance, and would. May be a little below zero for samples of one distribution.
    """
    like = b if like is None else like
    scale = like.std(axis=0) + 1e-6
    a, b = (a - like.mean(axis=0)) / scale, (b - like.mean(axis=0)) / scale

    def kernel(x: Array, y: Array) -> Array:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    n, m = len(a), len(b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2.0 * ab.mean())


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
