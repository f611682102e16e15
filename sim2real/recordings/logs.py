"""Recordings of joint commands and positions: reading and checking them.

Read are ``.npz`` (``t``, ``q_cmd``, ``q``, and where known ``dq``, ``tau``, ``joint_names``), ``.csv`` (one column a
joint: ``time, des_dof_pos.elbow, dof_pos.elbow, …``), rosbag2 folders or ``.mcap`` files (``sensor_msgs/JointState``
and a command topic), LeRobot data sets and SAGE's folders of two files. A log that cannot be trusted is refused, with
file, column and row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sim2real.recordings.tables import LogError, names_of
from sim2real.types import Array

SHORTEST_S = 1.0
LARGEST_RAD = 2.0 * np.pi + 0.5  # a joint that reports more than a turn most likely reports degrees
GAP_PERIODS = 5.0  # the longest step of good recordings of arms is 1.03 periods, of drones at 1 kHz 7 ms
GAP_S = 0.1  # an arm's lag; recorders of fast signals drop a few rows without harm
SLOWEST_S = 0.9  # rows further apart say that stamps are no seconds
WOVEN_RAD = {"position": 0.02, "command": 0.1}  # jumps there and back; a dither of commands is smaller
WOVEN_SIZE = 0.05  # of the signal's range; in any unit
WOVEN, WOVEN_ROWS = 0.02, 10  # of the rows, and at least so many: more than a bus loses
STAMP_UNITS = (("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9))

_SUFFIXES = (".npz", ".csv", ".mcap", ".db3")
_TORCH = (
    "a torch file (PACE writes time, des_dof_pos, dof_pos); convert it with numpy.savez('log.npz', **{name: "
    "values.numpy() for name, values in torch.load(FILE).items()})"
)
_ELSEWHERE = {
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".npy": "one numpy array or a pickled object",
    ".pkl": "a pickled object",
    ".pickle": "a pickled object",
    ".parquet": "a table of a data set; give the folder with meta/info.json if it is LeRobot's",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".mat": "a MATLAB file",
    ".json": "a JSON file",
    ".bag": "a ROS 1 bag; 'rosbags-convert --src FILE --dst FOLDER' makes a rosbag2 folder of it",
}
_HOW = (
    "recordings are .npz with t [T] s, q_cmd and q [T, J] rad (numpy.savez), .csv with time, des_dof_pos.JOINT and "
    "dof_pos.JOINT columns, .mcap, a rosbag2 folder, or a LeRobot data set"
)


class Topics(NamedTuple):
    """Topics of a bag; empty where they are found by type and name."""

    state: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


FOUND = Topics()


class Effort(NamedTuple):
    """Kind and unit of the effort of recordings that need no commands.

    Attributes:
        unit: As the recordings have it.
        factor: Makes N·m or A of it.
        of_current: It is a motor current, A.
    """

    unit: str
    factor: float
    of_current: bool


EFFORTS = {e.unit: e for e in (Effort("N·m", 1.0, False), Effort("A", 1.0, True), Effort("mA", 1e-3, True))}


@dataclass(frozen=True)
class JointLog:
    """One motion of an arm, as recorded.

    Attributes:
        name: The motion's name.
        joint_names: Joints in the order of the columns below.
        time: [T] s, from zero, strictly increasing.
        command: [T, J] rad; sent at ``time`` and held until the next row. The positions where it was read for its
            effort.
        position: [T, J] rad, measured at ``time``.
        velocity, effort: [T, J] rad/s and N·m where recorded; A where it was read for its currents.
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
    effort: Effort | None = None,
) -> list[JointLog]:
    """Read recordings; a folder that is not a rosbag stands for every recording in it.

    Recordings of one file name in several folders are called by folder and name.

    Args:
        paths: Files and folders.
        joints: The robot's joints, in its order.
        aliases: Other names by which recordings call joints.
        any_unit: Take measured angles beyond a turn; for those who look for a wrong scale.
        topics: Of bags.
        effort: Read measured torques or currents, which recordings must have then, and no commands.

    Raises:
        LogError: A recording cannot be trusted, there is none, or one is given twice.
    """
    from sim2real.recordings.lerobot import is_lerobot, read_lerobot  # noqa: PLC0415 (it builds on this module)

    files = list_recordings(paths)
    logs: list[JointLog] = []
    for file, name in zip(files, names_of(files), strict=True):
        if is_lerobot(file):
            if effort:
                raise LogError(f"{file} is a LeRobot data set; torques and currents are read of .npz, .csv and bags")
            episodes = read_lerobot(file, joints, aliases)
            for log in episodes:
                check_log(log, file, any_unit=any_unit)
            logs += [replace(log, name=f"{name}/{log.name}") for log in episodes]
        else:
            log = read_log(file, joints, aliases, any_unit=any_unit, topics=topics, effort=effort)
            logs.append(replace(log, name=name))
    return logs


