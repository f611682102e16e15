"""What a live robot must show: units, times, clocks, frames and axes, each fault named with its mend."""

import numpy as np
import pytest

from sim2real.robots import load_robot
from sim2real.runtime.geometry import rpy_to_quat
from sim2real.runtime.live_check import Agreement, Stream, attitude_fault, joint_fault, pose_fault

ARM = load_robot("so101").spec.commands
NAMES = [command.name for command in ARM]
LOW, HIGH = np.array([c.low for c in ARM]), np.array([c.high for c in ARM])


def joints(values, units=("rad",) * 6):
    return joint_fault(NAMES, np.array(values, dtype=float), LOW, HIGH, units)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([10, -40, 50, 20, 0, 30], "these look like degrees, or LeRobot's -100 to 100; send radians"),
        ([-100, 100, -100, 99, 0, 50], "these look like degrees, or LeRobot's"),
        ([0.1, 0.1, 0.1, 1000.0, 0, 0], "'wrist_flex' at 1000 is outside -1.66 .. 1.66 rad: no arm is there"),
        ([0.1, 0.1, 0.1, 1e308, 0, 0], "'wrist_flex' at 1e+308 is outside"),
        ([2.9, 0.1, 0.1, 0.1, 0, 0], "'shoulder_pan' at 2.9 is outside -1.92 .. 1.92 rad: no arm is there"),
    ],
)
def test_joints_where_no_arm_is(values, said):
    assert said in joints(values)


@pytest.mark.parametrize("values", [[0.1, -0.2, 0.3, 0.6, 0.0, 0.2], [2.2, -2.0, 1.9, -1.9, 3.0, -0.4]])
def test_joints_inside_their_limits_or_a_little_outside(values):
    """Calibrations differ by some degrees, and an arm at rest may lean on its stops."""
    assert joints(values) == ""


def test_a_slide_in_millimetres():
    assert "these look like millimetres" in joint_fault(
        ["slide"], np.array([35.0]), np.array([0.0]), np.array([0.04]), ["m"]
    )


def fed(rate_hz=100.0, seconds=2.0, delay=lambda t: 0.002, jitter=0.0, values=None, needs_hz=50.0):
    rng, stream = np.random.default_rng(0), Stream("pose", needs_hz)
    for at in np.arange(0.0, seconds, 1.0 / rate_hz):
        stream.take(at + jitter * rng.random(), delay(at), rng.random(3) if values is None else values)
    return stream


def test_a_good_stream_has_no_problems_and_its_figures_are_right():
    stream = fed(jitter=0.003)
    assert stream.problems() == [] and stream.excess_s == 0.0 and stream.frozen_s == 0.0
    figures = stream.figures()
    assert figures["rate_hz"] == pytest.approx(100.0, rel=0.01)
    assert figures["delay_ms"] == pytest.approx(2.0)
    assert 0.2 < figures["jitter_ms"] < 3.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seconds": 0.4}, "pose: 0.4 s of it were seen; activate again after 1 s"),
        ({"delay": lambda t: 0.3}, "pose is 0.30 s old when it arrives"),
        ({"delay": lambda t: 5.0}, "pose is 5.00 s old when it arrives"),
        ({"delay": lambda t: -0.4}, "pose is stamped 0.40 s in the future"),
        ({"delay": lambda t: 1.7e9}, "stamps of another clock, 1.7e+09 s from"),
        ({"delay": lambda t: 0.03 * t}, "its clock drifts by 3% against this computer's"),
        ({"rate_hz": 11.6}, "pose comes at 11.6 Hz, 50 Hz are needed; raise its rate"),
        ({"rate_hz": 38.0}, "pose comes at 38.0 Hz"),
    ],
)
def test_what_speaks_against_a_stream(settings, said):
    problems = fed(**settings).problems()
    assert len(problems) == 1 and said in problems[0]


def test_a_stream_that_stutters_and_one_late_message_that_is_none():
    stream = Stream("pose", 50.0)
    moments = np.sort(np.concatenate([start + np.linspace(0.0, 0.28, 60) for start in np.arange(0.0, 2.0, 0.5)]))
    for at in moments:
        stream.take(at, 0.001, np.array([at]))
    assert "pose comes with 3 gaps of up to 220 ms" in stream.problems()[0]
    stream = fed()
    stream.take(2.2, 0.2, np.ones(3))
    assert stream.problems() == [] and stream.excess_s == pytest.approx(0.15)


def test_values_that_stand_still():
    assert fed(values=np.ones(3), seconds=1.0).frozen_s == pytest.approx(0.99)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("yaw", [0.0, 1.0, -2.0])
def test_a_quaternion_in_the_other_order_is_named(tilt, yaw):
    quat = rpy_to_quat(np.array([tilt, 0.0, yaw]))
    assert attitude_fault(quat, 0.0) == ""
    said = attitude_fault(quat[[3, 0, 1, 2]], 0.1)
    assert "order wxyz" in said, said
    assert attitude_fault(quat[[3, 0, 1, 2]], 2.0) == "", "a drone that moves may lean"


def test_a_drone_that_lies_on_its_back():
    assert "180 degrees from upright" in attitude_fault(np.array([0.6, 0.8, 0.0, 0.0]), 0.0)


@pytest.mark.parametrize(
    ("pos", "said"),
    [([0.1, 0.2, -1.5], "z points up (ENU), not down (NED)"), ([0.0, 2e6, 1.0], "2e+06 m from the origin")],
)
def test_positions_that_cannot_be(pos, said):
    assert said in pose_fault(np.array(pos), 0.0)
    assert pose_fault(np.array([3.0, -2.0, -0.1]), 0.0) == ""
    assert pose_fault(np.array([3.0, -2.0, -1.5]), -2.0) == ""


def agreed(position, velocity=lambda v: v, speed=1.0):
    """Sentences while a drone flies a circle of 1 m."""
    agreement, said = Agreement(), []
    for at in np.arange(0.0, 3.0, 0.01):
        angle = speed * at
        pos = np.array([np.cos(angle), np.sin(angle), 1.0 + 0.5 * np.sin(angle)])
        vel = speed * np.array([-np.sin(angle), np.cos(angle), 0.5 * np.cos(angle)])
        said.append(agreement.take(10.0 + at, position(pos, at), velocity(vel)))
    return [sentence for sentence in said if sentence]


def test_positions_and_velocities_of_one_motion_agree():
    noise = np.random.default_rng(0)
    assert not agreed(lambda pos, at: pos + 0.01 * noise.normal(size=3), speed=3.0)


@pytest.mark.parametrize(
    ("position", "velocity"),
    [
        (lambda pos, at: 1000.0 * pos, lambda v: v),
        (lambda pos, at: pos * [1, 1, -1], lambda v: 3 * v),
        (lambda pos, at: pos[[1, 0, 2]], lambda v: 2 * v),
        (lambda pos, at: pos + 0.5 * (at > 2.0), lambda v: v),
    ],
)
def test_another_unit_axis_or_a_jump_is_noticed(position, velocity):
    said = agreed(position, velocity)
    assert said and "one has another unit or frame, or the estimate jumped" in said[0]
