"""Which topics of a bag hold an arm's commands and measurements, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sim2real.recordings.bags import BagMessage, open_bag
from sim2real.recordings.logs import Topics
from sim2real.recordings.tables import LogError

STATE_TYPE = "sensor_msgs/msg/JointState"
CONTROLLER_TYPE = "control_msgs/msg/JointTrajectoryControllerState"  # holds commands and measurements
ARRAY_TYPE = "std_msgs/msg/Float64MultiArray"
COMMAND_TYPES = (STATE_TYPE, "trajectory_msgs/msg/JointTrajectory", ARRAY_TYPE)
COMMAND_WORDS = ("command", "cmd", "target", "goal", "desired", "trajectory", "action", "reference", "setpoint")
LEADER_WORDS, FOLLOWER_WORDS = ("leader", "master", "teleop"), ("follower", "slave", "puppet")


def read_topics(path: Path, given: Topics, effort: bool = False) -> tuple[list[BagMessage], list[BagMessage]]:
    """Messages of measurements and of commands, in the order of receipt; of measurements alone for their effort.

    Raises:
        LogError: Topics are missing or ambiguous.
    """
    with open_bag(path) as bag:
        kinds = bag.types
        states, commands = find_topics(kinds, given, path, effort)
        messages = list(bag.messages({*states, *commands}))
    measured = [_one(m, ("feedback", "actual"), path) if kinds[m.topic] == CONTROLLER_TYPE else m
                for m in messages if m.topic in states]  # fmt: skip
    sent = [_one(m, ("reference", "desired"), path) if kinds[m.topic] == CONTROLLER_TYPE else m
            for m in messages if m.topic in commands]  # fmt: skip
    if not measured or not (sent or effort):
        raise LogError(
            f"{path} has {len(measured)} messages on {', '.join(states)} and {len(sent)} on {', '.join(commands)}"
        )
    return measured, sent


def find_topics(
    kinds: Mapping[str, str], given: Topics, path: Path, effort: bool = False
) -> tuple[list[str], list[str]]:
    """Topics of states and of commands.

    Args:
        kinds: Message type by topic.
        given: In place of those found.
        path: The bag, for errors.
        effort: Find none of commands.
    """
    usable = (*COMMAND_TYPES, CONTROLLER_TYPE)
    unknown = [topic for topic in (*given.state, *given.command) if kinds.get(topic) not in usable]
    if unknown:
        raise LogError(f"{path} has no joint topic {', '.join(unknown)}; it has {', '.join(sorted(kinds))}")
    if silent := [topic for topic in given.state if kinds[topic] not in (STATE_TYPE, CONTROLLER_TYPE)]:
        raise LogError(f"{path}: {silent[0]} is {kinds[silent[0]]}; --state-topic needs a {STATE_TYPE}")
    known = sorted(topic for topic, kind in kinds.items() if kind in COMMAND_TYPES and topic not in given.state)
    both = sorted(topic for topic, kind in kinds.items() if kind == CONTROLLER_TYPE)

    def named(part: Callable[[str], str]) -> list[str]:
        return [topic for topic in known if any(word in part(topic).lower() for word in COMMAND_WORDS)]

    # The last part of a name says what it is; what is before it may say whose it is.
    commands = list(given.command) or named(lambda topic: topic.rpartition("/")[2]) or named(str) or both
    states = list(given.state) or [t for t in known if kinds[t] == STATE_TYPE and t not in commands] or both
    if not commands and len(states) > 1:
        which = "say which one was measured with --state-topic" if effort else _which(states)
        raise LogError(f"{path} holds several topics of joint states, {', '.join(states)}; {which}")
    if effort and states:
        return states, []
    for found, what, option in (
        (states, f"measured {STATE_TYPE}", "--state-topic"),
        (commands, f"commands ({' or '.join(COMMAND_TYPES)})", "--command-topic"),
    ):
        if not found:
            raise LogError(
                f"{path} needs a topic of {what}, none is known among {', '.join(sorted(kinds)) or 'no topics'}; name "
                f"it with {option}, or record it too: a motion is judged by commands and measurements"
            )
    return states, commands


def _which(states: Sequence[str]) -> str:
    """Options that say which of several topics commands and which measures."""
    leads = [t for t in states if any(word in t.lower() for word in LEADER_WORDS)]
    follows = [t for t in states if any(word in t.lower() for word in FOLLOWER_WORDS)]
    if len(leads) == len(follows) == 1:
        return f"of a teleoperated arm give --command-topic {leads[0]} --state-topic {follows[0]}"
    return "say which one commands, --command-topic TOPIC, and which one was measured, --state-topic TOPIC"


def _one(message: BagMessage, names: Sequence[str], path: Path) -> BagMessage:
    """One side of a controller's state, as a joint state; distributions name the sides differently."""
    content: Any = message.content
    point = next((getattr(content, name) for name in names if hasattr(content, name)), None)
    if point is None:
        raise LogError(f"{path}: messages on {message.topic} have none of {', '.join(names)}")
    side = SimpleNamespace(
        name=list(content.joint_names), position=point.positions, velocity=point.velocities, effort=point.effort
    )
    return replace(message, content=side)


def array_names(
    messages: Sequence[BagMessage], joints: tuple[str, ...], order: Sequence[str], path: Path
) -> dict[str, tuple[str, ...]]:
    """Joints of topics whose commands are arrays without names: the robot's order, over all such topics together.

    Args:
        messages: Commands.
        joints: The robot's.
        order: Topics as they were given; else longer arrays go first, an arm before its gripper.
        path: The bag, for errors.

    Raises:
        LogError: The arrays do not have as many values as the robot has joints.
    """
    sizes = {m.topic: len(m.content.data) for m in messages if hasattr(m.content, "data")}
    topics = [t for t in order if t in sizes] or sorted(sizes, key=lambda topic: (-sizes[topic], topic))
    if topics and sum(sizes.values()) != len(joints):
        listed = ", ".join(f"{sizes[topic]} on {topic}" for topic in topics)
        raise LogError(
            f"{path}: commands hold values without names, {listed}; the robot has {len(joints)} joints: "
            "name the topics that belong to it with --command-topic"
        )
    names, first = {}, 0
    for topic in topics:
        names[topic] = joints[first : first + sizes[topic]]
        first += sizes[topic]
    return names
