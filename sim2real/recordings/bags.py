"""Bags (rosbag2 folders, MCAP and sqlite3 files) read without ROS 2."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sim2real.recordings.tables import LogError, yaml_fault

# What rosbags and the decompressors raise on damaged files.
_BROKEN = (
    OSError, ValueError, AssertionError, LookupError, ArithmeticError, RuntimeError, TypeError, EOFError, MemoryError,
    struct.error,
)  # fmt: skip


def seconds(stamp: Any) -> float:
    """A ``builtin_interfaces`` Time or Duration in seconds."""
    return float(stamp.sec + 1e-9 * stamp.nanosec)


@dataclass(frozen=True)
class BagMessage:
    """One message of a bag.

    Attributes:
        topic: Its topic.
        number: Its position among the messages of its topic as they were received, from 0.
        received_s: Time of receipt, s.
        sent_s: Stamp in its header, s; 0 where it carries none.
        content: The message; fields are named as in ROS 2.
    """

    topic: str
    number: int
    received_s: float
    sent_s: float
    content: Any

    def time(self, by_header: bool) -> float:
        """Stamp or time of receipt, s."""
        return self.sent_s if by_header else self.received_s


class Bag:
    """An open bag.

    Args:
        path: The bag, for errors.
        reader: Reader of rosbags.

    Attributes:
        path: The bag.
        types: Message type of every topic.
    """

    def __init__(self, path: Path, reader: Any) -> None:
        self.path, self._reader = path, reader
        self.types: dict[str, str] = {c.topic: c.msgtype for c in reader.connections}

    def count(self, topics: Collection[str | None]) -> int:
        """Messages on these topics."""
        return sum(c.msgcount for c in self._reader.connections if c.topic in topics)

    def messages(self, topics: Collection[str | None]) -> Iterator[BagMessage]:
        """Messages on these topics, in the order they were received.

        Raises:
            LogError: The bag is damaged.
        """
        chosen = [c for c in self._reader.connections if c.topic in topics]
        reading = iter(self._reader.messages(chosen)) if chosen else iter(())
        count: Counter[str] = Counter()
        while True:
            with _faults_named(self.path):
                try:
                    connection, received, raw = next(reading)
                except StopIteration:
                    return
                content = self._reader.deserialize(raw, connection.msgtype)
                sent_s = seconds(content.header.stamp) if hasattr(content, "header") else 0.0
            yield BagMessage(connection.topic, count[connection.topic], 1e-9 * received, sent_s, content)
            count[connection.topic] += 1


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a rosbag2 folder, or an ``.mcap`` or ``.db3`` file.

    Raises:
        LogError: rosbags is not installed, or this is no readable bag.
    """
    try:
        from rosbags.highlevel import AnyReader  # noqa: PLC0415
        from rosbags.typesys import Stores, get_typestore  # noqa: PLC0415
    except ImportError as error:
        raise LogError(f"{path}: reading bags needs rosbags: pip install -U rosbags") from error
    if not path.exists():
        raise LogError(f"{path} does not exist; give a rosbag2 folder or an .mcap file")
    folder = path
    if path.suffix.lower() == ".db3":
        folder = path.parent
        if not (folder / "metadata.yaml").is_file():
            raise LogError(f"{path}: an sqlite3 bag is read with the metadata.yaml beside it, and there is none")
    with _faults_named(path):
        reader = AnyReader([folder], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        reader.open()
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn everything that rosbags raises on damaged files into one error."""
    from apsw import Error as DatabaseError  # noqa: PLC0415 (rosbags brings it)
    from rosbags.highlevel.anyreader import AnyReaderError  # noqa: PLC0415
    from rosbags.rosbag2 import ReaderError  # noqa: PLC0415

    try:
        yield
    except (AnyReaderError, ReaderError, DatabaseError, *_BROKEN) as error:
        raise LogError(f"{path} is not a readable bag: {_fault(path, error)}") from error


def _fault(path: Path, error: Exception) -> str:
    """The fault of a bag in one line; of its metadata with the line."""
    metadata = (path if path.is_dir() else path.parent) / "metadata.yaml"
    try:
        yaml.safe_load(metadata.read_text())
    except yaml.MarkedYAMLError as fault:
        return f"{metadata.name}, {yaml_fault(fault)}; mend it, or write it again with 'ros2 bag reindex'"
    except (OSError, ValueError, yaml.YAMLError):
        pass
    return yaml_fault(error) or type(error).__name__
