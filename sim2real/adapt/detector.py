"""The gate's detector: a segmenter that has seen renders in all colours and never a translation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from sim2real.adapt import losses
from sim2real.adapt.domains import Domain
from sim2real.adapt.networks import Segmenter
from sim2real.learn.torch_io import to_tensor

DETECTOR_BATCH, DETECTOR_WIDTH, DETECTOR_RATE = 16, 8, 3e-3


def recoloured(images: Tensor, random: torch.Generator) -> Tensor:
    """Images [B, 3, H, W] in other colours and light; every object stays where it is.

    Channels mixed, contrast turned down or around, a smooth field of colour added, noise, sometimes blurred.
    """
    count = len(images)
    mix = torch.eye(3) + 0.5 * torch.randn((count, 3, 3), generator=random)
    x = torch.einsum("nij,njhw->nihw", mix, images - 0.5)
    gain = (0.4 + 0.8 * torch.rand((count, 1, 1, 1), generator=random)) * _sign(count, random)
    field_ = functional.interpolate(
        torch.randn((count, 3, 5, 5), generator=random), images.shape[2:], mode="bicubic", align_corners=False
    )
    amount = 0.3 * torch.rand((count, 1, 1, 1), generator=random)
    x = gain * x + 0.5 + amount * field_ + 0.2 * torch.randn((count, 3, 1, 1), generator=random)
    x = x + 0.06 * torch.rand((count, 1, 1, 1), generator=random) * torch.randn(x.shape, generator=random)
    blurred = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.where(torch.rand((count, 1, 1, 1), generator=random) < 0.4, blurred, x)
    return x.clamp(0.0, 1.0)


def _sign(count: int, random: torch.Generator) -> Tensor:
    return torch.where(torch.rand((count, 1, 1, 1), generator=random) < 0.25, -1.0, 1.0)


def train_detector(source: Domain, classes: int, steps: int, seed: int = 0) -> Segmenter:
    """A segmenter that has seen rendered images in all colours and never a translation.

    One that learns beside a generator gets used to whatever it moves; this one cannot. It learns from the simulator's
    masks on recoloured images, so a change of look alone does not mislead it.
    """
    assert source.masks is not None
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    detector = Segmenter(classes, DETECTOR_WIDTH)
    optimizer = torch.optim.Adam(detector.parameters(), DETECTOR_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, DETECTOR_RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(source), (DETECTOR_BATCH,), generator=random).numpy()
        images = to_tensor(source.images[rows])
        half = DETECTOR_BATCH // 2
        images = torch.cat((images[:half], recoloured(images[half:], random)))
        masks = torch.from_numpy(source.masks[rows]).long()
        loss = losses.segmentation(detector(images), masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return detector.eval()


def load_segmenter(file: Path) -> Segmenter:
    """A segmenter from its state; that says its sizes."""
    state = torch.load(file, weights_only=True)
    classes, width = state["out.weight"].shape[:2]
    detector = Segmenter(int(classes), int(width))
    detector.load_state_dict(state)
    return detector.eval()
