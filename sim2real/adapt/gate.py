"""The gate: a generator that moves, removes or invents objects, or worsens the task, is refused, and told why.

Objects are looked at twice: with a detector, which knows classes but is asked only where it is good enough, and by
their edges and colours alone (``edge_drift``, ``spill``, ``vanished``, ``invented``), which need no training. On
randomized renders of arms the detector stays under ``DETECTOR_LEAST``, and the second way judges alone. What neither
can judge is said; where that goes for every object, the generator is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sim2real.adapt.config import GateConfig
from sim2real.adapt.detector import recoloured
from sim2real.adapt.domains import Domain, Image, objects_of
from sim2real.adapt.invented import NEW_BACKGROUND, invented, with_copies
from sim2real.adapt.metrics import class_ious, mean_iou, predict
from sim2real.adapt.networks import Classifier, Segmenter
from sim2real.adapt.objects import LEAST_AREA, ObjectChange, edge_drift, object_changes, spill, vanished
from sim2real.learn.torch_io import to_tensor

RESOLUTION_PX = 1.0  # of the images themselves: finer than this nothing is placed; in the worst twentieth twice
DETECTOR_LEAST = 0.5  # IoU on recoloured images under which the detector is not asked
SPILL_PX = 5.0  # of 128: as far from an object its colour is looked for
REACH_PX = 8.0  # of 128: as far edges are looked for
# Correlation of edges under which they are lost. Unrelated positions have 0.2 to 0.35, recoloured ones over 0.8.
MATCH = 0.45
FEWEST_SEEN = 4  # images, under which a figure says nothing
COPIES = 64  # images in which a second object is put, to find out whether an invented one would be seen
COPIES_FOUND = 0.3  # fraction of them; with it, one invented in a tenth of the images is still seen in 3 %
TASK_LEAST = 0.3  # mean IoU on rendered images under which a task network says nothing


@dataclass(frozen=True)
class Verdict:
    """The gate's findings.

    Attributes:
        passed: Whether the generator may be used.
        reasons: Why not, one sentence each.
        not_judged: What could not be looked at, and why.
        objects_judged: Whether anything was seen of what happens to objects.
        figures: What was measured.
        faults: How much of it each image adds, 0 for none [N]; empty where nothing was measured by image.
    """

    passed: bool
    reasons: tuple[str, ...]
    not_judged: tuple[str, ...] = ()
    objects_judged: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    faults: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)

    def summary(self) -> dict[str, Any]:
        """As JSON, without ``faults``."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "faults"}


@dataclass
class _Findings:
    """Findings while a verdict is gathered."""

    faults: NDArray[np.float64]
    figures: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)

    def refuse_fraction(self, count: float, of: float, allowed: float, reason: str) -> None:
        """Refuse where more than a share is found; a single one of a few is no share."""
        if count > 1 and count > allowed * of:
            self.reasons.append(reason.replace("{fraction}", f"{count / of:.1%}") + f", allowed {allowed:.1%}")


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
    found = _Findings(np.zeros(len(held_out)))
    objects_judged = False
    if detector is not None and held_out.masks is not None:
        _judge_objects(held_out, adapted, limits, detector, found)
        objects_judged = True
    else:
        found.not_judged.append("objects: the images have no masks")
    _judge_task(held_out, adapted, limits, task, found)
    if float(adapted.std()) < 1.0:
        found.reasons.append("the generator gives images of one colour")
    if not found.figures:
        found.reasons.append("nothing could be judged: give images with masks or labels")
    faults = found.faults if objects_judged else np.zeros(0)
    reasons = tuple(found.reasons)
    return Verdict(not reasons, reasons, tuple(found.not_judged), objects_judged, found.figures, faults), adapted


