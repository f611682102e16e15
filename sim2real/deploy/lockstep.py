"""Simulated time that waits for the policy: one control period for every command that answers the newest state.

A target in lockstep does not depend on how busy the computer is. The driver node publishes ``clock`` and a state; the
policy node, with ``use_sim_time``, publishes a command and then the stamp of the state it answers, on ``answered``.
"""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from sim2real.deploy.messages import NEWEST

FIRST_S = 1.0  # ROS 2 takes time zero for a clock that has not started
IDLE_S = 0.05  # wall time between publications without an answer
SILENCE_S = 5.0  # wall time without an answer after which the log says so


class Lockstep:
    """The driver node's side.

    Args:
        node: Where the topics live; it logs there too.
        period_s: Control period, s of simulated time.
        publish: Publishes the robot's state with this stamp.
        act: Applies a command and advances the robot by one period.
        armed: Whether the robot may move; while it may not, time passes without it.
    """

    def __init__(
        self,
        node: Node,
        period_s: float,
        publish: Callable[[Time], None],
        act: Callable[[dict[str, float]], None],
        armed: Callable[[], bool],
    ) -> None:
        self._node, self._publish, self._act, self._armed = node, publish, act, armed
        self._period_ns, self._now_ns = round(1e9 * period_s), round(1e9 * FIRST_S)
        self._news = threading.Condition()
        self._command: dict[str, float] | None = None
        self._answered_ns = -1
        self._clock = node.create_publisher(Clock, "clock", NEWEST)
        node.create_subscription(Clock, "answered", self._on_answered, NEWEST)

    def on_command(self, command: dict[str, float]) -> None:
        """Keep a command until the policy says which state it answers."""
        with self._news:
            self._command = command
            self._news.notify_all()

    def _on_answered(self, message: Clock) -> None:
        with self._news:
            self._answered_ns = _nanoseconds(message.clock)
            self._news.notify_all()

    def stamp(self) -> Time:
        """Simulated time now."""
        return Time(sec=self._now_ns // 10**9, nanosec=self._now_ns % 10**9)

    def run(self, closing: threading.Event) -> None:
        """Publish, wait, act, until ``closing`` is set."""
        heard_s = time.monotonic()
        while not closing.is_set():
            self._clock.publish(Clock(clock=self.stamp()))
            self._publish(self.stamp())
            command = self._wait()
            if command is None and self._armed():
                # The same state again, for who has missed it: nobody else takes an old stamp.
                self._complain(time.monotonic() - heard_s)
                continue
            if command is not None:
                self._act(command)
            heard_s = time.monotonic()
            self._now_ns += self._period_ns

    def _wait(self) -> dict[str, float] | None:
        """The command that answers the newest state, or None where none comes for a while."""
        with self._news:
            self._news.wait_for(lambda: self._command is not None and self._answered_ns == self._now_ns, IDLE_S)
            if self._command is None or self._answered_ns != self._now_ns:
                return None
            command, self._command = self._command, None
            return command

    def _complain(self, silence_s: float) -> None:
        if silence_s > SILENCE_S:
            self._node.get_logger().error(
                f"no command for the state at {1e-9 * self._now_ns:.3f} s of simulated time for {silence_s:.0f} s; the "
                "robot waits: is the policy node active, and does it run with use_sim_time?",
                throttle_duration_sec=SILENCE_S,
            )


def _nanoseconds(stamp: Time) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
