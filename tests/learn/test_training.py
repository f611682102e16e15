"""Training for real, but briefly: two steps, resume, stop early, the whole pipeline to a bundle."""

import functools
import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from tensordict import TensorDict

from sim2real.config import load_config
from sim2real.errors import ConfigError
from sim2real.learn.build import build_env, build_spec
from sim2real.learn.gym_env import IDS, register
from sim2real.learn.osi import Estimator, EstimatorTrainer, FlightData
from sim2real.learn.ppo import Trainer
from sim2real.learn.rollout import collect
from sim2real.learn.train import train
from sim2real.runtime.bundle import PolicyBundle, verify

SMALL = ["sim.robots=8", "sim.workers=1", "ppo.iterations=2", "ppo.steps=16", "ppo.mini_batches=2", "ppo.imitate=10"]
SMALL_OSI = [*SMALL, "osi.rounds=2", "osi.robots=8", "osi.batches_per_round=5"]


def make_trainer(tmp_path, overrides=SMALL, name="randomized"):
    config = load_config(name, overrides)
    return Trainer(functools.partial(build_env, config), config.ppo, tmp_path, config.sim.workers, 1, name == "up_osi")


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.actor.parameters()])


@pytest.mark.slow
def test_two_iterations_change_the_policy_and_are_repeatable(tmp_path):
    results = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        trainer = make_trainer(tmp_path / run)
        before = weights(trainer).clone()
        assert trainer.train()
        assert (weights(trainer) - before).abs().max() > 1e-5
        assert len(trainer.history) == 2 and np.isfinite([list(row.values()) for row in trainer.history]).all()
        assert list((tmp_path / run / "tensorboard").iterdir())
        results.append(weights(trainer))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.slow
def test_stopping_leaves_a_checkpoint_that_resumes(tmp_path):
    first = make_trainer(tmp_path, [*SMALL, "ppo.iterations=4"])
    assert first.train(stop=lambda: first.iteration >= 2) is False
    again = make_trainer(tmp_path, [*SMALL, "ppo.iterations=4"])
    assert again.load() and again.iteration == 2
    torch.testing.assert_close(weights(first), weights(again))
    assert again.train() and again.iteration == 4 and len(again.history) == 4


@pytest.mark.slow
def test_a_resumed_policy_reads_the_world_as_before(tmp_path):
    """What imitation has fixed must not begin to drift because the run was interrupted."""
    overrides = [*SMALL, "ppo.iterations=3", "task={name: reach, episode_s: 0.5}"]
    first = make_trainer(tmp_path, overrides, "so101_reach")
    mean = first.actor.obs_normalizer.mean.clone()
    assert first.train(stop=lambda: first.iteration >= 1) is False
    again = make_trainer(tmp_path, overrides, "so101_reach")
    assert again.load() and again.train()
    torch.testing.assert_close(again.actor.obs_normalizer.mean, mean, rtol=0, atol=0)


@pytest.mark.slow
def test_the_best_policy_is_kept_and_survives_a_restart(tmp_path):
    overrides = [*SMALL, "ppo.iterations=4", "ppo.keep_best=true"]
    trainer = make_trainer(tmp_path, overrides)
    seen = []
    successes = iter([0.1, 0.9, 0.0, 0.0])

    def iterate(workers, original=trainer._iterate):
        figures = original(workers)
        seen.append(trainer._mirror.state_dict()["mlp.0.weight"].clone())
        return figures | {"success": next(successes)}

    trainer._iterate = iterate
    assert trainer.train()
    torch.testing.assert_close(trainer.actor.state_dict()["mlp.0.weight"], seen[1])
    again = make_trainer(tmp_path, overrides)
    assert again.load()
    assert (again.actor.state_dict()["mlp.0.weight"] - seen[1]).abs().max() > 0
    again.use_best()
    torch.testing.assert_close(again.actor.state_dict()["mlp.0.weight"], seen[1])


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, [*SMALL, "ppo.iterations=100"])

    def interrupt(iteration, figures):
        if iteration == 3:
            raise KeyboardInterrupt

    assert trainer.train(interrupt) is False
    assert make_trainer(tmp_path).load()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 3


@pytest.mark.slow
def test_pipeline_from_configuration_to_verified_bundle(tmp_path):
    stages = []
    config = load_config("up_osi", SMALL_OSI)
    path = train(config, tmp_path / "run", lambda stage, done, total, figures: stages.append((stage, done, total)))
    assert [s for s, done, total in stages if done == total] == ["PPO", "identification", "export"]
    bundle = PolicyBundle.load(path)
    assert verify(bundle).ok, verify(bundle).message
    assert bundle.spec == build_spec(config)
    assert bundle.provenance["config"]["ppo"]["iterations"] == 2
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history["ppo"]) == 2 and len(history["osi"]) == 2
    with pytest.raises(ConfigError, match="other settings"):
        train(load_config("up_osi", [*SMALL_OSI, "seed=5"]), tmp_path / "run", lambda *_: None)


