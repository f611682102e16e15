"""Does the gate catch what CycleGAN's users complain about: a generator that moves, removes or invents objects?

    python benchmarks/moving_generator.py WORK [--steps 1500] [--json OUT]

Renders of the SO-101 are adapted towards photographs of the target (MuJoCo's camera): once by an adversarial loss
alone, which is free to draw any scene that looks real, then by CycleGAN and by the preset that this project recommends.
Each run has its report in WORK; the gate's verdicts are the result.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from sim2real.adapt.config import load_preset
from sim2real.adapt.run import adapt, load_data
from sim2real.camera import load_camera
from sim2real.config import read_settings, validate
from sim2real.evaluate.adaptation import write_adaptation_report
from sim2real.evaluate.identification import facts
from sim2real.evaluate.target_images import write_target_dataset
from sim2real.files import write_text
from sim2real.perceive.config import LocalizeConfig
from sim2real.perceive.render import render_dataset
from sim2real.robots import robot_folder
from sim2real.sim.arm import Arm

RESULTS = Path(__file__).parent / "results" / "moving_generator.json"
RENDERS, PHOTOGRAPHS = 1000, 300
SIZE = (
    "image_size=64",
    "batch_size=4",
    "generator.width=8",
    "generator.downs=2",
    "discriminator.width=16",
    "threads=1",
)
ROWS = {
    "adversarial loss alone": ("cyclegan", ("weights.cycle=0", "weights.identity=0", "generator.from_input=false")),
    "cyclegan": ("cyclegan", ()),
    "graspgan": ("graspgan", ("task.width=8",)),
}


def quiet(*_) -> None:
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    arm = Arm(robot_folder("so101"))
    camera = load_camera(robot_folder("so101") / "camera.yaml")
    render_dataset(validate(LocalizeConfig, *read_settings("so101_localize")), given.work / "sim", RENDERS, quiet)
    write_target_dataset(given.work / "real", camera, arm.chain, arm.ee, PHOTOGRAPHS, "unlabelled", quiet)
    rows = json.loads(given.json.read_text())["rows"] if given.json.is_file() else {}
    for name in given.rows:
        preset, more = ROWS[name]
        run, began = given.work / name.replace(" ", "_"), time.perf_counter()
        config = load_preset(preset, [*SIZE, *more, f"steps={given.steps}", f"check_every={max(1, given.steps // 3)}"])
        finished = adapt(config, load_data(config, given.work / "sim", given.work / "real"), run)
        if finished is None:
            raise KeyboardInterrupt
        page = write_adaptation_report(run, name, finished)
        verdict = finished.verdict
        rows[name] = {
            "passed": verdict.passed,
            "reasons": verdict.reasons,
            "figures": verdict.figures | finished.figures,
        }
        rows[name] |= {"took_s": time.perf_counter() - began, "steps": given.steps, "made": facts()}
        print(f"{name}: {'passes' if verdict.passed else 'refused'}; see {page}", flush=True)
        for reason in verdict.reasons:
            print(f"  {reason}")
    write_text(given.json, json.dumps({"size": SIZE, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
