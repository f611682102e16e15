"""Lockstep over ROS 2: simulated time waits, so that the result does not depend on how busy the computer is."""

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here; 'sim2real doctor' says how to get it")
pytest.importorskip("drone_models", reason="the drone target needs sim2real[drivers]")

from geometry_msgs.msg import Twist
from ros_rig import make_pd_bundle
from std_srvs.srv import SetBool

from sim2real.errors import Sim2RealError
from sim2real.evaluate import over_ros2
from sim2real.evaluate.over_ros2 import Fleet, run_fleet
from sim2real.evaluate.table import run_cell
from sim2real.runtime.bundle import PolicyBundle

pytestmark = [pytest.mark.ros, pytest.mark.slow]
VARIANTS = ["cf2x_L250", "cf21B_500"]
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_pd_bundle(tmp_path_factory.mktemp("pd") / "bundle")


@contextmanager
def busy():
    """Every core at work, twice over."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 2))]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_a_busy_computer_changes_nothing_and_it_equals_the_evaluation_in_process(bundle):
    with Fleet({"pd": bundle}, VARIANTS) as fleet:
        quiet = [fleet.run("pd", "delay", seed) for seed in SEEDS]
        with busy():
            loaded = [fleet.run("pd", "delay", seed) for seed in SEEDS]
    for seed, one, other in zip(SEEDS, quiet, loaded, strict=True):
        for variant in VARIANTS:
            np.testing.assert_array_equal(one[variant][0], other[variant][0])
            np.testing.assert_array_equal(one[variant][1], other[variant][1])
            assert one[variant][2:] == other[variant][2:] == (False, False)
            alone = run_cell(PolicyBundle.load(bundle), variant, "delay", 1, seed, record=True)
            np.testing.assert_allclose(one[variant][0], alone.distance[:, 0], atol=1e-9)
            assert np.ptp(alone.distance) > 0.02, "it flew"


def test_cells_are_scored_as_in_process(bundle):
    cells = run_fleet({"pd": bundle}, VARIANTS[:1], ["fresh"], 2, 3, lambda *_: None)["pd"]["cf2x_L250"]["fresh"]
    alone = [run_cell(PolicyBundle.load(bundle), "cf2x_L250", "fresh", 1, seed) for seed in SEEDS]
    assert cells["n"] == 2 and cells["crashes"] == 0
    assert cells["success"] == np.mean([one.success for one in alone])
    assert cells["final_error_m"] == pytest.approx(np.median([one.final_error_m for one in alone]), abs=1e-9)


def test_in_real_time_late_cycles_are_told_and_too_many_refuse_a_rate(bundle, monkeypatch):
    monkeypatch.setattr(over_ros2, "MOST_LATE", 1.0)
    cell = run_fleet({"pd": bundle}, VARIANTS[:1], ["fresh"], 1, 3, lambda *_: None, True)["pd"]["cf2x_L250"]["fresh"]
    assert cell["n"] == 1 and 0.0 <= cell["late_policy"] <= 1.0 and 0.0 <= cell["late_target"] <= 1.0
    assert cell["final_error_m"] < 0.3
    monkeypatch.undo()
    assert over_ros2._on_time(0.01, 0.0) == {"late_policy": 0.01, "late_target": 0.0}
    with pytest.raises(Sim2RealError, match=r"2\.5% of the policy nodes', 1\.3% of the targets'"):
        over_ros2._on_time(0.025, 0.0131)


def test_nothing_moves_before_activation_nor_without_an_answer(bundle):
    with Fleet({"pd": bundle}, VARIANTS[:1]) as fleet:
        fleet._configure("pd")
        space = fleet.namespaces[0]
        stray = fleet.node.create_publisher(Twist, f"/{VARIANTS[0].lower()}/cmd_vel_legacy", 1)
        fleet._wait(lambda: len(space.track) > 3, 10.0, "report a state")
        at_start = space.track[-1]
        for armed in (False, True):
            fleet._call([(space.arm, SetBool.Request(data=armed))], "arm")
            for _ in range(10):
                message = Twist()
                message.linear.z = 40_000.0
                stray.publish(message)
                fleet.spin(0.05)
            assert space.repeated is armed, "simulated time stands still once it is armed"
            np.testing.assert_array_equal(space.track[-1][1], at_start[1])
        stamp_s = space.track[-1][0]
        fleet.spin(1.0)
        assert space.track[-1][0] == stamp_s
        fleet.node.destroy_publisher(stray)  # as long as it is there, activation is refused
        fleet._activate("pd")
        fleet._wait(lambda: space.track[-1][0] > stamp_s + 1.0, 20.0, "move")
        assert np.linalg.norm(space.track[-1][1][:3] - at_start[1][:3]) > 0.02


def test_a_policy_that_ends_is_named_with_the_log(bundle, monkeypatch):
    monkeypatch.setattr(over_ros2, "STALL_TIMEOUT_S", 3.0)
    with Fleet({"pd": bundle}, VARIANTS[:1]) as fleet:
        fleet.launch("pd", "fresh", 3)
        fleet.spin(0.5)
        space = fleet.namespaces[0]
        assert space.run_s() > 0.02
        fleet.recall("pd")
        stopped = space.run_s()
        fleet.spin(0.5)
        held = space.track[-1][1]
        fleet.spin(0.3)
        assert space.run_s() > stopped, "time goes on,"
        np.testing.assert_array_equal(space.track[-1][1], held, err_msg="and the robot does not")
        fleet._processes[1].kill()
        with pytest.raises(Sim2RealError, match=r"ended with -9; their log is .*sim2real-nodes"):
            fleet.run("pd", "fresh", 4)
