"""Does the gate catch what CycleGAN's users complain about: generators that move, remove or invent objects?

    python benchmarks/gate.py WORK [--steps 1200] [--rows ROW …] [--json OUT]

Planted, on renders of the SO-101 that no setting of the gate was chosen on: a second object is put beside what is there
(``with_copies``), objects are painted out, and all is recoloured, which must not count; by edges and colours alone.

Trained, at 64 px towards photographs of the target (MuJoCo's camera): by an adversarial loss alone, which is free to
draw any scene that looks real, by CycleGAN, and by the preset that this project recommends. Each run has its report in
WORK; the verdicts are the result.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np

from sim2real.adapt.config import load_preset
from sim2real.adapt.data import load_data
from sim2real.adapt.domains import objects_of
from sim2real.adapt.invented import invented, with_copies
from sim2real.adapt.objects import vanished
from sim2real.adapt.run import adapt
from sim2real.config import read_settings, validate
from sim2real.evaluate.adaptation import write_adaptation_report
from sim2real.evaluate.target_images import write_target_dataset
from sim2real.files import write_text
from sim2real.images.dataset import read_dataset
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.render import CLASSES, render_dataset
from sim2real.provenance import made as facts
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.runtime.camera import load_camera

RESULTS = Path(__file__).parent / "results" / "gate.json"
RENDERS, PHOTOGRAPHS, FRESH, FRESH_SEED = 1000, 300, 400, 2026
SIZE = (
    "image_size=64", "batch_size=4", "generator.width=8", "generator.downs=2", "discriminator.width=16", "threads=1",
)  # fmt: skip
ROWS = {
    "adversarial loss alone": ("cyclegan", ("weights.cycle=0", "weights.identity=0", "generator.from_input=false")),
    "cyclegan": ("cyclegan", ()),
    "graspgan": ("graspgan", ("task.width=8",)),
}
RECOLOURINGS = {
    "gamma 0.4": lambda x: (255.0 * (x / 255.0) ** 0.4).astype(np.uint8),
    "JPEG 40": lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR),
    "blur 1.5 px": lambda x: cv2.GaussianBlur(x, (0, 0), 1.5),
    "grey": lambda x: np.repeat(x.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
}


def quiet(*_) -> None:
    pass


def settings(*more: str) -> LocalizeConfig:
    return validate(LocalizeConfig, *read_settings("so101_localize", more))


def painted_out(image: np.ndarray, mask: np.ndarray, number: int) -> np.ndarray:
    hole = cv2.dilate((mask == number).astype(np.uint8), np.ones((5, 5), np.uint8))
    return cv2.inpaint(image, hole, 3, cv2.INPAINT_TELEA)


def planted(folder: Path) -> dict:
    """Shares of planted faults that are found, and of recolourings that are taken for one."""
    render_dataset(settings(f"seed={FRESH_SEED}"), folder, FRESH, quiet)
    dataset = read_dataset(folder)
    images, masks = dataset.images, dataset.masks
    numbers = objects_of(masks)
    objects = np.isin(masks, numbers)
    result = {}
    for number in (2, 3):
        doubled, placed = with_copies(images, masks, number, objects)
        without = np.stack([painted_out(x, mask, number) for x, mask in zip(images, masks, strict=True)])
        seen, gone = vanished(images, without, masks)[number]
        result[CLASSES[number]] = {
            "second_found": float(invented(images[placed], doubled[placed], objects[placed])[0].mean()),
            "painted_out_found": float(gone.sum() / seen.sum()),
        }
    for name, change in RECOLOURINGS.items():
        other = np.stack([change(image) for image in images])
        lost = vanished(images, other, masks).values()
        result[name] = {
            "taken_for_invented": float(invented(images, other, objects)[0].mean()),
            "taken_for_vanished": float(max(gone.sum() / max(seen.sum(), 1) for seen, gone in lost)),
        }
    return result


def trained(name: str, work: Path, steps: int) -> dict:
    """Train a row and let the gate judge it."""
    preset, more = ROWS[name]
    run, began = work / name.replace(" ", "_"), time.perf_counter()
    config = load_preset(preset, [*SIZE, *more, f"steps={steps}", f"check_every={max(1, steps // 3)}"])
    finished = adapt(config, load_data(config, work / "sim", work / "real"), run)
    if finished is None:
        raise KeyboardInterrupt
    page, verdict = write_adaptation_report(run, name, finished), finished.verdict
    print(f"{name}: {'passes' if verdict.passed else 'refused'}; see {page}", *verdict.reasons, sep="\n  ", flush=True)
    made = {"made": facts(), "steps": steps, "size": SIZE, "took_s": time.perf_counter() - began}
    return made | verdict.summary() | {"figures": finished.figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    known = json.loads(given.json.read_text()) if given.json.is_file() else {"rows": {}}
    known["planted"] = {"made": facts(), "renders": FRESH} | planted(given.work / "fresh")
    print(json.dumps(known["planted"], indent=1), flush=True)
    arm = Arm(robot_folder("so101"))
    camera = load_camera(robot_folder("so101") / "camera.yaml")
    render_dataset(settings(), given.work / "sim", RENDERS, quiet)
    write_target_dataset(given.work / "real", camera, arm.chain, arm.ee, PHOTOGRAPHS, "unlabelled", quiet)
    for name in given.rows:
        known["rows"][name] = trained(name, given.work, given.steps)
    write_text(given.json, json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
