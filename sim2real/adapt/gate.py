"""The gate: a generator that moves, removes or invents objects, or worsens the task, is refused, and told why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sim2real.adapt import losses
from sim2real.adapt.config import GateConfig
from sim2real.adapt.domains import Domain, Image, objects_of
from sim2real.adapt.metrics import (
    LEAST_AREA,
    ObjectChange,
    class_ious,
    edge_drift,
    mean_iou,
    object_changes,
    predict,
    spill,
)
from sim2real.adapt.networks import Classifier, Segmenter
from sim2real.torch_io import to_tensor

DETECTOR_BATCH, DETECTOR_WIDTH, DETECTOR_RATE = 16, 8, 3e-3
RESOLUTION_PX = 1.0  # of the images themselves: finer than this nothing is placed; in the worst twentieth twice
DETECTOR_LEAST = 0.5  # IoU on recoloured images under which the detector is not asked
SPILL_PX = 5.0  # of 128: as far from an object its colour is looked for
REACH_PX = 8.0  # of 128: as far edges are looked for
MATCH = (
    0.45  # correlation of edges under which they are lost; of unrelated places 0.2 to 0.35, recoloured ones over 0.8
)
FEWEST_SEEN = 4  # images, under which a figure says nothing


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        passed: Whether the generator may be used.
        reasons: Why not, one sentence each.
        not_judged: What could not be looked at, and why.
        objects_judged: Whether anything was seen of what happens to objects.
        figures: What was measured.
    """

    passed: bool
    reasons: tuple[str, ...]
    not_judged: tuple[str, ...] = ()
    objects_judged: bool = False
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
    objects_judged = False
    if detector is not None and held_out.masks is not None:
        _judge_objects(held_out, adapted, limits, detector, figures, reasons, not_judged)
        objects_judged = True
    else:
        not_judged.append("objects: the images have no masks")
    _judge_task(held_out, adapted, limits, task, figures, reasons, not_judged)
    if float(adapted.std()) < 1.0:
        reasons.append("the generator gives images of one colour")
    if not figures:
        reasons.append("nothing could be judged: give images with masks or labels")
    return Verdict(not reasons, tuple(reasons), tuple(not_judged), objects_judged, figures), adapted


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
    trust = class_ious(predict(detector, other), truth, classes)
    changes = object_changes(
        predict(detector, held_out.images).astype(np.uint8), predict(detector, adapted).astype(np.uint8), truth, classes
    )
    judged, objects = 0, objects_of(truth)
    for number, change in changes.items():
        name = held_out.classes.get(number, f"class {number}")
        if number not in objects:
            not_judged.append(f"{name}: {'a surface, no object' if (truth == number).any() else 'in no image'}")
            continue
        _judge_spill(name, held_out, adapted, number, limits, figures, reasons, not_judged)
        followed = _judge_edges(name, held_out, adapted, truth == number, limits, figures, reasons)
        if trust[number] < DETECTOR_LEAST:
            not_judged.append(
                f"{name} by the detector, which finds it with an IoU of {trust[number]:.2f} only"
                + ("" if followed else "; nor by its edges")
            )
        else:
            figures[f"{name}.detector_iou"] = trust[number]
            _judge_detected(name, held_out, change, limits, figures, reasons)
        judged += followed or trust[number] >= DETECTOR_LEAST
    if not judged:
        reasons.append(
            "no object could be followed: render more images or larger objects, or set more gate.detector_steps"
        )


def _judge_edges(
    name: str,
    held_out: Domain,
    adapted: Image,
    masks: NDArray[np.bool_],
    limits: GateConfig,
    figures: dict[str, float],
    reasons: list[str],
) -> bool:
    """Judge one class by ``edge_drift``; False where too few images show it."""
    scale = min(held_out.size) / 128.0
    shown = masks.sum(axis=(1, 2)) >= max(2.0, LEAST_AREA * scale**2)
    reach = max(3, round(REACH_PX * scale))
    drift, match = edge_drift(held_out.images[shown], adapted[shown], masks[shown], reach)
    known = np.isfinite(match)
    if known.sum() < FEWEST_SEEN:
        return False
    drift, match = drift[known] / scale, match[known]
    again = match >= MATCH
    lost = float(1.0 - again.mean())
    figures |= {f"{name}.edge_match": float(np.median(match)), f"{name}.edges_lost": lost}
    if lost > limits.lost:
        reasons.append(f"loses the edges of {name} in {lost:.1%} of the images, allowed {limits.lost:.1%}")
    if not again.any():
        return True
    middle, worst = float(np.median(drift[again])), float(np.percentile(drift[again], 95))
    figures |= {f"{name}.drift_px": middle, f"{name}.drift_p95_px": worst}
    most, most_p95 = max(limits.drift_px, RESOLUTION_PX / scale), max(limits.drift_p95_px, 2 * RESOLUTION_PX / scale)
    if middle > most or worst > most_p95:
        reasons.append(
            f"moves {name}: by {middle:.1f} px, in the worst twentieth {worst:.1f} px (of 128; allowed {most:g} and "
            f"{most_p95:g})"
        )
    return True


def _judge_spill(
    name: str,
    held_out: Domain,
    adapted: Image,
    number: int,
    limits: GateConfig,
    figures: dict[str, float],
    reasons: list[str],
    not_judged: list[str],
) -> None:
    """Judge whether one class has smeared over what it touches."""
    assert held_out.masks is not None
    around = max(2, round(SPILL_PX * min(held_out.size) / 128.0))
    share = spill(held_out.images, adapted, held_out.masks, number, around)
    known = np.isfinite(share)
    if known.sum() < FEWEST_SEEN:
        not_judged.append(f"{name} by its smears: it stands out from what is around it in {known.sum()} images only")
        return
    spilled = float(share[known].mean())
    figures[f"{name}.spilled"] = spilled
    if spilled > limits.spilled:
        reasons.append(
            f"smears {name} over {spilled:.1%} of what is within {around} px of it, allowed {limits.spilled:.1%}"
        )


def _judge_detected(
    name: str,
    held_out: Domain,
    change: ObjectChange,
    limits: GateConfig,
    figures: dict[str, float],
    reasons: list[str],
) -> None:
    """Judge one class by what the detector finds before and after."""
    seen = int(np.isfinite(change.iou).sum())
    if seen < FEWEST_SEEN:
        return
    scale = min(held_out.size) / 128.0
    drift = float(np.nanmedian(change.drift_px)) / scale if np.isfinite(change.drift_px).any() else float("nan")
    found = {
        "mask_iou": float(np.nanmean(change.iou)),
        "detector_drift_px": drift,
        "removed": float(change.removed.sum() / seen),
        "invented": float(change.invented.mean()),
    }
    figures |= {f"{name}.{key}": value for key, value in found.items() if np.isfinite(value)}
    most = max(limits.drift_px, RESOLUTION_PX / scale)
    if drift > most:
        reasons.append(f"moves what the detector takes for {name} by {drift:.1f} px (of 128; allowed {most:g})")
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
