"""Joint mappings: corrections that put measured columns in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from sim2real.errors import ConfigError
from sim2real.recordings.logs import FOUND, JointLog, Topics, check_log, read_logs
from sim2real.recordings.tables import yaml_fault
from sim2real.robots.arm import Arm
from sim2real.types import Model

KIND = "sim2real_joint_mapping"


class _Entry(Model):
    source: str
    slope: float
    offset: float

    @field_validator("slope", "offset")
    @classmethod
    def _usable(cls, value: float, info: ValidationInfo) -> float:
        if not np.isfinite(value) or (info.field_name == "slope" and value == 0.0):
            raise ValueError(f"{value} cannot be used")
        return value


class _Mapping(Model):
    kind: str
    time_scale: float = Field(gt=0.0, lt=1e6)
    joints: dict[str, _Entry] = Field(min_length=1)


def apply_mapping(log: JointLog, mapping: Mapping[str, Any]) -> JointLog:
    """The recording as it should have been: measured columns in order, turned, scaled and shifted; stamps scaled.

    Args:
        log: A recording.
        mapping: Of :meth:`JointCheck.mapping`.

    Raises:
        ConfigError: The mapping has no usable entry for a joint of the recording.
    """
    names, position = log.joint_names, log.position.copy()
    velocity = None if log.velocity is None else log.velocity.copy()
    for index, name in enumerate(names):
        entry = mapping["joints"].get(name)
        if entry is None or entry["source"] not in names:
            raise ConfigError(f"the mapping does not fit '{log.name}': it has no usable entry for '{name}'")
        column, slope = names.index(entry["source"]), float(entry["slope"])
        position[:, index] = (log.position[:, column] - float(entry["offset"])) / slope
        if velocity is not None and log.velocity is not None:
            velocity[:, index] = log.velocity[:, column] / slope
    time = log.time * float(mapping["time_scale"])
    return replace(log, time=time, position=position, velocity=velocity)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a mapping file.

    Raises:
        ConfigError: It is missing or none.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {yaml_fault(error)}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ConfigError(f"{path} is no joint mapping; 'sim2real check-joints ROBOT LOG … --out' writes one")
    try:
        return _Mapping.model_validate(content).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path} is a damaged joint mapping: {location or 'it'}: {first['msg']}; 'sim2real check-joints' writes one"
        ) from error


def read_corrected(
    arm: Arm, paths: Sequence[Path], mapping: Path | None, topics: Topics = FOUND, any_unit: bool = False
) -> list[JointLog]:
    """Read recordings of an arm, with their joints corrected where there is a mapping.

    Args:
        arm: The robot.
        paths: Files and folders.
        mapping: File of :func:`read_mapping`.
        topics: Of bags.
        any_unit: Do not check the corrected recordings; for those who look for a wrong scale.

    Raises:
        ConfigError: The mapping cannot be used.
        LogError: A recording cannot be trusted.
    """
    known = read_mapping(mapping) if mapping else None
    logs = read_logs(paths, arm.joints, arm.aliases, any_unit=any_unit or known is not None, topics=topics)
    if known is None:
        return logs
    logs = [apply_mapping(log, known) for log in logs]
    for log in () if any_unit else logs:
        check_log(log, Path(log.name))
    return logs
