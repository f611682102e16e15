"""Randomization by hand: bounds, operations that stack, terms drawn together, terms drawn at every step."""

import numpy as np
import pytest

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.sim.randomization import Randomization

TABLE = {
    "mass": PhysicsParameter(unit="kg", nominal=1.0, low=0.5, high=2.0),
    "lift": PhysicsParameter(unit="1", nominal=1.0, low=0.5, high=2.0),
    "delay": PhysicsParameter(unit="s", nominal=0.02, low=0.0, high=0.05),
}


def term(**changes):
    return RandomizationTerm(
        **{"operation": "set", "distribution": "uniform", "range": (0.5, 2.0), "reason": "test"} | changes
    )


def make(terms, count=1, seed=0):
    return Randomization(terms, PhysicsParams(TABLE, count), np.random.default_rng(seed))


def column(randomization, name, count=20_000):
    return randomization.sample(count)[:, randomization.params.column(name)]


def test_a_range_up_to_the_bounds_is_allowed_and_beyond_them_is_not():
    make({"mass": term(range=(0.5, 2.0))})
    for bad in ((0.49, 2.0), (0.5, 2.01)):
        with pytest.raises(ConfigError, match=r"outside the parameter's bounds 0\.5 \.\. 2\.0"):
            make({"heavy": term(parameter="mass", range=bad)})
    make({"mass": term(operation="scale", range=(0.1, 9.0))})
    make({"mass": term(distribution="gaussian", range=(1.0, 9.0))})


def test_samples_stay_within_the_bounds_and_operations_stack_in_order():
    randomization = make({"a": term(parameter="mass", operation="scale", range=(3.0, 3.0))})
    np.testing.assert_array_equal(column(randomization, "mass", 5), 2.0)
    both = make(
        {
            "a": term(parameter="mass", range=(0.8, 0.8)),
            "b": term(parameter="mass", operation="scale", range=(1.5, 1.5)),
            "c": term(parameter="mass", operation="offset", range=(-0.1, -0.1)),
        }
    )
    np.testing.assert_allclose(column(both, "mass", 5), 0.8 * 1.5 - 0.1)


@pytest.mark.parametrize("correlation", [0.9, -0.6, 1.0])
@pytest.mark.parametrize("said_by", ["first", "second"])
def test_terms_drawn_together_are_correlated_and_each_alone_is_as_it_says(correlation, said_by):
    first, second = ({"lift": correlation}, {}) if said_by == "first" else ({}, {"mass": correlation})
    terms = {"mass": term(range=(0.6, 1.8), correlated=first), "lift": term(range=(0.7, 1.1), correlated=second)}
    values = make(terms).sample(20_000)
    mass, lift = values[:, 0], values[:, 1]
    # Spearman's rank correlation of a Gaussian copula: 6 / pi * asin(r / 2) (Pearson 1907).
    wanted = 6.0 / np.pi * np.arcsin(correlation / 2.0)
    assert np.corrcoef(mass, lift)[0, 1] == pytest.approx(wanted, abs=0.02)
    for sampled, low, high in ((mass, 0.6, 1.8), (lift, 0.7, 1.1)):
        assert low <= sampled.min() < low + 0.01 and high - 0.01 < sampled.max() <= high
        assert sampled.mean() == pytest.approx(0.5 * (low + high), rel=0.01)
        assert sampled.std() == pytest.approx((high - low) / np.sqrt(12.0), rel=0.02)


def test_chains_of_correlated_terms_are_one_group_and_others_stay_independent():
    terms = {
        "mass": term(correlated={"delay": 0.8}),
        "lift": term(),
        "delay": term(range=(0.0, 0.05)),
        "absent": term(parameter="lift", operation="scale", range=(1.0, 1.0), correlated={"nobody": 0.5}),
    }
    values = make(terms).sample(20_000)
    found = np.corrcoef(values.T)
    assert found[0, 2] == pytest.approx(6.0 / np.pi * np.arcsin(0.4), abs=0.02)
    assert abs(found[0, 1]) < 0.03 and abs(found[1, 2]) < 0.03
    three = {
        "mass": term(correlated={"lift": 0.9}),
        "lift": term(correlated={"delay": 0.9}),
        "delay": term(range=(0.0, 0.05), correlated={"mass": 0.7}),
    }
    found = np.corrcoef(make(three).sample(20_000).T)
    for row, other, correlation in ((0, 1, 0.9), (1, 2, 0.9), (0, 2, 0.7)):
        assert found[row, other] == pytest.approx(6.0 / np.pi * np.arcsin(correlation / 2.0), abs=0.03)


