"""Adaptation on the arm: what rendered images made to look like the target's are worth to a localizer.

    python benchmarks/adapt_arm.py WORK [--rows randomized adapted_200 ...] [--seeds 0 1 2] [--split test] [--json OUT]

Every row is one training of the localizer with the same number of steps (see ``SMALL``), measured on the same labelled
photographs of the MuJoCo target, which nothing is trained on:

- ``plain``: renders without visual randomization; ``randomized``: with all of it.
- ``plain_adapted_1000``: the former through a generator of their own, which adds noise so that not all look alike.
- ``adapted_N``: randomized renders through a generator that was trained with N unlabelled photographs (``ADAPT``).
- ``oracle``: trained on labelled photographs alone.
- ``labelled_N``, ``adapted_labelled_N``: N labelled photographs make up half of every batch; the other half are
  randomized renders, as they are or through the generator of ``adapted_1000``. This is the curve of sample efficiency.

No photograph's label takes part in adaptation. Settings are chosen with ``--split development``. WORK keeps everything:
what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path

from calibration.dataset import ImageDataset, read_dataset
from sim2real.adapt.config import load_preset
from sim2real.adapt.run import adapt, load_data
from sim2real.camera import load_camera
from sim2real.config import read_settings, validate
from sim2real.errors import AdaptationError
from sim2real.evaluate.adaptation import write_adaptation_report
from sim2real.evaluate.identification import facts
from sim2real.evaluate.localization import localization_figures, locate_all
from sim2real.evaluate.target_images import Split, write_target_dataset
from sim2real.files import write_text
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.render import render_dataset
from sim2real.perceive.train import train
from sim2real.perception import PerceptionBundle
from sim2real.robots import robot_folder
from sim2real.sim.arm import Arm

SMALL = (
    "render.images=4000", "render.held_out=200", "render.workers=1", "localizer.epochs=6", "localizer.width=16",
    "localizer.augment=[exposure, white_red, white_blue, blur, noise]",
)  # fmt: skip
PLAIN = ("render.randomize=[]", "localizer.augment=[]")
PRESET = "graspgan"
ADAPT = (
    "steps=1500", "batch_size=4", "check_every=500", "weights.perception=0", "generator.width=8", "generator.downs=2",
    "discriminator.width=16", "discriminator.layers=3", "task.width=8", "gate.detector_steps=150", "bf16=false",
    "learning_rate=6e-4", "discriminator_learning_rate=4e-4", "task.learning_rate=2e-3", "average=0.99",
)  # fmt: skip
ADAPT_PLAIN = ("generator.noise=4", "discriminator.spread=true")
ADAPT_RENDERS = 2000
LEAST_GAP = 0.1  # of the error with randomization, under which a share of it says nothing
CURVE = (50, 200, 1000)
ADAPT_WITH = (50, 200, 1000)
# How many, room by room. A room has 30 textures; a localizer that has seen only one of them does not know others.
PHOTOGRAPHS: dict[Split, tuple[int, ...]] = {
    "unlabelled": (max(ADAPT_WITH),), "labelled": (2000, 1000, 1000), "development": (300,), "test": (300,),
}  # fmt: skip
ROWS = (
    "plain", "plain_adapted_1000", "randomized", *(f"adapted_{n}" for n in ADAPT_WITH), "oracle",
    *(f"{kind}_{n}" for n in CURVE for kind in ("labelled", "adapted_labelled")),
)  # fmt: skip


def quiet(*_) -> None:
    pass


def photographs(work: Path, split: Split) -> Path:
    """All photographs of a split, taken once; each of its rooms has textures of its own."""
    arm = Arm(robot_folder("so101"))
    camera = load_camera(robot_folder("so101") / "camera.yaml")
    rooms = []
    for room, count in enumerate(PHOTOGRAPHS[split]):
        rooms.append(work / (f"{split}_room_{room}" if room else split))
        if write_target_dataset(rooms[-1], camera, arm.chain, arm.ee, count, split, quiet, room=room) < count:
            raise KeyboardInterrupt
    return rooms[0] if len(rooms) == 1 else joined(rooms, work / f"{split}_all")


def joined(datasets: list[Path], out: Path, count: int | None = None) -> Path:
    """The frames of datasets as one, or the first ``count`` of them; images are links."""
    if (out / "dataset.json").is_file():  # which is written last
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


def generator(work: Path, seed: int, count: int, plain: bool = False) -> tuple[Path, dict]:
    """Train a generator with ``count`` unlabelled photographs; the run, and how it went."""
    kind = "plain_" if plain else ""
    run = work / f"{kind}generator_{count}_{seed}"
    result = run / "result.json"
    if not result.is_file():
        config = load_preset(PRESET, (*ADAPT, *(ADAPT_PLAIN if plain else ()), f"seed={seed}", "threads=1"))
        sim = first(renders(work, seed, plain), ADAPT_RENDERS, work / f"{kind}adapt_renders_{seed}")
        real = first(photographs(work, "unlabelled"), count, work / f"unlabelled_{count}")
        began = time.perf_counter()
        finished = adapt(config, load_data(config, sim, real), run)
        if finished is None:
            raise KeyboardInterrupt
        write_adaptation_report(run, config.name, finished)
        figures = {"gate": finished.verdict.summary(), "kept_step": finished.kept, "figures": finished.figures}
        write_text(result, json.dumps({**figures, "took_s": time.perf_counter() - began}, indent=1))
    return run, json.loads(result.read_text())


def row_settings(row: str, work: Path, seed: int) -> tuple[str, ...]:
    """A row's settings; its generator is trained first."""
    if row in ("plain", "randomized"):
        return PLAIN if row == "plain" else ()
    if row == "oracle":
        return f"labelled={photographs(work, 'labelled')}", "labelled_share=1"
    count = int(row.rpartition("_")[2])
    if row.startswith("plain"):
        return *PLAIN, f"adapted={generator(work, seed, count, plain=True)[0]}", "unadapted=0"
    settings: tuple[str, ...] = ()
    if row.startswith("adapted"):
        run, _ = generator(work, seed, max(ADAPT_WITH) if "labelled" in row else count)
        settings = (f"adapted={run}",)
    if "labelled" in row:
        settings += (f"labelled={first(photographs(work, 'labelled'), count, work / f'labelled_{count}')}",)
    return settings


