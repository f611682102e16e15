"""The ladder of Peng et al. 2018 on pushing with an SO-101: which way of bearing unknown physics transfers?

python benchmarks/arm_ladder.py RUNS [--episodes 100] [--only [NAME …]] [--seeds 0 1 2] [--json FILE]

Trains every rung in RUNS/NAME_SEED (finished ones are not repeated) and runs it on the MuJoCo target in process, with
objects outside the training's ranges. All rungs imitate the same controller before PPO; its own row is there too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

from sim2real.bundle import PolicyBundle
from sim2real.config import load_config
from sim2real.evaluate.arm_in_process import conditions, work
from sim2real.evaluate.identification import facts
from sim2real.evaluate.table import fly_in_process, mean_success
from sim2real.learn.build import build_spec, robot_and_task
from sim2real.learn.train import train

RUNGS = {
    "nominal": ["method=nominal", "randomize=[]"],
    "feed_forward": [],
    "history": ["task={name: push, history: 6}"],
    "lstm": ["ppo.lstm=128"],
    "up_osi": [
        "method=up_osi",
        "identify=[object_mass, object_friction, object_radius, table_height, delay, shoulder_lift.no_load_speed, "
        "shoulder_lift.gravity_scale, elbow_flex.gravity_scale]",
        "osi={rounds: 4, robots: 256, batches_per_round: 1500}",
    ],
}
SEED = 12345


class Controller:
    """The controller that every rung imitates first, in a runner's clothes."""

    def __init__(self, count: int) -> None:
        config = load_config("so101_push")
        model, self._task = robot_and_task(config)
        self.spec = build_spec(config)
        limits = model.spec.commands
        self._low, self._high = np.array([c.low for c in limits]), np.array([c.high for c in limits])
        self._step = self._task.settings.speed * self.spec.control_dt
        self._command = np.zeros((count, len(limits)))

    def reset(self) -> None:
        self._fresh = True

    def step(self, signals):
        if self._fresh:
            self._command, self._fresh = signals["joint_pos"].copy(), False
        signals = signals | {"command_lead": self._command - signals["joint_pos"]}
        change = np.clip(self._task.teacher(signals), -1.0, 1.0) * self._step
        self._command = np.clip(self._command + change, self._low, self._high)
        return self._command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--only", nargs="*", choices=RUNGS, default=list(RUNGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {"made": facts(), "episodes_a_cell": arguments.episodes, "rungs": {}}
    for seed, name in itertools.product(arguments.seeds, arguments.only):
        config = load_config("so101_push", [*RUNGS[name], f"seed={seed}"])
        rung, folder = f"{name}, seed {seed}", arguments.runs / f"{name}_{seed}"
        began = time.monotonic()
        if not (folder / "bundle" / "manifest.json").is_file():
            train(config, folder, lambda stage, done, total, figures, n=rung: print(n, stage, done, total, flush=True))
        took = time.monotonic() - began
        bundle = folder / "bundle"
        cells = fly_in_process({name: bundle}, arguments.episodes, SEED, lambda *_: None)[name]["so101"]
        inside = PolicyBundle.load(bundle).provenance["metrics"]["training_simulator"]["success"]
        result["rungs"][rung] = {"target": cells, "training_simulator": inside, "training_s": took}
        print(f"{rung}: training simulator {inside:.0%}, {_text(cells)}", flush=True)
    config = load_config("so101_push")
    controller = {c: work(Controller, config, c, arguments.episodes, SEED).summary() for c in conditions("push")}
    result["rungs"]["controller alone"] = {"target": controller}
    print(f"controller alone: {_text(controller)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def _text(cells) -> str:
    return f"target mean {mean_success({'so101': cells}):.0%}, " + ", ".join(
        f"{c} {x['success']:.0%} [{x['ci95'][0]:.0%} to {x['ci95'][1]:.0%}] {1e3 * x['final_error_m']:.0f} mm"
        for c, x in cells.items()
    )


if __name__ == "__main__":
    main()
