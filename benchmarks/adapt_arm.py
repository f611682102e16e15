"""Adaptation on the arm: what photographs without labels are worth to a localizer.

    python benchmarks/adapt_arm.py WORK [--rows randomized teacher_200 ...] [--seeds 0 1 2] [--split test] [--json OUT]

Every row is one training of the localizer with the same number of steps (see ``SMALL``), measured on the same labelled
images of the MuJoCo target, which nothing is trained on:

- ``plain``: renders without visual randomization; ``randomized``: with all of it.
- ``generator_N``: randomized renders through a generator that was trained with N unlabelled photographs (``ADAPT``).
- ``teacher_N``: randomized renders, and a mean teacher on N unlabelled photographs. ``both_N``: that and a generator.
- ``statistics_N``: the same photographs in the batches, whose agreement weighs nothing: what batch norm alone gains.
- ``oracle``: trained on labelled photographs alone.
- ``labelled_N``, ``teacher_labelled_N``: N labelled photographs make up half of every batch, the other half are
  randomized renders; without anything else, or with a teacher on all unlabelled photographs. This is the curve of
  sample efficiency. Up to 1,000 labelled photographs are of two rooms, 4,000 of three.

With a teacher a step sees half as many photographs on top of the batch, and takes 1.6 times as long.

A localizer turns a pixel into a place with the camera's calibrated pose. The target's camera stands some millimetres
beside it, another way in every photograph, which no training can know: ``as deployed`` has that error in it, ``at true
pose`` has not. Intervals are of 95 %, by drawing seeds and photographs again with replacement, the same for all rows;
they say nothing of other rooms or other photographs to train on, and with three seeds they are too narrow. No share of
a gap is given where the gap's own interval begins below 0.

No photograph's label takes part in adaptation. Settings are chosen with ``--split development``. WORK keeps everything:
what is finished is not done again. Several processes may share one WORK (seeds or rows each) once one of them has
taken the photographs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim2real.adapt.config import load_preset
from sim2real.adapt.data import load_data
from sim2real.adapt.run import adapt
from sim2real.config import prepare_run, read_settings, validate
from sim2real.errors import AdaptationError
from sim2real.evaluate.adaptation import write_adaptation_report
from sim2real.evaluate.localization import at_recorded_poses, localization_figures, locate_all
from sim2real.evaluate.target_images import Split, write_target_dataset
from sim2real.files import write_text
from sim2real.images.dataset import ImageDataset, read_dataset
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.render import render_dataset
from sim2real.perceive.train import train
from sim2real.provenance import made as facts
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.runtime.camera import load_camera
from sim2real.runtime.perception import PerceptionBundle

Array = NDArray[np.float64]

SMALL = (
    "render.images=4000", "render.held_out=200", "render.workers=1", "localizer.epochs=24", "localizer.width=16",
    "localizer.augment=[exposure, white_red, white_blue, blur, noise]",
)  # fmt: skip
PLAIN = ("render.randomize=[]", "localizer.augment=[]")
PRESET = "graspgan"
ADAPT = (
    "steps=1500", "batch_size=4", "check_every=500", "weights.perception=0", "generator.width=8", "generator.downs=2",
    "discriminator.width=16", "discriminator.layers=3", "task.width=8", "gate.detector_steps=150", "bf16=false",
    "learning_rate=6e-4", "discriminator_learning_rate=4e-4", "task.learning_rate=2e-3", "average=0.99",
)  # fmt: skip
ADAPT_RENDERS = 2000
LEAST_GAP = 0.1  # of the error with randomization, under which a share of it says nothing
CURVE = (50, 200, 1000, 4000)
UNLABELLED = (50, 200, 1000)
MOST = max(UNLABELLED)
# How many, room by room. A room has 30 textures; a localizer that has seen only one of them does not know others. The
# test's rooms were photographed when everything was decided; localizers had been looked at in rooms 0 to 4 before.
PHOTOGRAPHS: dict[Split, dict[int, int]] = {
    "unlabelled": {0: MOST},
    "labelled": {0: 2000, 1: 1000, 2: 1000},
    "development": {0: 300},
    "test": {11: 400, 12: 400, 13: 400},
}
ROWS = (
    "plain", "randomized", "oracle", f"statistics_{MOST}",
    *(f"{kind}_{n}" for n in UNLABELLED for kind in ("teacher", "generator", "both")),
    *(f"{kind}_{n}" for n in CURVE for kind in ("labelled", "teacher_labelled")),
)  # fmt: skip
BOOTSTRAPS = 2000


def quiet(*_) -> None:
    pass


def photographs(work: Path, split: Split) -> Path:
    """All photographs of a split, taken once; each of its rooms has textures of its own."""
    arm = Arm(robot_folder("so101"))
    camera = load_camera(robot_folder("so101") / "camera.yaml")
    rooms = []
    for room, count in PHOTOGRAPHS[split].items():
        rooms.append(work / (f"{split}_room_{room}" if room else split))
        if write_target_dataset(rooms[-1], camera, arm.chain, arm.ee, count, split, quiet, scene_set=room) < count:
            raise KeyboardInterrupt
    return rooms[0] if len(rooms) == 1 else joined(rooms, work / f"{split}_all")


def joined(datasets: list[Path], out: Path, count: int | None = None) -> Path:
    """The frames of datasets as one, or the first ``count`` of them; images are links."""
    wanted = min(count or 10**9, sum(len(read_dataset(dataset)) for dataset in datasets))
    if (out / "dataset.json").is_file() and len(read_dataset(out)) == wanted:  # the header is written last
        return out
    lines: list[str] = []
    for dataset in datasets:
        for frame in map(json.loads, (dataset / "frames.jsonl").read_text().splitlines()):
            for kind in ("image", "mask"):
                if kind in frame:
                    link = out / f"{kind}s" / f"{len(lines):06d}.png"
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.unlink(missing_ok=True)
                    os.link(dataset / frame[kind], link)
                    frame[kind] = f"{kind}s/{link.name}"
            lines.append(json.dumps(frame) + "\n")
            if len(lines) == count:
                break
        if len(lines) == count:
            break
    write_text(out / "frames.jsonl", "".join(lines))
    write_text(out / "dataset.json", (datasets[0] / "dataset.json").read_text())
    return out


def first(dataset: Path, count: int, out: Path) -> Path:
    """The first frames of a dataset as one of its own."""
    return joined([dataset], out, count)


def settings_of(seed: int, *more: str) -> LocalizeConfig:
    """A row's experiment."""
    return validate(LocalizeConfig, *read_settings("so101_localize", (*SMALL, f"seed={seed}", *more)))


