"""A whole adaptation: read, check, train, keep the best checkpoint that the gate lets pass, export."""

from __future__ import annotations

import copy
import datetime
import json
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from sim2real import __version__
from sim2real.adapt import sheets
from sim2real.adapt.config import AdaptConfig
from sim2real.adapt.domains import Domain, Image, check_masks, check_pair, load_domain, objects_of, with_pairs
from sim2real.adapt.downstream import commanded_change, located, located_change
from sim2real.adapt.gate import Verdict, judge, train_detector
from sim2real.adapt.metrics import features, frechet_distance, kernel_distance
from sim2real.adapt.networks import Generator, Segmenter, parameter_count
from sim2real.adapt.origin import note_data, unseen
from sim2real.adapt.train import Progress, Trainer, run_training, task_network
from sim2real.adapt.translate import cut_exemplars, export_generator, translate
from sim2real.config import prepare_run, validate
from sim2real.errors import AdaptationError, ConfigError
from sim2real.files import write_bytes, write_text
from sim2real.images.dataset import read_dataset
from sim2real.learn.torch_io import save_state
from sim2real.provenance import commit
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.perception import PerceptionBundle
from sim2real.runtime.translation import EXEMPLARS, GATE, GENERATOR, Translator, file_hashes, read_generator
from sim2real.types import Array

HELD_OUT, MOST_HELD_OUT = 0.1, 200
REAL_HELD_OUT = 20  # at least so many real images, or a third of them: a distance to fewer is chance
REAL_SPREAD = 400  # real images that say how much features vary
EXEMPLAR_COUNT = 256
METRICS = "metrics.json"
FEWEST_FOR_DISTANCES = 50  # held-out real images, under which KID and FID say little


@dataclass(frozen=True)
class Data:
    """Both domains, split; nothing held out is ever trained on."""

    source: Domain
    source_held: Domain
    target: Domain
    target_held: Domain

    @classmethod
    def of(cls, source: Domain, target: Domain, seed: int) -> Data:
        """Split two domains; where every rendered image has its pair, the camera's images are these, split likewise."""
        train, held = source.split(HELD_OUT, MOST_HELD_OUT, seed)
        if train.pairs is not None and held.pairs is not None:
            real_parts = (
                Domain(target.name, part, folder=target.folder, resized=target.resized)
                for part in (train.pairs, held.pairs)
            )
            return cls(train, held, *real_parts)
        real = max(HELD_OUT, min(REAL_HELD_OUT / len(target), 1 / 3))
        return cls(train, held, *target.split(real, MOST_HELD_OUT, seed))


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


def load_data(config: AdaptConfig, sim: Path, real: Path) -> Data:
    """Read, check and split two datasets.

    Raises:
        ConfigError: A folder holds no dataset.
        AdaptationError: The images cannot be used; it says why.
    """
    source = load_domain(sim, "sim", config.image_size, labels=config.task.kind == "classify")
    check_masks(source)
    target = load_domain(real, "real", size=source.size)
    if config.weights.paired:
        source = with_pairs(source, sim, real)
    check_pair(
        source,
        target,
        needs_masks=config.task.kind == "segment" or config.weights.content > 0 or config.weights.perception > 0,
    )
    return Data.of(source, target, config.seed)


def check_depth(config: AdaptConfig, size: tuple[int, int]) -> None:
    """Refuse discriminators that halve images of a size (height, width) until nothing is left.

    Raises:
        ConfigError: They do.
    """
    layers, scales = config.discriminator.layers, config.discriminator.scales
    most = min(size).bit_length()
    if config.weights.adversarial + config.weights.cycle > 0 and layers + scales > most:
        raise ConfigError(
            f"discriminator.layers={layers} with discriminator.scales={scales} leaves nothing of images of {size[1]} x "
            f"{size[0]}: together they may be {most}; set fewer, or a larger image_size"
        )


