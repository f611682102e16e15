"""ADR: ranges by hand, how their ends move, and the road to a bundle."""

import json

import numpy as np
import pytest
import torch

from sim2real.config import load_config
from sim2real.errors import ConfigError
from sim2real.learn.buffers import EpisodeTable
from sim2real.methods import load_method
from sim2real.methods.adr import AdrSettings, GrowingRanges, RangeLearner, Ranges
from sim2real.methods.train import train
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.sim.randomization import Randomization

TABLE = {
    "mass": PhysicsParameter(unit="kg", nominal=1.0, low=0.5, high=3.0),
    "gain": PhysicsParameter(unit="1", nominal=2.0, low=0.1, high=10.0),
    "delay": PhysicsParameter(unit="s", nominal=0.0, low=0.0, high=0.15),
    "wind": PhysicsParameter(unit="m/s", nominal=0.0, low=-2.0, high=2.0),
    "other": PhysicsParameter(unit="1", nominal=7.0, low=0.0, high=9.0),
}


def term(operation, distribution, low, high, **more):
    return RandomizationTerm(operation=operation, distribution=distribution, range=(low, high), reason="test", **more)


TERMS = {
    "mass": term("set", "uniform", 0.8, 2.0),
    "gain": term("scale", "log_uniform", 0.5, 2.0),
    "delay": term("set", "uniform", 0.0, 0.1),
    "wind": term("set", "gaussian", 0.0, 0.5),
    "jitter": term("offset", "uniform", 0.0, 0.01, parameter="delay", kind="step"),
}


def ranges():
    return Ranges.of(TERMS, PhysicsParams(TABLE, 1))


def episodes(params, success):
    n = len(params)
    whole = np.tile([1.0, 2.0, 0.0, 0.0, 7.0], (n, 1))
    whole[:, :4] = params
    none = np.zeros(n, dtype=np.int64)
    return EpisodeTable(none, none, whole, np.zeros(n), np.array(success, dtype=bool), none + 5, whole)


def test_ranges_between_nominal_and_configured_by_hand():
    found = ranges()
    assert found.names == ("mass", "gain", "delay", "wind")
    np.testing.assert_allclose(found.ends, [[0.8, 2.0], [1.0, 4.0], [0.0, 0.1], [-0.98, 0.98]])
    np.testing.assert_array_equal(found.movable(), [[1, 1], [1, 1], [0, 1], [1, 1]])
    np.testing.assert_allclose(found.values(np.zeros((4, 2))), np.repeat([[1.0], [2.0], [0.0], [0.0]], 2, axis=1))
    np.testing.assert_allclose(found.values(np.full((4, 2), 0.5))[:2], [[0.9, 1.5], [1.5, 3.0]])
    assert found.values(np.full((4, 2), 2.0))[2, 1] == 0.15, "bounds hold beyond the configured range"


def test_half_of_the_samples_lie_at_an_end_and_all_inside():
    params = PhysicsParams(TABLE, 1)
    sampler = GrowingRanges(ranges(), 0.5, np.zeros((4, 2)))
    terms = Randomization(TERMS, params, np.random.default_rng(0))
    terms.sampler = sampler
    np.testing.assert_array_equal(terms.sample(50), np.tile(params.nominal, (50, 1)))
    sampler.load({"widths": np.full((4, 2), 0.5)})
    values = terms.sample(4000)
    ends = ranges().values(np.full((4, 2), 0.5))
    at = np.stack([values[:, i] == ends[i, side] for i in range(4) for side in range(2) if (i, side) != (2, 0)])
    assert np.all(at.sum(axis=0) <= 1) and 0.45 < at.any(axis=0).mean() < 0.55
    assert np.all(at.sum(axis=1) > 200), "every end that can move is visited"
    assert np.all((values[:, :4] >= ends[:, 0]) & (values[:, :4] <= ends[:, 1]))
    assert 0.02 < values[:, 2][~at[4]].mean() < 0.03, "delay is uniform up to half of its range"
    assert np.all(values[:, 4] == 7.0)


