"""The executor all our nodes spin in."""

from __future__ import annotations

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor

try:
    from rclpy.experimental.events_executor import EventsExecutor
except ImportError:  # rclpy before 7.1.5
    EventsExecutor = None  # type: ignore[assignment]


def make_executor(context: rclpy.Context | None = None) -> Executor:
    """A single-threaded executor, the event-driven one where rclpy has it.

    The classic one builds a wait set for every message: at 100 Hz of state it costs a node most of its
    processor time.
    """
    if EventsExecutor is not None:
        return EventsExecutor(context=context)
    return SingleThreadedExecutor(context=context)
