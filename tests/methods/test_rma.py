"""Rapid motor adaptation: encoder and policy against the actor they come from, and the road to a bundle."""

import numpy as np
import pytest
import torch

from sim2real.config import load_config
from sim2real.errors import ConfigError
from sim2real.learn.experiment import load_experiment
from sim2real.methods import load_method
from sim2real.methods.base import Run
from sim2real.methods.train import train
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify

SMALL = ["sim.robots=8", "sim.workers=1", "ppo.iterations=2", "ppo.steps=16", "ppo.mini_batches=2", "method.latent=3"]
SMALL += ["method.rounds=2", "method.robots=8", "method.batches_per_round=5"]


def silent(*_):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config, folder = load_config("rma", SMALL), tmp_path_factory.mktemp("runs") / "run"
    return config, folder, train(config, folder, silent)


def test_from_configuration_to_verified_bundle(finished):
    _, _, path = finished
    bundle = PolicyBundle.load(path)
    assert verify(bundle).ok, verify(bundle).message
    assert [term.name for term in bundle.spec.report] == ["latent_0", "latent_1", "latent_2"]
    assert list(bundle.spec.inputs()) == ["observation", "history", "memory"]


def test_the_base_policy_does_what_the_actor_does_that_ppo_trained(finished):
    from sim2real.learn.rsl_rl import make_network
    from sim2real.methods.base import train_policy
    from sim2real.methods.rma import BasePolicy, telling_latents

    config, folder, _ = finished
    method = load_method(config.method)
    experiment = method.prepare(load_experiment(config))
    trainer = train_policy(experiment, Run(folder, silent), ("observation", "parameters"), method.hooks(experiment))
    whole = make_network(trainer.actor, config.ppo).eval()
    policy = BasePolicy(trainer.actor).eval()
    latents = telling_latents(experiment, policy, 3)
    policy.normalise_by(latents.told)
    env, other = experiment.make_env(3, 16), latents.make_env(3, 16)
    told = env.parameters()
    assert told.shape == (
        16,
        sum(t.kind == "episode" for t in experiment.terms.values()),
    ) and other.parameters().shape == (16, 3)
    inside = (np.abs(other.parameters()) < 1.4).all(axis=1)  # beyond, normalised latents are clipped
    with torch.inference_mode():
        wanted = whole(torch.from_numpy(env.observation()), torch.from_numpy(told))
        got = policy(torch.from_numpy(other.observation()), torch.from_numpy(other.parameters()))
    assert inside.sum() >= 12 and float(wanted.std()) > 1e-3
    torch.testing.assert_close(got[inside], wanted[inside], rtol=1e-4, atol=1e-5)
    env.sim.close()
    other.sim.close()


def test_switched_off_it_reads_the_latent_of_nominal_physics(finished):
    config, folder, _ = finished
    method, run, experiment = load_method(config.method), Run(folder, silent), load_experiment(config)
    on, off = method.train(experiment, run), method.off().train(experiment, run)
    assert on.spec == off.spec
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(4, size, generator=generator) for size in on.spec.inputs().values()]
    inputs[-1] = inputs[-1].abs()
    flipped = [inputs[0], torch.flip(inputs[1], [0]), inputs[2]]
    with torch.inference_mode():
        blind, again, seeing = off.network(*inputs), off.network(*flipped), on.network(*inputs)
    torch.testing.assert_close(blind[0], again[0], rtol=0, atol=0)
    assert (blind[0] - seeing[0]).abs().max() > 1e-6 and (blind[2] - again[2]).abs().max() > 1e-6


def test_an_lstm_does_not_go_with_it():
    config = load_config("rma", ["ppo.lstm=8"])
    with pytest.raises(ConfigError, match="an LSTM adapts by itself"):
        load_method(config.method).check(load_experiment(config))
