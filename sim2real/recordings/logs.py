"""Recordings of joint commands and positions: reading and checking them.

Three kinds are read: ``.npz`` (``t``, ``q_cmd``, ``q``, and where known ``dq``, ``tau``, ``joint_names``), ``.csv``
(one column a joint: ``time, des_dof_pos.elbow, dof_pos.elbow, …``) and rosbag2 folders or ``.mcap`` files
(``sensor_msgs/JointState`` and a command topic). A log that cannot be trusted is refused, with file, column and row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sim2real.recordings.tables import LogError, canonical_names, names_of, numbers, read_csv, read_npz
from sim2real.types import Array

SHORTEST_S = 1.0
LARGEST_RAD = 2.0 * np.pi + 0.5  # a joint that reports more than a turn most likely reports degrees
GAP_PERIODS = 5.0  # the longest step of good recordings of arms is 1.03 periods, of drones at 1 kHz 7 ms
GAP_S = 0.1  # an arm's lag; recorders of fast signals drop a few rows without harm
SLOWEST_S = 0.9  # rows further apart say that stamps are no seconds
STAMP_UNITS = (("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))

_TIME = ("time", "t", "timestamp", "time_s", "time (s)", "time [s]")
_SUFFIXES = (".npz", ".csv", ".mcap", ".db3")
_COLUMNS = {
    "command": ("des_dof_pos", "q_cmd", "command", "cmd", "target"),
    "position": ("dof_pos", "q", "joint_pos", "position", "pos"),
    "velocity": ("dof_vel", "dq", "joint_vel", "velocity", "vel"),
    "effort": ("dof_torque", "tau", "joint_effort", "effort", "torque"),
}


class Topics(NamedTuple):
    """Topics of a bag; empty where they are found by type and name."""

    state: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


FOUND = Topics()


@dataclass(frozen=True)
class JointLog:
    """One motion of an arm, as recorded.

    Attributes:
        name: The motion's name.
        joint_names: Joints in the order of the columns below.
        time: [T] s, from zero, strictly increasing.
        command: [T, J] rad; sent at ``time`` and held until the next row.
        position: [T, J] rad, measured at ``time``.
        velocity, effort: [T, J] rad/s and N·m where recorded.
        note: What a reader should know about how it was read; mostly empty.
    """

    name: str
    joint_names: tuple[str, ...]
    time: Array
    command: Array
    position: Array
    velocity: Array | None = None
    effort: Array | None = None
    note: str = ""

    @property
    def period_s(self) -> float:
        """Median time between rows."""
        return float(np.median(np.diff(self.time)))


def read_logs(
    paths: Iterable[Path],
    joints: Sequence[str],
    aliases: Mapping[str, str] = {},
    *,
    any_unit: bool = False,
    topics: Topics = FOUND,
) -> list[JointLog]:
    """Read recordings; a folder that is not a rosbag stands for every recording in it.

    Recordings of one file name in several folders are called by folder and name.

    Args:
        paths: Files and folders.
        joints: The robot's joints, in its order.
        aliases: Other names by which recordings call joints.
        any_unit: Take measured angles beyond a turn; for those who look for a wrong scale.
        topics: Of bags.

    Raises:
        LogError: A recording cannot be trusted, there is none, or one is given twice.
    """
    files = list_files(paths, _SUFFIXES, "recordings (.npz, .csv, .mcap or rosbag2 folders)")
    logs = [read_log(file, joints, aliases, any_unit=any_unit, topics=topics) for file in files]
    return [replace(log, name=name) for log, name in zip(logs, names_of(files), strict=True)]


def list_files(paths: Iterable[Path], suffixes: Sequence[str], kinds: str) -> list[Path]:
    """Files and rosbag2 folders that ``paths`` stand for.

    Raises:
        LogError: A folder holds nothing of these ``kinds``.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir() and not _is_bag(path):
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes or _is_bag(p))
            if not found:
                raise LogError(f"{path} holds no {kinds}")
            files += found
        else:
            files.append(path)
    return files


