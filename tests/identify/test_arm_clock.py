"""Stamps, zeros and fits that cannot be right are refused; those of a servo are not."""

import numpy as np
import pytest
from real_data import BOTH

from sim2real.cli.main import main
from sim2real.errors import ConfigError
from sim2real.identify.arm.check import check_joints
from sim2real.identify.arm.clock import joint_lags, pace
from sim2real.identify.arm.fit import JointFit
from sim2real.identify.arm.limits import refuse_degrees, remarks
from sim2real.identify.arm.regression import modelled, on_grid
from sim2real.identify.arm.verdict import on_bounds, refuse_clock, refuse_fit
from sim2real.recordings.logs import JointLog, read_logs
from sim2real.recordings.tables import LogError
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm

ARM = Arm(robot_folder("so101"))
JOINTS = ARM.joints
ROWS = 1000
TIME = 0.02 * np.arange(ROWS)


def commands(seed=0):
    """Lively sums of sines about the rest pose [T, J] rad."""
    rng = np.random.default_rng(seed)
    hertz, phase = rng.uniform(0.15, 1.0, (5, 1, len(JOINTS))), rng.uniform(0, 2 * np.pi, (5, 1, len(JOINTS)))
    waves = np.sin(2 * np.pi * hertz * TIME[None, :, None] + phase).sum(axis=0)
    return ARM.rest + 0.12 * (waves - waves[0])


def servos(late_rows=0, seed=0, name="m"):
    """What the arm's own servos make of commands, measured some rows too late (or too early)."""
    command = commands(seed)
    blank = JointLog(name, JOINTS, TIME, command, np.tile(command[0], (ROWS, 1)))
    moved = modelled(ARM, [blank], [on_grid(blank, command)])[0]
    moved = np.concatenate((moved, moved[-1:].repeat(ROWS - len(moved), axis=0)))
    at = np.clip(np.arange(ROWS) - late_rows, 0, ROWS - 1)
    return JointLog(name, JOINTS, TIME, command, np.round(moved[at] / ARM.encoder_step) * ARM.encoder_step)


@pytest.mark.parametrize(
    ("rows", "words"),
    [(0, ""), (2, ""), (-2, ""), (10, "later than these servos can"), (25, "later than these servos can"),
     (-7, "sooner than a servo answers")],
)  # fmt: skip
def test_lags_that_no_servo_has_are_faults(rows, words):
    found = joint_lags(ARM, [servos(rows)])
    assert all((words in fault) if words else fault == "" for fault in found.faults), found
    straight = joint_lags(ARM, [servos()]).lag_s
    np.testing.assert_allclose(found.lag_s - straight, 0.02 * rows, atol=0.021)


def test_one_late_recording_among_others_is_named():
    logs = [servos(0, seed, f"m{seed}") for seed in range(3)] + [servos(25, 3, "odd")]
    found = joint_lags(ARM, logs)
    assert set(found.faults) == {""} and len(found.recordings) == 1 and found.recordings[0].startswith("odd: ")
    with pytest.raises(LogError, match=r"odd: measurements follow commands by .*Nothing was fitted"):
        refuse_clock(ARM, logs)


@pytest.mark.parametrize(("ahead", "words"), [(0, "are their commands"), (1, "the commands of the next row")])
def test_copies_of_commands_are_no_measurements(ahead, words):
    command = commands()
    log = JointLog("m", JOINTS, TIME[: ROWS - 1], command[:-1], command[ahead : ROWS - 1 + ahead])
    assert all(words in fault for fault in joint_lags(ARM, [log]).faults)
    with pytest.raises(LogError, match=words):
        refuse_clock(ARM, [log])


def test_an_arm_without_identified_servos_may_be_slow_but_not_early_or_late(tmp_path):
    """A description alone does not say how slow servos are; a dead time beyond its bound is no servo's."""
    plain = Arm(robot_folder("so101"))
    plain._nominal = plain.described()
    for rows, words in ((3, ""), (30, "later than"), (-8, "sooner than")):
        faults = joint_lags(plain, [servos(rows)]).faults
        told = sum(bool(words) and words in fault for fault in faults)
        # Friction makes the gripper's lag unlike any that a first-order servo has; the others tell.
        assert told >= 4 if words else set(faults) == {""}, (rows, faults)


