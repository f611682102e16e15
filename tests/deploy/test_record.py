"""Recording a motion through a driver: what is written, and when it is broken off."""

import numpy as np
import pytest
from typer.testing import CliRunner

from robot_drivers.driver import DriverState
from robot_drivers.limits import DriverError
from sim2real.cli.main import app
from sim2real.deploy.record import record
from sim2real.errors import ConfigError
from sim2real.recordings.logs import read_log
from sim2real.targets.so101_arm import JOINTS as ARM_JOINTS

JOINTS = ("pan", "lift")
TIME = 0.02 * np.arange(60)


class Arm:
    """Follows half of the way in every command; ``lift`` is stuck where it is told to be."""

    def __init__(self, stuck=False):
        self.position, self.stuck, self.held, self.sent = np.zeros(2), stuck, 0, 0

    def read(self):
        nothing = np.zeros(3)
        # In another order than asked for: joints are matched by name.
        return DriverState(
            0.0, nothing, np.array([0, 0, 0, 1.0]), nothing, nothing, ("lift", "pan"), self.position[::-1]
        )

    def command(self, command):
        self.sent += 1
        limited = {name: min(value, 0.5) for name, value in command.items()}
        wanted = np.array([limited["pan"], limited["lift"]])
        self.position = self.position + 0.5 * (wanted - self.position) * (np.array([1, 0]) if self.stuck else 1)
        return limited

    def hold(self):
        self.held += 1


def motion(size):
    return size * np.stack([np.sin(3 * TIME), TIME], axis=1)


def test_a_recording_can_be_read_back(tmp_path):
    arm = Arm()
    rows = record(arm, JOINTS, TIME, motion(0.7), tmp_path / "m.csv")
    assert rows == len(TIME) and arm.held == 1
    log = read_log(tmp_path / "m.csv", JOINTS)
    assert log.command.max() <= 0.5 + 1e-6  # what was really sent
    assert np.abs(log.command - log.position).max() < 0.1 and log.period_s == pytest.approx(0.02, rel=0.1)


def test_a_stuck_joint_breaks_it_off_and_keeps_the_rows(tmp_path):
    arm = Arm(stuck=True)
    with pytest.raises(DriverError, match=r"'lift' is 0.*from its command"):
        record(arm, JOINTS, TIME, motion(0.7), tmp_path / "m.csv", farthest=0.3)
    assert arm.held == 1 and 0 < arm.sent < len(TIME)
    assert len((tmp_path / "m.csv").read_text().splitlines()) == arm.sent + 1


def test_it_starts_only_where_the_arm_is(tmp_path):
    arm = Arm()
    with pytest.raises(DriverError, match=r"the motion starts at 0\.4"):
        record(arm, JOINTS, TIME, motion(0.1) + 0.4, tmp_path / "m.csv")
    assert arm.sent == 0


def test_interrupting_keeps_what_was_recorded(tmp_path):
    arm = Arm()

    def interrupt(done, _):
        if done > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(arm, JOINTS, TIME, motion(0.2), tmp_path / "m.csv", interrupt)
    assert arm.held == 1 and arm.sent > 10
    assert len((tmp_path / "m.csv").read_text().splitlines()) == arm.sent + 1


class LosesTheLink(Arm):
    """Fails in everything from some command on, also in holding."""

    def read(self):
        if self.sent > 20:
            raise DriverError("the link is lost")
        return super().read()

    def hold(self):
        if self.sent > 20:
            raise DriverError("the link is lost, it cannot hold")
        super().hold()


def test_a_lost_link_keeps_what_was_recorded(tmp_path):
    arm, out = LosesTheLink(), tmp_path / "m.csv"
    with pytest.raises(DriverError, match=r"the link is lost; the 21 rows until then are in .*m\.csv"):
        record(arm, JOINTS, TIME, motion(0.7), out)
    assert len(out.read_text().splitlines()) == 1 + arm.sent == 22


def test_a_recording_that_never_began_leaves_an_older_one(tmp_path):
    out = tmp_path / "m.csv"
    out.write_text("older")
    with pytest.raises(DriverError, match="the motion starts at"):
        record(Arm(), JOINTS, TIME, motion(0.1) + 0.4, out)
    assert out.read_text() == "older"


@pytest.mark.slow
@pytest.mark.realtime
def test_excite_records_through_a_driver_and_the_joint_doctor_reads_it(tmp_path):
    pytest.importorskip("mujoco")
    log = tmp_path / "m.csv"
    make = ["excite", "so101", "--driver", "target", "--driver-set", "robot=so101", "--driver-set", "task=reach"]
    make += ["--log", str(log), "--out", str(tmp_path / "c.csv")]
    make += ["--duration", "20", "--speed", "0.8", "--joint", "wrist_roll", "--joint", "gripper"]
    refused = CliRunner().invoke(app, make, input="n\n")
    assert refused.exit_code != 0 and not log.exists()
    done = CliRunner().invoke(app, [*make, "--yes"])
    assert done.exit_code == 0, done.output
    recorded = read_log(log, ARM_JOINTS)
    assert np.ptp(recorded.command[:, 4:], axis=0).min() > 0.3  # both were moved,
    assert np.abs(recorded.command - recorded.position).max() < 0.5  # and followed
    checked = CliRunner().invoke(app, ["check-joints", "so101", str(log)])
    assert checked.exit_code == 0, checked.output
    wrong = CliRunner().invoke(app, ["excite", "so101", "--driver", "target", "--log", str(log), "--yes"])
    assert isinstance(wrong.exception, ConfigError) and "reports no joints" in str(wrong.exception)
