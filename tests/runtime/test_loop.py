"""The fixed-rate loop keeps its rate, counts what is late, and starts with the data."""

import itertools
import math
import threading
import time

import pytest

from sim2real.runtime.loop import FixedRateLoop, Lateness, StateLoop

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


class States:
    """States that arrive when the test says so, at times of their own clock."""

    def __init__(self):
        self.news, self.stamp_s = threading.Condition(), 5.0

    def arrive(self, stamp_s):
        with self.news:
            self.stamp_s = stamp_s
            self.news.notify_all()

    def wait_for_new(self, since_s, timeout_s):
        with self.news:
            return self.news.wait_for(lambda: self.stamp_s >= since_s, timeout_s)

    def arrival_s(self):
        return self.stamp_s

    def interval_s(self):
        return 0.0


def test_a_state_loop_steps_once_for_every_new_state_and_never_without_one():
    states, seen, errors = States(), [], []
    loop = StateLoop(0.02, lambda: seen.append(states.stamp_s), errors.append, states)
    loop.start()
    loop.start()
    time.sleep(0.3)
    assert seen == [5.0], "the state that is there, once"
    for stamp_s in (5.01, 5.02, 5.02, 5.03, 5.04):
        states.arrive(stamp_s)
        time.sleep(0.1)
    assert seen == [5.0, 5.02, 5.04]
    assert (loop.figures().cycles, loop.figures().late) == (3, 0)
    loop.stop()
    states.arrive(5.06)
    time.sleep(0.1)
    assert len(seen) == 3 and not errors


def test_a_state_loop_ends_with_an_exception():
    states, errors = States(), []

    def fail():
        raise RuntimeError("broken")

    loop = StateLoop(0.02, fail, errors.append, states)
    loop.start()
    time.sleep(0.1)
    states.arrive(6.0)
    time.sleep(0.1)
    loop.stop()
    assert [str(error) for error in errors] == ["broken"] and loop.figures().cycles == 0


def test_lateness_is_that_of_the_last_calls():
    lateness = Lateness(2)
    assert lateness.update(0, 0) == 0.0
    assert lateness.update(5, 10) == 0.5
    assert lateness.update(5, 20) == 0.25
    assert lateness.update(5, 30) == 0.0, "two calls back only"
    assert lateness.update(1, 4) == 0.0, "counters that begin anew"
    assert lateness.update(3, 8) == 0.5