def measure(row: str, seed: int, work: Path, split: Split, seen: ImageDataset) -> dict:
    """Train a row and measure it; its figures are kept in its folder."""
    folder = work / f"{row}_{seed}"
    result = folder / f"{split}.json"
    if result.is_file():
        return json.loads(result.read_text())
    trained = folder / "trained.json"
    if not trained.is_file():  # otherwise it was trained for another split
        settings = settings_of(seed, f"name={row}", *row_settings(row, work, seed))
        first(renders(work, seed, row.startswith("plain")), settings.render.images, folder / "images")
        began = time.perf_counter()
        if train(settings, folder, quiet) is None:
            raise KeyboardInterrupt
        write_text(trained, json.dumps({"took_s": time.perf_counter() - began}))
    answers = locate_all(PerceptionBundle.load(folder / "bundle").locator(), seen)
    figures = localization_figures(*answers, seen.column("visible"))
    held_out = json.loads((folder / "history.json").read_text())["held_out"]
    figures |= {"held_out_m": held_out["mean_error_m"], **json.loads(trained.read_text())}
    write_text(result, json.dumps(figures, indent=1))
    for images in ("images", "adapted"):
        shutil.rmtree(folder / images, ignore_errors=True)
    return figures


def average(seeds: dict[str, dict], figure: str) -> float:
    """Mean over seeds."""
    return statistics.mean(figures[figure] for figures in seeds.values())


def closed(rows: dict[str, dict[str, dict]], row: str, figure: str) -> str:
    """Share of the gap from randomization to oracle that a row closes, where there is a gap worth the name."""
    if not {"randomized", "oracle"} <= set(rows):
        return ""
    start, end, reached = (average(rows[name], figure) for name in ("randomized", "oracle", row))
    return f"{(start - reached) / (start - end):.0%}" if start - end > LEAST_GAP * start else "no gap"


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
    generators: dict[str, dict] = {}
    refused: dict[str, str] = {}
    for seed in given.seeds:  # a seed of all rows first, so that a stopped run compares like with like
        for row in given.rows:
            try:
                figures = measure(row, seed, given.work, given.split, seen)
            except AdaptationError as error:  # the gate refused its generator
                refused[f"{row}, seed {seed}"] = str(error).replace(str(given.work), "WORK")
                print(f"{row:22s} seed {seed}: {error}", flush=True)
                continue
            rows.setdefault(row, {})[str(seed)] = figures
            if "adapted" in row and "labelled" not in row:
                count, plain = int(row.rpartition("_")[2]), row.startswith("plain")
                generators[f"{row}, seed {seed}"] = generator(given.work, seed, count, plain)[1]
            print(
                f"{row:22s} seed {seed}: target {1e3 * figures['mean_error_m']:5.1f} mm mean, "
                f"{1e3 * figures['median_error_m']:5.1f} median; held out of training "
                f"{1e3 * figures['held_out_m']:5.1f}; {figures['took_s']:.0f} s",
                flush=True,
            )
    print(f"\nmm, mean over {len(given.seeds)} seeds; gap: share of randomized to oracle that is closed")
    print(f"{'row':22s} {'mean':>7s} {'gap':>7s} {'median':>7s} {'gap':>7s} {'within 15 mm':>13s}")
    for row, seeds in rows.items():
        parts = [
            f"{1e3 * average(seeds, figure):7.1f} {closed(rows, row, figure):>7s}"
            for figure in ("mean_error_m", "median_error_m")
        ]
        print(f"{row:22s} {' '.join(parts)} {average(seeds, 'within_15_mm'):13.0%}")
    if given.json:
        made = {
            "made": facts(), "settings": {"localizer": SMALL, "adaptation": (PRESET, *ADAPT)}, "split": given.split,
            "photographs": PHOTOGRAPHS, "rows": rows, "generators": generators, "refused": refused,
        }  # fmt: skip
        write_text(given.json, json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
