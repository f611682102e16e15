"""``sim2real identify --effort-unit``: torques or motor currents in; friction, masses and held-out errors out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sim2real.files import write_text
from sim2real.identify.arm.dynamics import bodies_of
from sim2real.identify.arm.kinds import kinds_of
from sim2real.identify.arm.torque import Rows, refuse_columns, rows_of
from sim2real.identify.arm.torque_fit import Known, TorqueModel, compress, determined, fit_torques
from sim2real.identify.arm.torque_result import for_training, quantities
from sim2real.provenance import made as facts
from sim2real.recordings.logs import Effort, JointLog
from sim2real.recordings.tables import LogError
from sim2real.robots.arm import Arm
from sim2real.types import Array

POSES = 200
UP_TO_A_FACTOR = (
    "Currents alone give torques, masses and inertias up to one common factor; here the description's masses set it. "
    "--torque-constant, or --loaded with --payload-kg, gives it"
)


def identify_torques(
    arm: Arm, logs: Sequence[JointLog], loaded: Sequence[bool], out: Path, folds: int, known: Known, effort: Effort
) -> dict[str, Any]:
    """Fit friction, drive gains and masses to recordings; write ``out``.

    Args:
        arm: The robot.
        logs: Recordings that were read for their effort.
        loaded: Which of them carried the payload.
        out: Parameters file.
        folds: Kinds of motion that are held out, one after the other; fewer where there are fewer recordings.
        known: What is known besides.
        effort: What the recordings hold.

    Raises:
        LogError: There are fewer than two recordings, one cannot be used, or the fit is no better than the description.
    """
    if len(logs) < 2:
        raise LogError("one recording leaves none to judge the fit by; record two or more, with different motions")
    bodies = bodies_of(arm.chain)
    rows = [rows_of(arm, bodies, log, carried) for log, carried in zip(logs, loaded, strict=True)]
    described = np.concatenate([body.parameters for body in bodies])
    if known.constants is not None:  # motors that turn the other way
        for r in rows:
            r.effort[:, known.constants < 0.0] *= -1.0
    refuse_columns(arm, rows, described, effort.of_current, known.constants is not None and bool(
        np.isfinite(known.constants).any()))  # fmt: skip
    model = TorqueModel(arm, bodies, rows, known)
    triangles = [compress(r) for r in rows]
    fit = fit_torques(model, rows, triangles, model.middle)
    held_out = _held_out(model, rows, triangles, described, fit.x, folds)
    _refuse_fit(held_out, effort)
    poses = np.concatenate([log.position for log in logs])
    found = quantities(model, fit, poses[:: max(1, len(poses) // POSES)])
    entries, remarks = for_training(model, found)
    if known.constants is not None and not np.isfinite(known.constants).all() and not known.payload_kg:
        remarks.append(UP_TO_A_FACTOR)
    still = [joint for joint, moves in zip(arm.joints, model.moving.tolist(), strict=True) if not moves]
    if still:
        remarks.append(f"{', '.join(still)} never moved: their friction is not known")
    reported = {quantity.name: quantity.entry() for quantity in found}
    made = facts() | {
        "motions": ", ".join(log.name for log in logs),
        "recorded": f"{sum(log.time[-1] for log in logs):.0f} s",
        "effort": effort.unit,
    }
    content = {
        "kind": "sim2real_parameters",
        "robot": arm.name,
        "made": made,
        "held_out_effort": held_out,
        "parameters": entries,
        "reported": {name: entry for name, entry in reported.items() if name not in entries},
        "remarks": remarks,
    }
    write_text(out, yaml.safe_dump(content, sort_keys=False, width=120))
    return {
        "held_out": held_out,
        "determined": determined(model, fit),
        "quantities": reported,
        "for_training": sorted(name for name, entry in entries.items() if entry["identified"]),
        "remarks": remarks,
        "parameters": str(out),
    }


def _held_out(
    model: TorqueModel, rows: Sequence[Rows], triangles: Sequence[Array], described: Array, start: Array, folds: int
) -> dict[str, Any]:
    """Errors of efforts that the fit had not seen, a joint, and those of the description alone."""
    fold_of = _folds([r.log for r in rows], np.array([r.loaded for r in rows]), folds)
    unit = "A" if model.known.constants is not None else "N·m"
    sums = np.zeros((4, model.joints))  # squares of the fit's errors, of the description's, of the efforts; rows
    worst: tuple[float, list[str]] = (0.0, [])
    for fold in range(int(fold_of.max()) + 1):
        train, test = np.nonzero(fold_of != fold)[0].tolist(), np.nonzero(fold_of == fold)[0].tolist()
        seen = [rows[i] for i in train]
        x = fit_torques(model, seen, [triangles[i] for i in train], start).x
        gain = _gains(model, seen, described)
        own = np.zeros((4, model.joints))
        for r in (rows[i] for i in test):
            effort, weight = r.effort, r.data[:, :, : len(described)] @ described
            errors = (model.residuals(r, x), effort - weight * gain, effort, np.ones_like(effort))
            for number, error in enumerate(errors):
                own[number] += (np.where(r.moves, error, 0.0) ** 2).sum(axis=0)
        sums += own
        size = float((np.sqrt(own[0] / np.maximum(own[3], 1.0)) / model.scale)[model.moving].mean())
        if size > worst[0]:
            worst = size, [rows[i].log.name for i in test]
    count = np.maximum(sums[3], 1.0)
    names = ("rmse", "description_rmse", "effort_rms")
    per_joint = {
        joint: {name: float(f"{np.sqrt(sums[i, j] / count[j]):.4g}") for i, name in enumerate(names)}
        for j, joint in enumerate(model.arm.joints)
        if sums[3, j]
    }
    return {"unit": unit, "per_joint": per_joint, "folds": int(fold_of.max()) + 1, "worst_kind": worst[1]}


def _folds(logs: Sequence[JointLog], loaded: NDArray[np.bool_], folds: int) -> NDArray[np.int64]:
    """Fold of every recording; of those with payload, and of those without, never all at once where there are more."""
    result = np.full(len(logs), -1, dtype=np.int64)
    for carried in (False, True):
        own = np.nonzero(loaded == carried)[0]
        if len(own) > 1:
            result[own] = kinds_of([logs[i] for i in own.tolist()], min(folds, len(own)))
    if (result < 0).all():  # one with payload and one without
        result = np.arange(len(logs))
    return result


def _gains(model: TorqueModel, rows: Sequence[Rows], described: Array) -> Array:
    """Effort [J] that the description's N·m is best taken for: one, or 1 / (N·m/A)."""
    if model.known.constants is None:
        return np.ones(model.joints)
    weight = np.concatenate([np.where(r.moves, r.data[:, :, : len(described)] @ described, 0.0) for r in rows])
    effort = np.concatenate([r.effort for r in rows])
    return (weight * effort).sum(axis=0) / np.maximum((weight**2).sum(axis=0), 1e-12)


def _refuse_fit(held_out: dict[str, Any], effort: Effort) -> None:
    worse = [
        f"{joint} ({row['rmse']:.3g} {held_out['unit']}, description {row['description_rmse']:.3g})"
        for joint, row in held_out["per_joint"].items()
        if row["rmse"] > row["description_rmse"]
    ]
    if worse:
        raise LogError(
            f"on recordings that the fit had not seen, the description alone predicts the {effort.unit} of "
            f"{', '.join(worse)} better; nothing is written: record more, and more different, motions of these joints"
        )
