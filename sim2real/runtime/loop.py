"""A function at a fixed rate in a thread of its own: an rclpy timer would wait for callbacks.

A free-running 50 Hz loop acts on data that is up to one message interval old. This loop therefore
begins a cycle with the message that arrives around the time it is due, and all the same when none
does. The schedule itself does not follow the messages: it keeps its rate, whatever theirs is, and
only its phase is pulled towards their arrival, by at most 0.5 % of a period a cycle.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

LATE_SHARE = 0.2
TOO_LATE = 0.05  # fraction of late cycles from which results say more about the computer than about the policy
WINDOW_SHARE = 0.15  # a message this close to when a cycle is due begins it
PULL_GAIN = 0.1
PULL_SHARE = 0.005
SHORTEST_GAP_SHARE = 0.5
_RING = 16384
EARLY_SHARE = 0.95  # of a period after the last state: stamps are rounded
_LOOK_S = 0.1  # how long a loop may take to see that it is stopped


class DataClock(Protocol):
    """When messages arrive, on the monotonic clock."""

    def wait_for_new(self, since_s: float, timeout_s: float) -> bool:
        """Wait until a message has arrived at ``since_s`` or later; False when the time is up."""

    def arrival_s(self) -> float:
        """When the newest message arrived; minus infinity before the first."""

    def interval_s(self) -> float:
        """Mean time between messages; 0 while unknown."""


@dataclass(frozen=True)
class LoopFigures:
    """Quality of the rate that was held.

    Attributes:
        cycles: Calls so far.
        late: Calls that began later than 20 % of the period after they were due, missed ones included.
        jitter_p50_ms, jitter_p99_ms: How far from due calls begin.
        duration_p50_ms, duration_p99_ms: How long calls take.
    """

    cycles: int
    late: int
    jitter_p50_ms: float
    jitter_p99_ms: float
    duration_p50_ms: float
    duration_p99_ms: float


class Lateness:
    """Fraction of what is late in the last ``calls`` updates of two counters."""

    def __init__(self, calls: int) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=calls + 1)

    def update(self, late: float, total: float) -> float:
        """Take in both counters; a total that has become smaller begins anew."""
        if self._seen and total < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((late, total))
        gone = total - self._seen[0][1]
        return (late - self._seen[0][0]) / gone if gone > 0.0 else 0.0


class Loop(Protocol):
    """Calls a function again and again in a thread of its own."""

    def start(self) -> None:
        """Begin; harmless when running."""

    def stop(self) -> None:
        """End after the call in progress; harmless when not running."""

    def figures(self) -> LoopFigures:
        """Quality of the rate that was held."""


class StateLoop:
    """Calls ``function`` with every state that is a period newer than the last, the newest at the start.

    It is for simulated time, in which states arrive at their stamps.

    Args:
        period_s: Control period, s; states that come more often are left out.
        function: What to call.
        on_error: Called with an exception of ``function``; the loop ends after it.
        data: Where states arrive.
    """

    def __init__(
        self, period_s: float, function: Callable[[], None], on_error: Callable[[Exception], None], data: DataClock
    ) -> None:
        self._period, self._function, self._on_error, self._data = period_s, function, on_error, data
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._cycles = 0

    def start(self) -> None:
        """Begin with the state that is there."""
        if self._thread is None:
            self._stop.clear()
            self._cycles = 0
            self._thread = threading.Thread(target=self._run, name="control_loop", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the call in progress; harmless when not running."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _run(self) -> None:
        since = -math.inf
        while not self._stop.is_set():
            if not self._data.wait_for_new(since, _LOOK_S):
                continue
            since = self._data.arrival_s() + EARLY_SHARE * self._period
            try:
                self._function()
            except Exception as error:  # noqa: BLE001 - whatever it is, the robot must be brought to hold
                self._on_error(error)
                return
            self._cycles += 1

    def figures(self) -> LoopFigures:
        """The number of cycles; none can be late."""
        return LoopFigures(self._cycles, 0, 0.0, 0.0, 0.0, 0.0)


class FixedRateLoop:
    """Calls ``function`` every ``period_s``.

    A cycle is due one period after the one before was, whenever that one began. One that is missed
    altogether, or due within half a period of a late one, is skipped and counted, never made up for in a burst.

    Args:
        period_s: Period, s.
        function: What to call.
        on_error: Called with an exception of ``function``; the loop ends after it.
        data: Messages to keep in step with; without them the phase is fixed too.
    """

    def __init__(
        self,
        period_s: float,
        function: Callable[[], None],
        on_error: Callable[[Exception], None],
        data: DataClock | None = None,
    ) -> None:
        self._period, self._function, self._on_error = period_s, function, on_error
        self._data = data
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._jitter = np.zeros(_RING)
        self._duration = np.zeros(_RING)
        self._cycles = self._late = 0

    def start(self) -> None:
        """Begin; the first call is made at once."""
        if self._thread is not None:
            return
        self._stop.clear()
        self._cycles = self._late = 0
        self._thread = threading.Thread(target=self._run, name="control_loop", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the call in progress; harmless when not running."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _run(self) -> None:
        due = time.monotonic()
        if self._data is not None and self._data.wait_for_new(due, self._period):
            due = time.monotonic()  # in step from the first cycle on
        while not self._stop.is_set():
            self._await(due)
            if self._stop.is_set():  # it cut the wait short
                return
            begun = time.monotonic()
            try:
                self._function()
            except Exception as error:  # noqa: BLE001 - whatever it is, the robot must be brought to hold
                self._on_error(error)
                return
            slot = self._cycles % _RING
            self._jitter[slot], self._duration[slot] = abs(begun - due), time.monotonic() - begun
            self._cycles += 1
            self._late += begun - due > LATE_SHARE * self._period
            due += self._period + self._pull(due)
            # After a late cycle the next due time can be almost at once; the safety filter slews once a cycle.
            earliest, now = begun + SHORTEST_GAP_SHARE * self._period, time.monotonic()
            if now - due >= self._period:
                earliest = max(earliest, now)
            missed = max(0, math.ceil((earliest - due) / self._period))
            self._late += missed
            due += missed * self._period

    def _await(self, due: float) -> None:
        """Sleep until the cycle should begin: when it is due, or with a message near that time."""
        interval = self._data.interval_s() if self._data is not None else 0.0
        window = min(WINDOW_SHARE * self._period, 0.5 * interval)
        self._stop.wait(max(0.0, due - window - time.monotonic()))
        if self._data is not None and window > 0.0:
            self._data.wait_for_new(due - window, max(0.0, due + window - time.monotonic()))

    def _pull(self, due: float) -> float:
        """Shift of the schedule towards the arrival nearest to ``due``; 0 when messages have stopped."""
        if self._data is None:
            return 0.0
        arrival, interval = self._data.arrival_s(), self._data.interval_s()
        if interval <= 0.0 or abs(arrival - due) > self._period + 2.0 * interval:
            return 0.0
        error = (arrival - due + 0.5 * interval) % interval - 0.5 * interval
        limit = PULL_SHARE * self._period
        return min(max(PULL_GAIN * error, -limit), limit)

    def figures(self) -> LoopFigures:
        """Percentiles over the last calls, counts over all."""
        kept = min(self._cycles, _RING)
        jitter, duration = self._jitter[:kept] * 1e3, self._duration[:kept] * 1e3
        if kept == 0:
            return LoopFigures(0, 0, 0.0, 0.0, 0.0, 0.0)
        p50, p99 = np.percentile(jitter, (50, 99))
        d50, d99 = np.percentile(duration, (50, 99))
        return LoopFigures(self._cycles, self._late, float(p50), float(p99), float(d50), float(d99))
