"""``sim2real identify`` and ``sim2real replay``: recordings in; parameters, figures and a page out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sim2real.evaluate.identification_report import confused, write_identification_report
from sim2real.files import write_text
from sim2real.identify.arm.fit import JointFit, identify
from sim2real.identify.arm.kinds import kinds_of
from sim2real.identify.arm.mocap import mocap_gap
from sim2real.identify.arm.parameters import fitted_values, parameters_file
from sim2real.identify.arm.press import fit_table
from sim2real.identify.arm.replay import align, replay, summary
from sim2real.identify.arm.table import read_table
from sim2real.identify.arm.verdict import refuse_clock, refuse_fit
from sim2real.provenance import made as facts
from sim2real.recordings.logs import JointLog
from sim2real.recordings.mocap import Mocap
from sim2real.robots.arm import Arm
from sim2real.robots.parameters_file import read_parameters
from sim2real.types import Progress

METHOD = 4  # raised when the searches change, so that those of an older version are not taken over


def replay_logs(
    arm: Arm, logs: Sequence[JointLog], params: Path | None, report: Path | None, mocap: Sequence[Mocap] = ()
) -> dict[str, Any]:
    """Replay recordings in PyBullet and give the figures.

    Args:
        arm: The robot.
        logs: Recordings.
        params: Parameters file; the robot's own values by default.
        report: Where a page with plots goes, if anywhere.
        mocap: Motion capture of every recording, if there is any.
    """
    own = arm.source or arm.folder / "identified.yaml"
    table = read_table(params or own) if params or own.is_file() else None
    raw = replay(arm, logs, read_parameters(params, arm) if params else arm.nominal(), table)
    motions = [align(motion) for motion in raw]
    figures = summary(arm, motions) | {
        "without_time_offsets_rad": summary(arm, raw)["mean_joint_rmse_rad"],
        "table": table and asdict(table) | {"motions": sum(motion.table for motion in motions)},
    }
    figures["mocap"] = mocap_gap(arm, motions, mocap) if mocap else None
    if report:
        source = str(params or f"{arm.name}'s own parameters")
        lead = f"{len(logs)} motions driven through PyBullet, open loop from their first state, with {source}."
        write_identification_report(report, arm, motions, f"{arm.name}: replay", lead, facts(), gap=figures["mocap"])
    return figures


def identify_logs(
    arm: Arm,
    logs: Sequence[JointLog],
    out: Path,
    folds: int,
    generations: int,
    seed: int,
    on_progress: Progress,
) -> dict[str, Any]:
    """Fit the arm's parameters to recordings; write ``out`` and a page beside it.

    Finished searches are kept beside ``out`` until all are done, so an interrupted call goes on where it was.

    Returns:
        Figures: ``held_out`` (cross-validation), ``replay`` (all motions in PyBullet), duration of the recordings.
    """
    refuse_clock(arm, logs)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _kept(out, _fingerprint(arm, logs, folds, generations, seed)) as (finished, keep):

        def step(done: int, total: int, figures: dict[str, float]) -> None:
            keep()
            on_progress("identification", done, total, figures)

        fits = identify(arm, logs, folds=folds, generations=generations, seed=seed, on_progress=step, finished=finished)
    held_out = held_out_figures(arm, logs, fits) | {"worst_kind": worst_kind(logs, fits, folds)}
    refuse_fit(arm, logs, fits, held_out["per_joint"])
    made = facts() | {
        "motions": ", ".join(log.name for log in logs),
        "recorded": f"{sum(log.time[-1] for log in logs):.0f} s",
        "search": f"CMA-ES, {generations} generations, {folds} folds, each a whole kind of motion, seed {seed}",
    }
    values = fitted_values(arm, fits)
    motions = replay(arm, logs, values)
    table = fit_table(arm, logs, values, motions)
    worst = held_out["worst_kind"]
    content = parameters_file(
        arm,
        fits,
        {
            "made": made,
            "held_out_rmse_rad": held_out["per_joint"]
            | {"mean": held_out["mean_joint_rmse_rad"], "worst_kind": worst["mean_joint_rmse_rad"]},
            **({"table": asdict(table)} if table else {}),
            "cannot_tell_apart": [line for fit in fits for line in confused(fit)],
        },
    )
    write_text(out, yaml.safe_dump(content, sort_keys=False, width=120))
    motions = [align(m) for m in (replay(arm, logs, read_parameters(out, arm), table) if table else motions)]
    lead = (
        f"Fitted to {len(logs)} motions, joint by joint; on kinds of motion that a fit had not seen the mean joint "
        f"error is {1e3 * held_out['mean_joint_rmse_rad']:.1f} mrad, on the worst of them "
        f"{1e3 * worst['mean_joint_rmse_rad']:.1f} mrad ({', '.join(worst['motions'])})."
    )
    page = out.with_suffix(".html")
    write_identification_report(page, arm, motions, f"{arm.name}: identification", lead, made, content, fits)
    _partial(out).unlink(missing_ok=True)
    return {
        "held_out": held_out,
        "replay": summary(arm, motions),
        "table": table and asdict(table),
        "parameters": str(out),
        "report": str(page),
    }


def worst_kind(logs: Sequence[JointLog], fits: Sequence[JointFit], folds: int) -> dict[str, Any]:
    """The kind of motion that was predicted worst by a fit that had not seen it: error (rad) and motions."""
    kinds, seconds = kinds_of(logs, folds), np.array([log.time[-1] for log in logs])
    squared = np.array([[fit.held_out[log.name] for fit in fits] for log in logs])
    errors = [
        float(np.sqrt(np.average(squared[kinds == kind], axis=0, weights=seconds[kinds == kind])).mean())
        for kind in range(folds)
    ]
    worst = int(np.argmax(errors))
    names = [log.name for log, kind in zip(logs, kinds.tolist(), strict=True) if kind == worst]
    return {"mean_joint_rmse_rad": errors[worst], "motions": names}


def held_out_figures(arm: Arm, logs: Sequence[JointLog], fits: Sequence[JointFit]) -> dict[str, Any]:
    """Errors of motions by fits that had not seen them, rad."""
    seconds = np.array([log.time[-1] for log in logs])
    squared = np.array([[fit.held_out[log.name] for fit in fits] for log in logs])
    lag = np.array([((log.command - log.position) ** 2).mean(axis=0) for log in logs])
    per_joint = np.sqrt(np.average(squared, axis=0, weights=seconds))
    return {
        "mean_joint_rmse_rad": float(per_joint.mean()),
        "measured_is_commanded_rad": float(np.sqrt(np.average(lag, axis=0, weights=seconds)).mean()),
        "per_joint": dict(zip(arm.joints, per_joint.tolist(), strict=True)),
        "per_motion": {
            log.name: {
                "mean_joint_rmse_rad": float(np.sqrt(own).mean()),
                "measured_is_commanded_rad": float(np.sqrt(other).mean()),
            }
            for log, own, other in zip(logs, squared, lag, strict=True)
        },
    }


def _fingerprint(arm: Arm, logs: Sequence[JointLog], *settings: int) -> str:
    """Changes with anything that the searches depend on."""
    digest = hashlib.sha256(repr((METHOD, arm.name, arm.servo, settings)).encode())
    digest.update(arm.urdf.read_bytes())
    for log in logs:
        for array in (log.time, log.command, log.position):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _partial(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial.json")


@contextmanager
def _kept(out: Path, fingerprint: str) -> Iterator[tuple[dict[str, dict[str, float]], Callable[[], None]]]:
    """Finished searches of an earlier call with the same input, and a function that writes them down."""
    file = _partial(out)
    finished: dict[str, dict[str, float]] = {}
    if file.is_file():
        try:
            content = json.loads(file.read_text())
            if content["fingerprint"] == fingerprint:
                finished = {
                    key: {name: float(v) for name, v in found.items()} for key, found in content["finished"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            finished = {}  # damaged: as if there was none

    def keep() -> None:
        write_text(file, json.dumps({"fingerprint": fingerprint, "finished": finished}))

    yield finished, keep
