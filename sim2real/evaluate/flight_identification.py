"""``sim2real identify`` and ``sim2real replay`` for a quadrotor: recordings in; parameters, figures and a page out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.errors import ConfigError
from sim2real.evaluate.figures import figure_uri, plt
from sim2real.evaluate.page import write_page
from sim2real.identify.flight.file import (
    FlightParameters,
    imu_entries,
    pose_entries,
    read_flight_parameters,
    write_flight_parameters,
)
from sim2real.identify.flight.fit import HORIZONS, FlightFit, fit_flights, multi_step
from sim2real.identify.flight.folds import trajectories
from sim2real.identify.flight.imu import ImuFit, fit_imu, lift_error
from sim2real.identify.flight.imu_part import Airframe
from sim2real.identify.flight.model import STEP_S, resample
from sim2real.identify.flight.residual import helps, train_residual
from sim2real.provenance import made as facts
from sim2real.recordings.flights import FlightLog
from sim2real.recordings.tables import LogError
from sim2real.robots import model_of
from sim2real.robots.multirotor_file import read_multirotor_file
from sim2real.robots.residual import Residual
from sim2real.types import Progress

FOLDS = 4


def airframe(folder: Path, mass: float | None) -> Airframe:
    """Read name and rotors from a robot's folder; ``mass`` (kg) replaces its own where it is given.

    Raises:
        ConfigError: The folder is not a quadrotor's, or does not say where its rotors are.
    """
    if model_of(folder) != "multirotor":
        raise ConfigError(f"{folder / 'robot.yaml'} is not a quadrotor's; flights can be identified of quadrotors only")
    data = read_multirotor_file(folder)
    body = data.body
    if len(body.rotors) != 4 or len(body.turns) != 4:
        raise ConfigError(
            f"{folder / 'robot.yaml'} needs 'rotors' (four places [x forward, y left] in m, of M1 to M4) and 'turns' "
            "(1 or -1 each, the turn it gives the body); flights can be identified of quadrotors only"
        )
    own = data.parameters["mass"].nominal if body.recorded_mass is None else body.recorded_mass
    turns = np.array(body.turns, dtype=np.float64)
    return Airframe(own if mass is None else mass, np.array(body.rotors), turns, body.yaw_ratio, data.spec.name)


def replay_flights(robot: str, logs: Sequence[FlightLog], params: Path) -> dict[str, Any]:
    """Predict flights from parameters: multi-step where there is a pose, lift where there is an IMU.

    Raises:
        ConfigError: The file does not fit the robot or the kind of logs.
    """
    known = read_flight_parameters(params, robot)
    figures: dict[str, Any] = {"per_log": {}, "remarks": _remarks(logs)}
    figures["remarks"] += _on_the_ground([log for log in logs if log.has_pose])
    for log in logs:
        if log.has_pose:
            known.must_fit(log, params)
            assert known.model is not None
            flight = resample(log, known.model.time_constant)
            figures["per_log"][log.name] = multi_step(known.model, flight, known.trim, known.residual)
        else:
            if "thrust_0" not in known.values:
                raise ConfigError(f"{params} has no thrust curve; identify a flight with an IMU")
            figures["per_log"][log.name] = lift_error(log, known.values, known.mass)
    posed = [figures["per_log"][log.name] for log in logs if log.has_pose]
    if posed:
        figures["steps"] = _mean(posed)
        figures["network"] = known.residual is not None
    return figures


def _remarks(logs: Sequence[FlightLog]) -> list[str]:
    return [f"'{log.name}': {remark}" for log in logs for remark in log.remarks]


def _on_the_ground(logs: Sequence[FlightLog]) -> list[str]:
    flights = [resample(log) for log in logs]
    return [
        f"'{f.name}' is in the air for {f.air.sum() * STEP_S:.1f} of {len(f.air) * STEP_S:.1f} s; only this is used"
        for f in flights
        if not f.air.all()
    ]


def _mean(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        str(step): {name: float(np.mean([row[str(step)][name] for row in rows])) for name in rows[0][str(step)]}
        for step in HORIZONS
    }


def identify_flights(
    robot: str, logs: Sequence[FlightLog], frame: Airframe, out: Path, seed: int, on_progress: Progress
) -> dict[str, Any]:
    """Fit flights, write ``out`` and a page beside it.

    Flights with an IMU give thrust curve, rotor lag and inertia; flights with a pose a model that predicts, with a
    network for the force it leaves out, where that helps on flights that the fit had not seen.

    Returns:
        ``parameters`` (entries), ``held_out`` (per flight), ``remarks``, ``report``.

    Raises:
        LogError: No flight can be used, or some hold rotor speeds and others motor commands.
    """
    with_imu = [log for log in logs if log.acc is not None and log.motor is not None and not log.has_pose]
    with_pose = [log for log in logs if log.has_pose]
    if not with_imu and not with_pose:
        raise LogError("no flight has motor commands with an IMU, and none has a pose")
    driven = {log.inputs: log.name for log in with_pose}
    if len(driven) > 1:
        raise LogError(
            f"'{driven['rotor_speed']}' holds rotor speeds, '{driven['motor']}' motor commands; a model is driven with "
            "one of them, identify them apart"
        )
    entries: dict[str, Any] = {}
    held_out: dict[str, Any] = {}
    remarks = _remarks(logs)
    imu, posed, network = None, None, None
    if with_imu:
        imu = fit_imu(with_imu, frame, seed, on_progress)
        entries |= imu_entries(imu)
        remarks += imu.remarks
        held_out |= _held_out_imu(with_imu, frame, seed)
    if with_pose:
        found, keep, remark = _held_out_pose(with_pose, seed, on_progress)
        held_out |= found
        posed, trained = _fit_pose(with_pose, seed, on_progress)
        network = trained if keep else None
        entries |= pose_entries(posed, frame.mass)
        remarks += [*_on_the_ground(with_pose), remark]
    made = facts() | {"flights": ", ".join(log.name for log in logs), "seed": str(seed), "mass": f"{frame.mass:g} kg"}
    extra = {"made": made, "held_out": held_out, "remarks": remarks}
    write_flight_parameters(out, robot, frame.mass, entries, extra, posed, network, "".join(driven))
    known = read_flight_parameters(out, robot)
    page = out.with_suffix(".html")
    _write_page(page, robot, logs, entries, held_out, remarks, imu, known, made)
    return {"parameters": entries, "held_out": held_out, "remarks": remarks, "report": str(page)}


def _fit_pose(logs: Sequence[FlightLog], seed: int, on_progress: Progress) -> tuple[FlightFit, Residual]:
    fit = fit_flights(logs, on_progress)
    on_progress("residual network", 0, 1, {})
    network = train_residual(fit.model, [resample(log, fit.model.time_constant) for log in logs], seed)
    on_progress("residual network", 1, 1, {})
    return fit, network


def _held_out_imu(logs: Sequence[FlightLog], frame: Airframe, seed: int) -> dict[str, Any]:
    """Lift of every flight by the thrust curve of the others."""
    result = {}
    for index, log in enumerate(logs):
        others = [other for i, other in enumerate(logs) if i != index]
        if others:
            fit = fit_imu(others, frame, seed, lambda *_: None)
            values = {name: estimate.value for name, estimate in fit.estimates.items()}
            result[log.name] = lift_error(log, values, frame.mass)
    return result


def _held_out_pose(logs: Sequence[FlightLog], seed: int, on_progress: Progress) -> tuple[dict[str, Any], bool, str]:
    """Multi-step errors of every flight by a fit to others, whether the network helps there, and what to say of it.

    Flights that repeat one trajectory are held out together.
    """
    if len(logs) < 2:
        return {}, False, "one flight alone cannot show that a network helps; it is left out"
    kinds = trajectories([resample(log) for log in logs])
    unseen = "unseen trajectories" if max(kinds) else "unseen flights of the same trajectory"
    order = np.random.default_rng(seed).permutation(max(kinds) + 1 if max(kinds) else len(logs))
    folds = min(FOLDS, len(order))
    part = (order % folds)[kinds] if max(kinds) else order % folds
    plain: dict[str, Any] = {}
    helped: dict[str, Any] = {}
    for fold in range(folds):
        on_progress("held-out flights", fold, folds, {})
        seen = [log for log, p in zip(logs, part, strict=True) if p != fold]
        fit, network = _fit_pose(seen, seed, lambda *_: None)
        for log, p in zip(logs, part, strict=True):
            if p == fold:
                flight = resample(log, fit.model.time_constant)
                plain[log.name] = multi_step(fit.model, flight, fit.trim)
                helped[log.name] = multi_step(fit.model, flight, fit.trim, network)
    on_progress("held-out flights", folds, folds, {})
    last = str(HORIZONS[-1])
    before, after = (_mean(list(rows.values()))[last] for rows in (plain, helped))
    keep = helps(before, after)
    remark = (
        f"{last} steps ahead on {unseen}: position {before['position_m']:.4f} m, velocity {before['velocity_m_s']:.3f} "
        f"m/s, attitude {before['attitude_rad']:.3f} rad, rate {before['rate_rad_s']:.3f} rad/s; with the network "
        f"{after['position_m']:.4f}, {after['velocity_m_s']:.3f}, {after['attitude_rad']:.3f}, "
        f"{after['rate_rad_s']:.3f}: it is {'kept' if keep else 'left out'}"
    )
    return helped if keep else plain, keep, remark


def _write_page(
    path: Path,
    robot: str,
    logs: Sequence[FlightLog],
    entries: Mapping[str, Any],
    held_out: Mapping[str, Any],
    remarks: Sequence[str],
    imu: ImuFit | None,
    known: FlightParameters,
    made: Mapping[str, str],
) -> None:
    write_page(
        path,
        "flight_identification.html",
        title=f"{robot}: identification from {len(logs)} flights",
        entries=entries,
        held_out=held_out,
        remarks=remarks,
        thrust=_plot_thrust(imu, logs) if imu else "",
        growth=_plot_growth(logs, known) if known.model else "",
        facts=made,
    )


def _plot_thrust(imu: ImuFit, logs: Sequence[FlightLog]) -> str:
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    command = np.linspace(0.0, 1.0, 101)
    curve, quadratic = imu.thrust(command), imu.estimates["thrust_quadratic"]
    std = imu.estimates["thrust_quadratic"].std
    axis.plot(command, curve, color="#2b6cb0", label="full curve")
    axis.plot(command, quadratic.value * command**2, color="#b4472e", linestyle="--", label="quadratic")
    axis.fill_between(
        command, (quadratic.value - 2 * std) * command**2, (quadratic.value + 2 * std) * command**2,
        color="#b4472e", alpha=0.2,
    )  # fmt: skip
    flown = np.concatenate([np.ravel(log.motor) for log in logs if log.motor is not None])
    low, high = np.percentile(flown[flown > 0.05], (1, 99))
    axis.axvspan(low, high, color="#d9dee5", alpha=0.5, label="flown")
    axis.set(xlabel="motor command", ylabel="thrust of a motor, N")
    axis.legend(frameon=False)
    return figure_uri(figure)


def _plot_growth(logs: Sequence[FlightLog], known: FlightParameters) -> str:
    assert known.model is not None
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for log in logs:
        if log.has_pose:
            found = multi_step(known.model, resample(log, known.model.time_constant), known.trim, known.residual, 400)
            error = [found[str(step)]["position_m"] for step in HORIZONS]
            axis.plot([0.01 * step for step in HORIZONS], error, "o-", label=log.name)
    axis.set(xlabel="prediction ahead, s", ylabel="position error, m", xscale="log", yscale="log")
    axis.legend(frameon=False, fontsize=7)
    return figure_uri(figure)
