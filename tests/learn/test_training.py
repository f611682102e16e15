"""Training for real, but briefly: two steps, resume, stop early, what a method hooks into it."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from tensordict import TensorDict

from sim2real.config import load_config
from sim2real.learn.acting import Acting
from sim2real.learn.actors import actor_arrays
from sim2real.learn.estimator import Estimator, EstimatorTrainer, OSISettings, Samples
from sim2real.learn.experiment import EnvOf, load_experiment
from sim2real.learn.gym_env import GymTaskEnv
from sim2real.learn.ppo import Hooks, Trainer
from sim2real.learn.rollout import collect
from sim2real.methods.base import NO_HOOKS
from sim2real.methods.train import train
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify

SMALL = ["sim.robots=8", "sim.workers=1", "ppo.iterations=2", "ppo.steps=16", "ppo.mini_batches=2", "ppo.imitate=10"]
NAMES = sorted(name for name in gymnasium.registry if name.startswith("sim2real/"))


def make_trainer(tmp_path, overrides=SMALL, name="randomized", hooks=NO_HOOKS):
    experiment = load_experiment(load_config(name, overrides))
    config, groups = experiment.config, ("observation",)
    return Trainer(EnvOf(experiment, groups), config.ppo, tmp_path, config.sim.workers, 1, groups, hooks)


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
        seen.append(trainer._acted["mlp.0.weight"].clone())
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


def test_an_lstm_is_trained_on_the_memory_it_acted_with(tmp_path):
    """Before the first update the stored probabilities come out again, also over episodes' ends inside a rollout."""
    overrides = [*SMALL, "ppo.lstm=8", "ppo.steps=40", "task={name: reach, episode_s: 0.5}", "sim.robots=4"]
    trainer = make_trainer(tmp_path, overrides, "so101_reach")
    trainer._weights.write(actor_arrays(trainer.actor))
    env = load_experiment(load_config("so101_reach", overrides)).make_env(0)
    storage, buffers = trainer._learner._ppo.storage, trainer._slots[0]
    actor = Acting(trainer._weights, env.count, np.random.default_rng(0))
    for rollout in range(2):
        stats = collect(env, actor, buffers[0], ["observation"], ["observation"])
        trainer._learner._fill(buffers, None, False)
        assert storage.dones.sum() >= 4 and storage.dones.sum() == stats.episodes == len(stats.table.steps)
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
        for observation, action in zip(golden["observation.observation"], golden["action"], strict=True):
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
    settings = OSISettings(rounds=2, batches_per_round=400)
    torch.manual_seed(0)
    estimator = Estimator(12, 2, (32,)).eval()
    trainer = EstimatorTrainer(estimator, settings, 0)
    data = Samples([history], [truth])
    trainer.fit(data)
    trainer.fit(data)
    with torch.inference_mode():
        mean, std = estimator(torch.from_numpy(history))
    error = (mean.numpy() - truth).std(axis=0)
    assert error[0] < 0.05 and error[1] == pytest.approx(0.4, abs=0.05)
    assert std[:, 0].mean() < 0.1 and float(std[:, 1].mean()) == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_checker(name):
    env = gymnasium.make(name, render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=False)
    env.close()


