"""A function at a fixed rate in a thread of its own: an rclpy timer would wait for callbacks.

A free-running 50 Hz loop acts on data that is up to one message interval old. Around the time a
cycle is due this loop therefore waits for the next message and begins with it; when none comes it
begins all the same. Locked to a 100 Hz state topic it keeps its 50 Hz and acts at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LATE_SHARE = 0.2
EARLY_SHARE = 0.35
PATIENCE_SHARE = 0.15
_RING = 16384


@dataclass(frozen=True)
class LoopFigures:
    """How well the rate was held.

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


class FixedRateLoop:
    """Calls ``function`` every ``period_s``.

    A cycle is due one period after the one before began. One that is missed altogether is skipped
    and counted, never made up for in a burst.

    Args:
        period_s: Period, s.
        function: What to call.
        on_error: Called with an exception of ``function``; the loop ends after it.
        wait_for_data: Waits up to a time (s) for new data; without it the schedule is absolute.
    """

    def __init__(
        self,
        period_s: float,
        function: Callable[[], None],
        on_error: Callable[[Exception], None],
        wait_for_data: Callable[[float], bool] | None = None,
    ) -> None:
        self._period, self._function, self._on_error = period_s, function, on_error
        self._wait_for_data = wait_for_data
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
        while not self._stop.is_set():
            in_step = self._await(due)
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
            due = (begun if in_step else due) + self._period
            behind = time.monotonic() - due
            if behind >= self._period:
                missed = int(behind / self._period) + 1
                self._late += missed
                due += missed * self._period

    def _await(self, due: float) -> bool:
        """Sleep until the cycle should begin; True when new data began it."""
        if self._wait_for_data is None:
            self._stop.wait(max(0.0, due - time.monotonic()))
            return False
        self._stop.wait(max(0.0, due - EARLY_SHARE * self._period - time.monotonic()))
        return self._wait_for_data(max(0.0, due + PATIENCE_SHARE * self._period - time.monotonic()))

    def figures(self) -> LoopFigures:
        """Percentiles over the last calls, counts over all."""
        kept = min(self._cycles, _RING)
        jitter, duration = self._jitter[:kept] * 1e3, self._duration[:kept] * 1e3
        if kept == 0:
            return LoopFigures(0, 0, 0.0, 0.0, 0.0, 0.0)
        p50, p99 = np.percentile(jitter, (50, 99))
        d50, d99 = np.percentile(duration, (50, 99))
        return LoopFigures(self._cycles, self._late, float(p50), float(p99), float(d50), float(d99))
