"""The target made from any arm's URDF: who can be evaluated on it, and that every condition is another arm."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pybullet_data
import pytest
from target_cases import make_case

pytest.importorskip("mujoco", reason="this target needs mujoco")

from arm_bundles import make_controller_bundle

from robot_drivers import load_driver
from robot_drivers.limits import DriverError
from sim2real.evaluate.episodes import run
from sim2real.evaluate.table import evaluate_in_process, target_of
from sim2real.targets.base import begin, target_for
from sim2real.targets.mujoco_arm import CONDITIONS, PAYLOAD


class Expert:
    """The task's own controller as a runner."""

    def __init__(self, case, n):
        self.expert, limits = case.task.expert, case.robot.spec.commands
        action = case.task.action()
        self.spec = SimpleNamespace(control_dt=1.0 / case.robot.spec.control_rate_hz, action=action)
        self.low, self.high = (np.array([getattr(limit, end) for limit in limits]) for end in ("low", "high"))
        self.step_rad = np.array([term.high for term in action])

    def reset(self):
        self.command = None

    def step(self, signals):
        if self.command is None:
            self.command = signals["joint_pos"].copy()
        action = np.clip(self.expert({**signals, "tracking_error": self.command - signals["joint_pos"]}), -1.0, 1.0)
        self.command = np.clip(self.command + action * self.step_rad, self.low, self.high)
        return self.command


@pytest.fixture(scope="module")
def iiwa(tmp_path_factory):
    """An arm that comes with pybullet_data, its shapes all meshes, as a folder with three lines of YAML."""
    folder = tmp_path_factory.mktemp("arms") / "iiwa"
    shutil.copytree(Path(pybullet_data.getDataPath()) / "kuka_iiwa", folder)
    (folder / "robot.yaml").write_text("urdf: model.urdf\nee: lbr_iiwa_link_7\ncontrol_rate_hz: 20\n")
    return str(folder)


def test_its_kinematics_and_weight_are_the_urdfs(iiwa):
    case = make_case(iiwa, "reach", {})
    target = target_for(case.robot, case.task)
    assert target.name == "mujoco_arm" and target.conditions() == ("fresh", "payload", "soft", "late")
    start, _ = begin(case.task, target, 5, 0)
    sim = target.make("mujoco", "fresh", 5, 0)
    sim.reset(start)
    chain = case.robot.chain
    np.testing.assert_allclose(sim.truth()["ee_pos"], chain.frames(start["joint_pos"])["lbr_iiwa_link_7"][0], atol=1e-9)
    model, data = sim.arms[0].arm._model, sim.arms[0].arm._data
    np.testing.assert_allclose(model.body_mass.sum(), sum(chain.masses.values()), rtol=1e-6)
    np.testing.assert_allclose(data.qfrc_bias, chain.gravity_torque(start["joint_pos"][:1])[0], atol=1e-6)
    heavy = target.make("mujoco", "payload", 1, 0).arms[0].arm._model
    moving = sum(chain.masses.values()) - chain.masses[chain.root]
    assert heavy.body_mass.sum() - model.body_mass.sum() == pytest.approx(PAYLOAD * moving)


def test_an_arm_given_by_a_folder_reaches_with_its_own_controller(iiwa):
    case = make_case(iiwa, "reach", {"episode_s": 5.0})
    target = target_for(case.robot, case.task)
    result = run(lambda n: Expert(case, n), case, target, "mujoco", "fresh", 8, 5)
    assert result.success >= 0.6 and result.final_error_m < 0.005 and result.crashes == 0
    again = run(lambda n: Expert(case, n), case, target, "mujoco", "fresh", 8, 5)
    assert again.summary() == result.summary()


def test_every_condition_is_another_arm(iiwa):
    case = make_case(iiwa, "reach", {"episode_s": 1.0})
    target = target_for(case.robot, case.task)
    paths = {
        c: run(lambda n: Expert(case, n), case, target, "mujoco", c, 2, 1, record=True).distance for c in CONDITIONS
    }
    for one in CONDITIONS:
        for other in CONDITIONS:
            assert one == other or np.abs(paths[one] - paths[other]).max() > 1e-4, (one, other)


def test_a_servo_follows_with_a_lag_and_stops_where_it_was_told():
    case = make_case("fr3", "reach", {})
    sim = target_for(case.robot, case.task).make("mujoco", "fresh", 1, 0)
    start, _ = begin(case.task, target_for(case.robot, case.task), 1, 0)
    sim.reset(start)
    goal = start["joint_pos"] + 0.1
    sim.command(goal)
    sim.advance(0.02)
    assert np.abs(sim.truth()["joint_pos"] - start["joint_pos"]).max() < 0.01, "the command is still on its way"
    for _ in range(40):
        sim.advance(0.05)
    truth = sim.truth()
    np.testing.assert_allclose(truth["joint_pos"], goal, atol=0.02)
    assert np.abs(truth["joint_vel"]).max() < 0.01
    off = np.abs(sim.measured()["joint_pos"] - truth["joint_pos"]).max()
    assert 0.0 < off < 0.003, "readings are noisy"


def test_bundles_for_fr3_are_evaluated_by_name(tmp_path):
    path = make_controller_bundle(tmp_path / "fr3", "fr3_reach")
    assert target_of({"controller": path}).name == "mujoco_arm"
    results = evaluate_in_process(
        {"controller": path}, 4, 0, lambda *_: None, processes=1, conditions=["fresh", "late"]
    )
    cells = results["controller"]["mujoco"]
    assert set(cells) == {"fresh", "late"} and cells["fresh"]["success"] >= 0.75


def test_an_object_is_pushed():
    case = make_case("fr3", "push", {})
    target = target_for(case.robot, case.task)
    result = run(lambda n: Expert(case, n), case, target, "mujoco", "fresh", 4, 5, record=True)
    assert result.success >= 0.5 and result.distance[0].min() > 0.05


def test_it_is_driven_as_any_target(iiwa):
    driver = load_driver("target", robot=iiwa, task="reach", seed=1)
    assert driver.read.__self__ is driver and not driver.is_connected
    with pytest.raises(DriverError, match="unknown condition 'windy'; known: fresh"):
        driver.reset(0, "windy")
    with pytest.raises(DriverError, match="unknown variant 'new'"):
        load_driver("target", robot=iiwa, task="reach", variant="new")
    with pytest.raises(DriverError, match="no robot"):
        load_driver("target", robot="nobody", task="reach")
