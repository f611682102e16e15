"""MNIST to MNIST-M without target labels: one table of methods on one split (Bousmalis et al. 2017).

    python benchmarks/pixelda.py                          # all rows, then the table
    python benchmarks/pixelda.py --rows PixelDA --steps 20000 --out runs/pixelda_long

    python benchmarks/pixelda.py --photographs FOLDER     # digits in crops of these, a target no setting was chosen on

Target labels are used for the accuracy that is printed, once, of the networks at the end of each run: not for training,
not for choosing a checkpoint. (These settings were chosen with such accuracies in sight; see the README.) Rows go on
where they were stopped. A result takes the place of the one of the same row, seed, steps and --set in
benchmarks/results/pixelda.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real.adapt.config import AdaptConfig, load_preset
from sim2real.adapt.dann import train_classifier
from sim2real.adapt.domains import Domain
from sim2real.adapt.metrics import predict
from sim2real.adapt.sheets import sheet
from sim2real.adapt.train import Trainer
from sim2real.adapt.training import run_training
from sim2real.adapt.translate import cut_exemplars, translate
from sim2real.config import prepare_run
from sim2real.files import write_text
from sim2real.images.dataset import read_dataset
from sim2real.learn.torch_io import to_tensor
from sim2real.provenance import commit

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "pixelda.json"
PUBLISHED = {"source only": 63.6, "DANN": 77.4, "DSN": 83.2, "PixelDA": 98.2, "trained on target labels": 96.4}

COMMON = ["image_size=0", "check_every=250", "task.kind=classify", "task.width=24", "weights.content=0"]
PIXELDA = [
    "generator.from_input=false",
    "weights.task=0.1",
    "batch_size=32",
    "pool=0",
    "average=0.99",
    "discriminator.noise=0.05",
]
ROWS = {
    "source only": ("classifier", {"target": False}),
    "DANN": ("classifier", {"target": True}),
    "CUT + task": ("cut", ["batch_size=32", "pool=0", "generator.from_input=false"]),
    "PixelDA": ("pixelda", [*PIXELDA, "generator.noise=8"]),
    "PixelDA, exemplars": ("pixelda", [*PIXELDA, "generator.noise=0", "generator.exemplar=true"]),
    "PixelDA, exemplars, mean teacher": (
        "pixelda",
        [*PIXELDA, "generator.noise=0", "generator.exemplar=true", "task.mean_teacher=1.0"],
    ),
}
STEPS = {"source only": 2000, "DANN": 4000, "CUT + task": 4000}
DEFAULT_STEPS = 6000


def data(root: Path) -> tuple[Domain, Domain, Domain]:
    """Source with labels, target without, and the target's test images with labels."""
    source, target = np.load(root / "mnist_train.npz"), np.load(root / "mnist_m_train_unlabelled.npz")
    test = np.load(root / "mnist_m_dev_test.npz")
    # The target's digits fill rows 6 to 26 of 32, MNIST's 4 to 24 of 28: a border of two.
    images = np.pad(source["x"], ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=-1)
    return (
        Domain("mnist", images, labels=source["y"].astype(np.int64)),
        Domain("mnist-m", target["x"]),
        Domain("mnist-m test", test["x"], labels=test["y"].astype(np.int64)),
    )


