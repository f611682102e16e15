"""What online identification is worth: the universal policy with true, estimated and nominal parameters.

    python benchmarks/identification.py runs/demo/up_osi --json benchmarks/results/identification.json

Training simulator, physics that training has not seen, the same flights for all three; then the target, where there
are no true parameters, with identification on and off.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from pathlib import Path

import numpy as np

from sim2real.evaluate.episodes import run, wilson
from sim2real.learn.experiment import bundle_experiment
from sim2real.learn.simulated import run_simulated
from sim2real.methods import load_method
from sim2real.methods.base import Run
from sim2real.provenance import commit
from sim2real.robots.identified import denormalise_parameters
from sim2real.runtime.bundle import PolicyBundle
from sim2real.targets.base import target_for

SEED = 987_654


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--target-episodes", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    bundle = PolicyBundle.load(arguments.run / "bundle")
    experiment = bundle_experiment(bundle)
    method, run_of = load_method(experiment.config.method), Run(arguments.run, lambda *_: None)
    terms, count = method.prepare(experiment).told, arguments.episodes
    env = method.prepare(experiment).make_env(SEED, count, restart=False)
    truth = denormalise_parameters(terms, env.parameters())
    env.sim.close()

    def told(values):
        return method.told(experiment, run_of, values)

    def nominal(n):
        return told(np.tile([term.nominal for term in terms], (n, 1)))

    flights = {
        "true parameters": run_simulated(experiment, told(truth), SEED),
        "estimated (UP-OSI)": run_simulated(experiment, bundle.runner(count), SEED),
        "nominal (identification off)": run_simulated(experiment, nominal(count), SEED),
    }
    simulator = {
        name: {"success": f.success, "ci95": wilson(int(f.succeeded.sum()), count), "crashes": int(f.failed.sum())}
        for name, f in flights.items()
    }
    estimated = flights["estimated (UP-OSI)"]
    target = {
        "estimated (UP-OSI)": _target(bundle, bundle.runner, arguments.target_episodes),
        "nominal (identification off)": _target(bundle, nominal, arguments.target_episodes),
    }
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "training_simulator_held_out": simulator,
        "ratio_estimated_to_true": simulator["estimated (UP-OSI)"]["success"] / simulator["true parameters"]["success"],
        "target_mean_success": target,
        "after_1s": estimated.identification(1.0),
        "after_4s": estimated.identification(4.0),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


def _target(bundle: PolicyBundle, make_runner, episodes: int) -> float:
    case = bundle_experiment(bundle)
    target = target_for(case.robot, case.task)
    cells = [(variant, condition) for variant in target.variants for condition in target.conditions()]
    return float(np.mean([run(make_runner, case, target, *cell, episodes, SEED).success for cell in cells]))


if __name__ == "__main__":
    main()
