"""Friction, drive gains and payload of an FR3 from torques and currents that Pinocchio made.

    pip install pin
    python benchmarks/torques.py [--seeds 2] [--json FILE]

Links are up to 15 % heavier or lighter than the URDF has them, and their centres of mass 2 % further out. Figures: how
many true values lie in their 95 % intervals, and the error of efforts that the fit had not seen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pinocchio as pin

from sim2real.evaluate.torque_identification import identify_torques
from sim2real.identify.arm.torque_fit import Known
from sim2real.provenance import made as facts
from sim2real.recordings.logs import EFFORTS, JointLog
from sim2real.robots import load_arm

ARM, RATE_HZ, SECONDS, PAYLOAD_KG = load_arm("fr3"), 200.0, 20.0, 1.2
HEAVIER = np.array([1.1, 0.9, 1.15, 0.95, 1.1, 1.05, 0.9])
GAINS = np.array([12.0, 12.0, 10.0, 10.0, 6.0, 6.0, 5.0])
TRUE = {
    "coulomb": np.array([1.0, 1.5, 0.8, 0.8, 0.4, 0.4, 0.3]),
    "viscous": np.array([0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.05]),
    "torque_offset": np.array([0.2, -0.1, 0.0, 0.0, 0.05, 0.0, 0.0]),
    "rotor_inertia": np.full(7, 0.1),
}
NOISE_NM = 0.05


def recording(seed: int, loaded: bool) -> JointLog:
    """One motion of sums of sines; effort in N·m."""
    rng, t = np.random.default_rng(seed), np.arange(0.0, SECONDS, 1.0 / RATE_HZ)
    model = pin.buildModelFromUrdf(str(ARM.urdf))
    for index, factor in enumerate(HEAVIER, start=1):
        own = model.inertias[index]
        model.inertias[index] = pin.Inertia(own.mass * factor, own.lever * 1.02, own.inertia * factor)
    if loaded:
        frame = model.frames[model.getFrameId(ARM.ee)]
        load = pin.Inertia(PAYLOAD_KG, np.array([0.02, 0.0, 0.05]), 0.002 * np.eye(3))
        model.appendBodyToJoint(frame.parentJoint, load, frame.placement)
    w = 2.0 * np.pi * 0.1 * np.arange(1, 6)
    a, b = 0.25 * rng.normal(size=(2, 5, 7)) / np.arange(1, 6)[:, None]
    sine, cosine = np.sin(np.outer(t, w)), np.cos(np.outer(t, w))
    q = ARM.rest + sine @ a + cosine @ b
    dq = (cosine * w) @ a - (sine * w) @ b
    ddq = -(sine * w**2) @ a - (cosine * w**2) @ b
    data = model.createData()
    torque = np.array([pin.rnea(model, data, *row) for row in zip(q, dq, ddq, strict=True)])
    torque += TRUE["coulomb"] * np.sign(dq) + TRUE["viscous"] * dq + TRUE["torque_offset"] + TRUE["rotor_inertia"] * ddq
    torque += NOISE_NM * rng.normal(size=torque.shape)
    measured = q + 1e-5 * rng.normal(size=q.shape)
    return JointLog(f"motion {seed}", ARM.joints, t, measured, measured, None, torque)


def run(seed: int, unit: str) -> dict:
    """Identify six recordings, two of them with payload; figures."""
    loaded = [False] * 4 + [True] * 2
    logs = [recording(10 * seed + index, carried) for index, carried in enumerate(loaded)]
    known = Known(None, None, 0.3)
    if unit == "A":
        logs = [JointLog(log.name, log.joint_names, log.time, log.command, log.position, None, log.effort / GAINS)
                for log in logs]  # fmt: skip
        known = Known(np.full(7, np.nan), PAYLOAD_KG, 0.3)
    with tempfile.TemporaryDirectory() as folder:
        found = identify_torques(ARM, logs, loaded, Path(folder) / "p.yaml", 2, known, EFFORTS[unit])
    true = {f"{joint}.{name}": v for name, values in TRUE.items() for joint, v in zip(ARM.joints, values, strict=True)}
    true |= {"payload_x": 0.02, "payload_y": 0.0, "payload_z": 0.05} | ({"payload": PAYLOAD_KG} if unit != "A" else {
        f"{joint}.drive_gain": gain for joint, gain in zip(ARM.joints, GAINS, strict=True)})  # fmt: skip
    rows = {name: found["quantities"][name] for name in true}
    inside = [row["low"] <= true[name] <= row["high"] for name, row in rows.items()]
    held = found["held_out"]["per_joint"].values()
    return {
        "unit": unit,
        "seed": seed,
        "inside_95": sum(inside),
        "values": len(inside),
        "payload": found["quantities"]["payload"],
        "worst_coulomb_error_nm": max(abs(rows[n]["value"] - true[n]) for n in rows if n.endswith("coulomb")),
        "worst_gain_error": max((abs(rows[n]["value"] / true[n] - 1.0) for n in rows if n.endswith("gain")), default=0),
        "held_out_rmse": float(np.mean([row["rmse"] for row in held])),
        "description_rmse": float(np.mean([row["description_rmse"] for row in held])),
        "determined": found["determined"],
    }


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "torques.json")
    options = parser.parse_args()
    runs = [run(seed, unit) for unit in ("N·m", "A") for seed in range(options.seeds)]
    for row in runs:
        print(json.dumps(row, ensure_ascii=False, default=float))
    options.json.write_text(
        json.dumps({"made": facts(), "runs": runs}, indent=1, ensure_ascii=False, default=float) + "\n"
    )


if __name__ == "__main__":
    main()
