"""The drone target: against the package's own dynamics, and against what is known by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.typing import NDArray

from robot_drivers.limits import DriverError
from sim2real.targets.driver import TargetDriver
from sim2real.targets.drone import (
    AIRFRAMES,
    CONDITIONS,
    PERFECT_SENSORS,
    DroneSensors,
    SimulatedDrones,
    quat_multiply,
    rotation_quat,
    yaw_of,
)
from sim2real.targets.drone_model import DroneDynamics, airframe_parameters

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # the package asks for it
pytest.importorskip("drone_models", reason="the drone target needs sim2real[drivers]")

Array = NDArray[np.float64]
GOAL = np.array([0.0, 0.0, 1.5])


def calm(
    airframe: str = "cf2x_L250", condition: str = "fresh", count: int = 1, step_s: float = 0.002
) -> SimulatedDrones:
    """A target without noise, trim or gusts."""
    return SimulatedDrones(airframe, condition, count, 0, PERFECT_SENSORS, gust_force_std=0.0, step_s=step_s)


def commands(
    twin: SimulatedDrones, thrust: float | None = None, roll: float = 0.0, pitch: float = 0.0, yaw_rate: float = 0.0
) -> Array:
    return np.tile([twin.hover_command if thrust is None else thrust, roll, pitch, yaw_rate], (twin.count, 1))


def pd_command(twin: SimulatedDrones, pos: Array, quat: Array, vel: Array) -> Array:
    """A hand-written controller: proportional and derivative, yaw held at zero."""
    acceleration = np.clip(3.0 * (GOAL - pos) - 3.0 * vel, -3.0, 3.0)
    yaw = yaw_of(quat)
    forward = np.cos(yaw) * acceleration[:, 0] + np.sin(yaw) * acceleration[:, 1]
    left = np.cos(yaw) * acceleration[:, 1] - np.sin(yaw) * acceleration[:, 0]
    thrust = twin.hover_command * (1.0 + acceleration[:, 2] / 9.81)
    # 1.25 undoes the identified attitude gain of about 0.8.
    return np.stack((thrust, -1.25 * left / 9.81, 1.25 * forward / 9.81, np.zeros(twin.count)), axis=1)


@pytest.mark.parametrize("airframe", AIRFRAMES)
def test_compiled_model_equals_the_packages_own_function(airframe: str) -> None:
    from drone_models.so_rpy_rotor_drag import dynamics

    rng = np.random.default_rng(0)
    params = airframe_parameters(airframe)
    params.pop("thrust_max")
    state, command, slope = rng.normal(size=(50, 20)), rng.normal(size=(50, 4)), np.zeros((50, 7))
    state[:, 3:7] = rotation_quat(0.3 * rng.normal(size=(50, 3)))
    DroneDynamics(params, state, command, slope).evaluate()
    thrust = state[:, 13:14]
    _, _, acceleration, spin, thrust_rate = dynamics(
        state[:, :3], state[:, 3:7], state[:, 7:10], state[:, 10:13], command, thrust, dist_f=state[:, 17:], **params
    )
    assert np.allclose(slope, np.concatenate((acceleration, spin, thrust_rate), axis=1), atol=1e-9)


@pytest.mark.parametrize("airframe", AIRFRAMES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_hover_command_is_an_equilibrium(airframe: str, condition: str) -> None:
    twin = calm(airframe, condition)
    assert twin.hover_command < twin.max_thrust
    twin.command(commands(twin))
    twin.advance(2.0)
    pos, quat, vel, rate = twin.truth()
    assert np.allclose(pos, GOAL, atol=1e-9)
    assert np.allclose(vel, 0.0, atol=1e-9) and np.allclose(rate, 0.0, atol=1e-9)
    assert np.allclose(quat, [0.0, 0.0, 0.0, 1.0])


def test_conditions_change_the_hover_command() -> None:
    fresh, low, heavy = (calm(condition=c).hover_command for c in ("fresh", "low_battery", "payload"))
    assert low == pytest.approx(fresh / 0.8)
    assert heavy == pytest.approx(fresh * (0.0319 + 0.008) / 0.0319)


def test_delay_shifts_the_response_by_60_ms() -> None:
    paths = {}
    for condition in ("fresh", "delay"):
        twin = calm(condition=condition)
        twin.command(commands(twin, roll=0.2))
        angles = []
        for _ in range(150):
            twin.advance(0.002)
            angles.append(twin.truth()[1][0, 0])
        paths[condition] = np.array(angles)
    assert paths["fresh"][4] == 0.0 and paths["fresh"][6] > 0.0  # 10 ms of radio
    assert np.allclose(paths["delay"][30:], paths["fresh"][:-30], atol=1e-12)
    assert np.abs(paths["delay"][:30]).max() == 0.0


def test_trim_tilts_the_drone_and_hides_from_the_estimate() -> None:
    twin = SimulatedDrones(
        "cf2x_L250", "fresh", 20, 1, DroneSensors(0, 0, 0, 0, 0, 0, trim_rad=0.026), gust_force_std=0.0
    )
    assert np.abs(twin.trim).max() <= 0.026 and twin.trim.std() > 0.005
    twin.command(commands(twin))
    twin.advance(1.5)
    pos, quat, _, _ = twin.truth()
    assert np.allclose(2.0 * quat[:, :2], -twin.trim, atol=1e-3)
    assert np.allclose(2.0 * twin.estimate()[1][:, :2], 0.0, atol=1e-3)
    # Roll to the right is flight to the right (-y), pitch forward is flight forward (+x).
    assert np.all(np.sign(pos[:, 1]) == np.sign(twin.trim[:, 0]))
    assert np.all(np.sign(pos[:, 0]) == -np.sign(twin.trim[:, 1]))


def test_integration_has_converged() -> None:
    finals = []
    for step_s in (0.002, 0.0005):
        twin = calm(step_s=step_s)
        rng = np.random.default_rng(3)
        for _ in range(100):
            twin.command(commands(twin, twin.hover_command * rng.uniform(0.8, 1.2), *rng.uniform(-0.3, 0.3, 2)))
            twin.advance(0.02)
        finals.append(np.concatenate(twin.truth(), axis=1)[0])
    assert np.abs(finals[0][:3] - finals[1][:3]).max() < 2e-3  # m after 2 s of hard manoeuvres
    assert np.abs(finals[0][3:7] - finals[1][3:7]).max() < 5e-3


def test_estimate_is_late_biased_and_noisy() -> None:
    sensors = DroneSensors(trim_rad=0.0)
    twin = SimulatedDrones("cf2x_L250", "fresh", 400, 2, sensors, gust_force_std=0.0)
    fast = np.tile([1.0, 0.0, 0.0], (400, 1))
    twin.reset(np.tile(GOAL, (400, 1)), np.tile([0.0, 0.0, 0.0, 1.0], (400, 1)), fast)
    twin.command(commands(twin))
    twin.advance(0.1)
    truth = twin.truth()
    estimates = [twin.estimate() for _ in range(20)]
    error = np.mean([pos - truth[0] for pos, _, _, _ in estimates], axis=0)
    assert error[:, 0].mean() == pytest.approx(-0.010, abs=1e-3)  # 10 ms late at 1 m/s
    assert error[:, 1].std() == pytest.approx(0.002, rel=0.2)
    assert np.std([pos[:, 2] for pos, _, _, _ in estimates], axis=0).mean() == pytest.approx(0.001, rel=0.1)
    assert np.std([vel for _, _, vel, _ in estimates], axis=0).mean() == pytest.approx(0.02, rel=0.1)
    assert np.std([rate for _, _, _, rate in estimates], axis=0).mean() == pytest.approx(0.05, rel=0.1)
    assert 2 * np.std([q[:, 0] for _, q, _, _ in estimates], axis=0).mean() == pytest.approx(np.deg2rad(0.3), rel=0.1)


def test_the_ground_and_turning_over_end_the_flight() -> None:
    twin = calm(count=2)
    twin.reset(np.tile(GOAL, (2, 1)), rotation_quat(np.array([[0.0, 0, 0], [np.deg2rad(81), 0, 0]])), np.zeros((2, 3)))
    twin.command(commands(twin, thrust=0.0))
    twin.advance(0.1)
    assert twin.crashed.tolist() == [False, True]
    turned_over = twin.truth()[0][1].copy()
    twin.advance(2.0)
    assert twin.crashed.all()
    assert np.array_equal(twin.truth()[0][1], turned_over)
    assert twin.truth()[0][0, 2] == pytest.approx(0.02, abs=0.02)
    assert np.abs(twin.truth()[2]).max() == 0.0


def test_thrust_saturates_at_the_motors_limit() -> None:
    heights = []
    for factor in (1.0, 1.5):
        twin = calm()
        twin.command(commands(twin, thrust=factor * twin.max_thrust))
        twin.advance(0.5)
        heights.append(twin.truth()[0][0, 2])
    assert heights[0] == heights[1] > 1.6


def test_same_seed_same_flight() -> None:
    flights = []
    for seed in (5, 5, 6):
        twin = SimulatedDrones("cf2x_P250", "payload", 3, seed)
        twin.command(commands(twin))
        twin.advance(0.5)
        flights.append(twin.estimate()[0])
    assert np.array_equal(flights[0], flights[1])
    assert not np.allclose(flights[0], flights[2])


@pytest.mark.parametrize("airframe", AIRFRAMES)
def test_a_pd_controller_reaches_the_waypoint(airframe: str) -> None:
    """It knows the hover command; what it cannot know (trim, bias) keeps it a few centimetres away."""
    n, rng = 20, np.random.default_rng(0)
    twin = SimulatedDrones(airframe, "fresh", n, 0)
    tilt = np.concatenate((rng.uniform(-0.3, 0.3, (n, 2)), np.zeros((n, 1))), axis=1)
    twin.reset(GOAL + rng.uniform(-0.8, 0.8, (n, 3)), rotation_quat(tilt), rng.uniform(-0.3, 0.3, (n, 3)))
    for _ in range(300):
        pos, quat, vel, _ = twin.estimate()
        twin.command(pd_command(twin, pos, quat, vel))
        twin.advance(0.02)
    assert not twin.crashed.any()
    assert np.linalg.norm(twin.truth()[0] - GOAL, axis=1).max() < 0.2


def test_wrong_use_is_explained() -> None:
    with pytest.raises(DriverError, match="unknown airframe 'cf9'"):
        SimulatedDrones("cf9", "fresh", 1, 0)
    with pytest.raises(DriverError, match="low_battery"):
        SimulatedDrones("cf2x_L250", "empty", 1, 0)
    twin = calm()
    with pytest.raises(DriverError, match="shape"):
        twin.command(np.zeros((2, 4)))
    with pytest.raises(DriverError, match="not finite"):
        twin.command(np.array([[np.nan, 0.0, 0.0, 0.0]]))


def test_quaternion_helpers_agree_with_the_core() -> None:
    from sim2real.runtime import geometry

    rng = np.random.default_rng(0)
    a, b = rotation_quat(rng.normal(size=(20, 3))), rotation_quat(1e-12 * rng.normal(size=(20, 3)))
    assert np.allclose(
        geometry.rotation_vector_to_quat(np.array([[0.1, -0.2, 0.3]])), rotation_quat(np.array([[0.1, -0.2, 0.3]]))
    )
    assert np.allclose(quat_multiply(a, b), geometry.quat_multiply(a, b))
    assert np.allclose(yaw_of(a), geometry.yaw_of(a))


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


HOVER = {"thrust": 0.318, "roll": 0.0, "pitch": 0.0, "yaw_rate": 0.0}


def test_driver_stays_still_until_armed_and_commanded() -> None:
    clock = Clock()
    driver = TargetDriver(variant="cf2x_L250", seed=3, clock=clock)
    with pytest.raises(DriverError, match="not connected"):
        driver.read()
    driver.connect()
    try:
        start = driver.truth()
        assert np.abs(start.pos - GOAL).max() <= 1.0
        clock.now += 1.0
        with pytest.raises(DriverError, match="not armed"):
            driver.command(HOVER)
        driver.hold()
        driver.land()
        driver.arm(True)
        clock.now += 1.0
        assert np.array_equal(driver.truth().pos, start.pos)
        with pytest.raises(DriverError, match="thrust"):
            driver.command({**HOVER, "thrust": float("nan")})
        clock.now += 0.5
        assert np.array_equal(driver.truth().pos, start.pos)
        assert driver.command({**HOVER, "roll": 2.0})["roll"] == 0.52
        clock.now += 0.5
        moved = driver.read()
        assert moved.stamp_s == clock.now
        assert np.linalg.norm(moved.pos - start.pos) > 0.02
        driver.arm(False)
        clock.now += 2.0
        assert driver.truth().pos[2] < 0.1 and driver.failed
        with pytest.raises(DriverError, match="crashed"):
            driver.arm(True)
        driver.reset(3)
        assert np.array_equal(driver.truth().pos, start.pos) and not driver.is_armed
    finally:
        driver.disconnect()
    assert not driver.is_connected


def test_a_stepped_robot_moves_when_it_is_told_to_and_reads_once() -> None:
    clock = Clock()
    driver = TargetDriver(seed=3, stepped=True, clock=clock)
    driver.connect()
    try:
        start, reading = driver.truth().pos, driver.read()
        clock.now += 5.0
        driver.arm(True)
        driver.advance(0.02)
        assert np.array_equal(driver.truth().pos, start), "not before its first command"
        driver.command(HOVER)
        clock.now += 5.0
        assert np.array_equal(driver.truth().pos, start), "the wall clock is nothing to it"
        driver.advance(0.02)
        driver.advance(0.02)
        assert not np.array_equal(driver.truth().pos, start)
        again = driver.read()
        assert np.array_equal(driver.read().pos, again.pos) and not np.array_equal(again.pos, reading.pos)
        # The slew of a command is over simulated time: 20 ms later, at most 36 N/s * 0.02 s more thrust.
        assert driver.command({**HOVER, "thrust": 0.0})["thrust"] == 0.0
        driver.advance(0.005)
        assert driver.command({**HOVER, "thrust": 0.73})["thrust"] == pytest.approx(36.0 * 0.005)
    finally:
        driver.disconnect()


def test_driver_holds_and_lands() -> None:
    clock = Clock()
    driver = TargetDriver(variant="cf21B_500", clock=clock)
    driver.connect()
    try:
        driver.arm(True)
        driver.command({**HOVER, "thrust": 0.434})
        for _ in range(100):
            clock.now += 0.02
            driver.hold()
        assert abs(driver.truth().lin_vel[2]) < 0.6
        driver.command({**HOVER, "thrust": 0.73})  # and what it holds with is too much
        for _ in range(50):
            clock.now += 0.02
            driver.command({**HOVER, "thrust": 0.5})
        speeds = []
        while not driver.failed and len(speeds) < 1000:
            clock.now += 0.02
            driver.land()
            speeds.append(driver.truth().lin_vel[2])
        assert driver.truth().pos[2] < 0.05, "it comes down whatever it thinks it weighs"
        assert min(speeds) > -1.0
    finally:
        driver.disconnect()


def test_yaw_goes_through_a_half_turn_without_a_kick() -> None:
    twin = calm()
    for _ in range(500):  # 10 s at 1 rad/s: through ±180° and beyond
        twin.command(commands(twin, yaw_rate=1.0))
        twin.advance(0.02)
        assert np.abs(twin.truth()[3]).max() < 1.2
    for _ in range(100):
        twin.command(commands(twin))
        twin.advance(0.02)
    assert yaw_of(twin.truth()[1]) == pytest.approx(10.0 - 0.01 - 4.0 * np.pi, abs=0.02), "10 s, less the delay"


def test_it_flies_alike_at_any_yaw() -> None:
    twin = calm(count=3)
    yaw = np.array([0.0, 2.0, -3.1])
    quat = np.stack((np.zeros(3), np.zeros(3), np.sin(yaw / 2), np.cos(yaw / 2)), axis=1)
    twin.reset(np.tile(GOAL, (3, 1)), quat, np.zeros((3, 3)))
    for step in range(100):
        twin.command(commands(twin, roll=0.1 * np.sin(0.2 * step), pitch=0.1, yaw_rate=0.5))
        twin.advance(0.02)
    moved = twin.truth()[0] - GOAL
    x, y = moved[:, 0], moved[:, 1]
    ahead, left = np.cos(yaw) * x + np.sin(yaw) * y, np.cos(yaw) * y - np.sin(yaw) * x
    assert ahead[0] > 0.5
    np.testing.assert_allclose(ahead, ahead[0], atol=1e-6)
    np.testing.assert_allclose(left, left[0], atol=1e-6)
