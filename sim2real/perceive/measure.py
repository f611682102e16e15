"""Errors of a localizer, and calibration of its standard deviations."""

from __future__ import annotations

import numpy as np
import torch

from sim2real.learn.torch_io import to_tensor
from sim2real.perceive.augment import Augmentation
from sim2real.perceive.labelled import Labelled
from sim2real.perceive.network import Localizer
from sim2real.types import Array, Image


@torch.inference_mode()
def predict(network: Localizer, images: Image, augment: Augmentation | None = None) -> tuple[Array, Array]:
    """Place and standard deviation [N, 2] m of images [N, H, W, 3]."""
    network.eval()
    positions, stds = [], []
    for first in range(0, len(images), 100):
        batch = to_tensor(images[first : first + 100])
        position, std, _ = network((augment(batch) if augment else batch).contiguous(memory_format=torch.channels_last))
        positions.append(position.double().numpy())
        stds.append(std.double().numpy())
    return np.concatenate(positions), np.concatenate(stds)


def measure(network: Localizer, data: Labelled, seed: int) -> dict[str, float]:
    """Errors, m, on augmented images."""
    position, _ = predict(network, data.images, Augmentation(seed=seed + 999))
    return error_figures(np.linalg.norm(position - data.position, axis=1))


def error_figures(error: Array) -> dict[str, float]:
    """Mean, median and 95th percentile of distances [N] m."""
    return {
        "mean_error_m": float(error.mean()),
        "median_error_m": float(np.median(error)),
        "p95_error_m": float(np.percentile(error, 95)),
    }


def calibrate(network: Localizer, held_out: Labelled, seed: int) -> tuple[torch.Tensor, dict[str, float]]:
    """Factor [2] of the standard deviations, and figures of the held-out renders with it.

    The factor makes 68.3 % of the errors in each axis smaller than their standard deviation. It is found on one half of
    the held-out images; the figures are of the other half.
    """
    position, std = predict(network, held_out.images, Augmentation(seed=seed + 998))
    ratio = np.abs(position - held_out.position) / std
    half = len(ratio) // 2
    factor = np.quantile(ratio[:half], 0.683, axis=0) if half else np.ones(2)
    factor = np.maximum(factor, 1e-3)
    rest = slice(half, None)
    checked = ratio[rest] / factor
    figures = error_figures(np.linalg.norm(position[rest] - held_out.position[rest], axis=1))
    figures |= {
        "images": float(len(checked)),
        "inside_1_std": float((checked < 1.0).mean()),
        "inside_2_std": float((checked < 2.0).mean()),
        "std_factor_x": float(factor[0]),
        "std_factor_y": float(factor[1]),
    }
    return torch.as_tensor(factor, dtype=torch.float32) * network.std_factor, figures