def renders(work: Path, seed: int, plain: bool = False) -> Path:
    """Renders of a seed, drawn once for all rows."""
    folder, config = work / f"{'plain_' if plain else ''}renders_{seed}", settings_of(seed, *(PLAIN if plain else ()))
    if render_dataset(config, folder, config.render.images, quiet) < config.render.images:
        raise KeyboardInterrupt
    return folder


def generator(work: Path, seed: int, count: int) -> tuple[Path, dict]:
    """Train a generator with ``count`` unlabelled photographs; the run, and how it went."""
    run = work / f"gan_{count}_{seed}"
    result = run / "result.json"
    if not result.is_file():
        config = load_preset(PRESET, (*ADAPT, f"seed={seed}", "threads=1"))
        sim = first(renders(work, seed), ADAPT_RENDERS, work / f"adapt_renders_{seed}")
        real = unlabelled(work, count)
        began = time.perf_counter()
        finished = adapt(config, load_data(config, sim, real), run)
        if finished is None:
            raise KeyboardInterrupt
        write_adaptation_report(run, config.name, finished)
        figures = {"gate": finished.verdict.summary(), "kept_step": finished.kept, "figures": finished.figures}
        write_text(result, json.dumps({**figures, "took_s": time.perf_counter() - began}, indent=1))
    return run, json.loads(result.read_text())


def unlabelled(work: Path, count: int) -> Path:
    """The first unlabelled photographs."""
    return first(photographs(work, "unlabelled"), count, work / f"unlabelled_{count}")


