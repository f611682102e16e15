"""Our hand-eye calibration against each of OpenCV's five solvers alone, on the same samples.

    python benchmarks/hand_eye.py [--seeds 20] [--counts 8 12 20 50] [--json OUT]

Two kinds of samples. *Planted*: a board is seen from a camera whose pose is known, and noise is put on the board's
poses; what counts is how far the camera is from the truth. *Real*: subsets of MoveIt's 50 samples from a real arm
(``$SIM2REAL_DATA``), with the same noise on top; what counts is the error of samples not seen, and the camera's
distance from that of all 50 without noise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from calibration.hand_eye import hand_eye
from calibration.hand_eye_fit import SOLVERS, Problem
from sim2real.errors import ConfigError
from sim2real.images.files import read_pose_pairs
from sim2real.provenance import made as facts

COUNTS = (8, 12, 20, 50)
NOISE = ((0.0, 0.0), (1.0, 0.2), (5.0, 1.1))  # standard deviation of each axis, mm and degrees
REAL = Path(os.environ.get("SIM2REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pose(turn, place):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), place
    return result


def planted(count: int, rng: np.random.Generator):
    """T_base_ee, T_camera_board and T_base_camera: a board on the hand, in view of a camera above it."""
    camera = pose([np.pi - 0.2, 0.1, 0.0], [0.4, 0.05, 1.2])
    on_hand = pose([np.pi, 0.1, 0.0], [0.02, 0.0, 0.06])
    board = np.array(
        [pose(rng.uniform(-0.6, 0.6, 3), [*rng.uniform(-0.15, 0.15, 2), rng.uniform(0.6, 0.9)]) for _ in range(count)]
    )
    return camera @ board @ np.linalg.inv(on_hand), board, camera


def real() -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    file = REAL / "calibration" / "handeye_moveit" / "pose_samples.json"
    if not file.is_file():
        return None
    arm, board = read_pose_pairs(file)
    return arm, board, hand_eye(arm, board, "eye-to-hand").T_camera


def noisy(poses, mm: float, degrees: float, rng: np.random.Generator):
    result = poses.copy()
    turns = np.radians(degrees) * rng.standard_normal((len(poses), 3))
    result[:, :3, :3] = poses[:, :3, :3] @ Rotation.from_rotvec(turns).as_matrix()
    result[:, :3, 3] += 1e-3 * mm * rng.standard_normal((len(poses), 3))
    return result


def off(found, truth) -> float:
    return 1e3 * float(np.linalg.norm(found[:3, 3] - truth[:3, 3]))


def trials(mm: float, degrees: float, count: int, seeds: int, recorded) -> Iterator[dict[str, object]]:
    for seed in range(seeds):
        rng = np.random.default_rng([seed, count])
        if recorded is None:
            arm, board, truth = planted(count, rng)
        else:
            chosen = np.sort(rng.permutation(len(recorded[0]))[:count])
            arm, board, truth = recorded[0][chosen], recorded[1][chosen], recorded[2]
        board = noisy(board, mm, degrees, rng)
        try:
            found = hand_eye(arm, board, "eye-to-hand")
        except ConfigError:
            continue  # a subset that turns too little
        problem, rows, alone = Problem(np.linalg.inv(arm), board), np.arange(count), {}
        for name in SOLVERS:
            try:
                alone[name] = off(problem.closed_form(rows, name)[0], truth)
            except (ConfigError, cv2.error):
                alone[name] = float("nan")
        yield {
            "method": found.method,
            "refused": bool(found.warnings),
            "noted": any("noisy" in note for note in found.notes),
            "error_mm": off(found.T_camera, truth),
            "solvers_error_mm": alone,
            "held_out": (found.held_out_mm, found.held_out_deg),
            "solvers_held_out": found.per_solver,
        }


def summary(done: list[dict]) -> dict[str, object]:
    def rms(values) -> float:
        return float(np.sqrt(np.nanmean(np.square(list(values)))))

    solvers = {name: rms(t["solvers_error_mm"][name] for t in done) for name in SOLVERS}
    best = min(solvers, key=lambda name: solvers[name])

    def better(which) -> int:
        """Trials in which a solver alone is better on samples not seen, in all of ``which`` (0 place, 1 rotation)."""
        return sum(
            any(all(held[i] < t["held_out"][i] for i in which) for held in t["solvers_held_out"].values()) for t in done
        )

    return {
        "trials": len(done),
        "error_mm": rms(t["error_mm"] for t in done),
        "best_solver": best,
        "best_solver_error_mm": solvers[best],
        "solvers_error_mm": solvers,
        "held_out_mm": statistics.fmean(t["held_out"][0] for t in done),
        "best_held_out_mm": min(float(np.nanmean([t["solvers_held_out"][name][0] for t in done])) for name in SOLVERS),
        "solver_better_in_both": better((0, 1)),
        "solver_better_in_place": better((0,)),
        "solver_better_in_place_by_mm": max(
            t["held_out"][0] - float(np.nanmin([held[0] for held in t["solvers_held_out"].values()])) for t in done
        ),
        "solver_taken": sum(t["method"] in SOLVERS for t in done),
        "noted": sum(t["noted"] for t in done),
        "refused": sum(t["refused"] for t in done),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of samples")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    kinds = {"planted": None}
    recorded = real()
    if recorded is not None:
        kinds["real"] = recorded
    else:
        print(f"no recordings at {REAL}", file=sys.stderr)
    columns = ("samples", "n", "noise", "camera off [mm]", "best solver", "not seen [mm]", "best solver",
               "solver better in both", "in place", "by at most [mm]", "solver taken", "noted", "refused",
               "of")  # fmt: skip
    print("\t".join(columns))
    for kind, samples in kinds.items():
        for count in arguments.counts:
            for mm, degrees in NOISE:
                row = summary(list(trials(mm, degrees, count, arguments.seeds, samples)))
                results.append({"samples": kind, "count": count, "mm": mm, "degrees": degrees, **row})
                shown = (
                    kind, count, f"{mm:g} mm, {degrees:g} deg", f"{row['error_mm']:.3f}",
                    f"{row['best_solver_error_mm']:.3f} {row['best_solver']}", f"{row['held_out_mm']:.3f}",
                    f"{row['best_held_out_mm']:.3f}", row["solver_better_in_both"], row["solver_better_in_place"],
                    f"{max(row['solver_better_in_place_by_mm'], 0.0):.3f}",
                    row["solver_taken"], row["noted"], row["refused"], row["trials"],
                )  # fmt: skip
                print("\t".join(map(str, shown)), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"made": facts(), "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
