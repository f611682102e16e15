"""Export and verdict of a run's kept checkpoint."""

from __future__ import annotations

import copy
import datetime
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real import __version__
from sim2real.adapt import sheets
from sim2real.adapt.checkpoints import best_check, generator_of, load_best, read_checks, real_features, task_of
from sim2real.adapt.config import AdaptConfig
from sim2real.adapt.data import Data
from sim2real.adapt.domains import Domain, Image, objects_of
from sim2real.adapt.gate import Verdict, judge
from sim2real.adapt.metrics import features, frechet_distance, kernel_distance
from sim2real.adapt.networks import Generator, Segmenter, parameter_count
from sim2real.adapt.translate import export_generator
from sim2real.files import write_bytes, write_text
from sim2real.images.pictures import enlarged
from sim2real.provenance import commit
from sim2real.runtime.translation import GATE, GENERATOR, Translator, file_hashes

METRICS = "metrics.json"
FEWEST_FOR_DISTANCES = 50  # held-out real images, under which KID and FID say little


@dataclass(frozen=True)
class Finished:
    """A trained run's kept checkpoint.

    Attributes:
        verdict: The gate's.
        figures: Distances to the real images, and what the gate measured.
        pictures: ``grid`` (rendered, adapted, nearest real), and where there are masks ``masks`` and ``failures``.
        checks: What every checkpoint was found to be.
        kept: Step of the one that was kept.
        facts: What it was made from.
        real_held_out: How many real images the distances are to.
    """

    verdict: Verdict
    figures: dict[str, float]
    pictures: dict[str, Image]
    checks: list[dict[str, Any]]
    kept: int
    facts: dict[str, str]
    real_held_out: int


def finish(config: AdaptConfig, data: Data, detector: Segmenter | None, exemplars: Image | None, run: Path) -> Finished:
    """Export and judge the kept checkpoint of a trained run."""
    networks = load_best(config, run)
    exported = export_generator(copy.deepcopy(generator_of(networks)), data.source.size)
    write_bytes(run / GENERATOR, exported)
    translator = Translator.from_onnx(exported, exemplars)
    if "backward_generator" in networks:
        backward = networks["backward_generator"]
        assert isinstance(backward, Generator)
        write_bytes(run / "backward_generator.onnx", export_generator(copy.deepcopy(backward), data.source.size))
    verdict, adapted = judge(
        translator,
        data.source_held,
        config.gate,
        detector,
        task_of(networks),
    )
    write_gate(run, config, verdict, data.source_held, 0)
    figures = distances(data, adapted) | verdict.figures
    write_text(run / METRICS, json.dumps(figures, indent=2) + "\n")
    facts = {
        "parameters of the generator": f"{parameter_count(networks['generator']):,}",
        "rendered images": _origin(data.source, data.source_held),
        "real images": _origin(data.target, data.target_held),
        "image size": f"{data.source.size[1]} × {data.source.size[0]}",
        "preset": config.name,
        "seed": str(config.seed),
        "sim2real": f"{__version__} ({commit()[:12]})",
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    checks = read_checks(run)
    best = best_check(checks)
    pictures = _pictures(data, adapted, verdict.faults)
    kept = best["step"] if best else -1
    return Finished(verdict, figures, pictures, checks, kept, facts, len(data.target_held))


def _origin(train: Domain, held_out: Domain) -> str:
    """Origin of a domain's images and what was done to them, for people."""
    parts = [str(train.folder or "not from a folder"), f"{len(train)} to train on, {len(held_out)} held out"]
    parts += [f"left out {count} {reason}" for reason, count in train.skipped.items()]
    parts += [f"{train.resized} resized"] if train.resized else []
    parts += [f"{train.alike} differ from others by noise only"] if train.alike else []
    return "; ".join(parts)


def write_gate(run: Path, config: AdaptConfig, verdict: Verdict, judged: Domain, left_out: int | None) -> None:
    """Write a verdict, with what it was judged on: how many images that training had seen were left out, if known."""
    folder = None if judged.folder is None else str(judged.folder)
    judged_on = {"folder": folder, "images": len(judged), "left_out_as_trained_on": left_out}
    summary = {
        **verdict.summary(), "judged_on": judged_on, "towards": config.towards, "files": file_hashes(run),
    }  # fmt: skip
    write_text(run / GATE, json.dumps(summary, indent=2) + "\n")


def distances(data: Data, adapted: Image) -> dict[str, float]:
    """Distance of held-out rendered and adapted images to held-out real ones, and of real training images (floor)."""
    real, varied = real_features(data)
    sets = {"rendered": features(data.source_held.images), "adapted": features(adapted)}
    sets["real"] = features(data.target.images[: len(data.source_held)])
    result = {f"kid_{name}": kernel_distance(found, real, varied) for name, found in sets.items()}
    return result | {f"fid_{name}": frechet_distance(found, real) for name, found in sets.items()}


def _pictures(data: Data, adapted: Image, faults: NDArray[np.float64]) -> dict[str, Image]:
    held, shown = data.source_held, slice(0, sheets.SHOWN)
    near = sheets.nearest(features(adapted[shown]), features(data.target.images))
    rows = {"rendered": held.images[shown], "adapted": adapted[shown], "nearest real image": data.target.images[near]}
    pictures = {"grid": sheets.sheet({label: enlarged(row, sheets.LEAST_SIDE) for label, row in rows.items()})}
    if held.masks is not None:
        pictures["masks"] = _outlined(held, adapted, held.masks, np.arange(len(held))[shown])
        if len(faults):
            objects = np.where(np.isin(held.masks, objects_of(held.masks)), held.masks, 0).astype(np.uint8)
            pictures["failures"] = _outlined(held, adapted, objects, np.argsort(-faults, kind="stable")[shown])
    return pictures


def _outlined(held: Domain, adapted: Image, masks: Image, rows: NDArray[np.int64]) -> Image:
    """Rendered images over adapted ones, with the outlines of the same masks on both."""
    both = {"rendered, with its masks": held.images, "adapted, with the same masks": adapted}
    large = _enlarged_masks(masks[rows], held.images)
    return sheets.sheet(
        {label: sheets.outlined(enlarged(x[rows], sheets.LEAST_SIDE), large) for label, x in both.items()}
    )


def _enlarged_masks(masks: NDArray[Any], images: Image) -> NDArray[Any]:
    factor = max(1, -(-sheets.LEAST_SIDE // images.shape[1]))
    return masks.repeat(factor, axis=1).repeat(factor, axis=2)
