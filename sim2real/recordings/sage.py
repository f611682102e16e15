"""Recordings of two files: ``control.csv`` and ``state_motor.csv``, as the SAGE project's recorder writes them.

Every row is ``type, timestamp (µs), positions[, velocities, torques]`` with a list in each cell; ``joint_list.txt``
names the joints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sim2real.recordings.joint_files import from_zero
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import LogError, match_joints, read_csv
from sim2real.types import Array

FILES = ("control.csv", "state_motor.csv")
MICROSECONDS = 1e6


def is_sage(path: Path) -> bool:
    """Tell whether a folder is such a recording."""
    return path.is_dir() and all((path / name).is_file() for name in FILES)


def read_sage(path: Path, joints: tuple[str, ...], aliases: Mapping[str, str]) -> JointLog:
    """Read the folder: states, and the command in force at each.

    Raises:
        LogError: A file is damaged, the names are missing, or nothing was commanded while states were recorded.
    """
    names_file = path / "joint_list.txt"
    if not names_file.is_file():
        raise LogError(f"{path} needs a joint_list.txt: one joint a line, in the order of the lists in {FILES[0]}")
    order = match_joints(names_file.read_text(encoding="utf-8").split(), joints, aliases, path)
    sent, (command,) = _read(path / FILES[0], ("positions",))
    stamps, (position, velocity, effort) = _read(path / FILES[1], ("positions", "velocities", "torques"))
    if command is None or position is None:
        raise LogError(f"{path}: {FILES[0]} and {FILES[1]} need a column 'positions'")
    keep = (stamps >= sent[0]) & (stamps <= sent[-1])
    if not keep.any():
        raise LogError(f"{path}: no state was recorded while commands were sent; their stamps do not overlap")
    in_force = command[np.searchsorted(sent, stamps[keep], side="right") - 1]
    parts = [None if values is None else values[keep][:, order] for values in (position, velocity, effort)]
    position = parts[0]
    assert position is not None
    return JointLog(path.name, joints, from_zero(stamps[keep]), in_force[:, order], position, parts[1], parts[2])


def _read(path: Path, columns: tuple[str, ...]) -> tuple[Array, list[Array | None]]:
    """Stamps [T] s and lists [T, J] of a file, in the order of stamps; None for a column it does not have."""
    table = read_csv(path)
    if "timestamp" not in table.header:
        raise LogError(f"{path} has no column 'timestamp' of microseconds")
    stamps = table.numbers([table.header.index("timestamp")])[:, 0] / MICROSECONDS
    lists: list[Array | None] = []
    for name in columns:
        if name not in table.header:
            lists.append(None)
            continue
        at = table.header.index(name)
        try:
            lists.append(np.array([json.loads(row[at]) for row in table.rows], dtype=np.float64))
        except (ValueError, TypeError) as error:
            raise LogError(f"{path}: '{name}' holds something else than lists of one length: {error}") from error
        if lists[-1] is not None and lists[-1].ndim != 2:
            raise LogError(f"{path}: '{name}' does not hold one list a row")
    return stamps, lists
