"""Training end to end beside another checkout of this project, alternated in one run.

    git worktree add ../before COMMIT
    python benchmarks/training_speed.py ../before --configs up_osi nominal --json benchmarks/results/training_speed.json

A training of ``--iterations`` is started with each checkout's ``sim2real train`` as a process of its own, in turn.
Steps a second are the median over the iterations after the first five; seconds are of the whole command with a short
identification and the export.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sim2real.files import write_text
from sim2real.provenance import made

HERE = Path(__file__).resolve().parents[1]
SHORT = {"up_osi": ["method.rounds=1", "method.batches_per_round=1", "method.robots=16"]}
WARM_UP = 5


def train(checkout: Path, config: str, iterations: int, settings: list[str]) -> dict[str, float]:
    """One training; steps a second and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "sim2real", "train", config, "--run", str(run)]
        for setting in (f"ppo.iterations={iterations}", *SHORT.get(config, []), *settings):
            command += ["--set", setting]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        began = time.perf_counter()
        subprocess.run(command, env=environment, cwd=checkout, check=True, capture_output=True)
        took = time.perf_counter() - began
        history = torch.load(run / "checkpoint.pt", weights_only=True)["history"]
    return {"steps_per_s": statistics.median(row["steps_per_s"] for row in history[WARM_UP:]), "seconds": took}


def main() -> None:
    """Alternate, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("--configs", nargs="+", default=["up_osi"])
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--set", nargs="*", default=[], help="settings of both, such as ppo.mini_batches=4")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve(), "now": HERE}
    commits = {
        name: subprocess.run(
            ["git", "-C", str(path), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name, path in checkouts.items()
    }
    results = {}
    for config in arguments.configs:
        rows = {name: [] for name in checkouts}
        for _ in range(arguments.times):
            for name, path in checkouts.items():
                rows[name].append(train(path, config, arguments.iterations, arguments.set))
                print(config, name, {key: round(value, 1) for key, value in rows[name][-1].items()}, flush=True)
        best = {
            name: {"steps_per_s": max(row["steps_per_s"] for row in part), "seconds": min(r["seconds"] for r in part)}
            for name, part in rows.items()
        }
        ratio = best["now"]["steps_per_s"] / best["before"]["steps_per_s"]
        results[config] = {"rows": rows, "best": best, "ratio": ratio}
        print(f"{config}: {ratio:.2f} times the steps a second")
    if arguments.json:
        write_text(arguments.json, json.dumps({"commits": commits, "results": results, "made": made()}, indent=1))


if __name__ == "__main__":
    main()
