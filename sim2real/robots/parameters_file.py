"""The parameters file that 'sim2real identify' writes, read in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from sim2real.errors import ConfigError
from sim2real.types import Array

if TYPE_CHECKING:
    from sim2real.robots.arm import Arm

KIND = "sim2real_parameters"
STOPS = ("low_stop", "high_stop")


@dataclass(frozen=True)
class ParametersFile:
    """Contents of an arm's parameters file, checked.

    Attributes:
        entries: By ``JOINT.QUANTITY``, ``LINK.mass_scale`` and what else the arm's physics can vary.
        correlations: ``JOINT.QUANTITY`` → the joint's others → correlation; empty without any.
    """

    entries: dict[str, dict[str, Any]]
    correlations: dict[str, dict[str, float]]


def read_document(path: Path, robot: str) -> dict[str, Any]:
    """Read the parameters file of a robot of any kind; ``parameters`` in it has a number as every value, low and high.

    Raises:
        ConfigError: The file is missing, no parameters file, damaged, or of another robot.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ConfigError(f"{path} is not a parameters file; 'sim2real identify {robot} LOG … --out' writes one")
    if content.get("robot") != robot:
        raise ConfigError(f"{path} holds parameters of '{content.get('robot')}', not of '{robot}'")
    entries = content.get("parameters")
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ConfigError(
            f"{path} is damaged: 'parameters' must hold NAME: {{value: …}}; run 'sim2real identify' again"
        )
    for name, entry in entries.items():
        try:
            value = float(entry["value"])
            ends = [float(entry[end]) for end in ("low", "high") if end in entry or entry.get("identified")]
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{path}: {name} has no number as its value, low or high") from None
        if not np.isfinite([value, *ends]).all():
            raise ConfigError(f"{path}: {name} is not finite")
        if len(ends) == 2 and ends[0] > ends[1]:
            raise ConfigError(f"{path}: the low of {name}, {ends[0]}, is above its high, {ends[1]}")
    return content


def read_parameters_file(path: Path, arm: Arm) -> ParametersFile:
    """Read what 'sim2real identify' wrote.

    Raises:
        ConfigError: The file is missing, damaged, of another robot, names or values are wrong, or it was written when a
            servo had fewer quantities.
    """
    content = read_document(path, arm.name)
    return ParametersFile(
        _entries(path, arm, content["parameters"]), _correlations(path, arm, content.get("correlation") or {})
    )


def _entries(path: Path, arm: Arm, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, entry in entries.items():
        if name not in arm.parameters:
            raise ConfigError(
                f"{path}: '{name}' is no parameter of '{arm.name}'; they are JOINT.QUANTITY, LINK.mass_scale, "
                "LINK.com_scale, payload and payload_offset"
            )
        bounds, value = arm.parameters[name], float(entry["value"])
        if not bounds.low <= value <= bounds.high:
            raise ConfigError(f"{path}: {name} is {value}, outside {bounds.low} .. {bounds.high} {bounds.unit}")
    for joint in arm.joints:
        low, high = (entries.get(f"{joint}.{name}", {}).get("value") for name in STOPS)
        if low is not None and high is not None and not float(low) < float(high):
            raise ConfigError(f"{path}: {joint}.low_stop ({low}) is not below {joint}.high_stop ({high})")
    return entries


def _correlations(path: Path, arm: Arm, section: Any) -> dict[str, dict[str, float]]:
    result: dict[str, dict[str, float]] = {}
    fitted = {name for name, quantity in arm.servo.items() if not (quantity.fixed or quantity.low == quantity.high)}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{path} is damaged: 'correlation' must hold JOINT: {{names: …, matrix: …}}")
    for joint, entry in section.items():
        try:
            names, matrix = [str(name) for name in entry["names"]], np.asarray(entry["matrix"], dtype=np.float64)
            if matrix.shape != (len(names), len(names)) or len(set(names)) < len(names) or np.isnan(matrix).any():
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f"{path}: the correlation of '{joint}' is damaged; run 'sim2real identify' again"
            ) from None
        if missing := sorted(fitted - set(names)):
            raise ConfigError(
                f"{path} was identified before servos had {', '.join(missing)}; its values hold only together: run "
                "'sim2real identify' again"
            )
        for row, name in enumerate(names):
            result[f"{joint}.{name}"] = {
                f"{joint}.{other}": float(np.clip(matrix[row, column], -1.0, 1.0))
                for column, other in enumerate(names)
                if column != row
            }
    return result


def read_parameters(path: Path, arm: Arm) -> dict[str, Array]:
    """Servo quantities [J] from a parameters file; what it does not name keeps the description's value.

    Raises:
        ConfigError: As :func:`read_parameters_file`.
    """
    values = arm.described()
    for name, entry in read_parameters_file(path, arm).entries.items():
        joint, _, quantity = name.rpartition(".")
        if quantity in values and joint in arm.joints:
            values[quantity][arm.joints.index(joint)] = float(entry["value"])
    return values