def row_settings(row: str, work: Path, seed: int) -> tuple[str, ...]:
    """A row's settings; its generator is trained first."""
    if row in ("plain", "randomized"):
        return PLAIN if row == "plain" else ()
    if row == "oracle":
        return f"labelled={photographs(work, 'labelled')}", "labelled_fraction=1"
    kind, _, number = row.rpartition("_")
    count = int(number)
    settings: tuple[str, ...] = ()
    if kind.endswith("labelled"):
        settings += (f"labelled={first(photographs(work, 'labelled'), count, work / f'labelled_{count}')}",)
        count = MOST  # unlabelled ones
    if kind in ("generator", "both"):
        settings += (f"adapted={generator(work, seed, count)[0]}",)
    if kind == "statistics":
        settings += ("teacher.weight=1e-9",)
    if kind.startswith(("statistics", "teacher", "both")):
        settings += (f"unlabelled={unlabelled(work, count)}",)
    return settings


def measure(row: str, seed: int, work: Path, split: Split, seen: ImageDataset) -> tuple[dict, dict[str, Array]]:
    """Train a row and measure it: figures, and every photograph's error, m; what is finished is not done again."""
    folder = work / f"{row}_{seed}"
    result, trained = folder / f"{split}.json", folder / "trained.json"
    settings = settings_of(seed, f"name={row}", *row_settings(row, work, seed))
    prepare_run(settings, folder)  # refuses what was trained with other settings
    if not trained.is_file():  # otherwise it was trained for another split
        first(renders(work, seed, row == "plain"), settings.render.images, folder / "images")
        began = time.perf_counter()
        if train(settings, folder, quiet) is None:
            raise KeyboardInterrupt
        write_text(trained, json.dumps({"took_s": time.perf_counter() - began}))
        for images in ("images", "adapted"):
            shutil.rmtree(folder / images, ignore_errors=True)
    taken = hashlib.sha256(np.ascontiguousarray(seen.images).data).hexdigest()
    if not result.is_file() or json.loads(result.read_text()).get("photographs") != taken:
        bundle = PerceptionBundle.load(folder / "bundle")
        places, stds, truth = locate_all(bundle.locator(), seen)
        true_pose = at_recorded_poses(places, bundle.spec, seen.column("T_base_camera"))
        figures = localization_figures(places, stds, truth, seen.column("visible"), true_pose)
        held_out = json.loads((folder / "history.json").read_text())["held_out"]
        figures |= {"held_out_m": held_out["mean_error_m"], "photographs": taken, **json.loads(trained.read_text())}
        errors = {
            name: np.linalg.norm(p - truth, axis=1) for name, p in (("deployed", places), ("true_pose", true_pose))
        }
        np.savez(folder / f"{split}.npz", **errors)
        write_text(result, json.dumps(figures, indent=1))
    with np.load(folder / f"{split}.npz") as errors:
        return json.loads(result.read_text()), dict(errors)


def summary(rows: dict[str, Array]) -> dict[str, dict[str, list[float]]]:
    """Mean and median error of rows and the share of the gap from randomized to oracle that each closes.

    Args:
        rows: Errors [seeds, photographs] m, of the same seeds and photographs in all rows.

    Returns:
        By row and figure: value, and both ends of its interval. ``beyond_30_mm`` is a share of the photographs.
        ``gained`` is the difference to randomized; the share of the gap is left out where there is none.
    """
    rng = np.random.default_rng(0)
    seeds, images = next(iter(rows.values())).shape
    draws = [(np.arange(seeds), np.arange(images))] + [
        (rng.integers(seeds, size=seeds), rng.integers(images, size=images)) for _ in range(BOOTSTRAPS)
    ]
    found: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
    for row, errors in rows.items():
        found[row]["beyond_30_mm"] = interval(np.array([(errors[np.ix_(*draw)] > 0.03).mean() for draw in draws]))
    for figure, over in (("mean", np.mean), ("median", np.median)):
        # Over photographs, then over seeds: [draws] of every row.
        drawn = {
            row: np.array([over(errors[np.ix_(*draw)], axis=1).mean() for draw in draws])
            for row, errors in rows.items()
        }
        for row, values in drawn.items():
            found[row][f"{figure}_m"] = interval(values)
        if {"randomized", "oracle"} <= set(rows):
            start, end = drawn["randomized"], drawn["oracle"]
            gap = interval(start - end)
            for row, values in drawn.items():
                found[row][f"{figure}_gained_m"] = interval(start - values)
            if gap[0] > LEAST_GAP * start[0] and gap[1] > 0:
                for row, values in drawn.items():
                    if row in ("plain", "randomized", "oracle"):  # the gap is between them, or far off
                        continue
                    found[row][f"{figure}_gap_closed"] = interval((start - values) / (start - end))
    return found


