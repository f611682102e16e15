"""Joint recordings in bags.

Messages need not name all joints, nor in the same order: every joint has a stream of its own, and the joints that
were measured most often set the rows of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.recordings.bags import BagMessage, seconds
from sim2real.recordings.joint_topics import array_names, read_topics
from sim2real.recordings.logs import FOUND, JointLog, Topics, check_stamps, woven
from sim2real.recordings.tables import LogError, canonical_names, prefixed
from sim2real.types import Array

STATES = ("position", "velocity", "effort")
LEAP_S = 0.3  # more than messages are delayed by
SKEW_S = 0.05  # stamps further from the time of receipt, in the middle, are of another clock


@dataclass
class _Stream:
    """Messages about one joint: times [N] s, what each said, and its number."""

    times: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)


def read_joint_bag(
    path: Path, joints: tuple[str, ...], aliases: Mapping[str, str], topics: Topics = FOUND, effort: bool = False
) -> JointLog:
    """Read one bag: the measured ``JointState`` and the commands in force at each of its stamps.

    Command topics are those whose name holds a word like "command", "cmd", "target" or "action". Several topics may
    share the joints of the robot between them. A trajectory of one point is a command to go there; one of several
    points is interpolated by ``time_from_start``. Times are the messages' stamps; where a message has none, or the
    stamps are of another clock than the recorder's, the time of receipt of all.

    Args:
        path: A rosbag2 folder, or an ``.mcap`` or ``.db3`` file.
        joints: The robot's joints, in its order.
        aliases: Other names of joints.
        topics: To be read in place of those found.
        effort: Read states for their effort, and no commands.

    Raises:
        LogError: Not a bag, rosbags is not installed, topics are missing or ambiguous, joints are missing, stamps of a
            topic decrease, values are no numbers.
    """
    measured, sent = read_topics(path, topics, effort)
    arrays = array_names(sent, joints, topics.command, path)
    by_header, note = _clock(measured, sent)
    for messages in (measured, sent):
        _check_order(path, [m for m in messages if m.sent_s > 0.0], arrays)
    if len(arrays) > 1:
        parts = [f"{', '.join(names)} from {topic}" for topic, names in arrays.items()]
        note = "; ".join(filter(None, (note, f"commands have no names and are taken as {' and '.join(parts)}")))
    read = partial(_streams, path, joints, aliases, by_header=by_header, arrays=arrays)
    state = read(measured, values=lambda m, c: _measured(path, m, c), option="--state-topic")
    command = [] if effort else read(sent, values=lambda m, c: _points(path, m, c), option="--command-topic")
    _check_publishers(path, joints, state, command)
    known = {label for label in STATES[1:] if any(len(getattr(m.content, label)) for m in measured)}
    left_out = _check_states(path, joints, state, known)
    return _merge(path, joints, state, command, "; ".join(filter(None, (note, *left_out))))


def _clock(measured: Sequence[BagMessage], sent: Sequence[BagMessage]) -> tuple[bool, str]:
    """Decide between the messages' own stamps (True) and times of receipt, with a note about it."""
    why = ""
    for messages, what in ((measured, "states"), (sent, "commands"))[: 2 if sent else 1]:
        stamped = np.array([m.sent_s for m in messages])
        late = float(np.median([m.received_s for m in messages] - stamped))
        if (stamped <= 0.0).any():
            why = why or f"{what} carry no stamps"
        elif abs(late) > SKEW_S:
            why = why or f"stamps of {what} are {late:+.3g} s from their receipt"
    return not why, f"{why}; times are those of receipt" if why else ""


def _check_order(path: Path, messages: Sequence[BagMessage], arrays: Mapping[str, Sequence[str]]) -> None:
    """Refuse stamps that decrease in the order of receipt, or leap; joints published apart may interleave.

    Raises:
        LogError: Names topic, message and stamps.
    """
    last: dict[tuple[str, frozenset[str]], BagMessage] = {}
    for message in messages:
        publisher = (message.topic, frozenset(_names(message, arrays)))
        before = last.setdefault(publisher, message)
        if message.sent_s < before.sent_s:
            raise LogError(
                f"{path}: message {message.number} on {message.topic} is stamped {message.sent_s:.4f} s, message "
                f"{before.number} before it {before.sent_s:.4f} s; a clock was set or messages were delayed: cut the "
                "recording there or record again"
            )
        ahead = (message.sent_s - before.sent_s) - (message.received_s - before.received_s)
        if ahead > LEAP_S:
            raise LogError(
                f"{path}: the stamps on {message.topic} leap by {ahead:.2f} s at message {message.number}, their "
                "receipt does not; a clock was set: cut the recording there or record again"
            )
        last[publisher] = message