def test_ends_move_by_the_success_of_episodes_that_lay_there():
    learner = RangeLearner(ranges(), AdrSettings(delta=0.25, episodes=4))
    nominal = [1.0, 2.0, 0.0, 0.0]
    # Without width all episodes lie at every end.
    state = learner.learn(1, episodes([nominal] * 4, [1, 1, 1, 1]))
    np.testing.assert_allclose(state["widths"], [[0.25, 0.25], [0.25, 0.25], [0.0, 0.25], [0.25, 0.25]])
    # Now only those at the present end: mass high at 1 + 0.25 * 1. Old ones do not count.
    learner.learn(2, episodes([[1.25, 2.1, 0.01, 0.1]] * 3 + [nominal] * 9, [1] * 12))
    assert learner.widths[0, 1] == 0.25, "three results are too few"
    learner.learn(3, episodes([[1.25, 2.1, 0.01, 0.1]], [1]))
    assert learner.widths[0, 1] == 0.5 and learner.widths[0, 0] == 0.25
    learner.learn(4, episodes([[1.5, 2.1, 0.01, 0.1]] * 4, [1, 1, 0, 0]))
    assert learner.widths[0, 1] == 0.5, "between the thresholds nothing moves"
    learner.learn(5, episodes([[1.5, 2.1, 0.01, 0.1]] * 4, [1, 0, 0, 0]))
    assert learner.widths[0, 1] == 0.25
    for iteration in range(6, 30):
        value = ranges().values(learner.widths)[2, 1]
        learner.learn(iteration, episodes([[1.1, 2.1, value, 0.1]] * 4, [1] * 4))
    assert learner.widths[2, 1] == 1.0, "never beyond the limit"
    assert learner.history[-1]["delay.high"] == 1.0 and "delay.low" not in learner.history[-1]


def test_what_it_knows_survives_a_checkpoint(tmp_path):
    first, second = (RangeLearner(ranges(), AdrSettings(episodes=4)) for _ in range(2))
    first.learn(0, episodes([[1.0, 2.0, 0.0, 0.0]] * 6, [1] * 6))
    first.learn(1, episodes([[1.1, 2.02, 0.001, 0.01]] * 3, [1] * 3))
    torch.save(first.state(), tmp_path / "state.pt")
    second.load(torch.load(tmp_path / "state.pt", weights_only=True))
    last = episodes([[1.1, 2.02, 0.001, 0.01]], [1])
    np.testing.assert_array_equal(first.learn(2, last)["widths"], second.learn(2, last)["widths"])
    assert second.widths[0, 1] == pytest.approx(0.2) and first.history == second.history


def test_switched_off_ranges_stay_at_nominal():
    off = load_method({"name": "adr"}).off()
    learner = RangeLearner(ranges(), off.settings)
    assert not learner.learn(0, episodes([[1.0, 2.0, 0.0, 0.0]] * 90, [1] * 90))["widths"].any()


def test_thresholds_must_be_apart():
    with pytest.raises(ConfigError, match=r"'shrink' \(0.9\) must be below 'grow'"):
        load_method({"name": "adr", "shrink": 0.9})


def test_from_configuration_to_verified_bundle(tmp_path):
    """Delays are among the ranges that its history tells of."""
    small = ["sim.robots=8", "ppo.iterations=3", "ppo.steps=20", "ppo.mini_batches=2"]
    small += ["task={name: hover, episode_s: 0.2, hold_s: 0.1}", "method={name: adr, episodes: 1}"]
    config = load_config("adr", small)
    bundle = PolicyBundle.load(train(config, tmp_path / "run", lambda *_: None))
    assert verify(bundle).ok, verify(bundle).message
    (row,) = json.loads((tmp_path / "run" / "history.json").read_text())["adr"]
    assert "action_delay.high" in row and "observation_delay.high" in row