def read_log(
    path: Path,
    joints: Sequence[str],
    aliases: Mapping[str, str] = {},
    *,
    any_unit: bool = False,
    topics: Topics = FOUND,
) -> JointLog:
    """Read and check one recording.

    Raises:
        LogError: It is missing, of no known kind, lacks a joint, or :func:`check_log` refuses it.
    """
    if not path.exists():
        raise LogError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if _is_bag(path) or suffix in (".mcap", ".db3"):
        from sim2real.recordings.joint_bags import read_joint_bag  # noqa: PLC0415 (rosbags is needed for bags only)

        log = read_joint_bag(path, tuple(joints), aliases, topics)
    elif suffix == ".npz" and path.is_file():
        log = _read_npz(path, tuple(joints), aliases)
    elif suffix == ".csv" and path.is_file():
        log = _read_csv(path, tuple(joints), aliases)
    else:
        raise LogError(f"{path}: recordings are .npz, .csv, .mcap or a rosbag2 folder")
    check_log(log, path, any_unit=any_unit)
    return log


def check_log(log: JointLog, path: Path, *, any_unit: bool = False) -> None:
    """Refuse a recording whose rows cannot be trusted.

    Args:
        log: The recording.
        path: Its file, for the message.
        any_unit: Take measured angles beyond a turn; commands are radians all the same.

    Raises:
        LogError: Values that are not finite, stamps that stand still, run backwards or leave a gap, angles that
            look like degrees, or too short a motion. The message names file, column and row (from 0).
    """
    if len(log.time) < 2:
        raise LogError(f"{path} holds {len(log.time)} rows; at least {SHORTEST_S:g} s of motion are needed")
    for label in ("command", "position", "velocity", "effort"):
        values = getattr(log, label)
        if values is None:
            continue
        if values.shape != (len(log.time), len(log.joint_names)):
            raise LogError(
                f"{path}: {label} is {list(values.shape)}, expected [{len(log.time)}, {len(log.joint_names)}] for "
                f"{len(log.time)} stamps and the joints {', '.join(log.joint_names)}"
            )
        rows, columns = np.nonzero(~np.isfinite(values))
        if len(rows):
            raise LogError(
                f"{path}: {label} of '{log.joint_names[columns[0]]}' is {values[rows[0], columns[0]]} in row {rows[0]} "
                f"({len(rows)} such values); cut the motion there or record it again"
            )
        if label == "command" or (label == "position" and not any_unit):
            row, column = np.unravel_index(int(np.abs(values).argmax()), values.shape)
            if abs(values[row, column]) > LARGEST_RAD:
                raise LogError(
                    f"{path}: {label} of '{log.joint_names[column]}' is {values[row, column]:.4g} in row {row}, more "
                    "than a turn; angles are radians, convert degrees first"
                )
    check_stamps(log.time, path)


def check_stamps(time: Array, path: Path) -> None:
    """Refuse stamps [T] s that are not finite, stand still, run backwards, leave a gap or span too little.

    Raises:
        LogError: Names file and row.
    """
    bad = np.nonzero(~np.isfinite(time))[0]
    if len(bad):
        raise LogError(f"{path}: the stamp in row {bad[0]} is {time[bad[0]]}")
    steps = np.diff(time)
    for wrong, what in ((steps == 0, "repeats the stamp before it"), (steps < 0, "is earlier than the row before it")):
        rows = np.nonzero(wrong)[0]
        if len(rows):
            raise LogError(
                f"{path}: row {rows[0] + 1} ({time[rows[0] + 1]:.4f} s) {what}, as do {len(rows) - 1} more; "
                "sort the rows and drop doubles, or record again"
            )
    if len(time) < 2 or time[-1] - time[0] < SHORTEST_S:
        length = time[-1] - time[0] if len(time) else 0.0
        raise LogError(f"{path}: the motion lasts {length:.2f} s; at least {SHORTEST_S:g} s are needed")
    period = float(np.median(steps))
    if period > SLOWEST_S:
        unit, factor = next((u for u in STAMP_UNITS if period / u[1] < SLOWEST_S), STAMP_UNITS[-1])
        raise LogError(
            f"{path}: rows are {period:.4g} s apart by their stamps; stamps are seconds. If these are {unit}, divide "
            f"them by {factor:.0f}"
        )
    longest = max(GAP_PERIODS * period, GAP_S)
    rows = np.nonzero(steps > longest)[0]
    if len(rows):
        raise LogError(
            f"{path}: nothing was recorded for {steps[rows[0]]:.2f} s after row {rows[0]} ({time[rows[0]]:.2f} s; the "
            f"period is {period:.4f} s, gaps up to {longest:.2g} s are taken); split the recording there"
        )