def _check_publishers(
    path: Path, joints: tuple[str, ...], state: Sequence[_Stream], command: Sequence[_Stream]
) -> None:
    """Refuse a topic on which two nodes publish different motions of one joint.

    Raises:
        LogError: Names joint and topic.
    """
    for label, streams in (("position", state), ("command", command)):
        for joint, stream in zip(joints if streams else (), streams, strict=True):
            first = [np.atleast_1d(value[0])[0] for value in stream.values]
            if fault := woven(np.array(first, dtype=np.float64), label):
                raise LogError(f"{path}: {label} of '{joint}' on {', '.join(stream.topics)} {fault}")


def _check_states(path: Path, joints: tuple[str, ...], state: Sequence[_Stream], known: Collection[str]) -> list[str]:
    """Check the states; what of them is left out, in words.

    Velocity or effort that a joint never has is not measured (ros2_control writes NaN then), one that it has at times
    is damaged.

    Args:
        path: The bag.
        joints: The robot's joints.
        state: Of every joint.
        known: Labels that messages hold values of.

    Raises:
        LogError: A position is no number, or a velocity or effort among others; names topic and message.
    """
    missing: dict[str, list[str]] = {}
    for joint, stream in zip(joints, state, strict=True):
        bad = ~np.isfinite(np.array(stream.values))
        for column, label in enumerate(STATES):
            rows = np.nonzero(bad[:, column])[0]
            if len(rows) == len(bad) and label != "position":
                missing.setdefault(label, []).append(joint)
            elif len(rows):
                (topic,) = stream.topics
                raise LogError(
                    f"{path}: {label} of '{joint}' is {stream.values[rows[0]][column]} in message "
                    f"{stream.numbers[rows[0]]} on {topic} ({len(rows)} such messages); cut the recording there or "
                    "record again"
                )
    return [f"{label} is left out: no numbers for {', '.join(names)}" for label, names in missing.items()
            if label in known]  # fmt: skip


def _streams(
    path: Path,
    joints: tuple[str, ...],
    aliases: Mapping[str, str],
    messages: Sequence[BagMessage],
    *,
    by_header: bool,
    arrays: Mapping[str, Sequence[str]],
    values: Callable[[BagMessage, int], Any],
    option: str,
) -> list[_Stream]:
    """Sort messages by joint, each in the order of time.

    Raises:
        LogError: A joint is never named, named twice in a message, or named on several topics.
    """
    streams = [_Stream() for _ in joints]
    columns: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    everything = sorted({name for message in messages for name in _names(message, arrays)})
    if not set(joints) <= set(canonical_names(everything, joints, aliases)):
        aliases = {**aliases, **prefixed(everything, joints, aliases)}
    seen: list[str] = []
    for message in sorted(messages, key=lambda m: m.time(by_header)):
        names = tuple(_names(message, arrays))
        if names not in columns:
            known = canonical_names(names, joints, aliases)
            twice = [name for name in joints if known.count(name) > 1]
            if twice:
                raise LogError(f"{path} holds the joint '{twice[0]}' more than once in a message on {message.topic}")
            columns[names] = [(known.index(name), j) for j, name in enumerate(joints) if name in known]
            seen += [name for name in names if name not in seen]
        for column, joint in columns[names]:
            streams[joint].times.append(message.time(by_header))
            streams[joint].values.append(values(message, column))
            streams[joint].numbers.append(message.number)
            streams[joint].topics.add(message.topic)
    for name, stream in zip(joints, streams, strict=True):
        if not stream.times:
            raise LogError(f"{path} lacks the joint '{name}'; it has {', '.join(seen)}, the robot {', '.join(joints)}")
        if len(stream.topics) > 1:
            raise LogError(
                f"{path}: '{name}' is on several topics, {', '.join(sorted(stream.topics))}; choose with {option}"
            )
    return streams


