"""The gate: a generator that moves, removes or invents objects, or worsens the task, is refused, and told why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sim2real.adapt import losses
from sim2real.adapt.config import GateConfig
from sim2real.adapt.domains import Domain, Image
from sim2real.adapt.metrics import mean_iou, object_changes, predict, to_tensor
from sim2real.adapt.networks import Classifier, Segmenter

DETECTOR_STEPS, DETECTOR_BATCH, DETECTOR_WIDTH, DETECTOR_RATE = 400, 16, 8, 3e-3
DETECTOR_LEAST = 0.5  # IoU on recoloured images under which it cannot judge anything


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        passed: Whether the generator may be used.
        reasons: Why not, one sentence each.
        not_judged: What could not be looked at, and why.
        figures: What was measured.
    """

    passed: bool
    reasons: tuple[str, ...]
    not_judged: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


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


def train_detector(source: Domain, classes: int, seed: int = 0, steps: int = DETECTOR_STEPS) -> Segmenter:
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


def judge(
    translate: Callable[[Image], Image],
    held_out: Domain,
    limits: GateConfig,
    detector: nn.Module | None,
    task: nn.Module | None,
) -> tuple[Verdict, Image]:
    """Measure a generator on images it has not trained on.

    Args:
        translate: The generator.
        held_out: Images of the simulator, with masks or labels.
        limits: What is allowed.
        detector: From ``train_detector``; None where there are no masks.
        task: The task network trained beside the generator, or None.

    Returns:
        The verdict, and the translated images [N, H, W, 3].
    """
    adapted = translate(held_out.images)
    figures: dict[str, float] = {}
    reasons: list[str] = []
    not_judged: list[str] = []
    if detector is not None and held_out.masks is not None:
        _judge_objects(held_out, adapted, limits, detector, figures, reasons, not_judged)
    else:
        not_judged.append("objects: the images have no masks")
    _judge_task(held_out, adapted, limits, task, figures, reasons, not_judged)
    if float(adapted.std()) < 1.0:
        reasons.append("the generator gives images of one colour")
    if not figures:
        reasons.append("nothing could be judged: give images with masks or labels")
    return Verdict(not reasons, tuple(reasons), tuple(not_judged), figures), adapted


def _judge_objects(
    held_out: Domain,
    adapted: Image,
    limits: GateConfig,
    detector: nn.Module,
    figures: dict[str, float],
    reasons: list[str],
    not_judged: list[str],
) -> None:
    truth = held_out.masks
    assert truth is not None and isinstance(detector, Segmenter)
    classes = detector.out.out_channels
    random = torch.Generator().manual_seed(0)
    other = (recoloured(to_tensor(held_out.images), random) * 255.0).byte().permute(0, 2, 3, 1).numpy()
    trust = mean_iou(predict(detector, other), truth, classes)
    figures["detector_iou"] = trust
    if not trust >= DETECTOR_LEAST:
        reasons.append(
            f"the gate's detector finds objects with an IoU of {trust:.2f} only, too little to judge by; render more "
            "images, or larger objects"
        )
        return
    scale = min(held_out.size) / 128.0
    changes = object_changes(
        predict(detector, held_out.images).astype(np.uint8), predict(detector, adapted).astype(np.uint8), truth, classes
    )
    for number, change in changes.items():
        name = held_out.classes.get(number, f"class {number}")
        seen = int(np.isfinite(change.iou).sum())
        if seen < 4:
            not_judged.append(f"{name}: found in {seen} of {len(held_out)} held-out images")
            continue
        drift = change.drift_px[np.isfinite(change.drift_px)] / scale
        found = {
            "mask_iou": float(np.nanmean(change.iou)),
            "drift_px": float(np.median(drift)) if len(drift) else float("inf"),
            "drift_p95_px": float(np.percentile(drift, 95)) if len(drift) else float("inf"),
            "removed": float(change.removed.sum() / seen),
            "invented": float(change.invented.mean()),
        }
        figures |= {f"{name}.{key}": value for key, value in found.items() if np.isfinite(value)}
        if found["drift_px"] > limits.drift_px or found["drift_p95_px"] > limits.drift_p95_px:
            reasons.append(
                f"moves {name}: by {found['drift_px']:.1f} px, in the worst twentieth {found['drift_p95_px']:.1f} px "
                f"(of 128; allowed {limits.drift_px} and {limits.drift_p95_px})"
            )
        if found["mask_iou"] < limits.mask_iou:
            reasons.append(f"changes the shape of {name}: IoU {found['mask_iou']:.2f}, at least {limits.mask_iou}")
        if found["removed"] > limits.removed:
            reasons.append(f"removes {name} in {found['removed']:.1%} of the images, allowed {limits.removed:.1%}")
        if found["invented"] > limits.invented:
            reasons.append(f"invents {name} in {found['invented']:.1%} of the images, allowed {limits.invented:.1%}")


def _judge_task(
    held_out: Domain,
    adapted: Image,
    limits: GateConfig,
    task: nn.Module | None,
    figures: dict[str, float],
    reasons: list[str],
    not_judged: list[str],
) -> None:
    if isinstance(task, Classifier) and held_out.labels is not None:
        before = float((predict(task, held_out.images, 0) == held_out.labels).mean())
        after = float((predict(task, adapted, 1) == held_out.labels).mean())
        what = "accuracy"
    elif isinstance(task, Segmenter) and held_out.masks is not None:
        classes = task.out.out_channels
        before = mean_iou(predict(task, held_out.images), held_out.masks, classes)
        after = mean_iou(predict(task, adapted), held_out.masks, classes)
        what = "mean IoU"
    else:
        not_judged.append("task: the run trains none, or the images have no truth for it")
        return
    figures |= {"task_before": before, "task_after": after}
    if not after >= before - limits.task_drop:
        reasons.append(
            f"worsens the task: {what} {after:.3f} on adapted images, {before:.3f} on rendered ones, allowed is a loss "
            f"of {limits.task_drop}"
        )
