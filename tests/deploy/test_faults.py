"""What goes wrong in a room, over real ROS 2: the drone ends held or landed, and no wrong command is ever sent."""

import os
import signal

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here; 'sim2real doctor' says how to get it")

from ros_rig import Rig, make_pd_bundle

from sim2real.evaluate.table import run_cell
from sim2real.runtime.bundle import PolicyBundle

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture(scope="module")
def pd_bundle(tmp_path_factory):
    return make_pd_bundle(tmp_path_factory.mktemp("pd") / "bundle")


def test_the_controller_of_these_tests_flies(pd_bundle):
    result = run_cell(PolicyBundle.load(pd_bundle), "cf2x_L250", "fresh", 10, 0)
    assert result.crashes == 0 and result.final_error_m < 0.2


def test_nothing_moves_before_activation_and_it_flies_after(pd_bundle):
    with Rig(pd_bundle) as rig:
        rig.relay = "stop"
        assert rig.change(1)
        assert not rig.change(3), "activation without state must be refused"
        rig.relay = "pass"
        rig.spin(1.0)
        assert rig.arm()
        rig.spin(0.5)
        assert not rig.commands, "an inactive node must not send commands"
        still = np.ptp([p for _, p, _, _ in rig.truth], axis=0)
        assert still.max() == 0.0, "an armed drone without commands must not move"
        rig.activate()
        rig.spin(5.0)
        assert rig.distance() < 0.2
        assert rig.status["state"] == "fly"
        assert 0.0 < float(rig.status["latency_p50_ms"]) < 100.0  # the benchmark measures it on a quiet machine
        assert rig.status["torch_loaded"] == "False"
        assert rig.change(4)
        count = len(rig.commands)
        rig.spin(0.5)
        assert len(rig.commands) <= count + 1
        rig.assert_commands_in_limits()


@pytest.mark.parametrize("fault", ["stop", "frozen", "nan"])
def test_state_that_stops_freezes_or_is_poisoned(pd_bundle, fault):
    with Rig(pd_bundle) as rig:
        rig.take_off()
        rig.relay = fault
        rig.spin(0.45)
        rig.spin_until(lambda: rig.status["state"] in ("hold", "land"), 2)
        rig.spin_until(lambda: rig.status["state"] == "land", 3)
        rig.relay = "pass"
        rig.spin(1.0)
        assert rig.status["state"] == "land", "only a new activation ends landing"
        if fault == "nan":
            assert int(rig.status["messages_refused"]) > 10
        rig.spin_until(lambda: rig.truth[-1][1][2] < 0.03, 12)
        touchdown = [v[2] for _, p, v, _ in rig.truth if 0.02 < p[2] < 0.25]
        assert touchdown and min(touchdown) > -1.0, "it lands, and not like a stone"
        rig.assert_gentle()
        rig.assert_commands_in_limits()


def test_driver_killed(pd_bundle):
    with Rig(pd_bundle) as rig:
        rig.take_off()
        os.kill(rig.driver.pid, signal.SIGKILL)
        rig.spin_until(lambda: rig.status["state"] == "land", 4)
        rig.assert_commands_in_limits()


def test_policy_killed_and_restarted_in_flight(pd_bundle):
    with Rig(pd_bundle) as rig:
        rig.take_off()
        os.kill(rig.policy.pid, signal.SIGKILL)
        rig.policy.wait()
        rig.spin(0.6)
        rig.assert_gentle()
        height = rig.truth[-1][1][2]
        assert height > 0.8, "the driver's watchdog holds the drone meanwhile"
        rig.policy = rig.start_policy()
        rig.status.clear()
        rig.spin_until(lambda: rig.status, 20)
        assert rig.change(1)
        rig.activate(40)  # the killed node counts as a second one for a while
        rig.spin(4.0)
        landed = rig.truth[-1][1][2] < 0.03  # it may have come down before the new node was up
        assert landed or rig.distance() < 0.3, "it flies on"
        rig.assert_gentle()
        rig.assert_commands_in_limits()