def _names(message: BagMessage, arrays: Mapping[str, Sequence[str]]) -> Sequence[str]:
    content = message.content
    if hasattr(content, "name"):
        return list(content.name)
    return list(content.joint_names) if hasattr(content, "joint_names") else arrays[message.topic]


def _measured(path: Path, message: BagMessage, column: int) -> tuple[float, float, float]:
    """Position, velocity and effort of one joint; NaN where a message holds none."""
    content, count = message.content, len(message.content.name)
    if len(content.position) != count:
        raise LogError(f"{path}: a joint state on {message.topic} holds {len(content.position)} positions of {count}")
    position, velocity, effort = (
        float(values[column]) if len(values) == count else np.nan
        for values in (content.position, content.velocity, content.effort)
    )
    return position, velocity, effort


def _points(path: Path, message: BagMessage, column: int) -> tuple[Array, Array]:
    """Commanded positions of one joint [P] rad, and when, seconds after the message [P]; 0 for a single one."""
    content = message.content
    if hasattr(content, "joint_names"):
        if not len(content.points) or any(len(p.positions) != len(content.joint_names) for p in content.points):
            raise LogError(f"{path}: a trajectory on {message.topic} has no points, or points without positions")
        values = _finite(path, message, [point.positions[column] for point in content.points])
        after = np.array([seconds(p.time_from_start) for p in content.points])
        if (np.diff(after) <= 0.0).any():
            raise LogError(f"{path}: the points of a trajectory on {message.topic} do not follow each other in time")
        return values, after if len(after) > 1 else np.zeros(1)
    values = content.position if hasattr(content, "name") else content.data
    if hasattr(content, "name") and len(values) != len(content.name):
        raise LogError(f"{path}: a command on {message.topic} holds {len(values)} positions of {len(content.name)}")
    if column >= len(values):
        raise LogError(f"{path}: message {message.number} on {message.topic} holds {len(values)} values, others more")
    return _finite(path, message, [values[column]]), np.zeros(1)


def _finite(path: Path, message: BagMessage, values: Sequence[float]) -> Array:
    result = np.array(values, dtype=np.float64)
    bad = result[~np.isfinite(result)]
    if len(bad):
        raise LogError(f"{path}: a command in message {message.number} on {message.topic} is {bad[0]}; record again")
    return result


def _merge(
    path: Path, joints: tuple[str, ...], state: Sequence[_Stream], command: Sequence[_Stream], note: str
) -> JointLog:
    times = [np.array(stream.times) for stream in state]
    time = max(times, key=len)
    begin, end = max(stream.times[0] for stream in (*state, *command)), min(t[-1] for t in times)
    time = time[(time >= begin) & (time <= end)]
    if not len(time):
        raise LogError(f"{path}: no joint state was measured after the first command; were they recorded together?")
    parts = []
    for own, stream in zip(times, state, strict=True):
        check_stamps(own - own[0], path)
        values = np.array(stream.values)
        parts.append(np.stack([np.interp(time, own, values[:, i]) for i in range(3)], axis=1))
    position, velocity, effort = np.stack(parts, axis=2).transpose(1, 0, 2)
    return JointLog(
        path.stem,
        joints,
        time - time[0],
        np.stack([_in_force(stream, time) for stream in command], axis=1) if command else position,
        position,
        velocity if np.isfinite(velocity).all() else None,
        effort if np.isfinite(effort).all() else None,
        note,
    )


def _in_force(stream: _Stream, time: Array) -> Array:
    """The command [T] rad of one joint at every time [T]: of the newest message, and what was asked before it."""
    starts = np.array(stream.times)
    result = np.empty(len(time))
    index = np.searchsorted(starts, time, side="right") - 1
    before = float(stream.values[0][0][0])
    for number, (values, after) in enumerate(stream.values):
        moments, positions = (after, values)
        if after[0] > 0.0:
            moments, positions = np.concatenate(([0.0], after)), np.concatenate(([before], values))
        rows = index == number
        result[rows] = np.interp(time[rows] - starts[number], moments, positions)
        if number + 1 < len(starts):
            before = float(np.interp(starts[number + 1] - starts[number], moments, positions))
    return result
