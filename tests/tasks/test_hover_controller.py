"""The classical controller of the hover task: which way it acts, and that it holds a drone it knows."""

import numpy as np
import pytest

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment
from sim2real.tasks.expert import expert_runner
from sim2real.tasks.hover_controller import HoverController
from sim2real.tasks.success import Holding, within

EXPERIMENT = load_experiment(load_config("nominal"))
STILL = {"position_error": np.zeros((1, 3)), "linear_velocity": np.zeros((1, 3)), "heading_error": np.zeros((1, 1))}


@pytest.mark.parametrize(
    ("signal", "axis", "command", "sign"),
    [
        ("position_error", 0, 2, -1.0),  # ahead of the goal: nose up, which is a negative pitch
        ("position_error", 1, 1, 1.0),  # left of it: roll to the right
        ("position_error", 2, 0, -1.0),
        ("linear_velocity", 0, 2, -1.0),
        ("linear_velocity", 1, 1, 1.0),
        ("linear_velocity", 2, 0, -1.0),
        ("heading_error", 0, 3, -1.0),
    ],
)
def test_it_acts_against_every_error(signal, axis, command, sign):
    controller = expert_runner(EXPERIMENT.spec(), EXPERIMENT.task)
    assert isinstance(controller, HoverController)
    rest = controller.step(STILL)
    assert rest[0].tolist() == pytest.approx([0.314, 0.0, 0.0, 0.0])
    signals = {name: value.copy() for name, value in STILL.items()}
    signals[signal][0, axis] = 0.02
    controller.reset()
    change = (controller.step(signals) - rest)[0]
    assert sign * change[command] > 0.0
    assert np.count_nonzero(change) == 1


def test_its_integral_removes_what_is_left_and_is_forgotten():
    controller = expert_runner(EXPERIMENT.spec(), EXPERIMENT.task)
    low = {**STILL, "position_error": np.array([[0.0, 0.0, -0.01]])}
    first = controller.step(low)[0, 0]
    for _ in range(50):
        later = controller.step(low)[0, 0]
    assert later > first
    controller.reset()
    assert controller.step(low)[0, 0] == first


def test_it_holds_the_nominal_drone_on_its_goal():
    env = EXPERIMENT.make_env(3, 16, restart=False)
    controller = expert_runner(EXPERIMENT.spec(), env.task, 16)
    holding = Holding(16, 50)
    for _ in range(400):
        env.sim.step(controller.step(env.task.signals.measure(env.sim.measured(), env.goal)))
        holding.update(within(env.task, env.sim.state, env.goal), env.task.failed(env.sim.state, env.goal))
    env.sim.close()
    assert holding.success.mean() >= 0.9
