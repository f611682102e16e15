"""Motion capture of one rigid body: positions, and orientations where there are any; rows without a sight of it out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.recordings.bags import open_bag
from sim2real.recordings.joint_files import TIME
from sim2real.recordings.tables import LogError, numbers, read_csv, read_npz
from sim2real.types import Array

POSE_TYPES = {
    "geometry_msgs/msg/PoseStamped": ("pose", "position", "orientation"),
    "geometry_msgs/msg/TransformStamped": ("transform", "translation", "rotation"),
}
POSITIONS = ("pos", "position", "p", "translation")
QUATERNIONS = ("quat", "orientation", "q", "rotation")
FEWEST = 20
_HOW = (
    "motion capture is .csv with time, x, y, z (m) and, where known, qx, qy, qz, qw; .npz with t, pos [T, 3] and quat "
    "[T, 4] (xyzw); or a bag with PoseStamped or TransformStamped messages"
)


@dataclass(frozen=True)
class Mocap:
    """Motion capture in a frame of its own.

    Attributes:
        name: The file's.
        time: [T] s from its first row, strictly increasing; only rows in which the body was seen.
        position: [T, 3] m.
        quat: [T, 4] xyzw, unit; None where it was not recorded.
        lost: Fraction of the rows in which the body was not seen.
    """

    name: str
    time: Array
    position: Array
    quat: Array | None
    lost: float


def read_mocap(path: Path, topic: str | None = None) -> Mocap:
    """Read one file or bag.

    Args:
        path: The file.
        topic: Of a bag with several bodies.

    Raises:
        LogError: It is missing, of no known kind, a column is missing, stamps run backwards, or little is seen.
    """
    if not path.exists():
        raise LogError(f"{path} does not exist")
    if path.suffix.lower() == ".csv":
        time, position, quat = _read_csv(path)
    elif path.suffix.lower() == ".npz":
        time, position, quat = _read_npz(path)
    elif path.is_dir() or path.suffix.lower() in (".mcap", ".db3"):
        time, position, quat = _read_bag(path, topic)
    else:
        raise LogError(f"{path}: {_HOW}")
    seen = np.isfinite(time) & np.isfinite(position).all(axis=1)
    if quat is not None:
        length = np.sqrt((quat**2).sum(axis=1))
        seen &= np.isfinite(length) & (length > 0.5)
        quat = quat[seen] / length[seen, None]
    if seen.sum() < FEWEST:
        raise LogError(f"{path} holds {seen.sum()} rows of {len(seen)} with numbers; the body was hardly seen")
    steps = np.diff(time[seen])
    if (steps <= 0.0).any():
        row = np.nonzero(seen)[0][int(np.nonzero(steps <= 0.0)[0][0]) + 1]
        raise LogError(f"{path}: the stamp in row {row} is no later than the one before; sort the rows, drop doubles")
    return Mocap(path.stem, time[seen] - time[seen][0], position[seen], quat, float(1.0 - seen.mean()))


def _read_csv(path: Path) -> tuple[Array, Array, Array | None]:
    table = read_csv(path)
    time = [i for i, name in enumerate(table.header) if name.lower() in TIME]
    if len(time) != 1:
        raise LogError(f"{path} needs one column of stamps in seconds, called one of {', '.join(TIME)}; {_HOW}")

    def columns(words: tuple[str, ...], axes: str) -> list[int]:
        found = []
        for axis in axes:
            own = {f"{word}{axis}" for word in ("", "t", *words)} if axes == "xyz" else {f"{w}{axis}" for w in words}
            at = [i for i, name in enumerate(table.header) if re.sub("[^a-z]", "", name.lower()) in own]
            found += at if len(at) == 1 else []
        return found if len(found) == len(axes) else []

    place, turn = columns(POSITIONS, "xyz"), columns(QUATERNIONS, "xyzw")
    if not place:
        raise LogError(f"{path} has no columns x, y, z of one body; it has {', '.join(table.header)}. {_HOW}")

    def read(at: list[int]) -> Array:
        decimal = "," if table.comma else "."
        try:
            return np.array([[float(row[i].strip().replace(decimal, ".") or "nan") for i in at] for row in table.rows])
        except ValueError as error:
            raise LogError(f"{path}: {error}; a row in which the body was not seen holds nan or nothing") from error

    return read(time)[:, 0], read(place), read(turn) if turn else None


def _read_npz(path: Path) -> tuple[Array, Array, Array | None]:
    content = read_npz(path)
    found: list[Any] = [next((n for n in names if n in content), None) for names in (TIME, POSITIONS, QUATERNIONS)]
    if found[0] is None or found[1] is None:
        raise LogError(f"{path} has {', '.join(content)}; {_HOW}")
    arrays = [numbers(path, name, content[name]) for name in found if name]
    shapes = [(len(arrays[0]),), (len(arrays[0]), 3), (len(arrays[0]), 4)]
    for name, array, shape in zip(found, arrays, shapes, strict=False):
        if array.shape != shape:
            raise LogError(f"{path}: '{name}' is {list(array.shape)}, expected {list(shape)}")
    return arrays[0], arrays[1], arrays[2] if len(arrays) > 2 else None


def _read_bag(path: Path, topic: str | None) -> tuple[Array, Array, Array | None]:
    with open_bag(path) as bag:
        known = sorted(t for t, kind in bag.types.items() if kind in POSE_TYPES and topic in (None, t))
        if len(known) != 1:
            which = f"{', '.join(known)}; choose with --mocap-topic" if known else f"none of {sorted(bag.types)}"
            raise LogError(f"{path} needs one topic of {' or '.join(POSE_TYPES)}, it has {which}")
        whole, place, turn = POSE_TYPES[bag.types[known[0]]]
        messages = list(bag.messages(known))
    poses = [getattr(message.content, whole) for message in messages]
    by_header = all(message.sent_s > 0.0 for message in messages)
    time = np.array([message.time(by_header) for message in messages])
    position = np.array([[getattr(getattr(p, place), axis) for axis in "xyz"] for p in poses])
    return time, position, np.array([[getattr(getattr(p, turn), axis) for axis in "xyzw"] for p in poses])
