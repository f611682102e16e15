"""The parameters file of a quadrotor: what recordings say, and a model that replay and simulator can run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.identify.flight.fit import FlightFit, Trim
from sim2real.identify.flight.imu import ImuFit
from sim2real.identify.flight.model import FlightModel
from sim2real.recordings.flights import FlightLog
from sim2real.recordings.tables import yaml_fault
from sim2real.robots.residual import Residual, read_residual

KIND = "sim2real_parameters"


@dataclass(frozen=True)
class FlightParameters:
    """A parameters file as replay needs it.

    Attributes:
        values: Identified values by name.
        model, trim, residual: From flights with a pose; None without.
        mass: kg that the values belong to.
        inputs: What the model is driven with, ``motor`` or ``rotor_speed``; the two have other scales.
    """

    values: dict[str, float]
    mass: float
    model: FlightModel | None
    trim: Trim
    residual: Residual | None
    inputs: str = ""

    def must_fit(self, log: FlightLog, path: Path) -> None:
        """Refuse a flight that the model was not fitted for.

        Raises:
            ConfigError: There is no model, or it is driven with what the flight does not hold.
        """
        if self.model is None:
            raise ConfigError(f"{path} comes from an IMU only; '{log.name}' has a pose, identify such a flight")
        if self.inputs and log.inputs != self.inputs:
            raise ConfigError(
                f"{path} was fitted to '{self.inputs}', '{log.name}' holds '{log.inputs}'; these have other scales: "
                f"replay flights with '{self.inputs}', or identify from flights with '{log.inputs}'"
            )


def imu_entries(fit: ImuFit) -> dict[str, dict[str, Any]]:
    """Entries of a parameters file from a fit to IMU logs."""
    return {name: _entry(e.value, e.std, e.unit) for name, e in fit.estimates.items()}


def pose_entries(fit: FlightFit, mass: float) -> dict[str, dict[str, Any]]:
    """Entries of a parameters file from a fit to flights with a pose; forces belong to ``mass``."""
    std = np.sqrt(np.clip(np.diag(fit.covariance), 0.0, None))
    stds = fit.model.unpack(std)
    entries = {
        f"thrust_coefficient_m{i + 1}": _entry(
            mass * float(fit.model.thrust[i]) * 1e-6, mass * float(stds.thrust[i]) * 1e-6, "N*s^2/rad^2"
        )
        for i in range(4)
    }
    for index, axis in enumerate("xyz"):
        entries[f"drag_{axis}"] = _entry(float(fit.model.drag[index]), float(stds.drag[index]), "1/s")
    if fit.model.time_constant:
        entries["time_constant"] = _entry(fit.model.time_constant, 0.25 * fit.model.time_constant, "s")
    return entries


def _entry(value: float, std: float, unit: str) -> dict[str, Any]:
    digits = 8 if abs(value) > 1e-4 else 12
    low, high = sorted((value - 2.0 * std, value + 2.0 * std))
    return {
        "value": round(value, digits),
        "std": round(std, digits),
        "low": round(low, digits),
        "high": round(high, digits),
        "unit": unit,
        "identified": bool(std < 0.25 * abs(value)),
    }


def write_flight_parameters(
    path: Path,
    robot: str,
    mass: float,
    entries: Mapping[str, Any],
    extra: Mapping[str, Any],
    fit: FlightFit | None,
    residual: Residual | None,
    inputs: str,
) -> None:
    """Write the file, and the residual network beside it, each to a temporary name that is then renamed."""
    content: dict[str, Any] = {"kind": KIND, "robot": robot, **extra, "mass": mass, "parameters": dict(entries)}
    if fit is not None:
        content["inputs"] = inputs
        content["flight_model"] = {
            part.name: np.round(getattr(fit.model, part.name), 8).tolist() for part in fields(FlightModel)
        }
        content["trim"] = asdict(fit.trim)
    path.parent.mkdir(parents=True, exist_ok=True)
    if residual is not None:
        network = path.with_suffix(".residual.npz")
        residual.save(network)
        digest = hashlib.sha256(network.read_bytes()).hexdigest()
        content["residual"] = {"file": network.name, "sha256": digest}
    write_text(path, yaml.safe_dump(content, sort_keys=False, width=120))


def read_flight_parameters(path: Path, robot: str) -> FlightParameters:
    """Read what :func:`write_flight_parameters` wrote.

    Raises:
        ConfigError: The file is missing, of another robot, broken, or its network is not the one it names.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {yaml_fault(error)}") from error
    if not isinstance(content, Mapping) or content.get("kind") != KIND or content.get("robot") != robot:
        raise ConfigError(f"{path} holds no parameters of '{robot}'; write them: sim2real identify {robot} LOG … --out")
    try:
        values = {name: float(entry["value"]) for name, entry in content["parameters"].items()}
        model = None
        if "flight_model" in content:
            parts = {name: np.asarray(value, dtype=np.float64) for name, value in content["flight_model"].items()}
            constant = float(parts.pop("time_constant"))
            model = FlightModel(**parts, time_constant=constant)
        inputs = content.get("inputs") or ("motor" if model and model.time_constant > 0.0 else "")
        trim = Trim(**content.get("trim", {}))
        mass = float(content["mass"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); run 'sim2real identify' again") from error
    return FlightParameters(values, mass, model, trim, read_residual(path, content.get("residual")), str(inputs))
