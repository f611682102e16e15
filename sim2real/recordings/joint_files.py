"""Joint recordings in ``.npz`` and ``.csv`` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import Columns, LogError, match_joints, numbers, read_csv, read_npz
from sim2real.types import Array

TIME = ("time", "t", "timestamp", "time_s", "time (s)", "time [s]")
# Names by label: ours, PACE's and SAGE's, LeRobot's, and what people write.
COLUMNS = {
    "command": ("des_dof_pos", "q_cmd", "action", "command", "cmd", "target_qpos", "target", "joint_pos_target"),
    "position": ("dof_pos", "q", "observation.state", "joint_pos", "qpos", "position", "pos"),
    "velocity": ("dof_vel", "dq", "joint_vel", "qvel", "velocity", "vel"),
    "effort": ("dof_torque", "tau", "joint_effort", "effort", "torque"),
}
_OURS = {"command": "q_cmd", "position": "q", "velocity": "dq", "effort": "tau"}


def read_npz_log(path: Path, joints: tuple[str, ...], aliases: Mapping[str, str]) -> JointLog:
    """Read ``t``, ``q_cmd``, ``q``, and where known ``dq``, ``tau``, ``joint_names``, or the same by other names.

    Raises:
        LogError: An array is missing, of another shape, or holds no numbers.
    """
    content = read_npz(path)
    known = ", ".join(content) or "none"
    stamps = next((name for name in TIME if name in content), None)
    if stamps is None:
        raise LogError(
            f"{path} has no array 't' of stamps, s; it has {known}. Write one: the recorder's own, or at a fixed rate "
            "t = numpy.arange(len(q)) / rate"
        )
    named: dict[str, str] = {}
    for label, spellings in COLUMNS.items():
        found = next((name for name in spellings if name in content), None)
        if found is None and label in ("command", "position"):
            raise LogError(f"{path} has no array '{_OURS[label]}' ({label}s [T, J] rad); it has {known}")
        if found is not None:
            named[label] = found
    first = content[named["command"]]
    columns = first.shape[1] if first.ndim == 2 else 0
    order = list(range(len(joints)))
    if "joint_names" in content:
        names = content["joint_names"].reshape(-1).tolist()
        if len(names) != columns:
            raise LogError(f"{path}: 'joint_names' names {len(names)} joints, '{named['command']}' is {first.shape}")
        order = match_joints(names, joints, aliases, path)
    elif columns != len(joints):
        raise LogError(f"{path} holds {columns} joints without names, the robot has {len(joints)}: {', '.join(joints)}")
    time = numbers(path, stamps, content[stamps]).reshape(-1)
    parts: dict[str, Any] = {
        label: _ordered(path, name, content[name], (len(time), columns), order) for label, name in named.items()
    }
    return JointLog(path.stem, joints, from_zero(time), **parts)


def _ordered(path: Path, name: str, raw: NDArray[Any], shape: tuple[int, int], order: Sequence[int]) -> Array:
    values = numbers(path, name, raw)
    if values.shape != shape:
        raise LogError(f"{path}: '{name}' is {list(values.shape)}, expected {list(shape)}")
    return values[:, order]


def read_csv_log(path: Path, joints: tuple[str, ...], aliases: Mapping[str, str]) -> JointLog:
    """Read one column a joint: ``time, des_dof_pos.elbow, dof_pos.elbow, …``.

    Raises:
        LogError: Stamps or columns are missing.
    """
    table = read_csv(path)
    _must_have_headings(table, joints)
    if "positions" in table.header and "type" in table.header:
        raise LogError(f"{path} is one of two files: give the folder that holds control.csv and state_motor.csv")
    time = [i for i, name in enumerate(table.header) if name.lower() in TIME]
    if len(time) != 1:
        raise LogError(f"{path} needs one column of stamps in seconds, called one of {', '.join(TIME)}")
    parts: dict[str, Any] = {}
    for label, prefixes in COLUMNS.items():
        found = _columns(table.header, prefixes)
        if found or label in ("command", "position"):
            if not found:
                raise LogError(f"{path} has no {label} columns; name them {prefixes[0]}.JOINT, one a joint")
            order = match_joints([name for name, _ in found], joints, aliases, path)
            parts[label] = table.numbers([found[i][1] for i in order])
    return JointLog(path.stem, joints, from_zero(table.numbers(time)[:, 0]), **parts)


def _must_have_headings(table: Columns, joints: Sequence[str]) -> None:
    """Refuse a table whose first line holds numbers.

    Raises:
        LogError: Says what to write above it.
    """
    try:
        [float(name.replace(",", ".")) for name in table.header]
    except ValueError:
        return
    example = ",".join(["time", *(f"{prefix}.{joint}" for prefix in ("des_dof_pos", "dof_pos") for joint in joints)])
    raise LogError(
        f"{table.path} has no headings: its first line is {len(table.header)} numbers. Write a first line that names "
        f"every column, commands des_dof_pos.JOINT and measurements dof_pos.JOINT, such as {example}"
    )


def _columns(header: Sequence[str], prefixes: Sequence[str]) -> list[tuple[str, int]]:
    """Joint names and columns of the headings ``PREFIX.JOINT`` (or ``/``, ``_``, ``PREFIX[JOINT]``)."""
    for prefix in prefixes:
        found = [
            (name[len(prefix) + 1 :].rstrip("]"), index)
            for index, name in enumerate(header)
            if name.startswith(prefix) and len(name) > len(prefix) + 1 and name[len(prefix)] in "./_["
        ]
        if found:
            return found
    return []


def from_zero(time: Array) -> Array:
    """Stamps [T] s that begin at zero."""
    return time - time[0] if len(time) else time
