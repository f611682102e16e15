"""A localizer learns from real images that nobody has labelled: its own slow average says where the object is.

A mean teacher (Tarvainen and Valpola 2017), for a change of domain as in French et al. 2018, which counts only where it
is sure (Sohn et al. 2020). Both see an image, each shifted by its own amount, the network also augmented. The object
found must move with the image, so errors of the average at one position are averaged away over many.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sim2real.errors import ConfigError
from sim2real.images.dataset import fit, read_dataset
from sim2real.learn.torch_io import follow, moved, teacher_ramp, to_tensor
from sim2real.perceive.augment import Augmentation
from sim2real.perceive.config import TeacherConfig
from sim2real.perceive.network import Localizer
from sim2real.types import Image

log = logging.getLogger(__name__)

FEWEST = 16


@dataclass(frozen=True)
class Lesson:
    """Real images as the network is to see them, and what it is to find.

    Attributes:
        images: [N, 3, H, W].
        pixels: Columns and rows [N, 2].
        sure: 1 where the average is sure of itself, otherwise 0 [N].
        weight: Of the agreement.
    """

    images: torch.Tensor
    pixels: torch.Tensor
    sure: torch.Tensor
    weight: float


class Teacher:
    """The average, and its labels of real images.

    Batch norm's statistics are averaged like weights. It is not what is exported: it ends where the network does, as
    the learning rate falls to nothing.

    Args:
        network: The localizer that learns; the average begins as a copy.
        config: Settings.
        unlabelled: Real images [N, H, W, 3], of the localizer's size.

    Attributes:
        average: The localizer that teaches.
    """

    def __init__(self, network: Localizer, config: TeacherConfig, unlabelled: Image) -> None:
        self.average = copy.deepcopy(network).eval()
        self._config, self._unlabelled = config, unlabelled

    @torch.no_grad()
    def lesson(self, batch_size: int, done: float, rng: np.random.Generator, augment: Augmentation) -> Lesson | None:
        """Some real images, and where the average believes the object to be.

        Args:
            batch_size: Of the labelled images beside them.
            done: Fraction of the run; None comes back before ``starts``.
            rng: Chooses and moves them.
            augment: What the network sees on top.
        """
        weight = self._config.weight * teacher_ramp(done, self._config.starts)
        if not weight:
            return None
        count = max(round(self._config.fraction * batch_size), 1)
        rows = rng.choice(len(self._unlabelled), count, replace=count > len(self._unlabelled))
        images, most = to_tensor(self._unlabelled[rows]), self._config.shift_px
        there, here = (torch.as_tensor(rng.integers(-most, most + 1, (count, 2))) for _ in range(2))
        shown = moved(images, there).contiguous(memory_format=torch.channels_last)
        pixels, mass = self.average.read_pixels(self.average(shown)[2].exp())  # in fp32: bf16 rounds positions
        pixels = pixels + (here - there)
        inside = ((pixels >= 0) & (pixels <= self.average.size - 1)).all(dim=1)
        sure = (inside & (mass >= self._config.confidence)).to(pixels.dtype)
        return Lesson(moved(augment(images), here), pixels, sure, weight)

    def follow(self, network: Localizer, step: int) -> None:
        """Move the average towards the network."""
        follow(self.average, network, self._config.average, step, statistics=True)


def load_unlabelled(folder: Path, height: int, width: int) -> Image:
    """Read real images [N, H, W, 3] of a dataset or a folder of images, scaled and cut to a size.

    Raises:
        ConfigError: There are none, too few, or they cannot be read.
    """
    images = read_dataset(folder).images
    if len(images) < FEWEST:
        raise ConfigError(f"{folder} (unlabelled) has {len(images)} images; at least {FEWEST} are needed, 50 better")
    if images.shape[1:3] != (height, width):
        log.warning(
            "%s: images of %d x %d are scaled and cut in the middle to %d x %d", folder, images.shape[2],
            images.shape[1], width, height,
        )  # fmt: skip
    return np.stack([fit(image, (height, width)) for image in images])
