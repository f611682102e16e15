"""The safety filter: whatever goes in, what comes out is finite, inside limits and slew rates."""

import numpy as np
import pytest

from sim2real.robots import load_robot
from sim2real.runtime.safety import SafetyFilter, SafetySettings, SafetyState

ROBOT = load_robot("crazyflie").spec
LOW = np.array([c.low for c in ROBOT.commands])
HIGH = np.array([c.high for c in ROBOT.commands])
HOLD = np.array([c.hold for c in ROBOT.commands])
DT = 0.02
SLEW = DT * np.array([c.slew_per_s for c in ROBOT.commands])
GOOD = np.array([0.35, 0.05, -0.05, 0.1])


@pytest.fixture
def safety():
    made = SafetyFilter(ROBOT, DT)
    made.activate(HOLD)
    return made


def test_nothing_but_hold_before_activation():
    safety = SafetyFilter(ROBOT, DT)
    np.testing.assert_allclose(safety.step(GOOD, 0.0, {}), HOLD)
    assert safety.state is SafetyState.INACTIVE


def test_good_commands_pass_and_large_ones_are_limited(safety):
    np.testing.assert_allclose(safety.step(GOOD, 0.0, {}), GOOD)
    sent = safety.step(np.array([5.0, 5.0, -5.0, 50.0]), 0.0, {})
    np.testing.assert_allclose(
        sent, np.clip([5, 5, -5, 50], np.maximum(LOW, GOOD - SLEW), np.minimum(HIGH, GOOD + SLEW))
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_not_finite_holds(safety, bad):
    safety.step(GOOD, 0.0, {})
    sent = safety.step(np.array([bad, 0.0, 0.0, 0.0]), 0.0, {})
    assert safety.state is SafetyState.HOLD and "not finite" in safety.reason
    np.testing.assert_allclose(sent[1:], HOLD[1:], atol=1e-12)


def test_stale_data_holds_then_lands_for_good(safety):
    safety.step(GOOD, 0.0, {})
    states = []
    for tick in range(60):
        safety.step(GOOD, 0.11 + tick * DT, {})
        states.append(safety.state)
    assert states[0] is SafetyState.HOLD
    assert states.index(SafetyState.LAND) == pytest.approx(SafetySettings().land_after_s / DT, abs=1)
    for _ in range(20):
        sent = safety.step(GOOD, 0.0, {})
    assert safety.state is SafetyState.LAND, "landing is not given up when data comes back"
    assert sent[0] < 0.95 * HOLD[0] + 0.05 * GOOD[0]
    np.testing.assert_allclose(sent[1:], 0.0, atol=1e-12)
    safety.activate(HOLD)
    safety.step(GOOD, 0.0, {})
    assert safety.state is SafetyState.FLY


def test_good_data_ends_the_time_without_data(safety):
    """Two gaps, each too short to land on, with one good period in between."""
    for _ in range(2):
        for tick in range(int(0.9 * SafetySettings().land_after_s / DT)):
            safety.step(GOOD, 0.11 + tick * DT, {})
            assert safety.state is SafetyState.HOLD
        safety.step(GOOD, 0.0, {})


def test_commands_that_are_not_finite_do_not_land_it_where_data_is_fresh(safety):
    for _ in range(100):
        safety.step(np.full(4, np.nan), 0.0, {})
    assert safety.state is SafetyState.HOLD


def test_an_age_that_is_no_number_is_no_fresh_data(safety):
    safety.step(GOOD, 0.0, {})
    states = []
    for _ in range(40):
        assert np.isfinite(safety.step(GOOD, np.nan, {})).all()
        assert safety.reason == "no state yet"
        states.append(safety.state)
    assert states[0] is SafetyState.HOLD
    assert states.index(SafetyState.LAND) == pytest.approx(SafetySettings().land_after_s / DT, abs=1)


@pytest.mark.parametrize("activated", [True, False])
def test_slew_rates_hold_in_every_state(activated):
    """By a robot whose thrust changes so slowly that landing takes longer than it lasts."""
    slow = ROBOT.model_copy(
        update={"commands": tuple(c.model_copy(update={"slew_per_s": 0.05}) for c in ROBOT.commands)}
    )
    safety = SafetyFilter(slow, DT)
    safety.activate(HOLD)
    seen = []
    for tick in range(200):
        if tick == 5 and not activated:
            safety.deactivate()
        before = safety.sent
        sent = safety.step(np.array([0.7, 0.4, 0.4, 3.0]), 0.0 if tick < 20 else np.inf, {})
        assert np.abs(sent - before).max() <= 0.05 * DT + 1e-12
        seen.append(safety.state)
    assert (SafetyState.LAND in seen) is activated
    assert not activated or sent[0] < HOLD[0], "it lands"


def test_joints_hold_where_they_were_sent_last_and_begin_where_they_are():
    arm = load_robot("so101").spec
    start = np.array([0.1, -0.2, 0.3, 0.6, 0.0, 0.2])
    safety = SafetyFilter(arm, DT)
    with pytest.raises(ValueError, match="position is not known"):
        safety.activate(np.array([*start[:5], np.nan]))
    safety.activate(start)
    np.testing.assert_array_equal(safety.step(None, 0.0, {}), start)
    for _ in range(10):
        safety.step(start + 0.05, 0.0, {})
    there = safety.step(start + 0.05, 0.0, {})
    assert safety.state is SafetyState.FLY
    np.testing.assert_allclose(there, start + 0.05)
    for _ in range(60):
        np.testing.assert_array_equal(safety.step(start - 0.5, np.inf, {}), there)
    assert safety.state is SafetyState.LAND and safety.is_holding


def test_no_data_at_all_holds(safety):
    safety.step(None, float("inf"), {})
    assert safety.state is SafetyState.HOLD and safety.reason == "no state yet"


def test_hold_ends_only_after_steady_data(safety):
    safety.step(None, 0.0, {})
    states = [(safety.step(GOOD, 0.0, {}), safety.state)[1] for _ in range(6)]
    assert states[:4] == [SafetyState.HOLD] * 4 and states[4] is SafetyState.FLY
    safety.step(None, 0.0, {})
    safety.step(GOOD, 0.0, {})
    assert safety.reason == "waiting for steady data"


def test_data_is_fresh_up_to_the_limit_and_an_envelope_ends_beyond_its(safety):
    edge = np.array([[ROBOT.envelope["position_error"], 0.0, 0.0]])
    safety.step(GOOD, SafetySettings().stale_s, {"position_error": edge})
    assert safety.state is SafetyState.FLY


AT_REST = {"linear_velocity": np.zeros((1, 3)), "up": np.array([[0.0, 0.0, 1.0]])}


def test_outside_the_envelope_it_brakes_by_the_state_and_lands_if_that_does_not_end_it(safety):
    far = {**AT_REST, "position_error": np.array([[9.0, 0.0, 0.0]])}
    safety.step(GOOD, 0.0, AT_REST)
    for _ in range(5):
        sent = safety.step(np.array([0.05, 0.3, 0.3, 0.0]), 0.0, far)
    assert safety.state is SafetyState.HOLD and safety.reason == "position_error is 9, beyond 4"
    np.testing.assert_allclose(sent, HOLD, rtol=0.01, err_msg="not the policy's thrust of 0.05 N")
    states = [(safety.step(GOOD, 0.0, far), safety.state)[1] for _ in range(200)]
    assert states.index(SafetyState.LAND) == pytest.approx(SafetySettings().give_up_after_s / DT, abs=6)
    for value in (np.nan, 1500.0):
        safety.activate(HOLD)
        safety.step(GOOD, 0.0, {"position_error": np.array([[value, 0.0, 0.0]])})
        assert safety.state is SafetyState.HOLD
    assert safety.reason.endswith("are positions in millimetres?")


def _flown(safety, velocity, height, steps, proposed=None, **faults):
    """A point of 32 g whose attitude follows at once: its speeds and heights while the filter alone decides."""
    velocity, track = np.array(velocity), []
    for _ in range(steps):
        signals = {**AT_REST, "linear_velocity": velocity[None]}
        thrust, roll, pitch, _ = safety.step(proposed, 0.0, signals, **faults)
        lift = thrust / HOLD[0] * 9.81
        on_ground = height <= 0.0
        velocity = velocity + DT * np.array([lift * np.sin(pitch), -lift * np.sin(roll), lift - 9.81])
        velocity = np.zeros(3) if on_ground and velocity[2] < 0.0 else velocity
        height = max(0.0, height + DT * velocity[2])
        track.append((*velocity, height))
    return np.array(track)


def test_deactivated_at_speed_it_brakes_while_the_state_is_good_and_then_is_silent(safety):
    safety.step(GOOD, 0.0, AT_REST)
    safety.deactivate()
    track = _flown(safety, [3.0, -1.8, 0.5], 2.0, 120)
    assert np.linalg.norm(track[-1, :3]) < SafetySettings().still_m_s
    assert np.abs(np.cumsum(track[:, :2] * DT, axis=0)).max() < 3.5
    assert safety.is_holding


def test_without_a_state_it_does_not_brake(safety):
    safety.step(GOOD, 0.0, AT_REST)
    safety.deactivate()
    for _ in range(10):
        sent = safety.step(None, 0.0, {"linear_velocity": np.array([[3.0, 0.0, 0.0]])}, doubt="frozen")
    np.testing.assert_allclose(sent[1:], 0.0)
    assert safety.is_holding


@pytest.mark.parametrize("height", [3.0, 12.0])
def test_landing_with_a_state_touches_gently_from_any_height_and_ends(safety, height):
    for _ in range(30):
        safety.step(None, np.inf, {})
    assert safety.state is SafetyState.LAND
    track = _flown(safety, np.zeros(3), height, int((2.2 * height + 4.0) / DT))
    touchdown = int(np.argmax(track[:, 3] <= 0.0))
    assert touchdown > 0 and -0.7 < track[:touchdown, 2].min() < -0.4
    assert safety.sent[0] == 0.0


def test_a_doubted_state_lands_without_it_and_a_conflict_holds_with_it(safety):
    safety.step(GOOD, 0.0, AT_REST)
    for _ in range(30):
        safety.step(GOOD, 0.0, AT_REST, doubt="the pose stands still")
    assert safety.state is SafetyState.LAND and safety.reason == "the pose stands still"
    safety.activate(HOLD)
    track = _flown(safety, [2.0, 0.0, 0.0], 2.0, 120, GOOD, conflict="2 nodes publish pose")
    assert safety.state is SafetyState.HOLD and safety.reason == "2 nodes publish pose"
    assert np.abs(track[-1, :2]).max() < 0.1


def test_a_joint_that_begins_outside_its_limits_comes_back_at_its_slew_rate_or_stays():
    arm = load_robot("so101").spec
    limit, slew = arm.commands[0].high, arm.commands[0].slew_per_s * DT
    start = np.array([limit + 0.2, -0.2, 0.3, 0.6, 0.0, 0.2])
    safety = SafetyFilter(arm, DT)
    safety.activate(start)
    np.testing.assert_array_equal(safety.step(None, 0.0, {}), start)
    for _ in range(5):
        safety.step(start, 0.0, {})
    safety.activate(start)
    sent = np.array([safety.step(np.zeros(6), 0.0, {})[0] for _ in range(4)])
    np.testing.assert_allclose(sent, start[0] - slew * np.arange(1, 5))


def test_a_heavy_drone_holds_with_the_thrust_it_needed(safety):
    heavy = np.array([0.5, 0.0, 0.0, 0.0])
    for _ in range(500):
        safety.step(heavy, 0.0, {})
    for _ in range(10):
        sent = safety.step(None, 0.0, {})
    assert sent[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("sent, held", [(0.0, 0.75), (0.73, 2.0)])
def test_holding_thrust_stays_within_what_drones_weigh(safety, sent, held):
    for _ in range(500):
        safety.step(np.array([sent, 0.0, 0.0, 0.0]), 0.0, {})
    for _ in range(20):
        sent = safety.step(None, 0.0, {})
    assert sent[0] == pytest.approx(held * HOLD[0])


@pytest.mark.parametrize("excess, speed", [(0.92, 2.2), (1.0, 2.0), (1.05, 2.2), (1.08, 2.8)])
def test_landing_without_data_comes_to_an_end(safety, excess, speed):
    """Open loop from 1.5 m, by a drone that holds with a little more than its weight."""
    for _ in range(500):
        safety.step(np.array([0.4, 0.0, 0.0, 0.0]), 0.0, {})
    thrust = np.array([safety.step(None, np.inf, {})[0] for _ in range(int(40 / DT))])
    assert safety.state is SafetyState.LAND and thrust[-1] == 0.0
    climb = np.cumsum(9.81 * (thrust / (0.4 / excess) - 1.0) * DT)
    height = 1.5 + np.cumsum(climb * DT)
    touchdown = int(np.argmax(height < 0.0))
    assert 0 < touchdown * DT < 10.0 and -speed < climb[touchdown] < 0.0
    assert height.max() < 3.0


def test_anything_in_only_safe_commands_out(safety):
    rng = np.random.default_rng(0)
    poison = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0])
    previous = safety.sent.copy()
    seen, age = set(), 0.0
    for _ in range(20_000):
        proposed = rng.normal(size=4) * 10.0 ** rng.integers(-3, 4)
        if rng.random() < 0.02:
            proposed[rng.integers(4)] = rng.choice(poison)
        if rng.random() < 0.02:
            age = rng.choice([0.0, 0.05, 0.2, np.inf, np.nan])  # and it stays so for a while
        signals = {"position_error": rng.normal(size=(1, 3)) * rng.choice([1.0, 10.0, np.nan], p=[0.9, 0.08, 0.02])}
        signals["linear_velocity"] = rng.normal(size=(1, 3)) * rng.choice([1.0, 1e200, np.nan], p=[0.9, 0.08, 0.02])
        if rng.random() < 0.002:
            safety.activate(HOLD)
            previous = safety.sent.copy()
        sent = safety.step(None if rng.random() < 0.01 else proposed, float(age), signals)
        seen.add(safety.state)
        assert np.isfinite(sent).all()
        assert (sent >= LOW).all() and (sent <= HIGH).all()
        assert (np.abs(sent - previous) <= SLEW + 1e-12).all()
        previous = sent
    assert seen == {SafetyState.FLY, SafetyState.HOLD, SafetyState.LAND}