def test_gymnasium_tells_what_it_is_asked_to():
    pairs = ("CrazyflieHover", "Fr3Push", "Fr3Reach", "So101Push", "So101Reach")
    old = ("CrazyflieWaypoint", "CrazyflieWaypointNominal")
    assert sorted(f"sim2real/{name}-v0" for name in pairs + old) == NAMES
    env = GymTaskEnv("crazyflie", "hover", randomize="all", tell=("mass_thrust_ratio", "delay"))
    first = env.reset(seed=3)[1]["parameters"]
    assert first.shape == (2,) and np.abs(first).max() <= 1.5
    again, other = (env.reset(seed=seed)[1]["parameters"] for seed in (3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    *_, truncated, info = [env.step(np.zeros(4, np.float32)) for _ in range(3)][-1]
    assert not truncated and info["success"] is False
    env.close()


SHORT = [*SMALL, "ppo.steps=40", "sim.robots=6", "task={name: hover, episode_s: 0.3, hold_s: 0.1}"]  # 15 steps


class OwnMass:
    """A sampler of physics: the mass it was told last, everything else as the terms say."""

    def __init__(self):
        self.mass = 0.03

    def sample(self, terms, count):
        values = terms.sample_terms(count)
        values[:, terms.params.column("mass")] = self.mass
        return values

    def load(self, state):
        self.mass = float(state["mass"][0])


class Curriculum:
    """A method's hooks: the next rollout's mass is a gram more; it counts what it has seen."""

    def __init__(self):
        self.seen, self.tables, self.weighed = 0, [], []

    def weigh(self, iteration, table, steps, robots):
        self.weighed.append((iteration, steps, robots))

    def learn_sampler(self, iteration, table):
        self.seen += len(table.steps)
        self.tables.append(table)
        return {"mass": np.array([0.031 + 0.001 * iteration])}

    def load(self, state):
        self.seen = int(state["seen"])

    def hooks(self):
        return Hooks(self.weigh, self.learn_sampler, lambda: {"seen": self.seen}, self.load)


def make_sampled_trainer(tmp_path, curriculum, overrides):
    experiment = load_experiment(load_config("randomized", [*SHORT, "sim.workers=2", *overrides]))
    make_env = EnvOf(replace(experiment, sampler=OwnMass()), ("observation",))
    config, column = experiment.config, list(experiment.parameters).index("mass")
    return Trainer(make_env, config.ppo, tmp_path, 2, 1, hooks=curriculum.hooks()), column


def masses(table, column):
    """Masses of the episodes that began in an earlier rollout, and in this one."""
    here = table.steps - table.lengths + 1 > 0
    return sorted(set(table.params[~here, column])), sorted(set(table.params[here, column]))


def test_a_sampler_decides_the_physics_and_survives_a_restart(tmp_path):
    first = Curriculum()
    trainer, column = make_sampled_trainer(tmp_path, first, ["ppo.iterations=4"])
    assert trainer.train(stop=lambda: trainer.iteration >= 3) is False
    assert first.weighed == [(0, 40, 12), (1, 40, 12), (2, 40, 12)]
    before, meanwhile, after = first.tables
    assert set(before.columns) == set(after.columns) == set(range(12)), "the robots of both workers"
    assert masses(before, column) == masses(meanwhile, column) == ([0.03], [0.03]), "it had begun already"
    assert masses(after, column) == ([0.03], [0.031]), "what ran on was started before"
    names = list(trainer._make_env.experiment.parameters)
    assert np.ptp(after.params[:, names.index("thrust_scale")]) > 0.1, "all else is sampled as before"
    assert first.seen == sum(len(table.steps) for table in first.tables) >= 3 * 12 * 2

    second = Curriculum()
    again, _ = make_sampled_trainer(tmp_path, second, ["ppo.iterations=4"])
    assert again.load() and second.seen == first.seen
    assert again.train() and len(second.tables) == 1
    assert masses(second.tables[0], column) == ([0.033], [0.033]), "the first episodes of a resumed run, too"
    assert second.seen == first.seen + len(second.tables[0].steps)


class InProcess:
    """One worker without a process of its own."""

    def __init__(self, make_env, seeds, actor_weights, slots, names, reads, state):
        self._env, self._slots, self._groups = make_env(seeds[0]), slots, (names, reads)
        self._actor = Acting(actor_weights, self._env.count, np.random.default_rng(seeds[0]))
        self._env.steps[:] = self._env.sim.rng.integers(0, self._env.episode_steps, self._env.count)

    def start(self, slot, state):
        self._actor.refresh()
        self._stats = collect(self._env, self._actor, self._slots[slot][0], *self._groups)

    def wait(self):
        return self._stats

    def close(self):
        self._env.sim.close()


def test_steps_without_weight_teach_the_policy_nothing(tmp_path, monkeypatch):
    """Only the critic learns where every weight is 0; where some are, the policy learns something else."""
    monkeypatch.setattr("sim2real.learn.ppo.Workers", InProcess)

    def trained(weigh, name):
        (tmp_path / name).mkdir()
        trainer = make_trainer(tmp_path / name, SHORT, hooks=Hooks(weigh=weigh))
        first = weights(trainer).clone()
        assert trainer.train()
        assert all(np.isfinite(row["value_loss"]) for row in trainer.history)
        return first, weights(trainer)

    def worst_only(iteration, table, steps, robots):
        rows = table.rows_of_steps(steps, robots)
        bad = np.append(table.returns < np.median(table.returns), False)
        kept = bad[rows].astype(float)
        assert rows.shape == (40, 6) and 0.1 < kept.mean() < 0.9
        return kept

    before, after = trained(lambda *_: np.zeros((40, 6)), "none")
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    same, alike = trained(lambda *_: None, "alike")
    torch.testing.assert_close(same, before, rtol=0, atol=0)
    _, worst = trained(worst_only, "worst")
    assert (alike - before).abs().max() > 1e-5 and (worst - before).abs().max() > 1e-5
    assert (worst - alike).abs().max() > 1e-5