def labels_needed(found: dict[str, dict[str, list[float]]], row: str, figure: str) -> str | None:
    """How many labelled photographs make up for adaptation: the fewest without it that are as good as a row, in words.

    Of those that were measured: "1000" means that 200 are not enough. None where the curve is not whole.
    """
    without = {0: "randomized"} | {count: f"labelled_{count}" for count in CURVE}
    if not set(without.values()) <= set(found):
        return None
    enough = [count for count, name in without.items() if found[name][figure][0] <= found[row][figure][0]]
    return str(min(enough)) if enough else f"more than {max(without)}"


def interval(values: Array) -> list[float]:
    """The first value, and where 95 % of the others lie."""
    return [float(values[0]), *np.percentile(values[1:], (2.5, 97.5)).tolist()]


def shown(values: Sequence[float] | None, scale: float, unit: str) -> str:
    """A value with its interval."""
    if values is None:
        return "-"
    value, low, high = (scale * v for v in values)
    digits = 0 if unit else 1
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", choices=("development", "test"), default="test")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    seen = read_dataset(photographs(given.work, given.split))
    rows: dict[str, dict[str, dict]] = {}
    errors: dict[str, list[dict[str, Array]]] = {}
    generators: dict[str, dict] = {}
    refused: dict[str, str] = {}
    for seed in given.seeds:  # a seed of all rows first, so that a stopped run compares like with like
        for row in given.rows:
            try:
                figures, off = measure(row, seed, given.work, given.split, seen)
            except AdaptationError as error:  # the gate refused its generator
                refused[f"{row}, seed {seed}"] = str(error).replace(str(given.work), "WORK")
                print(f"{row:21s} seed {seed}: {error}", flush=True)
                continue
            rows.setdefault(row, {})[str(seed)] = figures
            errors.setdefault(row, []).append(off)
            if row.startswith(("generator", "both")):
                count = int(row.rpartition("_")[2])
                generators[f"{count}, seed {seed}"] = generator(given.work, seed, count)[1]
            print(
                f"{row:21s} seed {seed}: {1e3 * figures['mean_error_m']:5.1f} mm mean, "
                f"{1e3 * figures['median_error_m']:4.1f} median; at true pose "
                f"{1e3 * figures['mean_error_at_recorded_pose_m']:5.1f}, "
                f"{1e3 * figures['median_error_at_recorded_pose_m']:4.1f}; {figures['took_s']:.0f} s",
                flush=True,
            )
    summaries = {}
    for kind, title in (("true_pose", "at true pose"), ("deployed", "as deployed")):
        whole = {r: np.array([e[kind] for e in seeds]) for r, seeds in errors.items() if len(seeds) == len(given.seeds)}
        if not whole:
            continue
        summaries[kind] = summary(whole)
        print(f"\n{title}, mm over {len(given.seeds)} seeds and {len(seen)} photographs; gap: share of randomized to "
              "oracle that is closed")  # fmt: skip
        print(f"{'row':21s} {'mean':>20s} {'gap':>18s} {'median':>18s} {'gap':>18s} {'beyond 30 mm':>18s}")
        for row, parts in summaries[kind].items():
            print(
                f"{row:21s} {shown(parts['mean_m'], 1e3, ''):>20s} "
                f"{shown(parts.get('mean_gap_closed'), 100, ' %'):>18s} "
                f"{shown(parts['median_m'], 1e3, ''):>18s} {shown(parts.get('median_gap_closed'), 100, ' %'):>18s} "
                f"{shown(parts['beyond_30_mm'], 100, ''):>16s} %"
            )
        for row in summaries[kind]:
            if row.startswith(("teacher", "generator", "both")):
                means, medians = (labels_needed(summaries[kind], row, f"{figure}_m") for figure in ("mean", "median"))
                if means and medians:
                    print(f"{row}: as good without adaptation: {means} labelled photographs (mean), {medians} (median)")
    if given.json:
        made = {
            "made": facts(), "settings": {"localizer": SMALL, "adaptation": (PRESET, *ADAPT)}, "split": given.split,
            "photographs": PHOTOGRAPHS, "rows": rows, "summary": summaries, "generators": generators,
            "refused": refused,
        }  # fmt: skip
        write_text(given.json, json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