def test_impossible_correlations_become_the_nearest_possible_ones():
    """Three that are each the opposite of the others cannot be; half of it can."""
    terms = {
        "mass": term(correlated={"lift": -1.0, "delay": -1.0}),
        "lift": term(correlated={"delay": -1.0}),
        "delay": term(range=(0.0, 0.05)),
    }
    values = make(terms).sample(20_000)
    found = np.corrcoef(values.T)
    assert np.isfinite(values).all()
    wanted = 6.0 / np.pi * np.arcsin(-0.25)
    np.testing.assert_allclose(found[np.triu_indices(3, 1)], wanted, atol=0.03)
    assert values[:, 0].std() == pytest.approx(1.5 / np.sqrt(12.0), rel=0.02)


def test_rows_that_cannot_be_together_keep_their_own_distributions():
    """Both like the middle one and not like each other: the middle one gives way more than the others."""
    terms = {
        "mass": term(correlated={"lift": 1.0}),
        "lift": term(correlated={"delay": 1.0}),
        "delay": term(range=(0.0, 0.05)),
    }
    values = make(terms).sample(20_000)
    for index, width in enumerate((1.5, 1.5, 0.05)):
        assert values[:, index].std() == pytest.approx(width / np.sqrt(12.0), rel=0.02)


def test_what_no_term_says_is_independent_and_groups_stay_apart():
    table = {name: PhysicsParameter(unit="1", nominal=1.0, low=0.5, high=2.0) for name in "abcde"}
    said = {"a": {"b": 0.6}, "b": {"c": 0.6}, "c": {}, "d": {"e": -0.9}, "e": {}}
    terms = {name: term(correlated=correlated) for name, correlated in said.items()}
    found = np.corrcoef(Randomization(terms, PhysicsParams(table, 1), np.random.default_rng(3)).sample(20_000).T)
    wanted = np.eye(5)
    for row, other, correlation in ((0, 1, 0.6), (1, 2, 0.6), (3, 4, -0.9)):
        wanted[row, other] = wanted[other, row] = 6.0 / np.pi * np.arcsin(correlation / 2.0)
    np.testing.assert_allclose(found, wanted, atol=0.03)


def test_a_reset_gives_new_values_to_its_robots_only():
    randomization = make({"mass": term()}, count=4)
    randomization.reset(np.array([0, 2]))
    mass = randomization.params.values[:, 0].copy()
    assert mass[1] == mass[3] == 1.0 and len({mass[0], mass[2], 1.0}) == 3
    randomization.reset(np.array([3]), np.array([[1.7, 1.0, 0.01]]))
    np.testing.assert_array_equal(randomization.params.values[:, 0], [*mass[:3], 1.7])
    assert randomization.params.values[3, 2] == 0.01


def test_terms_of_every_step_vary_around_the_episodes_value_within_the_bounds():
    jitter = term(parameter="delay", operation="offset", range=(-0.004, 0.004), kind="step")
    randomization = make({"mass": term(), "jitter": jitter}, count=3)
    randomization.reset(np.arange(3), np.array([[1.0, 1.0, 0.02], [1.0, 1.0, 0.03], [1.0, 1.0, 0.049]]))
    seen = []
    for _ in range(400):
        randomization.step()
        seen.append(randomization.params.values[:, 2].copy())
        np.testing.assert_array_equal(randomization.params.values[:, 0], 1.0)
    seen = np.array(seen)
    np.testing.assert_allclose(seen[:, :2].mean(axis=0), [0.02, 0.03], atol=3e-4, err_msg="it does not drift away")
    assert (np.ptp(seen[:, :2], axis=0) > 0.007).all() and (np.abs(seen[:, :2] - [0.02, 0.03]) <= 0.004 + 1e-12).all()
    assert seen[:, 2].max() == 0.05, "clipped"
    np.testing.assert_array_equal(column(randomization, "delay", 9), 0.02, err_msg="no matter of the episode")


def test_what_a_sampler_gives_is_kept_within_the_bounds():
    class Wild:
        def sample(self, terms, count):
            return np.tile([-9.0, 9.0, 0.01], (count, 1))

        def load(self, state):
            pass

    randomization = make({"mass": term()})
    randomization.sampler = Wild()
    np.testing.assert_array_equal(randomization.sample(2), [[0.5, 2.0, 0.01]] * 2)
