"""The fixed-rate loop keeps its rate, counts what is late, and starts with the data."""

import itertools
import math
import threading
import time

import pytest

from sim2real.runtime.loop import FixedRateLoop

pytestmark = pytest.mark.realtime


def run(seconds, function, period=0.02, **settings):
    errors = []
    loop = FixedRateLoop(period, function, errors.append, **settings)
    loop.start()
    time.sleep(seconds)
    loop.stop()
    return loop.figures(), errors


def test_rate_is_held():
    calls = []
    figures, errors = run(1.0, lambda: calls.append(time.monotonic()))
    assert figures.cycles == pytest.approx(50, abs=2) and not errors
    assert figures.jitter_p50_ms < 2.0


def test_overruns_are_counted_and_never_made_up_for():
    begun = []

    def slow():
        begun.append(time.monotonic())
        if len(begun) == 10:
            time.sleep(0.11)

    figures, _ = run(0.6, slow)
    assert figures.late >= 4
    gaps = [b - a for a, b in itertools.pairwise(begun)]
    assert min(gaps[9:]) > 0.008, "no burst after the pause"
    assert figures.cycles <= 26


@pytest.mark.parametrize("overrun", [0.032, 0.0385])
def test_a_cycle_late_by_less_than_a_period_is_not_followed_at_once(overrun):
    begun = []

    def slow():
        begun.append(time.monotonic())
        if len(begun) in (5, 10, 15):
            time.sleep(overrun)

    figures, _ = run(0.6, slow)
    gaps = [b - a for a, b in itertools.pairwise(begun)]
    assert min(gaps) > 0.008
    assert figures.late >= 6, "each pause delays one cycle and drops the next"


def test_stopping_does_not_begin_one_more_cycle():
    for _ in range(5):
        begun, errors = [], []
        loop = FixedRateLoop(0.05, lambda begun=begun: begun.append(time.monotonic()), errors.append)
        loop.start()
        time.sleep(0.07)  # between two cycles
        asked_s = time.monotonic()
        loop.stop()
        assert begun and max(begun) <= asked_s


def test_an_exception_is_reported_and_ends_the_loop():
    def fail():
        raise RuntimeError("broken")

    figures, errors = run(0.1, fail)
    assert [str(e) for e in errors] == ["broken"] and figures.cycles == 0


def test_it_begins_with_the_data_and_without_data_all_the_same():
    news, arrived, begun = threading.Condition(), [], []

    class Clock:
        def wait_for_new(self, since_s, timeout_s):
            with news:
                return news.wait_for(lambda: bool(arrived) and arrived[-1] >= since_s, timeout_s)

        def arrival_s(self):
            return arrived[-1] if arrived else -math.inf

        def interval_s(self):
            return 0.01 if arrived else 0.0

    def produce():
        due = time.monotonic()
        while len(arrived) < 80:
            due += 0.01
            time.sleep(max(0.0, due - time.monotonic()))
            with news:
                arrived.append(time.monotonic())
                news.notify_all()

    thread = threading.Thread(target=produce)
    thread.start()
    figures, _ = run(1.2, lambda: begun.append(time.monotonic()), data=Clock())
    thread.join()
    with_data = [t for t in begun if arrived[3] < t < arrived[-1]]
    ages = sorted(min(t - a for a in arrived if a <= t) for t in with_data)
    assert ages[len(ages) // 2] < 0.002, "a free-running loop would be 5 ms late in the middle"
    assert figures.cycles == pytest.approx(60, abs=6)
    assert sum(t > arrived[-1] + 0.03 for t in begun) >= 10, "it goes on when the data stops"