def stand_in(root: Path, folder: Path) -> tuple[Domain, Domain, Domain]:
    """As ``data``, with a target made like MNIST-M (Ganin et al. 2016) from other photographs and other digits.

    A digit's difference to a crop of a photograph, in every channel. No digit is in two of the three sets, and no
    photograph in both of the target's.
    """
    source = np.load(root / "mnist_train.npz")
    digits = np.pad(source["x"], ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, axis=-1)
    labels = source["y"].astype(np.int64)
    photographs = read_dataset(folder).images
    rng = np.random.default_rng(5)
    rows = np.split(rng.permutation(len(digits)), (20000, 36000))
    half = len(photographs) // 2

    def blended(chosen: NDArray[np.int64], backgrounds: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = backgrounds.shape[1:3]
        made = np.empty((len(chosen), 32, 32, 3), np.uint8)
        for image, digit in zip(made, digits[chosen], strict=True):
            v, u = rng.integers(height - 31), rng.integers(width - 31)
            crop = backgrounds[rng.integers(len(backgrounds)), v : v + 32, u : u + 32]
            image[:] = np.abs(crop.astype(np.int16) - digit)
        return made

    return (
        Domain("mnist", digits[rows[0]], labels=labels[rows[0]]),
        Domain("stand-in", blended(rows[1], photographs[:half])),
        Domain("stand-in test", blended(rows[2], photographs[half:]), labels=labels[rows[2]]),
    )


def settings(row: str, steps: int, seed: int, more: list[str]) -> AdaptConfig:
    preset, overrides = ROWS[row]
    assert isinstance(overrides, list)
    name = row.replace(" ", "_").replace(",", "").replace("+", "and")
    return load_preset(preset, [*COMMON, *overrides, f"name={name}", f"steps={steps}", f"seed={seed}", *more])


def accuracy(network: torch.nn.Module, test: Domain, domain: int) -> float:
    assert test.labels is not None
    return float((predict(network, test.images, domain) == test.labels).mean())


@torch.no_grad()
def with_statistics_of(network: torch.nn.Module, test: Domain) -> float:
    """Accuracy where batch norm takes mean and spread from the images themselves, in place of the source's."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
    parts = [network(to_tensor(test.images[i : i + 500])).argmax(dim=1) for i in range(0, len(test), 500)]
    return float((torch.cat(parts).numpy() == test.labels).mean())


def train_row(
    row: str, steps: int, seed: int, out: Path, source: Domain, target: Domain, test: Domain, more: list[str]
) -> dict[str, object]:
    start = time.perf_counter()
    kind, options = ROWS[row]
    if kind == "classifier":
        assert isinstance(options, dict)
        network = train_classifier(source, target if options["target"] else None, steps, 24, seed=seed)
        result = {"accuracy": accuracy(network, test, 1), "steps": steps, "wall_s": time.perf_counter() - start}
        if not options["target"]:
            result["accuracy_with_the_targets_statistics"] = with_statistics_of(network, test)
        return result
    config = settings(row, steps, seed, more)
    run = out / target.name / config.name
    prepare_run(config, run)
    trainer = Trainer(config, source, target)
    spent_file = run / "wall_s.json"
    before = json.loads(spent_file.read_text()) if spent_file.is_file() else 0.0

    def look(trainer: Trainer, figures: dict[str, float]) -> None:
        spent = before + time.perf_counter() - start
        write_text(spent_file, json.dumps(spent))
        print(
            f"{row} {trainer.step}/{steps} {spent:5.0f} s  "
            + "  ".join(f"{k} {v:.3f}" for k, v in figures.items() if k != "step"),
            flush=True,
        )

    finished = run_training(trainer, run, look)
    if not finished:
        sys.exit(130)
    seconds = before + time.perf_counter() - start
    pieces = cut_exemplars(target.images, 64, seed) if config.generator.exemplar else None
    shown = source.images[:16]
    import cv2

    adapted = translate(trainer.averages["generator"], shown, pieces)
    cv2.imwrite(str(run / "samples.png"), sheet([shown, adapted, target.images[:16]])[..., ::-1])
    task = trainer.averages["task"]
    return {
        "accuracy": accuracy(task, test, 1),
        "accuracy_rendered": accuracy(task, Domain("", source.images[:4000], labels=source.labels[:4000]), 0),
        "steps": steps,
        "wall_s": seconds,
        "config": config.model_dump(mode="json"),
    }


def recorded() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--steps", type=int, default=0, help="in place of each row's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="more", action="append", default=[], help="setting of the configuration")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/pixelda"))
    default = os.environ.get("SIM2REAL_DATA", HERE.parent.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default) / "pixelda")
    parser.add_argument("--photographs", type=Path, help="dataset or folder of images of one size, 32 px or more")
    parser.add_argument("--note", default="", help="kept beside the result")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    given = arguments.photographs
    source, target, test = stand_in(arguments.data, given) if given else data(arguments.data)
    for row in arguments.rows:
        steps = arguments.steps or STEPS.get(row, DEFAULT_STEPS)
        result = train_row(row, steps, arguments.seed, arguments.out, source, target, test, arguments.more)
        result |= {
            "row": row,
            "target": target.name,
            "photographs": str(given) if given else "",
            "set": arguments.more,
            "seed": arguments.seed,
            "date": datetime.date.today().isoformat(),
            "commit": commit(),
            "hardware": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
            "note": arguments.note,
        }
        print(f"{row}: {result['accuracy']:.4f} in {result['wall_s']:.0f} s", flush=True)
        same = ("target", "row", "seed", "steps", "set")
        others = [r for r in recorded() if any(r[key] != result[key] for key in same)]
        write_text(RESULTS, json.dumps(sorted([*others, result], key=lambda r: [r[k] for k in same]), indent=2) + "\n")
    print(f"\n| method | steps | accuracy on {target.name}, a seed each | minutes |\n| --- | --- | --- | --- |")
    runs = [r for r in recorded() if r["target"] == target.name]
    for row, steps in sorted({(r["row"], r["steps"]) for r in runs if not r["set"]}):
        these = [r for r in runs if (r["row"], r["steps"], r["set"]) == (row, steps, [])]
        accuracies = ", ".join(f"{100 * r['accuracy']:.1f}" for r in these)
        print(f"| {row} | {steps} | {accuracies} % | {np.mean([r['wall_s'] for r in these]) / 60:.0f} |")
    if not given:
        print("Published (other networks and sizes): " + ", ".join(f"{k} {v} %" for k, v in PUBLISHED.items()))


if __name__ == "__main__":
    main()
