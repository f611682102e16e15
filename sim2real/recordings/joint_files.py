"""Joint recordings in ``.npz`` and ``.csv`` files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sim2real.recordings.logs import Effort, JointLog
from sim2real.recordings.tables import Columns, LogError, match_joints, numbers, read_csv, read_npz
from sim2real.types import Array

TIME = ("time", "t", "timestamp", "time_s", "time (s)", "time [s]")
# Names by label: ours, PACE's and SAGE's, LeRobot's, Universal Robots', and what people write.
COLUMNS = {
    "command": ("des_dof_pos", "q_cmd", "action", "command", "cmd", "target_qpos", "target_q", "target",
                "joint_pos_target"),
    "position": ("dof_pos", "q", "observation.state", "joint_pos", "qpos", "actual_q", "position", "pos"),
    "velocity": ("dof_vel", "dq", "joint_vel", "qvel", "actual_qd", "velocity", "vel"),
    "effort": ("dof_torque", "tau", "joint_effort", "effort", "torque"),
}  # fmt: skip
TORQUES = (*COLUMNS["effort"], "tau_J", "actual_current_as_torque", "joint_torque", "measured_torque")
CURRENTS = ("actual_current", "current", "joint_current", "motor_current", "present_current",
            *COLUMNS["effort"][2:4], "target_current")  # fmt: skip
_OURS = {"command": "q_cmd", "position": "q", "velocity": "dq", "effort": "tau"}


def _columns_of(effort: Effort | None) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Names by label, and labels that a recording must have: commands, or torques or currents in their place."""
    if effort is None:
        return COLUMNS, ("command", "position")
    names = {label: COLUMNS[label] for label in ("position", "velocity")}
    return names | {"effort": CURRENTS if effort.of_current else TORQUES}, ("position", "effort")


def _hint(label: str, found: Iterable[str]) -> str:
    """Say what else can be done with a recording that has torques or currents but no commands."""
    if label == "command" and any(name.startswith((*CURRENTS, *TORQUES)) for name in found):
        return ". Without commands 'sim2real identify --effort-unit UNIT' takes torques or motor currents"
    return ""


def read_npz_log(
    path: Path, joints: tuple[str, ...], aliases: Mapping[str, str], effort: Effort | None = None
) -> JointLog:
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
    spelled, needed = _columns_of(effort)
    for label, spellings in spelled.items():
        found = next((name for name in spellings if name in content), None)
        if found is None and label in needed:
            unit = effort.unit if effort and label == "effort" else "rad"
            own = spellings[0] if label == "effort" else _OURS[label]
            raise LogError(
                f"{path} has no array '{own}' ({label}s [T, J] {unit}); it has {known}{_hint(label, content)}"
            )
        if found is not None:
            named[label] = found
    first = content[next(iter(named.values()))]
    columns = first.shape[1] if first.ndim == 2 else 0
    order = list(range(len(joints)))
    if "joint_names" in content:
        names = content["joint_names"].reshape(-1).tolist()
        if len(names) != columns:
            array = next(iter(named.values()))
            raise LogError(f"{path}: 'joint_names' names {len(names)} joints, '{array}' is {first.shape}")
        order = match_joints(names, joints, aliases, path)
    elif columns != len(joints):
        raise LogError(f"{path} holds {columns} joints without names, the robot has {len(joints)}: {', '.join(joints)}")
    time = numbers(path, stamps, content[stamps]).reshape(-1)
    parts: dict[str, Any] = {
        label: _ordered(path, name, content[name], (len(time), columns), order) for label, name in named.items()
    }
    return JointLog(path.stem, joints, from_zero(time), **{"command": parts["position"], **parts})


def _ordered(path: Path, name: str, raw: NDArray[Any], shape: tuple[int, int], order: Sequence[int]) -> Array:
    values = numbers(path, name, raw)
    if values.shape != shape:
        raise LogError(f"{path}: '{name}' is {list(values.shape)}, expected {list(shape)}")
    return values[:, order]


def read_csv_log(
    path: Path, joints: tuple[str, ...], aliases: Mapping[str, str], effort: Effort | None = None
) -> JointLog:
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
    spelled, needed = _columns_of(effort)
    for label, prefixes in spelled.items():
        found = _columns(table.header, prefixes)
        if found or label in needed:
            if not found:
                what = f"{label} columns in {effort.unit}" if effort and label == "effort" else f"{label} columns"
                raise LogError(
                    f"{path} has no {what}; name them {prefixes[0]}.JOINT, one a joint{_hint(label, table.header)}"
                )
            order = match_joints([name for name, _ in found], joints, aliases, path)
            parts[label] = table.numbers([found[i][1] for i in order])
    asked = spelled["effort"][-1] == "target_current" and _columns(table.header, spelled["effort"][:-1]) == []
    parts["note"] = "currents are what the controller asked for, not measured ones" if asked else ""
    return JointLog(path.stem, joints, from_zero(table.numbers(time)[:, 0]), **{"command": parts["position"], **parts})


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
