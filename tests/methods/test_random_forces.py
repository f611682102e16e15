"""Random forces: what is sampled, that it pushes robots of every kind, and the road to a bundle."""

from dataclasses import replace

import numpy as np
import pytest

from sim2real.config import load_config
from sim2real.errors import ConfigError
from sim2real.learn.experiment import load_experiment
from sim2real.methods import load_method
from sim2real.methods.train import train
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify

ARM = ["method=random_forces", "randomize=[]"]


def prepared(config, overrides=(), strength=1.0):
    settings = load_config(config, [*overrides])
    method = load_method({"name": "random_forces", "strength": strength})
    return method.prepare(load_experiment(settings))


def test_half_of_the_episodes_bear_each_kind_by_hand():
    sim = prepared("random_forces", strength=0.5).make_sim(2, 0)
    values = sim.randomization.sample(400)
    params = sim.params
    std, constant = values[:, params.column("gust_force_std")], values[:, params.column("gust_time_constant")]
    white = np.isclose(std, 0.015)
    assert 150 < white.sum() < 250 and np.allclose(std[~white], 0.03)
    # Half of the way from the nominal 0.5 s to 0.05 s and to 5 s.
    np.testing.assert_allclose(constant[white], 0.275)
    np.testing.assert_allclose(constant[~white], 2.75)
    others = [i for i, name in enumerate(params.names) if not name.startswith("gust_")]
    np.testing.assert_array_equal(values[:, others], np.tile(params.nominal[others], (400, 1)))
    sim.close()


@pytest.mark.parametrize(("config", "overrides"), [("random_forces", ()), ("so101_push", ARM), ("fr3_reach", ARM)])
def test_robots_of_every_kind_are_pushed(config, overrides):
    apart = []
    for strength in (0.0, 1.0):
        experiment = prepared(config, overrides, strength)
        env = experiment.make_env(0, 8, restart=False)
        start = experiment.task.start(np.random.default_rng(0), 1)
        env.reset(start={name: np.repeat(value, 8, axis=0) for name, value in start.items()})
        hold = np.repeat(experiment.task.start_command(start), 8, axis=0)
        for _ in range(25):
            env.sim.step(hold)
        apart.append(env.sim.state[experiment.robot.position].std(axis=0).max())
        env.sim.close()
    assert apart[0] < 1e-9 and apart[1] > 1e-3


def test_from_configuration_to_verified_bundle(tmp_path):
    small = ["sim.robots=8", "ppo.iterations=2", "ppo.steps=16", "ppo.mini_batches=2"]
    config = load_config("random_forces", small)
    bundle = PolicyBundle.load(train(config, tmp_path / "run", lambda *_: None))
    assert verify(bundle).ok, verify(bundle).message
    assert load_method(config.method).off().settings.strength == 0.0


def test_configurations_that_do_not_suit():
    method = load_method({"name": "random_forces"})
    with pytest.raises(ConfigError, match="takes the place of randomization; remove 'randomize'"):
        method.check(load_experiment(load_config("random_forces", ["randomize=all"])))
    experiment = load_experiment(load_config("random_forces"))

    class Calm:
        name, disturbances = "calm", {}

    with pytest.raises(ConfigError, match="robot 'calm' names no 'disturbances'"):
        method.check(replace(experiment, robot=Calm()))