def match_joints(found: Sequence[Any], joints: Sequence[str], aliases: Mapping[str, str], path: Path) -> list[int]:
    """Column of every joint of the robot among the names ``found``; case does not matter.

    Raises:
        LogError: A joint is missing or named twice.
    """
    known = canonical_names(found, joints, aliases)
    for joint in joints:
        if known.count(joint) != 1:
            what = "lacks" if joint not in known else "holds more than once"
            raise LogError(
                f"{path} {what} the joint '{joint}'; it has {', '.join(map(str, found))}, the robot {', '.join(joints)}"
            )
    return [known.index(joint) for joint in joints]


def _read_npz(path: Path, joints: tuple[str, ...], aliases: Mapping[str, str]) -> JointLog:
    content = read_npz(path)
    for name in ("t", "q_cmd", "q"):
        if name not in content:
            raise LogError(f"{path} has no array '{name}'; it has {', '.join(content) or 'none'}")
    order = list(range(len(joints)))
    columns = content["q_cmd"].shape[1] if content["q_cmd"].ndim == 2 else 0
    if "joint_names" in content:
        names = content["joint_names"].reshape(-1).tolist()
        if len(names) != columns:
            raise LogError(
                f"{path}: 'joint_names' names {len(names)} joints, 'q_cmd' is {list(content['q_cmd'].shape)}"
            )
        order = match_joints(names, joints, aliases, path)
    elif columns != len(joints):
        raise LogError(f"{path} holds {columns} joints without names, the robot has {len(joints)}: {', '.join(joints)}")
    time = numbers(path, "t", content["t"]).reshape(-1)

    def values(name: str) -> Array | None:
        if name not in content:
            return None
        array = numbers(path, name, content[name])
        if array.shape != (len(time), columns):
            raise LogError(f"{path}: '{name}' is {list(array.shape)}, expected [{len(time)}, {columns}]")
        return array[:, order]

    command, position = values("q_cmd"), values("q")
    assert command is not None and position is not None
    return JointLog(path.stem, joints, _from_zero(time), command, position, values("dq"), values("tau"))


def _read_csv(path: Path, joints: tuple[str, ...], aliases: Mapping[str, str]) -> JointLog:
    table = read_csv(path)
    time = [i for i, name in enumerate(table.header) if name.lower() in _TIME]
    if len(time) != 1:
        raise LogError(f"{path} needs one column of stamps in seconds, called one of {', '.join(_TIME)}")
    parts: dict[str, Any] = {}
    for label, prefixes in _COLUMNS.items():
        found = _columns(table.header, prefixes)
        if found or label in ("command", "position"):
            if not found:
                raise LogError(f"{path} has no {label} columns; name them {prefixes[0]}.JOINT, one a joint")
            order = match_joints([name for name, _ in found], joints, aliases, path)
            parts[label] = table.numbers([found[i][1] for i in order])
    return JointLog(path.stem, joints, _from_zero(table.numbers(time)[:, 0]), **parts)


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


def _from_zero(time: Array) -> Array:
    return time - time[0] if len(time) else time


def _is_bag(path: Path) -> bool:
    return path.is_dir() and (path / "metadata.yaml").is_file()