def list_recordings(paths: Iterable[Path]) -> list[Path]:
    """Recordings of joints that ``paths`` stand for. Raises as :func:`list_files` does."""
    return list_files(paths, _SUFFIXES, "recordings (.npz, .csv, .mcap, rosbag2 folders or LeRobot data sets)")


def list_files(paths: Iterable[Path], suffixes: Sequence[str], kinds: str) -> list[Path]:
    """Files and rosbag2 folders that ``paths`` stand for.

    Raises:
        LogError: A folder holds nothing of these ``kinds``.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir() and not _is_recording(path):
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes or _is_recording(p))
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
    effort: Effort | None = None,
) -> JointLog:
    """Read and check one recording.

    Raises:
        LogError: It is missing, of no known kind, lacks a joint, or :func:`check_log` refuses it.
    """
    from sim2real.recordings.joint_files import read_csv_log, read_npz_log  # noqa: PLC0415 (they build on this module)
    from sim2real.recordings.sage import is_sage, read_sage  # noqa: PLC0415

    if not path.exists():
        raise LogError(f"{path} does not exist")
    suffix = path.suffix.lower()
    if _is_bag(path) or suffix in (".mcap", ".db3"):
        from sim2real.recordings.joint_bags import read_joint_bag  # noqa: PLC0415 (rosbags is needed for bags only)

        log = read_joint_bag(path, tuple(joints), aliases, topics, effort is not None)
    elif is_sage(path):
        log = read_sage(path, tuple(joints), aliases)
    elif suffix == ".npz" and path.is_file():
        log = read_npz_log(path, tuple(joints), aliases, effort)
    elif suffix == ".csv" and path.is_file():
        log = read_csv_log(path, tuple(joints), aliases, effort)
    else:
        what = f"this is {_ELSEWHERE[suffix]}; " if suffix in _ELSEWHERE else ""
        raise LogError(f"{path}: {what}{_HOW}")
    if effort:
        if log.effort is None:
            raise LogError(f"{path} has no {'currents' if effort.of_current else 'torques'} of every joint; {log.note}")
        log = replace(log, effort=effort.factor * log.effort)
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
        if label in ("command", "position"):
            for name, column in zip(log.joint_names, values.T, strict=True):
                if fault := woven(column, label):
                    raise LogError(f"{path}: {label} of '{name}' {fault}")
        if label == "command" or (label == "position" and not any_unit):
            row, column = np.unravel_index(int(np.abs(values).argmax()), values.shape)
            if abs(values[row, column]) > LARGEST_RAD:
                raise LogError(
                    f"{path}: {label} of '{log.joint_names[column]}' is {values[row, column]:.4g} in row {row}, more "
                    "than a turn; angles are radians, convert degrees first"
                )
    check_stamps(log.time, path)


def woven(values: Array, label: str) -> str:
    """A sentence if a signal [T] rad jumps to another one and back all the time, as two publishers make it; or ""."""
    if len(values) < 3:
        return ""
    before, here, after = values[:-2], values[1:-1], values[2:]
    off = np.abs(here - 0.5 * (before + after))
    rows = np.nonzero(
        (off > max(WOVEN_RAD[label], WOVEN_SIZE * float(np.ptp(values)))) & (off > 4.0 * np.abs(after - before))
    )[0]
    if len(rows) < max(WOVEN_ROWS, WOVEN * len(values)):
        return ""
    at = int(rows[len(rows) // 2])
    return (
        f"jumps there and back in {len(rows)} of {len(values)} rows (rows {at} to {at + 2}: {values[at]:.3f}, "
        f"{values[at + 1]:.3f}, {values[at + 2]:.3f} rad): two sources are woven into it. Stop one of them and record "
        "again ('ros2 topic info -v TOPIC' names the publishers)"
    )


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


def _is_bag(path: Path) -> bool:
    return path.is_dir() and (path / "metadata.yaml").is_file()


def _is_recording(path: Path) -> bool:
    """Tell whether a folder is one recording or data set by itself."""
    from sim2real.recordings.lerobot import is_lerobot  # noqa: PLC0415 (they build on this module)
    from sim2real.recordings.sage import is_sage  # noqa: PLC0415

    return _is_bag(path) or is_lerobot(path) or is_sage(path)
