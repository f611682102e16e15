"""One copy of the code: alone, in a batch, in the environment and on the robot the same bits."""

import numpy as np
import pytest
import torch
from conftest import random_frames

from sim2real.config import load_config
from sim2real.errors import SpecError
from sim2real.learn.build import build_env
from sim2real.runtime.observation import EstimateFilter, encode_action, encode_observation
from sim2real.runtime.policy import PolicyRunner


@pytest.fixture
def make_runner(tiny_parts):
    spec, _, _, policy_onnx, estimator_onnx = tiny_parts
    return lambda count=1: PolicyRunner.from_onnx(spec, policy_onnx, estimator_onnx, count)


def test_one_robot_sees_the_bits_of_its_row_in_a_batch(make_runner):
    batch, single = make_runner(16), make_runner()
    sent = np.zeros((16, 4))
    for frame in random_frames(60, 16):
        batch.record_sent(sent)
        single.record_sent(sent[3:4])
        batch.step(frame)
        single.step({name: value[3:4] for name, value in frame.items()})
        np.testing.assert_array_equal(batch.observation[3:4], single.observation)
        np.testing.assert_array_equal(batch.estimator_observation[3:4], single.estimator_observation)
        np.testing.assert_allclose(batch.command[3:4], single.command, atol=1e-5)
        sent = batch.command


def test_environment_and_runner_make_the_same_observations(make_runner):
    env = build_env(load_config("up_osi", ["sim.robots=4"]), 0, robots=4, record_history=True, restart=False)
    runner, frames = make_runner(4), []
    measure = env.sim.model.measure
    env.sim.model.measure = lambda *a: frames.append(measure(*a)) or dict(frames[-1])
    env.reset()
    for _ in range(60):
        runner.step(frames[-1])
        np.testing.assert_array_equal(env.observation(), runner.observation)
        np.testing.assert_array_equal(env.estimator_observation(), runner.estimator_observation)
        env.step(runner.action)
    env.sim.close()


def test_reset_of_some_rows(make_runner):
    runner, fresh = make_runner(3), make_runner(3)
    frames = list(random_frames(12, 3))
    for frame in frames[:-1]:
        runner.step(frame)
    runner.reset(np.array([1]))
    runner.step(frames[-1])
    fresh.step(frames[-1])
    np.testing.assert_array_equal(runner.observation[1], fresh.observation[1])
    assert np.abs(runner.observation[0] - fresh.observation[0]).max() > 1e-3


def test_what_was_sent_is_the_next_last_action(make_runner):
    runner = make_runner()
    first, second = random_frames(2, 1)
    runner.step(first)
    sent = np.array([[0.4, 0.1, -0.2, 0.5]])
    runner.record_sent(sent)
    runner.step(second)
    newest = runner.observation[0, -4:]
    np.testing.assert_allclose(newest, encode_action(runner.spec.action, sent)[0], atol=1e-6)


def test_filter_by_hand(tiny_parts):
    spec = tiny_parts[0].model_copy(update={"estimate_time_constant_s": 0.04})  # gain at least 0.5 at 50 Hz
    estimates = EstimateFilter(spec)
    size = (1, len(spec.parameters))
    expected = []
    for value in (1.0, 0.0, 0.8):
        expected.append(float(estimates.update(np.full(size, value, np.float32), np.full(size, 0.1, np.float32))[0, 0]))
    np.testing.assert_allclose(expected, [1.0, 0.5, 0.65], atol=1e-6)
    estimates.update(np.full(size, 100.0, np.float32), np.ones(size, np.float32))
    assert estimates.mean.max() <= 1.2
    estimates.reset()
    np.testing.assert_allclose(estimates.mean[0], np.clip(spec.nominal_parameters(), -1.2, 1.2))


def test_torch_and_onnx_agree(tiny_parts, make_runner):
    _, policy, estimator, _, _ = tiny_parts
    runner = make_runner(32)
    for frame in random_frames(20, 32):
        runner.step(frame)
        with torch.inference_mode():
            action = policy(torch.from_numpy(runner.observation), torch.from_numpy(runner.parameters))
            mean, _ = estimator(torch.from_numpy(runner.estimator_observation))
        assert np.abs(action.numpy() - runner.action).max() <= 1e-5
        assert np.abs(mean.numpy() - runner.newest_mean).max() <= 1e-5


def test_missing_and_misshapen_signals_are_named(tiny_parts):
    term = tiny_parts[0].observation[0]
    with pytest.raises(SpecError, match="'position_error' is not among the signals"):
        encode_observation(term, {})
    with pytest.raises(SpecError, match=r"needs shape \[N, 3\]"):
        encode_observation(term, {"position_error": np.zeros((1, 2))})
