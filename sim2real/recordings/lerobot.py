"""LeRobot data sets, versions 2 and 3: ``meta/info.json`` and parquet files with ``action`` and ``observation.state``.

The sets store no unit. Recorders of arms write degrees, and the gripper as a fraction of its range in percent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.recordings.joint_files import from_zero
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import LogError, match_joints
from sim2real.types import Array

RADIANS = 2.0 * np.pi + 0.5  # no joint of an arm goes further in radians
PERCENT = "gripper"
OPEN_RAD = 1.919862  # range of the grippers of these arms (SO-100, SO-101, Koch): 110 degrees
CLOSED_RAD = -0.174533


def is_lerobot(path: Path) -> bool:
    """Tell whether a folder is such a data set."""
    return path.is_dir() and (path / "meta" / "info.json").is_file()


def read_lerobot(path: Path, joints: Sequence[str], aliases: Mapping[str, str]) -> list[JointLog]:
    """Read every episode: commands are ``action``, measurements ``observation.state``.

    Raises:
        LogError: pyarrow is missing, the set is damaged, or it lacks a joint.
    """
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415 (only data sets need it)
    except ImportError as error:
        raise LogError(f"{path}: reading LeRobot data sets needs pyarrow: pip install pyarrow") from error
    info = _info(path)
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise LogError(f"{path} is a LeRobot data set without data/**/*.parquet; download it whole")
    wanted = ["action", "observation.state", "timestamp", "episode_index"]
    try:
        tables = [parquet.read_table(file, columns=wanted).to_pydict() for file in files]
        parts = {name: [np.array(table[name], dtype=np.float64) for table in tables] for name in wanted}
        columns = {name: np.concatenate(values) for name, values in parts.items()}
    except (ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise LogError(f"{path} is no readable LeRobot data set of an arm: {' '.join(str(error).split())}") from error
    values = {}
    for name in ("action", "observation.state"):
        names = [str(n).removesuffix(".pos") for n in info[name]]
        order = match_joints(names, joints, aliases, path)
        if columns[name].ndim != 2 or columns[name].shape[1] != len(names):
            raise LogError(f"{path}: '{name}' is {list(columns[name].shape)}, meta/info.json names {len(names)} joints")
        values[name] = columns[name][:, order]
    note = ""
    if max(np.nanmax(np.abs(v)) for v in values.values()) > RADIANS:
        values = {name: _radians(v, joints) for name, v in values.items()}
        note = (
            "angles are taken as degrees and the gripper as percent of its range; a recorder with use_degrees=false "
            "writes -100 .. 100 of each joint's range instead, which is another motion"
        )
    logs = []
    for episode in np.unique(columns["episode_index"]).tolist():
        rows = columns["episode_index"] == episode
        time = from_zero(columns["timestamp"][rows])
        command, position = values["action"][rows], values["observation.state"][rows]
        logs.append(JointLog(f"episode_{int(episode)}", tuple(joints), time, command, position, note=note))
    return logs


def _info(path: Path) -> dict[str, list[Any]]:
    """Joint names of ``action`` and ``observation.state``."""
    try:
        features = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))["features"]
        names = {name: features[name]["names"] for name in ("action", "observation.state")}
        # Version 2 nests the list in a dictionary of one entry.
        return {name: next(iter(n.values())) if isinstance(n, dict) else list(n) for name, n in names.items()}
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise LogError(f"{path}: meta/info.json names no joints of action and observation.state ({error!r})") from error


def _radians(values: Array, joints: Sequence[str]) -> Array:
    """Degrees in radians; the gripper's percent as an angle of its range."""
    result = np.radians(values)
    for column, joint in enumerate(joints):
        if PERCENT in joint.lower():
            result[:, column] = CLOSED_RAD + 0.01 * values[:, column] * (OPEN_RAD - CLOSED_RAD)
    return result
