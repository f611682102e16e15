"""A task of one's own: bring the end effector above a box and stay there."""

import numpy as np

from my_lab.scene import HALF_M, BoxOnTable
from my_lab.signals import BoxSignals
from sim2real.runtime.spec import SignalSpec
from sim2real.tasks.joint_actions import joint_increments, joint_term
from sim2real.types import Model

_SCALE = {"joint_pos": 1.0, "joint_vel": 0.5, "box_error": 10.0, "tracking_error": 10.0, "last_action": 1.0}


class AboveBoxSettings(Model):
    """Settings of the task."""

    episode_s: float = 2.0
    tolerance_m: float = 0.03
    speed: float = 2.0


class AboveBox:
    """Stay above a box that lies somewhere on the table."""

    name = "my_lab.task:AboveBox"
    Settings = AboveBoxSettings
    hold_s = 0.3
    near_m = 0.1
    goal = SignalSpec(name="goal", components=("height",), unit="m", frame="base")
    signals_name = "my_lab.signals:BoxSignals"
    error_signal = "box_error"
    expert = None

    def __init__(self, robot, settings):
        self._arm, self._settings = robot, settings
        self.episode_s, self.tolerance_m = settings.episode_s, settings.tolerance_m
        self.signals, self.scene = BoxSignals(robot.spec, robot.chain), BoxOnTable()

    def observation(self):
        return tuple(joint_term(self._arm, self.signals, name, scale, 1) for name, scale in _SCALE.items())

    def history(self):
        return tuple(joint_term(self._arm, self.signals, name, scale, 20) for name, scale in _SCALE.items())

    def action(self):
        return joint_increments(self._arm, self._settings.speed)

    def start(self, rng, count):
        place = np.stack(
            (rng.uniform(0.18, 0.28, count), rng.uniform(-0.1, 0.1, count), np.full(count, HALF_M)), axis=1
        )
        return {**self._arm.nominal_state(count), "object_pos": place, "object_vel": np.zeros((count, 3))}

    def start_command(self, state):
        return state["joint_pos"]

    def goals(self, rng, count, state):
        return rng.uniform(0.05, 0.10, (count, 1))

    def failed(self, state, goal):
        return np.zeros(len(goal), dtype=bool)

    def distance(self, state, goal):
        wanted = state["object_pos"] + np.concatenate((np.zeros((len(goal), 2)), goal), axis=1)
        return np.linalg.norm(state["ee_pos"] - wanted, axis=1)

    def reward(self, state, goal, action, previous, failed):
        return np.exp(-self.distance(state, goal) / 0.1) - 0.01 * (action * action).sum(axis=1)