def _judge_objects(held_out: Domain, adapted: Image, limits: GateConfig, detector: nn.Module, found: _Findings) -> None:
    truth = held_out.masks
    assert truth is not None and isinstance(detector, Segmenter)
    classes = detector.out.out_channels
    random = torch.Generator().manual_seed(0)
    other = (recoloured(to_tensor(held_out.images), random) * 255.0).byte().permute(0, 2, 3, 1).numpy()
    trust = class_ious(predict(detector, other), truth, classes)
    changes = object_changes(
        predict(detector, held_out.images).astype(np.uint8), predict(detector, adapted).astype(np.uint8), truth, classes
    )
    copied = _judge_invented(held_out, adapted, truth, limits, found)
    outlines = vanished(held_out.images, adapted, truth)
    judged = 0
    for number in sorted({*changes, *outlines}):
        name = _name(held_out, number)
        if number not in outlines:
            what = "a surface, no object" if (truth == number).any() else "in no image"
            found.not_judged.append(f"{name}: {what}")
            continue
        _judge_spill(name, held_out, adapted, number, limits, found)
        methods = {
            "edges": _judge_edges(name, held_out, adapted, truth == number, limits, found),
            "outlines": _judge_outlines(name, *outlines[number], limits, found),
            "copies put elsewhere": number in copied,
        }
        why = "which was trained without it"
        looked = False
        if number in changes:
            why = f"which finds it with an IoU of {trust[number]:.2f} only"
            if trust[number] >= DETECTOR_LEAST:
                found.figures[f"{name}.detector_iou"] = trust[number]
                looked = _judge_detected(name, held_out, changes[number], limits, found)
                why = f"which finds it in fewer than {FEWEST_SEEN} images"
        if not looked:
            blind = " and ".join(method for method, works in methods.items() if not works)
            found.not_judged.append(f"{name} by the detector, {why}" + (f"; nor by its {blind}" if blind else ""))
        judged += looked or all(methods.values())
    if not judged:
        found.reasons.append(
            "of no object could be judged whether it is moved, removed and invented: render more images, larger "
            "objects or more contrast, or set more gate.detector_steps"
        )


def _name(held_out: Domain, number: int) -> str:
    return held_out.classes.get(number, f"class {number}")


def _judge_invented(held_out: Domain, adapted: Image, truth: Image, limits: GateConfig, found: _Findings) -> set[int]:
    """Judge by ``invented``; the classes of which a second object would have been found."""
    objects = objects_of(truth)
    inside = np.isin(truth, objects)
    added, new = invented(held_out.images, adapted, inside)
    if np.median(new) > NEW_BACKGROUND:
        found.not_judged.append("invented things without the detector: the backgrounds are all new")
        return set()
    found.figures["invented"] = float(added.mean())
    found.faults += added
    found.refuse_fraction(
        added.sum(), len(added), limits.invented, "invents something away from all objects in {fraction} of the images"
    )
    copied = set()
    for number in objects:
        rows = np.flatnonzero((truth == number).any(axis=(1, 2)) & ~added)[:COPIES]
        doubled, placed = with_copies(adapted[rows], truth[rows], int(number), inside[rows])
        if placed.sum() < FEWEST_SEEN:
            continue
        rows = rows[placed]
        fraction = float(invented(held_out.images[rows], doubled[placed], inside[rows])[0].mean())
        found.figures[f"{_name(held_out, int(number))}.copies_found"] = fraction
        if fraction >= COPIES_FOUND:
            copied.add(int(number))
    return copied


def _judge_outlines(
    name: str, seen: NDArray[np.int64], gone: NDArray[np.int64], limits: GateConfig, found: _Findings
) -> bool:
    """Judge one class by ``vanished``; False where too few objects of it can be seen."""
    if seen.sum() < FEWEST_SEEN:
        return False
    found.figures[f"{name}.vanished"] = float(gone.sum() / seen.sum())
    found.faults += gone > 0
    reason = f"makes {{fraction}} of what is seen of {name} vanish"
    found.refuse_fraction(gone.sum(), seen.sum(), limits.removed, reason)
    return True


def _judge_edges(
    name: str,
    held_out: Domain,
    adapted: Image,
    masks: NDArray[np.bool_],
    limits: GateConfig,
    found: _Findings,
) -> bool:
    """Judge one class by ``edge_drift``; False where too few images show it."""
    scale = min(held_out.size) / 128.0
    rows = np.flatnonzero(masks.sum(axis=(1, 2)) >= max(2.0, LEAST_AREA * scale**2))
    reach = max(3, round(REACH_PX * scale))
    drift, match = edge_drift(held_out.images[rows], adapted[rows], masks[rows], reach)
    known = np.isfinite(match)
    if known.sum() < FEWEST_SEEN:
        return False
    rows, drift, match = rows[known], drift[known] / scale, match[known]
    again = match >= MATCH
    found.figures |= {f"{name}.edge_match": float(np.median(match)), f"{name}.edges_lost": float(1.0 - again.mean())}
    found.faults[rows] += ~again
    found.refuse_fraction(
        (~again).sum(), len(again), limits.lost, f"loses the edges of {name} in {{fraction}} of the images"
    )
    if not again.any():
        return True
    middle, worst = float(np.median(drift[again])), float(np.percentile(drift[again], 95))
    found.figures |= {f"{name}.drift_px": middle, f"{name}.drift_p95_px": worst}
    most, most_p95 = max(limits.drift_px, RESOLUTION_PX / scale), max(limits.drift_p95_px, 2 * RESOLUTION_PX / scale)
    found.faults[rows[again]] += drift[again] / most_p95
    if middle > most or worst > most_p95:
        found.reasons.append(
            f"moves {name}: by {middle:.1f} px, in the worst twentieth {worst:.1f} px (of 128; allowed {most:g} and "
            f"{most_p95:g})"
        )
    return True


