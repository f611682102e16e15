"""Signals that a contract names: ours, those of a trusted module, and nothing else."""

import sys

import numpy as np
import pytest

from sim2real.errors import ConfigError, SpecError
from sim2real.robots import load_robot
from sim2real.runtime.arm_signals import reach_of
from sim2real.runtime.signals import load_signals

DRONE, ARM = load_robot("crazyflie"), load_robot("so101")
MODULE = """
class Height:
    specs = {}
    needs = ("pos",)

    def __init__(self, robot, chain):
        self.robot = robot.name

    def measure(self, state, goal):
        return {"height": state["pos"][:, 2:] - goal[:, 2:]}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "signals_of_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "signals_of_test"
    sys.modules.pop("signals_of_test", None)


@pytest.mark.parametrize("trusted", [None, (), ("other",)])
def test_our_own_signals_need_no_trust(trusted):
    flight = load_signals("flight", DRONE.spec, None, trusted)
    assert flight.needs == ("pos", "quat", "lin_vel", "ang_vel")
    arm = load_signals("arm", ARM.spec, ARM.chain, trusted)
    state, goal = ARM.nominal_state(2), np.array([[0.2, 0.0, 0.1], [0.25, 0.1, 0.2]])
    measured = arm.measure(state, goal)
    assert {name: value.shape[1] for name, value in measured.items()} == {n: s.size for n, s in arm.specs.items()}
    np.testing.assert_allclose(measured["goal_error"], state["ee_pos"] - goal)
    push = load_signals("arm_push", ARM.spec, ARM.chain, trusted)
    assert push.needs == ("joint_pos", "joint_vel", "object_pos")


def test_arms_signals_need_kinematics():
    for name in ("arm", "arm_push"):
        with pytest.raises(SpecError, match="robot 'crazyflie' has no kinematics"):
            load_signals(name, DRONE.spec, None)


def test_a_module_that_nobody_trusts_is_not_even_imported(module):
    for trusted in ((), ("signals_of_tes", "signals_of_test:Height", "signals")):
        with pytest.raises(SpecError, match=r"trusted_modules:=\"\['signals_of_test'\]\""):
            load_signals(f"{module}:Height", DRONE.spec, None, trusted)
        assert module not in sys.modules


def test_a_trusted_module_makes_its_signals(module):
    for trusted in (None, (module,)):
        signals = load_signals(f"{module}:Height", DRONE.spec, None, trusted)
        assert signals.robot == "crazyflie"
        measured = signals.measure({"pos": np.array([[0.0, 0.0, 1.0]])}, np.array([[0.0, 0.0, 1.5]]))
        np.testing.assert_allclose(measured["height"], [[-0.5]])
    with pytest.raises(ConfigError, match="has no 'Heigth'"):
        load_signals(f"{module}:Heigth", DRONE.spec, None, (module,))
    with pytest.raises(ConfigError, match="unknown signals 'flihgt'; did you mean 'flight'"):
        load_signals("flihgt", DRONE.spec, None)


def test_a_heading_error_is_the_short_way_round():
    flight = load_signals("flight", DRONE.spec, None)
    state = DRONE.nominal_state(3)
    half = 0.5 * np.array([3.1, -3.1, 0.2])
    state["quat"] = np.stack((0 * half, 0 * half, np.sin(half), np.cos(half)), axis=1)
    goal = np.array([[0.0, 0.0, 1.0, -3.1], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 1.0, 0.0]])
    measured = flight.measure(state, goal)["heading_error"]
    np.testing.assert_allclose(measured[:, 0], [6.2 - 2 * np.pi, 2 * np.pi - 6.1, 0.2])
    assert "heading_error" not in flight.measure(state, goal[:, :3]), "as policies of earlier releases take it"


@pytest.mark.parametrize("name", ["so101", "fr3"])
def test_goals_above_the_table_and_within_reach_stay_and_others_become_the_nearest(name):
    robot = load_robot(name)
    chain, ee = robot.chain, robot.spec.ee
    reach = reach_of(chain, ee)
    postures = np.random.default_rng(1).uniform(chain.low, chain.high, (2000, len(chain.low)))
    farthest = np.linalg.norm(chain.frames(postures)[ee][0], axis=1).max()
    assert farthest <= reach < 2.0 * farthest
    arm = load_signals("arm", robot.spec, chain)
    for goal in ([0.2, 0.1, 0.1], [0.2, 0.1, -0.005]):
        kept, said = arm.nearest_goal(np.array(goal))
        assert kept.tolist() == goal and said == ""
    lifted, said = arm.nearest_goal(np.array([0.2, 0.1, -0.3]))
    assert lifted.tolist() == [0.2, 0.1, 0.0] and "below the table" in said
    near, said = arm.nearest_goal(np.array([10.0, 0.0, 0.0]))
    np.testing.assert_allclose(near, [reach, 0.0, 0.0])
    assert "it is 10 m away" in said
    push = load_signals("arm_push", robot.spec, chain)
    np.testing.assert_allclose(push.nearest_goal(np.array([0.0, -1e6, 0.0]))[0], [0.0, -reach, 0.0])
