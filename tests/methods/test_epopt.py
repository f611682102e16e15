"""EPOpt: which steps the policy learns from, by hand, and the road to a bundle."""

import numpy as np
import pytest
import torch

from sim2real.config import load_config
from sim2real.learn.buffers import EpisodeTable
from sim2real.methods import load_method
from sim2real.methods.epopt import EpOptSettings, WorstPhysics
from sim2real.methods.train import train
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.tasks.env import EndedEpisodes

NAMES = ("mass", "drag", "fixed")


def rollout(rng, running, count=200, later=0.0):
    """Episodes that return 100 - 50 |mass - 1| and noise; drag does nothing; the first robot's ends in step 1 of 4."""
    params = np.stack((rng.uniform(0, 2, count), rng.uniform(0, 1, count), np.full(count, 3.0)), axis=1)
    params[0] = [0.0, 0.5, 3.0]
    returns = later + 100 - 50 * np.abs(params[:, 0] - 1) + rng.normal(0, 5, count)
    columns = np.zeros(count, dtype=np.int64)
    steps = np.where(np.arange(count) == 0, 1, -1)  # the others lie in rollouts before
    lengths = np.full(count, 2)
    ended = EndedEpisodes(columns, params, returns, returns > 50, lengths)
    table = EpisodeTable.of([(1, ended)], running)
    return EpisodeTable(
        steps, *[getattr(table, n) for n in ("columns", "params", "returns", "success", "lengths")], running
    )


def test_steps_of_the_worst_physics_are_kept_ended_or_not():
    rng = np.random.default_rng(0)
    # Robot 0 goes on with ordinary physics, robot 1 with the heaviest; 2 to 9 are nearly nominal.
    running = np.array([[1.0, 0.5, 3.0], [2.0, 0.5, 3.0], *[[0.9 + 0.02 * i, 0.5, 3.0] for i in range(8)]])
    worst = WorstPhysics(EpOptSettings(epsilon=0.15, episodes=1000), 3, NAMES)
    for iteration in range(3):
        assert worst.weigh(iteration, rollout(rng, running, later=20.0 * iteration), 4, 10) is None, "not yet"
    weights = worst.weigh(20, rollout(rng, running, later=80.0), 4, 10)
    assert weights.shape == (4, 10)
    np.testing.assert_array_equal(weights[:, 1], 1.0)
    # The lightest drone's episode ended in step 1; what follows it in that column is another episode.
    np.testing.assert_array_equal(weights[:, 0], [1.0, 1.0, 0.0, 0.0])
    assert not weights[:, 2:].any()
    (row,) = worst.history
    assert 0.5 < row["fit"] < 1.0 and row["mass"] > 1.0 and "fixed" not in row


def test_what_it_knows_survives_a_checkpoint(tmp_path):
    rng, running = np.random.default_rng(1), np.tile([1.0, 0.5, 3.0], (4, 1))
    first = WorstPhysics(EpOptSettings(episodes=300), 0, NAMES)
    for iteration in range(2):
        first.weigh(iteration, rollout(rng, running), 4, 4)
    torch.save(first.state(), tmp_path / "state.pt")
    second = WorstPhysics(EpOptSettings(episodes=300), 0, NAMES)
    second.load(torch.load(tmp_path / "state.pt", weights_only=True))
    table = rollout(rng, running)
    np.testing.assert_array_equal(first.weigh(20, table, 4, 4), second.weigh(20, table, 4, 4))
    assert first.history == second.history and len(first._returns) == 300


def test_epsilon_1_is_off():
    off = load_method({"name": "epopt", "epsilon": 0.1}).off()
    worst = WorstPhysics(off.settings, 0, NAMES)
    assert worst.weigh(9, rollout(np.random.default_rng(0), np.ones((4, 3))), 4, 4) is None


@pytest.mark.parametrize("epsilon", [0.2, 1.0])
def test_from_configuration_to_verified_bundle(tmp_path, epsilon):
    small = ["sim.robots=8", "ppo.iterations=2", "ppo.steps=16", "ppo.mini_batches=2", f"method.epsilon={epsilon}"]
    config = load_config("epopt", small)
    bundle = PolicyBundle.load(train(config, tmp_path / "run", lambda *_: None))
    assert verify(bundle).ok, verify(bundle).message
