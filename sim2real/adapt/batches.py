"""Random batches of a domain."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sim2real.adapt.domains import Domain


class Batches:
    """Random batches of a domain as tensors; where it is, is in the random generator alone."""

    def __init__(self, domain: Domain, size: int, random: torch.Generator) -> None:
        self._images = torch.from_numpy(np.ascontiguousarray(domain.images)).permute(0, 3, 1, 2)
        self._masks = None if domain.masks is None else torch.from_numpy(np.ascontiguousarray(domain.masks))
        self._labels = None if domain.labels is None else torch.from_numpy(domain.labels)
        self._pairs = None if domain.pairs is None else torch.from_numpy(domain.pairs).permute(0, 3, 1, 2)
        self._size, self._random = size, random

    def sample(self) -> dict[str, Tensor]:
        """``images`` [B, 3, H, W] in [0, 1], and ``masks`` [B, H, W] and ``labels`` [B] where there are any."""
        rows = torch.randint(len(self._images), (self._size,), generator=self._random)
        batch = {"images": as_float(self._images[rows])}
        if self._masks is not None:
            batch["masks"] = self._masks[rows].long()
        if self._labels is not None:
            batch["labels"] = self._labels[rows]
        if self._pairs is not None:
            batch["pairs"] = as_float(self._pairs[rows])
        return batch


def as_float(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float in [0, 1], in the memory order that convolutions like best."""
    return images.float().div_(255.0).contiguous(memory_format=torch.channels_last)
