"""The ladder of Peng et al. 2018 on pushing with an SO-101: which way of bearing unknown physics transfers?

    python benchmarks/arm_ladder.py RUNS [--episodes 100] [--only [NAME …]] [--seeds 0 1 2] [--set KEY=VALUE …]

Trains every rung in RUNS/NAME_SEED (finished ones are not repeated) and runs it on the MuJoCo target in process, with
objects outside the training's ranges. All rungs imitate the same controller before PPO; its own row is there too, and
the policy of UP-OSI told what is true of the target in place of what it identified (the oracle).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from functools import partial
from pathlib import Path

import numpy as np

from sim2real.config import load_config
from sim2real.evaluate.episodes import run
from sim2real.evaluate.identification import facts
from sim2real.evaluate.table import evaluate_in_process, mean_success
from sim2real.files import write_text
from sim2real.learn.build import build_spec, robot_and_task
from sim2real.learn.train import train
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.policy import PolicyRunner, onnx_policy
from sim2real.runtime.spec import normalise_parameters
from sim2real.targets._shim import make_case
from sim2real.targets.base import target_for
from sim2real.targets.so101 import PUCK_CONDITIONS
from sim2real.targets.so101_arm import read_figures

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
RESULTS = Path(__file__).parent / "results" / "arm_ladder.json"


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


def oracle(bundle: PolicyBundle, condition: str, count: int) -> PolicyRunner:
    """UP-OSI's policy with the target's own object, table and delays for its estimates.

    The target's servos are of another kind than the simulator's; their quantities are the identified ones.
    """
    target = PUCK_CONDITIONS[condition]
    true = {
        "object_mass": target.puck.mass_kg,
        "object_friction": target.puck.friction,
        "object_radius": target.puck.radius_m,
        "table_height": 0.0,
        "delay": float(read_figures()["dead_time"].mean()) + target.command_delay_s + target.latency_s,
    }
    terms = bundle.spec.parameters
    told = normalise_parameters(terms, np.array([[true.get(term.name, term.nominal) for term in terms]]))
    policy = onnx_policy((bundle.path / "policy.onnx").read_bytes())

    def tell(history):
        mean = np.repeat(told, len(history), axis=0)
        return mean, np.full_like(mean, 0.01)

    return PolicyRunner(bundle.spec, policy, tell, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--only", nargs="*", choices=RUNGS, default=list(RUNGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", dest="more", action="append", default=[], help="setting of every rung; names its rows")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    def keep(rung: str, seed: int | None, cells, **more) -> None:
        row = {"rung": rung, "seed": seed, "set": arguments.more, "episodes_a_cell": arguments.episodes}
        write_row(arguments.json, row, more | {"target": cells, "made": facts()})
        print(f"{rung}, seed {seed}: {_text(cells)}", flush=True)

    for seed, name in itertools.product(arguments.seeds, arguments.only):
        config = load_config("so101_push", [*RUNGS[name], f"seed={seed}", *arguments.more])
        folder = arguments.runs / "_".join([name, *arguments.more, str(seed)])
        began = time.monotonic()
        if not (folder / "bundle" / "manifest.json").is_file():
            train(config, folder, lambda stage, done, total, figures, n=name: print(n, stage, done, total, flush=True))
        took = time.monotonic() - began
        bundle = PolicyBundle.load(folder / "bundle")
        cells = evaluate_in_process({name: bundle.path}, arguments.episodes, SEED, lambda *_: None)[name]["so101"]
        inside = bundle.provenance["metrics"]["training_simulator"]["success"]
        keep(name, seed, cells, training_simulator=inside, training_s=took)
        if name == "up_osi":
            keep("oracle", seed, tried(lambda c: partial(oracle, bundle, c), config, arguments.episodes))  # noqa: B023
    if not arguments.more:
        keep("controller alone", None, tried(lambda c: Controller, load_config("so101_push"), arguments.episodes))
    _table(json.loads(arguments.json.read_text()))


def tried(maker, config, episodes: int):
    """Cells of a runner that is in no bundle."""
    case = make_case(config.robot, config.task["name"], {k: v for k, v in config.task.items() if k != "name"})
    target = target_for(case.robot, case.task)
    return {c: run(maker(c), case, target, "so101", c, episodes, SEED).summary() for c in target.conditions()}


def write_row(file: Path, row: dict, figures: dict) -> None:
    """Put a row into the results, in place of the same rung's, seed's and settings'."""
    rows = json.loads(file.read_text()) if file.is_file() else []
    others = [other for other in rows if any(other[key] != value for key, value in row.items())]
    write_text(file, json.dumps([*others, row | figures], indent=1) + "\n")


def _table(rows: list[dict]) -> None:
    """Every rung over its seeds: a row of the README's table."""
    for rung, more, episodes in dict.fromkeys((row["rung"], tuple(row["set"]), row["episodes_a_cell"]) for row in rows):
        kind = {"rung": rung, "set": list(more), "episodes_a_cell": episodes}
        these = [row for row in rows if all(row[key] == value for key, value in kind.items())]
        means = [mean_success({"so101": row["target"]}) for row in these]
        cells = {c: np.mean([row["target"][c]["success"] for row in these]) for c in these[0]["target"]}
        inside = [row["training_simulator"] for row in these if "training_simulator" in row]
        name = f"{' '.join((rung, *more))}, {episodes} episodes a cell"
        print(
            f"| {name} | {format(np.mean(inside), '.0%') if inside else ''} | "
            + " | ".join(f"{share:.0%}" for share in cells.values())
            + f" | {np.mean(means):.1%} ({', '.join(f'{mean:.0%}' for mean in means)}) |"
        )


def _text(cells) -> str:
    return f"target mean {mean_success({'so101': cells}):.0%}, " + ", ".join(
        f"{c} {x['success']:.0%} [{x['ci95'][0]:.0%} to {x['ci95'][1]:.0%}] {1e3 * x['final_error_m']:.0f} mm"
        for c, x in cells.items()
    )


if __name__ == "__main__":
    main()
