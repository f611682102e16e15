"""The executor all our nodes spin in, and how a process runs one of them."""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from sim2real.errors import ConfigError, Sim2RealError

try:
    from rclpy.experimental.events_executor import EventsExecutor
except ImportError:  # rclpy before 7.1.5
    EventsExecutor = None  # type: ignore[assignment]

REST_S = 4.0  # the longest an end waits for a robot to come to rest


def make_executor(context: rclpy.Context | None = None) -> Executor:
    """A single-threaded executor, the event-driven one where rclpy has it.

    The classic one builds a wait set for every message: at 100 Hz of state it costs a node most of its
    processor time.
    """
    if EventsExecutor is not None:
        return EventsExecutor(context=context)
    return SingleThreadedExecutor(context=context)


def positive_parameter(node: Node, name: str, default: float) -> float:
    """Declare a parameter that is a number above 0, written with or without a point.

    Raises:
        ConfigError: It is something else.
    """
    value = node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True)).value
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"parameter '{name}' is {value!r}; it must be a number above 0, such as {default:g}")
    return float(value)


def run_node(
    name: str,
    make: Callable[[], Node],
    argv: list[str] | None,
    errors: tuple[type[Exception], ...] = (),
    at_rest: Callable[[Any], bool] = lambda node: True,
) -> int:
    """Make a node and run it until SIGINT or SIGTERM.

    Args:
        name: For the log, where the node cannot be made.
        make: Makes it, once ROS 2 is there.
        argv: Arguments with ROS 2 parameters; the process's own by default.
        errors: Errors besides ours that end the node with one line.
        at_rest: Called with the node after the signal, until it is True, at most for REST_S.

    Returns:
        0 after a requested end, 1 if the node could not be made or had to give up.
    """
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    executor = make_executor()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node: Node | None = None
    expected: tuple[type[Exception], ...] = (*errors, ParameterException, Sim2RealError)
    try:
        node = make()
        executor.add_node(node)
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
        until = time.monotonic() + REST_S
        while not at_rest(node) and time.monotonic() < until:
            executor.spin_once(timeout_sec=0.02)
    except expected as error:
        get_logger(name).fatal(str(error))
        return 1
    except ExternalShutdownException:
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        executor.shutdown()
        try_shutdown()
    return 0
