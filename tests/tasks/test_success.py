"""Success by hand: within tolerance at every step of the end, and never failed."""

import numpy as np

from sim2real.tasks.success import Holding


def test_success_by_hand():
    """Five robots, of which three steps at the end must be held within 0.1 m."""
    holding = Holding(5, 3)
    distances = [
        #  there  late   left   failed  on the edge
        [0.05, 0.50, 0.05, 0.05, 0.10],
        [0.05, 0.50, 0.05, 0.05, 0.10],
        [0.05, 0.05, 0.05, 0.05, 0.10],
        [0.05, 0.05, 0.11, 0.05, 0.10],
        [0.05, 0.05, 0.05, 0.05, 0.10],
    ]
    succeeded = []
    for step, row in enumerate(distances):
        failed = np.array([False, False, False, step == 0, False])
        holding.update(np.array(row) <= 0.1, failed)
        succeeded.append(holding.success.tolist())
    assert succeeded == [
        [False, False, False, False, False],
        [False, False, False, False, False],
        [True, False, True, False, True],
        [True, False, False, False, True],
        [True, True, False, False, True],
    ]
    assert holding.failed.tolist() == [False, False, False, True, False]


def test_a_new_episode_forgets():
    holding = Holding(3, 2)
    near, fine = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    holding.update(near, np.array([True, False, False]))
    holding.update(near, fine)
    assert holding.success.tolist() == [False, True, True]
    holding.reset(np.array([0, 1]))
    assert holding.success.tolist() == [False, False, True] and not holding.failed.any()
    holding.update(near, fine)
    assert holding.success.tolist() == [False, False, True]
    holding.update(near, fine)
    assert holding.success.tolist() == [True, True, True]


def test_not_a_number_is_nowhere_near():
    holding = Holding(1, 1)
    holding.update(np.array([np.nan]) <= 0.1, np.array([False]))
    assert not holding.success[0]
