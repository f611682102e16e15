"""Joint recordings in rosbag2 (MCAP and sqlite3), read without ROS 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.identify.logs import JointLog, LogError, match_joints

Array = NDArray[np.float64]

STATE_TYPE = "sensor_msgs/msg/JointState"
COMMAND_TYPES = (STATE_TYPE, "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray")
COMMAND_WORDS = ("command", "cmd", "target", "goal", "desired", "trajectory")


def read_bag(path: Path, joints: tuple[str, ...], aliases: Mapping[str, str]) -> JointLog:
    """Read one bag: the measured ``JointState`` and the commands in force at each of its stamps.

    The command topic is the one whose name holds a word like "command", "cmd" or "target".

    Raises:
        LogError: Not a bag, rosbags is not installed, topics are missing or ambiguous, joints are missing.
    """
    try:
        from rosbags.highlevel import AnyReader  # noqa: PLC0415
        from rosbags.highlevel.anyreader import AnyReaderError  # noqa: PLC0415
        from rosbags.typesys import Stores, get_typestore  # noqa: PLC0415
    except ImportError as error:
        raise LogError(f"{path}: reading bags needs rosbags: pip install rosbags") from error
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            state_topic, command_topic = _topics(reader.connections, path)
            states: list[tuple[int, Any]] = []
            commands: list[tuple[int, Any]] = []
            for connection, stamp, raw in reader.messages():
                if connection.topic in (state_topic, command_topic):
                    message = reader.deserialize(raw, connection.msgtype)
                    (states if connection.topic == state_topic else commands).append((stamp, message))
    except (AnyReaderError, OSError, ValueError) as error:
        raise LogError(f"{path} is not a readable bag: {error}") from error
    if not states or not commands:
        raise LogError(f"{path} has {len(states)} messages on {state_topic} and {len(commands)} on {command_topic}")
    return _merge(path, joints, aliases, states, commands)


def _topics(connections: Sequence[Any], path: Path) -> tuple[str, str]:
    kinds = {c.topic: c.msgtype for c in connections}
    commands = sorted(t for t, k in kinds.items() if k in COMMAND_TYPES and any(w in t.lower() for w in COMMAND_WORDS))
    states = sorted(t for t, k in kinds.items() if k == STATE_TYPE and t not in commands)
    for found, what in ((states, f"measured {STATE_TYPE}"), (commands, f"command ({' or '.join(COMMAND_TYPES)})")):
        if len(found) != 1:
            seen = f"{', '.join(found) or 'none'} among {', '.join(sorted(kinds))}"
            raise LogError(f"{path} needs one topic of {what}, it has {seen}")
    return states[0], commands[0]


def _merge(
    path: Path, joints: tuple[str, ...], aliases: Mapping[str, str], states: list[Any], commands: list[Any]
) -> JointLog:
    state_order = match_joints(list(states[0][1].name), joints, aliases, path)
    time = np.array([_stamp(message, received) for received, message in states])
    sent = np.array([received * 1e-9 for received, _ in commands])
    values = np.array([_command(message, joints, aliases, path) for _, message in commands])
    # The command in force at every state, and none before the first.
    first = int(np.searchsorted(time, sent[0]))
    time = time[first:]
    index = np.searchsorted(sent, time, side="right") - 1

    def column(label: str) -> Array | None:
        rows = [getattr(message, label) for _, message in states[first:]]
        if not rows or any(len(row) != len(states[0][1].name) for row in rows):
            return None
        return np.array(rows, dtype=np.float64)[:, state_order]

    position = column("position")
    if position is None:
        raise LogError(f"{path}: the measured joint states hold no positions, or none after the first command")
    start = time[0] if len(time) else 0.0
    return JointLog(path.stem, joints, time - start, values[index], position, column("velocity"), column("effort"))


def _stamp(message: Any, received_ns: int) -> float:
    stamp = float(message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)
    return stamp if stamp > 0.0 else received_ns * 1e-9


def _command(message: Any, joints: tuple[str, ...], aliases: Mapping[str, str], path: Path) -> Array:
    if hasattr(message, "name"):
        return np.array(message.position)[match_joints(list(message.name), joints, aliases, path)]
    if hasattr(message, "joint_names"):
        return np.array(message.points[-1].positions)[match_joints(list(message.joint_names), joints, aliases, path)]
    values = np.array(message.data, dtype=np.float64)
    if len(values) != len(joints):
        raise LogError(f"{path}: commands hold {len(values)} values without names, the robot has {len(joints)} joints")
    return values
