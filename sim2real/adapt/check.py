"""Verdict on a finished run, on images that it was not trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from sim2real.adapt.checkpoints import load_best, task_of
from sim2real.adapt.config import AdaptConfig
from sim2real.adapt.detector import load_segmenter
from sim2real.adapt.domains import Domain, Image, check_masks, load_domain
from sim2real.adapt.downstream import commanded_change, located, located_change
from sim2real.adapt.finish import METRICS, write_gate
from sim2real.adapt.gate import Verdict, judge
from sim2real.adapt.origin import unseen
from sim2real.config import validate
from sim2real.errors import AdaptationError, ConfigError
from sim2real.files import write_text
from sim2real.images.dataset import read_dataset
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.perception import PerceptionBundle
from sim2real.runtime.translation import Translator, read_generator


def load_run_config(run: Path) -> AdaptConfig:
    """The configuration of a run.

    Raises:
        ConfigError: The folder is no run.
    """
    file = run / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{run} is no adaptation (no config.yaml); run 'sim2real adapt --sim … --real … --out {run}'")
    return validate(AdaptConfig, yaml.safe_load(file.read_text()), str(file))


def check(run: Path, sim: Path, localizer: Path | None = None, policy: Path | None = None) -> Verdict:
    """Judge a run's exported generator on other images of the simulator, and write the verdict to ``gate.json``.

    Images that the run was trained on are left out. Where it does not say which these are, the verdict says so.

    Args:
        run: Finished run.
        sim: Dataset with masks or labels.
        localizer: Perception bundle; how far its answers move with the translation is added to the verdict's figures,
            and to ``metrics.json``, as ``localizer.*``. The gate does not judge by it.
        policy: Bundle of a policy that pushes by what the localizer sees; how far its commands move is added likewise,
            as ``policy.*``.

    Raises:
        ConfigError: No run, no dataset, or a policy without a localizer.
        AdaptationError: Unusable images, or all of them trained on, or of another size than the localizer's, or a
            policy that does not push.
        BundleError: The localizer or the policy cannot be used.
    """
    if policy is not None and localizer is None:
        raise ConfigError("--policy needs --localizer: a policy acts on where the object is seen")
    config = load_run_config(run)
    translator = Translator.from_onnx(*read_generator(run))  # the verdict that is there may be another generator's
    held = load_domain(sim, "sim", size=translator.size, labels=config.task.kind == "classify")
    check_masks(held)
    held, left_out = unseen(run, held)
    file = run / "detector.pt"
    detector = load_segmenter(file) if file.is_file() and held.masks is not None else None
    task = task_of(load_best(config, run))
    verdict, adapted = judge(translator, held, config.gate, detector, task)
    if left_out is None:
        note = "whether the run has seen these images: it does not say on which it was trained"
        verdict = replace(verdict, not_judged=(*verdict.not_judged, note))
    if localizer is not None:
        verdict = replace(verdict, figures=verdict.figures | _downstream(localizer, policy, sim, held, adapted))
        file = run / METRICS
        known = json.loads(file.read_text()) if file.is_file() else {}
        write_text(file, json.dumps(known | verdict.figures, indent=2) + "\n")
    write_gate(run, config, verdict, held, left_out)
    return verdict


def _downstream(localizer: Path, policy: Path | None, sim: Path, held: Domain, adapted: Image) -> dict[str, float]:
    bundle = PerceptionBundle.load(localizer)
    if held.size != (bundle.spec.height, bundle.spec.width):
        raise AdaptationError(
            f"the localizer takes images of {bundle.spec.width} x {bundle.spec.height}, the generator of "
            f"{held.size[1]} x {held.size[0]}"
        )
    frames = read_dataset(sim).frames
    shown = [frames[row] for row in held.frames]
    truth, joints = (
        np.array([frame[name] for frame in shown]) if all(name in frame for frame in shown) else None
        for name in ("object_pos", "joint_pos")
    )
    before, after = (located(bundle.locator(), images) for images in (held.images, adapted))
    figures = located_change(before, after, truth)
    if policy is None:
        return figures
    if joints is None:
        raise AdaptationError(f"the frames of {sim} have no joint_pos, which --policy needs; render-dataset writes it")
    return figures | commanded_change(PolicyBundle.load(policy), joints, before, after)
