"""Randomization, delays, the attitude loop, sensors: hand-computed cases and determinism."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sim2real.errors import ConfigError, SimulationError
from sim2real.robots import load_robot
from sim2real.robots.attitude import pole_matched_gains
from sim2real.robots.delays import DelayLine, LateReading
from sim2real.robots.flight_body import flight_state
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.sim.randomization import Randomization
from sim2real.sim.simulation import Simulation

MODEL = load_robot("crazyflie")


def quat_to_rpy(quat):
    return Rotation.from_quat(quat).as_euler("xyz")


def term(**settings):
    base = {"operation": "set", "distribution": "uniform", "range": (0.03, 0.04), "reason": "test"}
    return RandomizationTerm(**(base | settings))


def start(count, z=5.0):
    return flight_state(
        np.tile([0.0, 0.0, z], (count, 1)),
        np.tile([0.0, 0.0, 0.0, 1.0], (count, 1)),
        np.zeros((count, 3)),
        np.zeros((count, 3)),
    )


def make_sim(count=2, terms=None, decimation=2, seed=0, **values):
    sim = Simulation(MODEL, count, terms or {}, decimation, seed)
    params = np.tile(sim.params.nominal, (count, 1))
    for name, value in values.items():
        params[:, sim.params.column(name)] = value
    hover = np.array([[sim.params.nominal[sim.params.column("mass")] * 9.81, 0.0, 0.0, 0.0]])
    sim.reset(np.arange(count), start(count), np.tile(hover, (count, 1)), params)
    return sim


HOVER = 0.032 * 9.81


@pytest.mark.parametrize(
    ("distribution", "bounds", "mean"),
    [("uniform", (1.0, 3.0), 2.0), ("log_uniform", (0.5, 2.0), 1.5 / np.log(4.0)), ("gaussian", (5.0, 0.5), 5.0)],
)
def test_distributions(distribution, bounds, mean):
    draws = term(distribution=distribution, range=bounds).draw(np.random.default_rng(0), 200_000)
    assert draws.mean() == pytest.approx(mean, rel=5e-3)
    if distribution != "gaussian":
        assert bounds[0] <= draws.min() and draws.max() <= bounds[1]


def test_operations_act_on_the_nominal_value():
    params = PhysicsParams(MODEL.parameters, 1)
    rng = np.random.default_rng(0)
    for operation, expected in (("set", 0.04), ("scale", 0.032 * 1.25), ("offset", 0.032 + 0.005)):
        value = {"set": 0.04, "scale": 1.25, "offset": 0.005}[operation]
        terms = {"mass": term(operation=operation, range=(value, value))}
        sampled = Randomization(terms, params, rng).sample(3)
        np.testing.assert_allclose(sampled[:, params.column("mass")], expected)
        untouched = [i for i in range(len(params.names)) if i != params.column("mass")]
        np.testing.assert_array_equal(sampled[:, untouched], np.tile(params.nominal[untouched], (3, 1)))


def test_wrong_terms_are_refused():
    params = PhysicsParams(MODEL.parameters, 1)
    with pytest.raises(ConfigError, match="no physics parameter 'mas'"):
        Randomization({"mas": term()}, params, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="outside the parameter's bounds"):
        Randomization({"mass": term(range=(0.03, 3.0))}, params, np.random.default_rng(0))
    with pytest.raises(ValueError, match="positive range"):
        term(distribution="log_uniform", range=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"not \(low, high\)"):
        term(range=(2.0, 1.0))


def test_every_shipped_term_has_a_reason_and_fits_its_parameter():
    Randomization(MODEL.randomization, PhysicsParams(MODEL.parameters, 1), np.random.default_rng(0))
    assert all(len(t.reason) > 10 for t in MODEL.randomization.values())


def test_same_seed_same_bits_and_other_seed_other_flight():
    def fly(seed):
        sim = Simulation(MODEL, 4, MODEL.randomization, 2, seed)
        sim.reset(np.arange(4), start(4), np.tile([HOVER, 0, 0, 0], (4, 1)))
        for _ in range(40):
            sim.step(np.tile([0.33, 0.05, -0.05, 0.3], (4, 1)))
        estimate = sim.measured()
        sim.close()
        return np.concatenate([estimate[name] for name in ("pos", "quat", "lin_vel", "ang_vel")], axis=1)

    np.testing.assert_array_equal(fly(3), fly(3))
    assert np.abs(fly(3) - fly(4)).max() > 1e-3


def test_delay_line_averages_exactly():
    line = DelayLine(1, 1, 0.02, 0.1)
    line.reset(np.array([0]), np.array([[0.0]]))
    line.push(np.array([[1.0]]))
    # 5 ms late: nothing of the first 5 ms, so 0.5 on average over the first 10 ms, all of the second.
    assert line.average(0.0, 0.01, np.array([0.005]))[0, 0] == pytest.approx(0.5)
    assert line.average(0.01, 0.01, np.array([0.005]))[0, 0] == pytest.approx(1.0)
    line.push(np.array([[3.0]]))
    assert line.average(0.0, 0.01, np.array([0.0]))[0, 0] == pytest.approx(3.0)
    # 25 ms late: until 5 ms the command from before the last one (0), then the last one (1).
    assert line.average(0.0, 0.01, np.array([0.025]))[0, 0] == pytest.approx(0.5)
    assert line.average(0.01, 0.01, np.array([0.045]))[0, 0] == pytest.approx(0.0)


def test_late_readings_are_interpolated_by_hand():
    late = LateReading(2, 1, 0.02, 0.05)
    late.reset(np.array([0, 1]), np.array([[1.0], [10.0]]))
    np.testing.assert_array_equal(late.read(np.array([0.0, 0.05])), [[1.0], [10.0]])
    for value in (2.0, 4.0, 8.0):
        late.push(np.array([[value], [10.0 * value]]))
    # Readings 8, 4, 2 and 1 are 0, 20, 40 and 60 ms old; the second robot's are ten times that.
    np.testing.assert_allclose(late.read(np.array([0.0, 0.02])), [[8.0], [40.0]])
    np.testing.assert_allclose(late.read(np.array([0.005, 0.03])), [[7.0], [30.0]])
    np.testing.assert_allclose(late.read(np.array([0.05, 0.04])), [[1.5], [20.0]])
    late.reset(np.array([1]), np.array([[-3.0]]))
    np.testing.assert_allclose(late.read(np.array([0.05, 0.05])), [[1.5], [-3.0]])
    late.push(np.array([[16.0], [-5.0]]))
    np.testing.assert_allclose(late.read(np.array([0.01, 0.01])), [[12.0], [-4.0]])


def test_a_sampler_of_ones_own_decides_within_the_bounds():
    class Heavy:
        def sample(self, terms, count):
            values = terms.sample_terms(count)
            values[:, terms.params.column("mass")] = 0.05
            values[:, terms.params.column("drag_xy")] = 99.0
            return values

        def load(self, state):
            pass

    terms = {"mass": MODEL.randomization["mass"], "thrust_scale": MODEL.randomization["thrust_scale"]}
    randomization = Randomization(terms, PhysicsParams(MODEL.parameters, 1), np.random.default_rng(0))
    randomization.sampler = Heavy()
    sampled = randomization.sample(100)
    params = randomization.params
    np.testing.assert_array_equal(sampled[:, params.column("mass")], 0.05)
    np.testing.assert_array_equal(sampled[:, params.column("drag_xy")], MODEL.parameters["drag_xy"].high)
    assert np.ptp(sampled[:, params.column("thrust_scale")]) > 0.1, "the terms' own samples are there for the asking"


@pytest.mark.parametrize("damping", [0.5, 1.0, 1.5])
def test_pole_matched_loop_is_the_continuous_one(damping):
    frequency, dt, steps = 18.0, 0.01, 40
    a, b = (float(v) for v in pole_matched_gains(np.array(frequency), np.array(damping), dt))
    error, rate, discrete = 1.0, 0.0, []
    for _ in range(steps):
        rate += dt * (a * error - b * rate)
        error -= dt * rate
        discrete.append(error)
    # Both share poles; the zero of the semi-implicit step shifts the response by less than one step.
    fine_error, fine_rate, fine = 1.0, 0.0, []
    for i in range(steps * 1000):
        fine_rate += dt / 1000 * (frequency**2 * fine_error - 2 * damping * frequency * fine_rate)
        fine_error -= dt / 1000 * fine_rate
        if (i + 1) % 1000 == 0:
            fine.append(fine_error)
    shifted = np.interp(np.arange(1, steps + 1) + 0.5, np.arange(1, steps + 1), fine)
    assert np.abs(np.array(discrete) - shifted)[:-1].max() < 0.03


def test_attitude_gain_and_trim_decide_where_it_settles():
    sim = make_sim(attitude_gain=0.9, roll_trim=0.02, pitch_trim=-0.01, drag_xy=0.0)
    for _ in range(50):
        sim.step(np.tile([HOVER, 0.2, 0.1, 0.0], (2, 1)))
    true = quat_to_rpy(sim.state["quat"])
    np.testing.assert_allclose(true[:, 0], 0.9 * 0.2 - 0.02, atol=2e-3)
    np.testing.assert_allclose(true[:, 1], 0.9 * 0.1 + 0.01, atol=2e-3)
    measured = quat_to_rpy(sim.measured()["quat"])
    np.testing.assert_allclose(measured[:, :2], [[0.18, 0.09]] * 2, atol=3e-3)
    sim.close()


def test_thrust_curve_lag_and_hover_command():
    sim = make_sim(mass=0.04, thrust_scale=0.9, thrust_offset=0.02, thrust_exponent=1.1, drag_z=0.0)
    command = MODEL.identified["mass_thrust_ratio"].compute(sim.params.rows(np.array([0])))[0] * 9.81
    for _ in range(100):
        sim.step(np.tile([command, 0, 0, 0], (2, 1)))
    before = sim.state["lin_vel"][:, 2].copy()
    for _ in range(25):
        sim.step(np.tile([command, 0, 0, 0], (2, 1)))
    np.testing.assert_allclose(sim.state["lin_vel"][:, 2], before, atol=1e-6)
    sim.close()


def test_two_physics_steps_are_enough():
    """The fast setting against a step ten times finer, under commands that move everything."""

    def fly(decimation):
        sim = make_sim(1, decimation=decimation, action_delay=0.035, thrust_exponent=1.1)
        time = np.arange(75) * 0.02
        track = []
        for t in time:
            sim.step(np.array([[HOVER * (1 + 0.2 * np.sin(6 * t)), 0.2 * np.sin(4 * t), 0.2 * np.cos(5 * t), 0.5]]))
            track.append(np.concatenate((sim.state["pos"][0], quat_to_rpy(sim.state["quat"])[0])))
        sim.close()
        return np.array(track)

    difference = np.abs(fly(2) - fly(20)).max(axis=0)
    assert difference[:3].max() < 0.05, "position after 1.5 s of open-loop flight, m"
    assert difference[3:5].max() < 0.06, "roll and pitch, rad"


def test_nonfinite_command_is_refused():
    sim = make_sim(1)
    with pytest.raises(SimulationError, match="not finite"):
        sim.step(np.array([[np.nan, 0, 0, 0]]))
    sim.close()
