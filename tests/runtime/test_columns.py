"""A robot alone runs the formulas on plain numbers, many on arrays: the same bits either way."""

import numpy as np
import pytest

from sim2real.robots import load_robot
from sim2real.robots.delays import DelayLine, LateReading
from sim2real.robots.flight_body import flight_state
from sim2real.runtime import columns, geometry
from sim2real.runtime.flight_signals import flight_signals
from sim2real.sim.simulation import Simulation

RNG = np.random.default_rng(0)
QUAT = RNG.normal(size=(50, 4))
QUAT /= np.linalg.norm(QUAT, axis=1, keepdims=True)
VECTOR = RNG.normal(size=(50, 3))


@pytest.mark.parametrize(
    "function",
    [
        lambda q, v: geometry.quat_to_matrix(q),
        lambda q, v: geometry.quat_multiply(q, q[..., ::-1]),
        lambda q, v: geometry.rpy_to_quat(v),
        lambda q, v: geometry.yaw_of(q),
        lambda q, v: geometry.tilt_of(q),
        lambda q, v: geometry.wrap_angle(9.0 * v),
    ],
)
def test_rotations_of_one_have_the_bits_of_many_and_any_leading_axes(function):
    many = function(QUAT, VECTOR)
    for row in range(len(QUAT)):
        one = slice(row, row + 1)
        np.testing.assert_array_equal(function(QUAT[one], VECTOR[one]), many[one])
        np.testing.assert_array_equal(function(QUAT[row], VECTOR[row]), many[row])
    np.testing.assert_array_equal(
        function(QUAT.reshape(5, 10, 4), VECTOR.reshape(5, 10, 3)), many.reshape(5, 10, *many.shape[1:])
    )
    assert function(QUAT[None, :1], VECTOR[None, :1]).shape == (1, 1, *many.shape[1:])


def test_signals_and_delays_of_one_have_the_bits_of_many():
    signals = flight_signals(VECTOR, QUAT, 2.0 * VECTOR, -VECTOR)
    delay = RNG.uniform(0.0, 0.1, 50)
    late, line = LateReading(50, 3, 0.02, 0.1), DelayLine(50, 3, 0.02, 0.1)
    alone = [(LateReading(1, 3, 0.02, 0.1), DelayLine(1, 3, 0.02, 0.1)) for _ in range(50)]
    for values in RNG.normal(size=(9, 50, 3)):
        late.push(values)
        line.push(values)
        for row, (reading, commands) in enumerate(alone):
            reading.push(values[row : row + 1])
            commands.push(values[row : row + 1])
    for row, (reading, commands) in enumerate(alone):
        one = slice(row, row + 1)
        own = flight_signals(VECTOR[one], QUAT[one], 2.0 * VECTOR[one], -VECTOR[one])
        for name, value in own.items():
            np.testing.assert_array_equal(value, signals[name][one])
        np.testing.assert_array_equal(reading.read(delay[one]), late.read(delay)[one])
        np.testing.assert_array_equal(commands.average(0.01, 0.01, delay[one]), line.average(0.01, 0.01, delay)[one])


def test_a_drone_alone_flies_as_it_does_among_others():
    model = load_robot("crazyflie")

    def fly(count):
        sim = Simulation(model, count, {}, 2)
        rows = (
            np.tile(row, (count, 1)) for row in ([0.1, 0.2, 5.0], [0.1, 0.0, 0.0, 0.995], [0.5, 0.3, 0.1], [0.0] * 3)
        )
        params = np.tile(sim.params.nominal, (count, 1))
        for name, value in {"action_delay": 0.033, "wind_x": 0.7, "roll_trim": 0.02, "thrust_exponent": 1.1}.items():
            params[:, sim.params.column(name)] = value
        sim.reset(np.arange(count), flight_state(*rows), np.tile([0.31, 0.0, 0.0, 0.0], (count, 1)), params)
        track = []
        for step in range(60):
            sim.step(np.tile([0.33, 0.2 * np.sin(step), -0.1, 0.5], (count, 1)))
            track.append(np.concatenate([value[:1] for value in sim.state.values()], axis=1))
        sim.close()
        return np.array(track)

    # Cells lie 16 m apart, which costs their positions some bits; the first one lies at the origin.
    np.testing.assert_array_equal(fly(1), fly(3))


def test_what_is_not_a_number_stays_so():
    for value in (float("nan"), np.full(3, np.nan)):
        results = (columns.larger(value, 0.0), columns.smaller(value, 0.0), columns.within(value, -1.0, 1.0))
        assert all(np.isnan(result).all() for result in results)
    assert np.isnan(geometry.quat_to_matrix(np.full((1, 4), np.nan))).all()
