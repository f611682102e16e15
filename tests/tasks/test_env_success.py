"""Success in environment and evaluation: as long as the task says, not for a moment."""

import numpy as np

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment
from sim2real.learn.simulated import run_simulated

STEPS, HELD = 20, 10  # at 50 Hz


class StaysPut:
    """A policy that commands the middle of every range."""

    def __init__(self, spec, count):
        self.spec, self.count = spec, count
        self.report_mean = self.report_std = np.zeros((count, 0), np.float32)
        self._middle = np.tile([0.5 * (term.low + term.high) for term in spec.action], (count, 1))

    def reset(self):
        pass

    def step(self, signals):
        return self._middle


def scripted(monkeypatch):
    """A short hover of three robots that are at the goal for the last 10, 9 and 1 control steps of 20."""
    experiment = load_experiment(load_config("nominal", ["task={name: hover, episode_s: 0.4, hold_s: 0.2}"]))
    step = iter(range(STEPS))

    def distance(state, goal):
        left = STEPS - next(step)
        return np.where(left <= np.array([HELD, HELD - 1, 1]), 0.0, 1.0)

    monkeypatch.setattr(experiment.task, "distance", distance)
    monkeypatch.setattr(experiment.task, "heading_error", lambda *_: np.zeros(3))
    monkeypatch.setattr(experiment.task, "failed", lambda state, goal: np.zeros(3, dtype=bool))
    monkeypatch.setattr(experiment.task, "reward", lambda *_: np.zeros(3))
    return experiment


def test_an_episode_is_a_success_only_if_the_goal_was_held(monkeypatch):
    env = scripted(monkeypatch).make_env(0, 3, restart=False)
    for _ in range(STEPS):
        _, _, truncated = env.step(np.zeros((3, 4), np.float32))
    assert truncated.all() and env.success.tolist() == [True, False, False]
    env.sim.close()


def test_a_measured_policy_succeeds_only_if_it_held_the_goal(monkeypatch):
    experiment = scripted(monkeypatch)
    episodes = run_simulated(experiment, StaysPut(experiment.spec(), 3), 1)
    assert episodes.succeeded.tolist() == [True, False, False] and episodes.success == 1 / 3
