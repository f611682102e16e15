"""How well can the target be flown at all? A policy trained on the target's own dynamics.

It is told everything a policy on the robot cannot know: which airframe, which condition and the
attitude trim. The distance between the nominal policy and this one is the reality gap of the task;
the report says which fraction of it a transfer method closed.

    python benchmarks/oracle.py --run runs/oracle --results runs/demo/results.json --json benchmarks/results/oracle.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from sim2real.config import PPOConfig, load_config
from sim2real.evaluate.episodes import score
from sim2real.evaluate.table import mean_success
from sim2real.learn.experiment import load_experiment
from sim2real.learn.ppo import Trainer
from sim2real.learn.rsl_rl import make_network
from sim2real.provenance import commit
from sim2real.targets.base import target_for
from sim2real.targets.drone import AIRFRAMES, CONDITIONS, DroneSensors
from sim2real.targets.env import TargetEnv

CELLS = [(airframe, condition) for airframe in AIRFRAMES for condition in CONDITIONS]


class OracleEnv(TargetEnv):
    """All sixteen cells side by side, judged by the truth, with the cell and the trim as parameters."""

    def __init__(self, seed: int, per_cell: int = 16) -> None:
        experiment = load_experiment(load_config("nominal"))
        target = target_for(experiment.robot, experiment.task)
        super().__init__(experiment.task, target, experiment.spec(), CELLS, per_cell, seed)
        self.behind = self.cheat()

    def parameters(self) -> np.ndarray:
        """Cell and trim."""
        cell = np.repeat(np.eye(len(CELLS)), self.per_cell, axis=0)
        trim = np.concatenate([sim.drones.trim for sim in self.behind.sims]) / DroneSensors().trim_rad
        return np.concatenate((cell, trim), axis=1).astype(np.float32)

    def privileged_observation(self) -> np.ndarray:
        """True state and time left, for the critic."""
        signals = self.behind.signals()
        left = (1.0 - self.steps / self.episode_steps)[:, None]
        near = 10 * np.clip(signals["position_error"], -0.3, 0.3)
        return np.concatenate((*signals.values(), near, left), 1).astype(np.float32)


def evaluate(trainer: Trainer, episodes: int, seed: int) -> dict[str, dict[str, dict[str, object]]]:
    """Run the trained policy without exploration: airframe → condition → cell."""
    policy = make_network(trainer.actor, trainer.config).eval()
    env = OracleEnv(seed, episodes)
    distance, near = np.empty((env.episode_steps, env.count)), np.empty((env.episode_steps, env.count), dtype=np.bool_)
    failed = np.zeros(env.count, dtype=np.bool_)
    with torch.inference_mode():
        for step in range(env.episode_steps):
            action = policy(torch.from_numpy(env.observation()), torch.from_numpy(env.parameters()))
            _, terminated, _ = env.step(action.numpy())
            distance[step], near[step] = env.distance, env.within
            failed |= terminated
    results: dict[str, dict[str, dict[str, object]]] = {}
    for cell, (airframe, condition) in enumerate(CELLS):
        rows = env.rows(cell)
        one = score(distance[:, rows], near[:, rows], failed[rows], failed[rows], env.task, 50.0)
        results.setdefault(airframe, {})[condition] = one.summary()
    return results


def main() -> None:
    """Train, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/oracle"))
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--results", type=Path, help="results.json of a demo, to compare with")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    config, groups = PPOConfig(iterations=arguments.iterations), ("observation", "parameters")
    trainer = Trainer(OracleEnv, config, arguments.run, 2, 0, groups)
    trainer.load()
    trainer.train(lambda i, f: print(f"{i} success {f['success']:.2f}", flush=True) if i % 20 == 0 else None)
    cells = evaluate(trainer, arguments.episodes, 10_000)
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "training_s": time.perf_counter() - started,
        "mean_success": mean_success(cells),
        "cells": cells,
    }
    if arguments.results:
        flown = json.loads(arguments.results.read_text())["in_process"]
        nominal = mean_success(flown["nominal"])
        report["fraction_of_gap_closed"] = {
            name: (mean_success(flown[name]) - nominal) / (report["mean_success"] - nominal)
            for name in flown
            if name != "nominal"
        }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
