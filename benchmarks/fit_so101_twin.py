"""Fit the SO-101 target's servos to half of the recordings, and measure it in MuJoCo on the other half.

    python benchmarks/fit_so101_twin.py FOLDER_OF_RECORDINGS

Writes sim2real/targets/so101_servos.yaml. Another model class than the training simulator's, on other motions, with
code of its own; the fit is joint by joint on a light model with MuJoCo's own weights, the published error that of full
MuJoCo rollouts of motions the fit never saw.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

import cma
import mujoco
import numpy as np
import yaml

from sim2real.recordings.logs import JointLog, read_logs
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.targets.so101_arm import FIGURES, JOINTS, ArmModel, load_model

DT = 0.01
PIECE = 6000
ARMATURE = 0.028  # the MJCF's
NAMES = ("dead_time", "lag", "speed", "stiffness", "damping", "friction", "offset", "weight")
LOW = np.array([0.0, 0.005, 0.5, 2.0, 0.05, 0.0, -0.06, 0.5])
HIGH = np.array([0.12, 0.25, 8.0, 80.0, 4.0, 1.2, 0.06, 1.6])
START = np.array([0.03, 0.05, 2.5, 15.0, 0.6, 0.2, 0.0, 1.0])


def weights(log: JointLog) -> np.ndarray:
    """Torque of gravity [T, 6] N·m by MuJoCo at the measured poses."""
    model = load_model()
    data = mujoco.MjData(model)
    q = [model.jnt_qposadr[model.joint(n).id] for n in JOINTS]
    v = [model.jnt_dofadr[model.joint(n).id] for n in JOINTS]
    result = np.empty_like(log.position)
    for row in range(0, len(log.position), 5):
        data.qpos[q] = log.position[row]
        mujoco.mj_forward(model, data)
        result[row : row + 5] = data.qfrc_bias[v]
    return result


def pieces(logs: list[JointLog], gravity: list[np.ndarray], joint: int):
    command, measured, load, counts = [], [], [], []
    for log, weight in zip(logs, gravity, strict=True):
        grid = np.arange(0.0, log.time[-1], DT)
        held = log.command[np.clip(np.searchsorted(log.time, grid + 1e-9, side="right") - 1, 0, None), joint]
        q = np.interp(grid, log.time, log.position[:, joint])
        g = np.interp(grid, log.time, weight[:, joint])
        for start in range(0, len(grid), PIECE):
            size = min(PIECE, len(grid) - start)
            if start and size < 500:
                continue
            pad = (0, PIECE - size)
            past = held[max(0, start - 12) : start]
            past = np.concatenate((np.full(12 - len(past), held[0]), past))
            command.append(np.concatenate((past, np.pad(held[start : start + size], pad, mode="edge"))))
            measured.append(np.pad(q[start : start + size], pad, mode="edge"))
            load.append(np.pad(g[start : start + size], pad, mode="edge"))
            counts.append(np.pad(np.ones(size), pad))
    return tuple(np.array(x).T.copy() for x in (command, measured, load, counts))


def misfit(candidates: np.ndarray, data) -> np.ndarray:
    """Mean squared error [C] of candidates [C, 8]."""
    command, measured, load, counts = data
    dead, lag, speed, stiffness, damping, friction, offset, weight = (candidates[:, i : i + 1] for i in range(8))
    rows = np.arange(len(candidates))
    late = dead[:, 0] / DT
    whole = np.floor(late).astype(int)
    share = (late - whole)[:, None]
    q = np.tile(measured[0], (len(candidates), 1))
    reference, velocity = q + offset, np.zeros_like(q)
    squared = np.zeros(len(candidates))
    inertia = ARMATURE + DT * damping
    for k in range(len(measured) - 1):
        heard = (1 - share) * command[12 + k - whole] + share * command[11 + k - whole]
        reference += DT * np.clip((heard + offset - reference) / lag, -speed, speed)
        free = (ARMATURE * velocity + DT * (stiffness * (reference - q) - weight * load[k])) / inertia
        dry = DT * friction / inertia
        velocity = free - np.clip(free, -dry, dry)
        q = q + DT * velocity
        squared += (counts[k + 1] * (q - measured[k + 1]) ** 2).sum(axis=1)
    assert len(rows)
    return squared / counts[1:].sum()


def fit_joint(data, seed: int) -> np.ndarray:
    to_cube = lambda values: (values - LOW) / (HIGH - LOW)  # noqa: E731
    options = {"bounds": [0, 1], "popsize": 12, "seed": seed + 1, "maxiter": 55, "verbose": -9}
    search = cma.CMAEvolutionStrategy(to_cube(START), 0.15, options)
    while not search.stop():
        asked = search.ask()
        values = LOW + np.clip(np.array(asked), 0, 1) * (HIGH - LOW)
        search.tell(asked, misfit(values, data).tolist())
    return LOW + np.clip(search.result.xbest, 0, 1) * (HIGH - LOW)


def rollout(figures: dict[str, np.ndarray], log: JointLog) -> np.ndarray:
    """Positions [T, 6] of the target under a log's commands."""
    arm = ArmModel(figures)
    arm.reset(log.position[0])
    track = np.empty_like(log.position)
    grid = 0.02
    times, positions = [0.0], [log.position[0]]
    for step in range(int(log.time[-1] / grid) + 1):
        row = int(np.searchsorted(log.time, step * grid + 1e-9, side="right")) - 1
        arm.advance(log.command[row], grid)
        times.append((step + 1) * grid)
        positions.append(arm.position)
    for joint in range(6):
        track[:, joint] = np.interp(log.time, times, np.array(positions)[:, joint])
    return track


def main() -> None:
    arm = Arm(robot_folder("so101"))
    logs = read_logs([Path(sys.argv[1])], arm.joints, arm.aliases)
    seen, held = logs[0::2], logs[1::2]
    started = time.perf_counter()
    gravity = [weights(log) for log in seen]
    found = np.stack([fit_joint(pieces(seen, gravity, joint), joint) for joint in range(6)])
    figures = {name: found[:, i] for i, name in enumerate(NAMES)}
    print(f"fitted {len(seen)} motions in {time.perf_counter() - started:.0f} s")
    for name in NAMES:
        print(f"  {name:10s}", np.array2string(figures[name], precision=4))
    squared, lag, rows = np.zeros(6), np.zeros(6), 0
    for log in held:
        track = rollout(figures, log)
        squared += ((track - log.position) ** 2).sum(axis=0)
        lag += ((log.command - log.position) ** 2).sum(axis=0)
        rows += len(log.time)
    per_joint = np.sqrt(squared / rows)
    print("held out, MuJoCo, per joint", np.array2string(per_joint, precision=4))
    print(f"mean joint {per_joint.mean():.4f} rad; measured = commanded {np.sqrt(lag / rows).mean():.4f}")
    content = {
        "made": {
            "date": datetime.date.today().isoformat(),
            "by": "benchmarks/fit_so101_twin.py",
            "fitted_motions": [log.name for log in seen],
            "held_out_motions": [log.name for log in held],
            "held_out_rmse_rad": {**dict(zip(JOINTS, np.round(per_joint, 5).tolist(), strict=True)),
                                  "mean": round(float(per_joint.mean()), 5)},
        },
        "servo": {name: np.round(figures[name], 6).tolist() for name in NAMES},
    }  # fmt: skip
    FIGURES.write_text(yaml.safe_dump(content, sort_keys=False, width=120))


if __name__ == "__main__":
    main()