def test_an_lstm_is_trained_on_the_memory_it_acted_with(tmp_path):
    """Before the first update the stored probabilities come out again, also over episodes' ends inside a rollout."""
    overrides = [*SMALL, "ppo.lstm=8", "ppo.steps=40", "task={name: reach, episode_s: 0.5}", "sim.robots=4"]
    trainer = make_trainer(tmp_path, overrides, "so101_reach")
    trainer._mirror.load_state_dict(trainer.actor.state_dict())
    env = build_env(load_config("so101_reach", overrides), 0)
    storage = trainer.ppo.storage
    for rollout in range(2):
        collect(env, trainer._mirror, trainer._buffers[0])
        trainer._fill_storage()
        assert storage.dones.sum() >= 4
        assert bool(storage.saved_hidden_state_a[0][0].any()) == (rollout > 0)
        for batch in storage.recurrent_mini_batch_generator(2, 1):
            with torch.inference_mode():
                trainer.actor(
                    batch.observations, masks=batch.masks, hidden_state=batch.hidden_states[0], stochastic_output=True
                )
                again = trainer.actor.get_output_log_prob(batch.actions)
            torch.testing.assert_close(again, batch.old_actions_log_prob.squeeze(-1), rtol=1e-4, atol=1e-4)
    env.sim.close()


@pytest.mark.slow
def test_an_lstm_in_a_bundle_does_what_it_does_in_training(tmp_path):
    config = load_config("so101_reach", [*SMALL, "ppo.lstm=8", "task={name: reach, episode_s: 0.5}"])
    bundle = PolicyBundle.load(train(config, tmp_path, lambda *_: None))
    assert verify(bundle).ok, verify(bundle).message
    assert bundle.spec.memory == 16
    trainer = make_trainer(tmp_path, [*SMALL, "ppo.lstm=8", "task={name: reach, episode_s: 0.5}"], "so101_reach")
    assert trainer.load()
    golden, actor = bundle.golden(), trainer.actor
    actor.reset()
    with torch.inference_mode():
        for observation, action in zip(golden["observation"], golden["action"], strict=True):
            group = TensorDict({"observation": torch.from_numpy(observation[None])}, batch_size=[1])
            np.testing.assert_allclose(actor(group)[0].numpy(), action, atol=1e-5)
    runner = bundle.runner(2)
    frames = [{name: golden[f"signals.{name}"][:1] for name in bundle.spec.measured_signals()}]
    frames = [{name: np.tile(value, (2, 1)) for name, value in frame.items()} for frame in frames]
    first = runner.step(frames[0]).copy()
    for _ in range(3):
        runner.step(frames[0])
    runner.reset(np.array([1]))
    after = runner.step(frames[0])
    np.testing.assert_array_equal(after[1], first[1])
    assert np.abs(after[0] - first[0]).max() > 0


def test_estimator_learns_what_can_be_learned_and_says_what_it_does_not_know():
    rng = np.random.default_rng(0)
    history = rng.standard_normal((4000, 12)).astype(np.float32)
    noise = rng.standard_normal(4000)
    truth = np.stack((0.5 * history[:, 0] - 0.3 * history[:, 1], 0.4 * noise), axis=1).astype(np.float32)
    config = load_config("up_osi", ["osi.rounds=2", "osi.batches_per_round=400"]).osi
    torch.manual_seed(0)
    estimator = Estimator(12, 2, (32,)).eval()
    trainer = EstimatorTrainer(estimator, config, 0)
    data = FlightData([history], [truth])
    trainer.fit(data)
    trainer.fit(data)
    with torch.inference_mode():
        mean, std = estimator(torch.from_numpy(history))
    error = (mean.numpy() - truth).std(axis=0)
    assert error[0] < 0.05 and error[1] == pytest.approx(0.4, abs=0.05)
    assert std[:, 0].mean() < 0.1 and float(std[:, 1].mean()) == pytest.approx(0.4, abs=0.08)


def test_no_leak_the_policy_sees_neither_truth_nor_other_robots():
    """Blind observations must not change with physics before the physics had time to act."""
    config = load_config("randomized", ["sim.robots=2"])
    env = build_env(config, 0, robots=2, restart=False)
    params = np.tile(env.sim.params.nominal, (2, 1))
    params[1, env.sim.params.column("mass")] = 0.05
    start = env.task.start(np.random.default_rng(0), 1)
    start = start.take(np.array([0, 0]))
    env.reset(params, start)
    observation = env.observation()
    np.testing.assert_array_equal(observation[0], observation[1])
    for _ in range(10):
        env.step(np.zeros((2, 4), np.float32))
    assert np.abs(env.observation()[0] - env.observation()[1]).max() > 1e-3
    env.sim.close()


def test_success_needs_the_whole_last_second():
    config = load_config("nominal")
    env = build_env(config, 0, robots=1, restart=False)
    hover = np.zeros((1, 4), np.float32)
    low, high = env.spec.action[0].low, env.spec.action[0].high
    hover[0, 0] = 2 * (0.032 * 9.81 - low) / (high - low) - 1
    level, still = np.array([[0.0, 0.0, 0.0, 1.0]]), np.zeros((1, 3))

    def hover_from(offset):
        for _ in range(50):  # rotors settle
            env.step(hover)
        env.sim.world.write_base(np.array([0]), env.goal + offset, level, still, still)
        env.steps[:] = 0
        for _ in range(env.episode_steps):
            result = env.step(hover)
        return result

    _, terminated, truncated = hover_from(0.0)
    assert truncated[0] and not terminated[0] and env.success[0], "hovering on the goal is success"
    hover_from(0.1)
    assert not env.success[0], "hovering 0.17 m away is not"
    env.sim.close()


@pytest.mark.parametrize("name", list(IDS))
def test_gymnasium_checker(name):
    register()
    env = gymnasium.make(name, render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=False)
    env.close()
