"""One copy of the code: alone, in a batch, in the environment and on the robot the same bits."""

import numpy as np
import pytest
import torch
from conftest import random_frames

from sim2real.config import load_config
from sim2real.errors import SpecError
from sim2real.learn.estimator import EstimateFilter
from sim2real.learn.experiment import load_experiment
from sim2real.methods import load_method
from sim2real.robots.identified import ParameterTerm, nominal_parameters
from sim2real.runtime.observation import encode_action, encode_observation
from sim2real.runtime.policy import PolicyRunner


@pytest.fixture
def make_runner(tiny_parts):
    spec, _, policy_onnx = tiny_parts
    return lambda count=1: PolicyRunner.from_onnx(spec, policy_onnx, count)


def test_one_robot_sees_the_bits_of_its_row_in_a_batch(make_runner):
    batch, single = make_runner(16), make_runner()
    sent = np.zeros((16, 4))
    for frame in random_frames(60, 16):
        batch.record_sent(sent)
        single.record_sent(sent[3:4])
        batch.step(frame)
        single.step({name: value[3:4] for name, value in frame.items()})
        for group in ("observation", "history"):
            np.testing.assert_array_equal(batch.observation[group][3:4], single.observation[group])
        np.testing.assert_allclose(batch.command[3:4], single.command, atol=1e-5)
        sent = batch.command


def test_environment_and_runner_make_the_same_observations(make_runner):
    config = load_config("up_osi", ["sim.robots=4"])
    experiment = load_method(config.method).prepare(load_experiment(config))
    env = experiment.make_env(0, restart=False)
    runner, frames = make_runner(4), []
    measured = env.sim.measured

    def measure():
        state = measured()
        frames.append(env.task.signals.measure(state, env.goal))
        return state

    env.sim.measured = measure
    env.reset()
    for _ in range(60):
        runner.step(frames[-1])
        for group in ("observation", "history"):
            np.testing.assert_array_equal(env.observation(group), runner.observation[group])
        env.step(runner.action)
        np.testing.assert_array_equal(env.command, runner.command)
    env.sim.close()


def test_reset_of_some_rows(make_runner):
    runner, fresh = make_runner(3), make_runner(3)
    frames = list(random_frames(12, 3))
    for frame in frames[:-1]:
        runner.step(frame)
    runner.reset(np.array([1]))
    runner.step(frames[-1])
    fresh.step(frames[-1])
    for group in ("observation", "history"):
        np.testing.assert_array_equal(runner.observation[group][1], fresh.observation[group][1])
        assert np.abs(runner.observation[group][0] - fresh.observation[group][0]).max() > 1e-3
    np.testing.assert_array_equal(runner.memory[1], 0.0)
    np.testing.assert_allclose(runner.next_memory[1], fresh.next_memory[1], atol=1e-6)
    assert runner.memory[0, -1] == 11.0, "the others' filter has taken eleven estimates"


def test_what_was_sent_is_the_next_last_action(make_runner):
    runner = make_runner()
    first, second = random_frames(2, 1)
    runner.step(first)
    sent = np.array([[0.4, 0.1, -0.2, 0.5]])
    runner.record_sent(sent)
    runner.step(second)
    newest = runner.observation["observation"][0, -4:]
    np.testing.assert_allclose(newest, encode_action(runner.spec.action, sent)[0], atol=1e-6)


def test_filter_by_hand():
    terms = tuple(
        ParameterTerm(name=name, unit="1", low=0.0, high=2.0, nominal=nominal)
        for name, nominal in (("a", 1.0), ("b", 2.6))
    )
    estimates = EstimateFilter(terms, control_dt=0.02, time_constant_s=0.04)  # gain at least 0.5 at 50 Hz
    memory, expected = torch.zeros(1, estimates.memory_size), []
    for value in (1.0, 0.0, 0.8):
        filtered, memory = estimates(torch.full((1, 2), value), memory)
        expected.append(float(filtered[0, 0]))
    np.testing.assert_allclose(expected, [1.0, 0.5, 0.65], atol=1e-6)
    filtered, memory = estimates(torch.full((1, 2), 100.0), memory)
    assert filtered.max() <= 1.2
    # A memory of zeros stands for the nominal parameters, of which each lies within what the policy is told.
    np.testing.assert_allclose(estimates.nominal, np.clip(nominal_parameters(terms), -1.2, 1.2))
    np.testing.assert_allclose(estimates.nominal, [0.0, 1.2], atol=1e-6)
    unfiltered = EstimateFilter(terms, 0.02, 0.0)
    _, memory = unfiltered(torch.full((1, 2), -0.7), torch.zeros(1, 3))
    filtered, memory = unfiltered(torch.full((1, 2), 0.3), memory)
    np.testing.assert_allclose(filtered, 0.3, atol=1e-6)
    np.testing.assert_allclose(memory[0], [0.3, 0.3 - 1.2, 2.0], atol=1e-6)


def test_torch_and_onnx_agree(tiny_parts, make_runner):
    _, network, _ = tiny_parts
    runner = make_runner(32)
    terms, memory = runner.spec.report, torch.zeros(32, runner.spec.memory)
    for frame in random_frames(20, 32):
        runner.step(frame)
        observation, history = (torch.from_numpy(runner.observation[name]) for name in ("observation", "history"))
        with torch.inference_mode():
            mean, std = network.estimator(history)
            told, memory = network.estimates(mean, memory)
            action = network.policy(observation, told)
        assert np.abs(action.numpy() - runner.action).max() <= 1e-5
        assert np.abs(memory.numpy() - runner.next_memory).max() <= 1e-5
        reported = network.low + (told + 1.0) * network.half_range
        np.testing.assert_allclose(runner.report_mean, reported, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(runner.report_std, std * network.half_range, rtol=1e-5, atol=1e-5)
    assert [term.name for term in terms] == list(runner.report())
    assert runner.report()["delay"] == pytest.approx((runner.report_mean[0, 2], runner.report_std[0, 2]))


def test_missing_and_misshapen_signals_are_named(tiny_parts):
    term = tiny_parts[0].observation["observation"][0]
    with pytest.raises(SpecError, match="'position_error' is not among the signals"):
        encode_observation(term, {})
    with pytest.raises(SpecError, match=r"needs shape \[N, 3\]"):
        encode_observation(term, {"position_error": np.zeros((1, 2))})
