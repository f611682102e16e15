"""Network outputs to commands and back, by hand, and what a robot must provide."""

import numpy as np
import pytest

from sim2real.errors import SpecError
from sim2real.runtime.observation import (
    ObservationHistory,
    check_signals,
    decode_action,
    encode_action,
    measured_command,
    own_signals,
)
from sim2real.runtime.spec import ActionTerm, ObservationTerm, PolicySpec, SignalSpec

THRUST = ActionTerm(name="thrust", unit="N", low=0.1, high=0.7)
STEP = {"unit": "rad", "low": -0.04, "high": 0.04, "measured": "joint_pos"}
PAN = ActionTerm(name="pan", limits=(-1.0, 1.0), **STEP)
LIFT = ActionTerm(name="lift", limits=(0.0, 2.0), **STEP)
POSITIONS = ObservationTerm(name="joint_pos", components=("lift", "pan"), unit="rad", frame="joint")
SPEC = PolicySpec(
    robot="arm",
    task="hold",
    control_rate_hz=50,
    signals="arm",
    goal=SignalSpec(name="goal", components=("x",), unit="m", frame="base"),
    observation={"observation": (POSITIONS,)},
    action=(PAN, THRUST, LIFT),
)


def test_outputs_span_the_range_and_no_more():
    outputs = np.array([[-1.0], [-0.5], [0.0], [1.0], [3.0], [-7.0], [np.inf]], dtype=np.float32)
    command = decode_action((THRUST,), outputs)
    assert command.dtype == np.float64
    np.testing.assert_allclose(command[:, 0], [0.1, 0.25, 0.4, 0.7, 0.7, 0.1, 0.7], atol=1e-12)
    assert np.isnan(decode_action((THRUST,), np.array([[np.nan]], dtype=np.float32))).all()


def test_increments_are_added_to_the_last_command_within_their_limits():
    outputs = np.array([[0.5, -1.0], [1.0, -1.0], [-1.0, 1.0]], dtype=np.float32)
    last = np.array([[0.2, 0.5], [0.99, 0.01], [-0.98, 1.99]])
    command = decode_action((PAN, LIFT), outputs, last)
    np.testing.assert_allclose(command, [[0.22, 0.46], [1.0, 0.0], [-1.0, 2.0]], atol=1e-9)
    with pytest.raises(SpecError, match="decoding needs the last command"):
        decode_action((PAN, LIFT), outputs)


def test_a_command_goes_back_to_the_output_that_made_it():
    terms, last = (PAN, THRUST, LIFT), np.array([[0.2, 0.3, 0.5]])
    outputs = np.array([[0.25, -0.75, -0.5]], dtype=np.float32)
    command = decode_action(terms, outputs, last)
    before = command.copy()
    np.testing.assert_allclose(encode_action(terms, command, last), outputs, atol=1e-6)
    np.testing.assert_array_equal(command, before, err_msg="what was sent is not changed")
    np.testing.assert_allclose(encode_action((THRUST,), np.array([[5.0], [-5.0], [0.55]])), [[1.0], [-1.0], [0.5]])
    with pytest.raises(SpecError, match="encoding needs the last command"):
        encode_action(terms, command)


def test_a_robot_starts_from_where_it_is_by_name_and_within_limits():
    signals = {"joint_pos": np.array([[0.7, -0.3], [-0.5, 1.4]])}  # lift, pan
    np.testing.assert_allclose(measured_command(SPEC, signals), [[-0.3, 0.4, 0.7], [1.0, 0.4, 0.0]])
    frame = own_signals(SPEC, signals, np.zeros((2, 3)), np.array([[0.0, 0.5, 1.0], [1.0, 0.4, 0.2]]))
    np.testing.assert_allclose(frame["tracking_error"], [[0.3, 0.1, 0.3], [0.0, 0.0, 0.2]], atol=1e-12)
    np.testing.assert_array_equal(frame["last_action"], np.zeros((2, 3)))
    assert set(frame) == {"joint_pos", "last_action", "tracking_error"}
    free = SPEC.model_copy(update={"action": (THRUST,)})
    assert set(own_signals(free, signals, np.zeros((2, 1)), np.zeros((2, 1)))) == {"joint_pos", "last_action"}


def test_a_history_keeps_the_newest_frames_oldest_first_and_begins_anew_by_rows():
    term = POSITIONS.model_copy(update={"history": 3})
    plain = ObservationTerm(name="h", components=("h",), unit="m", frame="world")
    history = ObservationHistory((term, plain), 2)
    np.testing.assert_array_equal(history.observation(), np.zeros((2, 7)))

    def frame(value, rows=2):
        return {"joint_pos": np.tile([value, -value], (rows, 1)), "h": np.full((rows, 1), 10.0 * value)}

    history.reset(frame(1.0))
    for value in (2.0, 3.0):
        history.push(frame(value))
    np.testing.assert_array_equal(history.observation(), np.tile([1, -1, 2, -2, 3, -3, 10], (2, 1)))
    history.reset(frame(7.0, rows=1), np.array([1]))
    history.push(frame(4.0))
    np.testing.assert_array_equal(history.observation(), [[2, -2, 3, -3, 4, -4, 10], [7, -7, 7, -7, 4, -4, 10]])
    two = ObservationHistory((POSITIONS.model_copy(update={"history": 2}),))
    for value in (5.0, 6.0, 7.0):
        two.push(frame(value, rows=1))
    np.testing.assert_array_equal(two.observation(), [[6, -6, 7, -7]])
    with pytest.raises(SpecError, match="no observation terms"):
        ObservationHistory((), 1).observation()
    with pytest.raises(SpecError, match=r"got \[2\]"):
        history.push({"joint_pos": np.zeros(2), "h": np.zeros((2, 1))})


def test_what_a_robot_provides_beyond_the_need_does_not_matter_and_every_need_counts():
    provided = {"joint_pos": SignalSpec(name="joint_pos", components=("lift", "pan"), unit="rad", frame="joint")}
    check_signals(SPEC.measured_signals(), provided | {"more": SPEC.goal})
    with pytest.raises(SpecError, match=r"reads 'joint_pos', which this robot does not provide.*\['more'\]"):
        check_signals(SPEC.measured_signals(), {"more": SPEC.goal})
    wrong = provided["joint_pos"].model_copy(update={"components": ("pan", "lift")})
    with pytest.raises(SpecError, match="with components"):
        check_signals({"more": SPEC.goal} | SPEC.measured_signals(), {"more": SPEC.goal, "joint_pos": wrong})