def adapt(config: AdaptConfig, data: Data, run: Path, on_progress: Progress | None = None) -> Finished | None:
    """Train a generator; going on with a run that is there.

    Writes ``config.yaml``, ``data.json`` (which images it is trained on), ``checkpoint.pt``, ``best.pt`` (averaged
    weights of the kept checkpoint), ``generator.onnx``, ``gate.json``, ``metrics.json``, ``history.json`` and
    TensorBoard events.

    Args:
        config: The run.
        data: From ``load_data``.
        run: Folder.
        on_progress: Called at every check with step, steps and figures.

    Returns:
        The kept checkpoint, judged; None where Ctrl-C ended training early.

    Raises:
        ConfigError: The folder holds a run with other settings or images, or the networks do not fit the images.
        AdaptationError: A loss became not finite.
    """
    check_depth(config, data.source.size)
    prepare_run(config, run)
    note_data(run, (data.source, data.source_held), (data.target, data.target_held))
    if config.threads:
        torch.set_num_threads(config.threads)
    detector = _detector(config, data.source, run, "detector", config.seed)
    # The guide is another network than the gate's: a generator that has learned to please one has not met the other.
    guide = _detector(config, data.source, run, "guide", config.seed + 100) if config.weights.perception else None
    exemplars = _exemplars(config, data.target, run)
    trainer = Trainer(config, data.source, data.target, guide)
    keeper = _Keeper(data, detector, exemplars, run)
    try:
        finished = run_training(trainer, run, keeper.look, on_progress)
    finally:
        keeper.close()
    if not finished:
        return None
    return finish(config, data, detector, exemplars, run)


def _exemplars(config: AdaptConfig, target: Domain, run: Path) -> Image | None:
    if not config.generator.exemplar:
        return None
    pieces = cut_exemplars(target.images, EXEMPLAR_COUNT, config.seed)
    temporary = run / f"{EXEMPLARS}.tmp.npy"
    np.save(temporary, pieces)
    temporary.replace(run / EXEMPLARS)
    return pieces


