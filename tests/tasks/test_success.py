"""Success by hand: within tolerance at every step of the end, and never failed."""

from types import SimpleNamespace

import numpy as np

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment
from sim2real.tasks.success import Holding, criterion, within

DISTANCES = np.array([0.05, 0.10, 0.11])
PLAIN = SimpleNamespace(distance=lambda state, goal: DISTANCES, tolerance_m=0.1, hold_s=0.5, episode_s=8.0)


def test_distance_decides_unless_the_task_has_a_rule_of_its_own():
    assert within(PLAIN, {}, DISTANCES).tolist() == [True, True, False]
    own = SimpleNamespace(**vars(PLAIN), within=lambda state, goal: DISTANCES > 0.1)
    assert within(own, {}, DISTANCES).tolist() == [False, False, True]


def test_the_rule_is_said_in_words():
    assert criterion(PLAIN) == "within 10 cm of the goal for the last 0.5 of 8 s, without a failure"
    hover = load_experiment(load_config("nominal", ["task.heading_tolerance_rad=0.2617993877991494"])).task
    assert criterion(hover).startswith("within 3 cm of the goal and 15 degrees of its heading for the last 1 of 5 s")


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
