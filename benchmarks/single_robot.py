"""Control steps a second of one drone alone and of many, beside an earlier checkout and gym-pybullet-drones.

    git worktree add /tmp/before COMMIT
    python benchmarks/single_robot.py --before /tmp/before > benchmarks/results/single_robot.json

What is measured is that of ``peers.py``, which also says how to install the peer; where it is missing it is left out
with a note. CPU time counts, not the clock: fresh processes of one core take turns, and of many short windows the best
one is given, so that other programs on the machine matter little. The peer's resets are dear: without them it has the
second number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peers

COUNTS = (1, 256)
WINDOW_S = 0.1


def windows(count: int, number: int) -> dict[str, float]:
    """Best rates of ``count`` robots, or of the peer for 0, in ``number`` windows of CPU time."""
    step, _ = peers.ours(count) if count else peers.gym_pybullet_drones()
    for _ in range(20 if count > 1 else 500):
        step()
    best = best_without = 0.0
    for _ in range(number):
        steps, without, resets = 0, 0.0, 0.0
        start = time.process_time()
        while (spent := time.process_time() - start) < WINDOW_S:
            before = time.process_time()
            made, ended, _ = step()
            steps += made
            if ended and not count:
                resets += 1
            else:
                without += time.process_time() - before
        best = max(best, steps / spent)
        best_without = max(best_without, (steps - resets) / without)
    return {"steps_per_s": round(best), **({} if count else {"steps_per_s_without_resets": round(best_without)})}


def elsewhere(root: Path, count: int, number: int, core: int) -> dict[str, float]:
    """Measure in a fresh process with the project of ``root``."""
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, __file__, "--one", str(count), "--windows", str(number)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SystemExit(result.stderr[-2000:])
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(before: Path | None, rounds: int, number: int, core: int) -> dict[str, Any]:
    """Measure everything in turns; the best of the rounds counts."""
    cases = [(f"sim2real, {count} robots", peers.ROOT, count) for count in COUNTS]
    if before:
        cases += [(f"before, {count} robots", before, count) for count in COUNTS]
    peer = find_spec("gym_pybullet_drones") is not None
    cases += [(peers.GYM_PYBULLET_DRONES, peers.ROOT, 0)] if peer else []
    load, results = os.getloadavg()[0], {}
    for _ in range(rounds):
        for name, root, count in cases:
            found = elsewhere(root, count, number, core)
            kept = results.setdefault(name, found)
            results[name] = {key: max(value, kept[key]) for key, value in found.items()}
    if not peer:
        results[peers.GYM_PYBULLET_DRONES] = {"absent": peers.INSTALL[peers.GYM_PYBULLET_DRONES][1]}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": peers.commit(),
        "before": peers.commit(before) if before else None,
        "hardware": {**peers.hardware(), "load_average": [round(load, 2), round(os.getloadavg()[0], 2)]},
        "versions": peers.versions(),
        "settings": {"rounds": rounds, "windows": number, "window_s_of_cpu": WINDOW_S, "reported": "the best window"},
        "results": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One robot and many, beside an earlier checkout and a peer.")
    parser.add_argument("--before", type=Path, help="an earlier checkout of this project")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(windows(arguments.one, arguments.windows)))
    else:
        print(json.dumps(compare(arguments.before, arguments.rounds, arguments.windows, arguments.core), indent=2))


if __name__ == "__main__":
    main()