class _Keeper:
    """Judges every checkpoint and keeps the best: one that passes before one that does not, then the nearest."""

    def __init__(self, data: Data, detector: Segmenter | None, exemplars: Image | None, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import

        self._data, self._detector, self._exemplars, self._run = data, detector, exemplars, run
        self._real, self._spread = real_features(data)
        self._events: Any = SummaryWriter(str(run))

    def look(self, trainer: Trainer, figures: dict[str, float]) -> None:
        generator, task = generator_of(trainer.averages), task_of(trainer.averages)
        verdict, adapted = judge(
            lambda images: translate(generator, images, self._exemplars),
            self._data.source_held,
            trainer.config.gate,
            self._detector,
            task,
        )
        kid = kernel_distance(features(adapted), self._real, self._spread)
        figures |= {"kid": kid, "passed": float(verdict.passed)}
        row = {"step": trainer.step, "kid": kid, "passed": verdict.passed, "reasons": list(verdict.reasons)}
        checks = [r for r in read_checks(self._run) if r["step"] < trainer.step]
        best = best_check(checks)
        if best is None or best_check([best, row]) is row:
            save_state(trainer.averages.state_dict(), self._run / "best.pt")
        write_text(self._run / "checks.json", json.dumps([*checks, row], indent=1) + "\n")
        for name, value in {**figures, **verdict.figures}.items():
            self._events.add_scalar(name.replace(".", "/"), value, trainer.step)
        count = min(8, len(adapted), len(self._data.target_held))
        grid = sheets.sheet(
            [self._data.source_held.images[:count], adapted[:count], self._data.target_held.images[:count]]
        )
        self._events.add_image("rendered, adapted, real", grid, trainer.step, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        self._events.close()


def read_checks(run: Path) -> list[dict[str, Any]]:
    """What every checkpoint of a run was found to be."""
    file = run / "checks.json"
    return json.loads(file.read_text()) if file.is_file() else []


def best_check(checks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The check whose checkpoint is kept."""
    return min(checks, key=lambda row: (not row["passed"], row["kid"]), default=None)


def task_of(networks: nn.ModuleDict) -> nn.Module | None:
    """The task network of a run's networks, if it trains one."""
    return networks["task"] if "task" in networks else None


def generator_of(networks: nn.ModuleDict) -> Generator:
    """The generator of a run's networks."""
    generator = networks["generator"]
    assert isinstance(generator, Generator)
    return generator


def _detector(config: AdaptConfig, source: Domain, run: Path, name: str, seed: int) -> Segmenter | None:
    if source.masks is None:
        return None
    file = run / f"{name}.pt"
    if not file.is_file():
        classes = max([int(source.masks.max()), *source.classes]) + 1
        save_state(train_detector(source, classes, config.gate.detector_steps, seed).state_dict(), file)
    return load_segmenter(file)


def load_segmenter(file: Path) -> Segmenter:
    """A segmenter from its state; that says its sizes."""
    state = torch.load(file, weights_only=True)
    classes, width = state["out.weight"].shape[:2]
    detector = Segmenter(int(classes), int(width))
    detector.load_state_dict(state)
    return detector.eval()


def load_best(config: AdaptConfig, run: Path) -> nn.ModuleDict:
    """Averaged networks of the kept checkpoint.

    Raises:
        ConfigError: The run has none yet.
    """
    file = run / "best.pt"
    if not file.is_file():
        raise ConfigError(f"{run} has no checkpoint yet; run 'sim2real adapt' with the same --out to go on")
    state = torch.load(file, weights_only=True)
    networks = nn.ModuleDict({"generator": Generator(config.generator)})
    if config.weights.cycle:
        networks["backward_generator"] = Generator(config.generator)
    if "task.out.weight" in state:
        networks["task"] = task_network(config.task, int(state["task.out.weight"].shape[0]))
    networks.load_state_dict(state)
    return networks.eval()


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
    _write_gate(run, config, verdict, data.source_held, 0)
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
    """Where a domain's images come from and what was done to them, for people."""
    parts = [str(train.folder or "not from a folder"), f"{len(train)} to train on, {len(held_out)} held out"]
    parts += [f"left out {count} {reason}" for reason, count in train.skipped.items()]
    parts += [f"{train.resized} resized"] if train.resized else []
    parts += [f"{train.alike} differ from others by noise only"] if train.alike else []
    return "; ".join(parts)


def _write_gate(run: Path, config: AdaptConfig, verdict: Verdict, judged: Domain, left_out: int | None) -> None:
    """Write a verdict, with what it was judged on: how many images that training had seen were left out, if known."""
    folder = None if judged.folder is None else str(judged.folder)
    judged_on = {"folder": folder, "images": len(judged), "left_out_as_trained_on": left_out}
    summary = {
        **verdict.summary(), "judged_on": judged_on, "towards": config.towards, "files": file_hashes(run),
    }  # fmt: skip
    write_text(run / GATE, json.dumps(summary, indent=2) + "\n")


def real_features(data: Data) -> tuple[Array, Array]:
    """Features [N, F] of the held-out real images, and [M, F] of more of them, which say how much features vary."""
    held = features(data.target_held.images)
    more = max(REAL_SPREAD - len(held), 0)
    return held, np.concatenate((held, features(data.target.images[:more]))) if more else held


def distances(data: Data, adapted: Image) -> dict[str, float]:
    """Distance of held-out rendered and adapted images to held-out real ones, and of real training images (floor)."""
    real, spread = real_features(data)
    sets = {"rendered": features(data.source_held.images), "adapted": features(adapted)}
    sets["real"] = features(data.target.images[: len(data.source_held)])
    result = {f"kid_{name}": kernel_distance(found, real, spread) for name, found in sets.items()}
    return result | {f"fid_{name}": frechet_distance(found, real) for name, found in sets.items()}


def _pictures(data: Data, adapted: Image, faults: NDArray[np.float64]) -> dict[str, Image]:
    held, shown = data.source_held, slice(0, sheets.SHOWN)
    near = sheets.nearest(features(adapted[shown]), features(data.target.images))
    rows = [held.images[shown], adapted[shown], data.target.images[near]]
    pictures = {"grid": sheets.sheet([sheets.enlarged(row) for row in rows])}
    if held.masks is not None:
        pictures["masks"] = _outlined(held, adapted, held.masks, np.arange(len(held))[shown])
        if len(faults):
            objects = np.where(np.isin(held.masks, objects_of(held.masks)), held.masks, 0).astype(np.uint8)
            pictures["failures"] = _outlined(held, adapted, objects, np.argsort(-faults, kind="stable")[shown])
    return pictures


def _outlined(held: Domain, adapted: Image, masks: Image, rows: NDArray[np.int64]) -> Image:
    """Rendered images over adapted ones, with the outlines of the same masks on both."""
    both = [sheets.enlarged(images[rows]) for images in (held.images, adapted)]
    return sheets.sheet([sheets.outlined(x, _enlarged_masks(masks[rows], held.images)) for x in both])


def _enlarged_masks(masks: NDArray[Any], images: Image) -> NDArray[Any]:
    factor = max(1, -(-sheets.LEAST_SIDE // images.shape[1]))
    return masks.repeat(factor, axis=1).repeat(factor, axis=2)


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
    _write_gate(run, config, verdict, held, left_out)
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