def _judge_spill(
    name: str, held_out: Domain, adapted: Image, number: int, limits: GateConfig, found: _Findings
) -> None:
    """Judge whether one class has smeared over what it touches."""
    assert held_out.masks is not None
    around = max(2, round(SPILL_PX * min(held_out.size) / 128.0))
    fraction = spill(held_out.images, adapted, held_out.masks, number, around)
    known = np.isfinite(fraction)
    if known.sum() < FEWEST_SEEN:
        found.not_judged.append(
            f"{name} by its smears: it stands out from what is around it in {known.sum()} images only"
        )
        return
    spilled = float(fraction[known].mean())
    found.figures[f"{name}.spilled"] = spilled
    found.faults[known] += fraction[known]
    if spilled > limits.spilled:
        found.reasons.append(
            f"smears {name} over {spilled:.1%} of what is within {around} px of it, allowed {limits.spilled:.1%}"
        )


def _judge_detected(name: str, held_out: Domain, change: ObjectChange, limits: GateConfig, found: _Findings) -> bool:
    """Judge one class by what the detector finds before and after; False where it finds it too rarely."""
    seen = int(np.isfinite(change.iou).sum())
    if seen < FEWEST_SEEN:
        return False
    scale = min(held_out.size) / 128.0
    drift = float(np.nanmedian(change.drift_px)) / scale if np.isfinite(change.drift_px).any() else float("nan")
    figures = {
        "mask_iou": float(np.nanmean(change.iou)),
        "detector_drift_px": drift,
        "removed": float(change.removed.sum() / seen),
        "invented": float(change.invented.mean()),
    }
    found.figures |= {f"{name}.{key}": value for key, value in figures.items() if np.isfinite(value)}
    found.faults += change.removed
    found.faults += change.invented
    most = max(limits.drift_px, RESOLUTION_PX / scale)
    if drift > most:
        found.reasons.append(f"moves what the detector takes for {name} by {drift:.1f} px (of 128; allowed {most:g})")
    if figures["mask_iou"] < limits.mask_iou:
        found.reasons.append(f"changes the shape of {name}: IoU {figures['mask_iou']:.2f}, at least {limits.mask_iou}")
    if figures["removed"] > limits.removed:
        found.reasons.append(f"removes {name} in {figures['removed']:.1%} of the images, allowed {limits.removed:.1%}")
    if figures["invented"] > limits.invented:
        found.reasons.append(
            f"invents {name} in {figures['invented']:.1%} of the images, allowed {limits.invented:.1%}"
        )
    return True


def _judge_task(held_out: Domain, adapted: Image, limits: GateConfig, task: nn.Module | None, found: _Findings) -> None:
    if isinstance(task, Classifier) and held_out.labels is not None:
        before = float((predict(task, held_out.images, 0) == held_out.labels).mean())
        after = float((predict(task, adapted, 1) == held_out.labels).mean())
        chance = float(np.unique(held_out.labels, return_counts=True)[1].max() / len(held_out))
        what, least = "accuracy", min(2.0 * chance, 0.5 + 0.5 * chance)
    elif isinstance(task, Segmenter) and held_out.masks is not None:
        classes = task.out.out_channels
        before = mean_iou(predict(task, held_out.images), held_out.masks, classes)
        after = mean_iou(predict(task, adapted), held_out.masks, classes)
        what, least = "mean IoU", TASK_LEAST
    else:
        found.not_judged.append("task: the run trains none, or the images have no truth for it")
        return
    found.figures |= {"task_before": before, "task_after": after}
    if not before >= least:
        found.not_judged.append(
            f"task: the network cannot do it on rendered images either ({what} {before:.3f}, {least:g} would say "
            "something)"
        )
    if not after >= before - limits.task_drop:
        found.reasons.append(
            f"worsens the task: {what} {after:.3f} on adapted images, {before:.3f} on rendered ones, allowed is a loss "
            f"of {limits.task_drop}"
        )