@pytest.mark.parametrize("wrong", [3.0, 1.0 / 3.0])
def test_the_time_scale_is_free(wrong):
    """Rows at 50 Hz whose stamps say 16.7 or 150 Hz, on a robot that is controlled at 50 Hz; and at 30 Hz unstamped."""
    log = servos()
    log = JointLog("m", JOINTS, wrong * log.time, log.command, log.position)
    scale, sentence = pace(ARM, [log])
    assert scale == pytest.approx(1.0 / wrong, rel=0.02) and ("too slow" if wrong > 1.0 else "too fast") in sentence
    assert pace(ARM, [servos()]) == (1.0, "")


@BOTH
def test_real_recordings_have_the_lag_of_servos(recordings):
    logs = read_logs([recordings("so101_real")], JOINTS, ARM.aliases)[:4]
    found = joint_lags(ARM, logs)
    assert set(found.faults) == {""} and found.recordings == ()


def test_another_zero_is_remarked_and_is_no_unit(tmp_path, capsys):
    """Both sides shifted: a quarter of two joints' commands is beyond the limits, none is in degrees."""
    log, shift = servos(), np.zeros(6)
    shift[1] = ARM.chain.high[1] + 0.1 - np.quantile(log.command[:, 1], 0.75)
    shift[2] = ARM.chain.low[2] - 0.1 - np.quantile(log.command[:, 2], 0.25)
    shift[5] = 0.7  # the gripper opens one way only
    log = JointLog("m", JOINTS, TIME, log.command + shift, log.position + shift)
    (told,) = remarks(ARM, [log])
    assert "shoulder_lift" in told and "elbow_flex" in told and "is the zero another one" in told
    assert "degrees" not in told and "wrist" not in told
    found = check_joints(ARM, [log])
    refuse_degrees(ARM, [log], found)
    assert "beyond its limits" in found.joints[1].verdict and found.joints[0].verdict == "in order"
    degrees = JointLog("m", JOINTS, TIME, *(np.degrees(0.15 * v) for v in (log.command, log.position)))
    with pytest.raises(ConfigError, match="convert degrees first"):
        refuse_degrees(ARM, [degrees], check_joints(ARM, [degrees]))


def fitted(**values):
    names = tuple(n for n, q in ARM.servo.items() if not q.fixed)
    own = {n: float(v[0]) for n, v in ARM.nominal().items()} | values
    return JointFit(JOINTS[0], names, own, 1e-8 * np.eye(len(names)), 0.0)


def test_values_on_their_bounds_are_refused():
    assert on_bounds(ARM, fitted()) == []
    assert on_bounds(ARM, fitted(backlash=0.0, coulomb=0.0, dead_time=0.0)) == []  # nothing of it is no bound
    assert on_bounds(ARM, fitted(acceleration=4.0)) == ["shoulder_pan.acceleration = 4 rad/s^2 (bounds 4 .. 400)"]
    assert "dead_time = 0.12 s" in on_bounds(ARM, fitted(dead_time=0.12))[0]
    unknown = fitted(dead_time=0.12)
    unknown.covariance = np.eye(len(unknown.names))
    assert on_bounds(ARM, unknown) == []
    good = dict.fromkeys(JOINTS, 1e-3)
    with pytest.raises(LogError, match=r"values lie on their bounds: shoulder_pan\.dead_time"):
        refuse_fit(ARM, [servos()], [fitted(dead_time=0.12)], good)
    with pytest.raises(LogError, match=r"what is commanded is better for elbow_flex \(500\.0 mrad"):
        refuse_fit(ARM, [servos()], [fitted()], good | {"elbow_flex": 0.5})
    refuse_fit(ARM, [servos()], [fitted()], good)


def test_identify_writes_nothing_for_late_recordings(tmp_path, capsys):
    out, paths = tmp_path / "params.yaml", []
    for seed in range(2):
        log = servos(25, seed)
        paths.append(str(tmp_path / f"m{seed}.npz"))
        np.savez(paths[-1], t=log.time, q_cmd=log.command, q=log.position)
    with pytest.raises(SystemExit) as caught:
        main(["identify", "so101", *paths, "--folds", "2", "--out", str(out)])
    assert caught.value.code == 2 and not out.exists()
    assert "later than these servos can" in " ".join(capsys.readouterr().err.split())
