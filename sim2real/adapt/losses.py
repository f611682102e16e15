"""The losses, each one function. Images are [B, 3, H, W] in [0, 1]; every loss is a scalar, smaller is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

REAL, FAKE = 1.0, 0.0


def adversarial_generator(scores: Sequence[Tensor]) -> Tensor:
    """Least-squares GAN (Mao et al. 2017): the discriminator's scores of generated images should be those of real."""
    return torch.stack([(s.float() - REAL).square().mean() for s in scores]).mean()


def adversarial_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least-squares GAN: real images 1, generated 0, mean over patches and scales."""
    parts = [
        0.5 * (r.float() - REAL).square().mean() + 0.5 * (f.float() - FAKE).square().mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(parts).mean()


def content_similarity(source: Tensor, adapted: Tensor, foreground: Tensor) -> Tensor:
    """Masked pairwise mean squared error (Bousmalis et al. 2017, eq. 5).

    Differences between pixels of an object must stay, not the values: a change of the whole object's brightness costs
    nothing. With k the foreground's values: mean(d²) - mean(d)² of the difference d.

    Args:
        source: [B, 3, H, W].
        adapted: [B, 3, H, W].
        foreground: [B, H, W], 1 where something of interest is; an image without any counts nothing.
    """
    mask = foreground[:, None].to(adapted.dtype)
    count = 3.0 * mask.sum(dim=(1, 2, 3)).clamp(min=1.0)
    difference = (adapted.float() - source.float()) * mask
    squares = difference.square().sum(dim=(1, 2, 3)) / count
    return (squares - (difference.sum(dim=(1, 2, 3)) / count).square()).mean()


def classification(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of logits [B, K] and labels [B]."""
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def segmentation(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy of logits [B, K, H, W] and class numbers [B, H, W], plus one minus the soft Dice of objects.

    Two things keep a small object from being drowned by the background: a pixel weighs by the inverse square root of
    how frequent its class is in the batch, and Dice (Milletari et al. 2016) counts every class alike.
    """
    logits = logits.float()
    fraction = torch.bincount(masks.flatten(), minlength=logits.shape[1]).float() / masks.numel()
    entropy = functional.cross_entropy(logits, masks, weight=fraction.clamp(min=1e-4).rsqrt())
    chance = logits.softmax(dim=1)[:, 1:]
    truth = functional.one_hot(masks, logits.shape[1]).movedim(-1, 1)[:, 1:].to(chance.dtype)
    both, either = (chance * truth).sum(dim=(0, 2, 3)), (chance + truth).sum(dim=(0, 2, 3))
    return entropy + 1.0 - ((2.0 * both + 1.0) / (either + 1.0)).mean()


def perception_consistency(before: Tensor, after: Tensor) -> Tensor:
    """Perception loss (RetinaGAN, Ho et al. 2021): divergence KL(before ‖ after) of pixel classes.

    Args:
        before: Logits [B, K, H, W] of a source image, taken as given.
        after: Of its translation.
    """
    target = before.detach().float().log_softmax(dim=1)
    divergence = functional.kl_div(after.float().log_softmax(dim=1), target, reduction="none", log_target=True)
    return divergence.sum(dim=1).mean()


def mask_consistency(logits: Tensor, masks: Tensor) -> Tensor:
    """The simulator's masks must be found in the translation (James et al. 2019); see ``segmentation``."""
    return segmentation(logits, masks)


def cycle_consistency(images: Tensor, returned: Tensor) -> Tensor:
    """There and back again (Zhu et al. 2017): mean absolute difference."""
    return (returned.float() - images.float()).abs().mean()


def identity(images: Tensor, translated: Tensor) -> Tensor:
    """An image that is of the target already stays as it is (Taigman et al. 2017): mean absolute difference."""
    return (translated.float() - images.float()).abs().mean()


def paired(translated: Tensor, truth: Tensor) -> Tensor:
    """Distance to the known answer, where there is one (RCAN's canonical image): mean absolute difference."""
    return (translated.float() - truth.float()).abs().mean()


def contrastive(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """PatchNCE (Park et al. 2020, eq. 3): a patch of the output recognizes its position in the input.

    Args:
        queries: [B, P, C] normalized features of P positions of the translation.
        keys: [B, P, C] of the same positions of the input; taken as given.
        temperature: As published.
    """
    logits = torch.bmm(queries.float(), keys.detach().float().transpose(1, 2)) / temperature
    positions = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return functional.cross_entropy(logits.flatten(0, 1), positions.flatten())


class PatchProjector(nn.Module):
    """Two layers on features of sampled positions, for ``contrastive``.

    Args:
        channels: Of each feature map.
        size: Of the projection.
        positions: Sampled in every map.
    """

    def __init__(self, channels: Sequence[int], size: int = 64, positions: int = 64) -> None:
        super().__init__()
        self.positions = positions
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(c, size), nn.ReLU(), nn.Linear(size, size)) for c in channels
        )

    def sample(self, maps: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Places (flat indices) of every map, the same for all images of a batch."""
        sizes = [m.shape[2] * m.shape[3] for m in maps]
        return [torch.randperm(size, generator=generator)[: self.positions] for size in sizes]

    def forward(self, maps: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Normalized [B, P, size] for every map [B, C, H, W]."""
        found = [m.flatten(2).movedim(1, 2)[:, p] for m, p in zip(maps, positions, strict=True)]
        return [functional.normalize(layer(f).float(), dim=-1) for layer, f in zip(self.layers, found, strict=True)]


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """The value itself, whose gradient comes back multiplied by ``-weight`` (Ganin et al. 2016)."""
    return _Reversed.apply(x, weight)  # type: ignore[no-untyped-call]


def domain_confusion(source_logits: Tensor, target_logits: Tensor) -> Tensor:
    """DANN: binary cross entropy of a domain classifier on features behind ``reverse_gradient``; logits [B]."""
    return 0.5 * (
        functional.binary_cross_entropy_with_logits(source_logits.float(), torch.ones_like(source_logits).float())
        + functional.binary_cross_entropy_with_logits(target_logits.float(), torch.zeros_like(target_logits).float())
    )


def teacher_agreement(student: Tensor, teacher: Tensor, confidence: float) -> Tensor:
    """Cross entropy with the teacher's classes where it is sure (Sohn et al. 2020); classes along dimension 1.

    Args:
        student: Logits [B, K, ...].
        teacher: Logits [B, K, ...], taken as given.
        confidence: Least probability of the teacher's class for it to count.
    """
    sure, classes = teacher.detach().float().softmax(dim=1).max(dim=1)
    each = functional.cross_entropy(student.float(), classes, reduction="none")
    return (each * (sure >= confidence)).mean()
