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
import yaml

from sim2real.config import validate_config
from sim2real.evaluate.episodes import run, wilson
from sim2real.learn.build import build_env
from sim2real.learn.simulated import fly_simulated
from sim2real.provenance import commit
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.policy import PolicyRunner, onnx_policy
from sim2real.targets._shim import bundle_experiment
from sim2real.targets.base import target_for

SEED = 987_654


def told(bundle: PolicyBundle, parameters: np.ndarray) -> PolicyRunner:
    """The bundle's policy, told fixed normalised parameters [N, P] instead of estimates."""
    policy = onnx_policy((bundle.path / "policy.onnx").read_bytes())
    std = np.zeros_like(parameters)
    return PolicyRunner(bundle.spec, policy, lambda history: (parameters, std), len(parameters))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--target-episodes", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = validate_config(yaml.safe_load((arguments.run / "config.yaml").read_text()), str(arguments.run))
    bundle = PolicyBundle.load(arguments.run / "bundle")
    count = arguments.episodes
    env = build_env(config, SEED, count, restart=False)
    truth = env.parameters().copy()
    env.sim.close()
    nominal = np.tile(bundle.spec.nominal_parameters(), (count, 1))
    flights = {
        "true parameters": fly_simulated(config, told(bundle, truth), SEED),
        "estimated (UP-OSI)": fly_simulated(config, bundle.runner(count), SEED),
        "nominal (identification off)": fly_simulated(config, told(bundle, nominal), SEED),
    }
    simulator = {
        name: {"success": f.success, "ci95": wilson(int(f.succeeded.sum()), count), "crashes": int(f.crashed.sum())}
        for name, f in flights.items()
    }
    estimated = flights["estimated (UP-OSI)"]
    target = {
        "estimated (UP-OSI)": _target(bundle, bundle.runner, arguments.target_episodes),
        "nominal (identification off)": _target(
            bundle, lambda n: told(bundle, np.tile(bundle.spec.nominal_parameters(), (n, 1))), arguments.target_episodes
        ),
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
