"""Workers act in numpy and the learner has gradient steps of its own: both against torch and rsl-rl."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from sim2real.config import PPOConfig
from sim2real.learn.acting import Acting, SharedWeights
from sim2real.learn.actors import actor_arrays, actor_sizes
from sim2real.learn.buffers import Buffers
from sim2real.learn.rsl_rl import Learner, average, make_network
from sim2real.learn.update import Networks, Samples, decoupled, log_prob

SIZES = {"observation": 7, "parameters": 2, "privileged": 3}
READS = ("observation", "parameters")


def make_learner(encoder=(), **settings):
    config = PPOConfig(iterations=1, steps=6, hidden=(16, 8), critic_hidden=(8,), mini_batches=2, **settings)
    groups = TensorDict({name: torch.zeros(5, size) for name, size in SIZES.items()}, batch_size=[5])
    learner = Learner(groups, 2, 3, config, READS, encoder)
    actor = learner.actor
    actor.obs_normalizer.update(3.0 * torch.randn(50, 9) + torch.arange(9.0))
    torch.nn.init.normal_(actor.mlp[-1].weight)
    with torch.no_grad():
        actor.distribution.log_std_param[:] = torch.tensor([-9.0, -1.0, 0.5])  # beyond both bounds, and inside
    return learner


@pytest.mark.parametrize(("lstm", "encoder"), [(0, ()), (4, ()), (0, (6, 3)), (0, (6, 5, 3))])
def test_workers_act_as_the_network_does(lstm, encoder):
    torch.manual_seed(0)
    learner = make_learner(encoder, lstm=lstm)
    network, config = make_network(learner.actor, learner.config), learner.config
    weights = SharedWeights(actor_sizes(learner.actor, config))
    acting = Acting(weights, 5, np.random.default_rng(0))
    weights.write(actor_arrays(learner.actor))
    assert np.abs(acting.mean(np.ones((5, 9), np.float32))).max() == 0.0, "nothing changes before it is told to"
    acting.refresh()
    memory = torch.zeros(5, 2 * lstm)
    for step in range(4):
        inputs = torch.randn(5, 9) * 3.0
        with torch.inference_mode():
            wanted = network(inputs, *([memory] if lstm else []))
        if lstm:
            wanted, memory = wanted
            memory = memory.clone()
        if step == 2:
            memory[1] = 0.0
        action, mean, std = acting.act(inputs.numpy())
        np.testing.assert_allclose(mean, wanted, atol=2e-5)
        np.testing.assert_allclose(std, [0.05, np.exp(-1.0), 1.0], rtol=1e-6)
        assert np.abs((action - mean) / std).max() < 5.0 and not np.allclose(action, mean)
        if step == 2:
            acting.forget(np.array([False, True, False, False, False]))


def test_gradient_steps_are_those_of_rsl_rl():
    torch.manual_seed(1)
    learner = make_learner(entropy=0.01, epochs=3)
    buffers = [Buffers(6, SIZES, 5, 3) for _ in range(2)]
    rng = np.random.default_rng(2)
    for buffer in buffers:
        for name in SIZES:
            buffer.groups[name][...] = rng.standard_normal(buffer.groups[name].shape)
            buffer.last_groups[name][...] = rng.standard_normal(buffer.last_groups[name].shape)
        inputs = np.concatenate([buffer.groups[name] for name in READS], axis=2)
        with torch.no_grad():  # the policy that acts is the one that learns: nothing to decouple
            buffer.mean[...] = make_network(learner.actor, learner.config)(torch.from_numpy(inputs))
        buffer.std[...] = [0.05, np.exp(-1.0), 1.0]
        buffer.actions[...] = buffer.mean + buffer.std * rng.standard_normal(buffer.mean.shape)
        buffer.rewards[...] = rng.standard_normal(buffer.rewards.shape)
        buffer.terminated[3, 1] = 1.0
    other = copy.deepcopy(learner)
    torch.manual_seed(3)
    got = learner.update(buffers, 1e-2, None, False)
    torch.manual_seed(3)
    other._fill(buffers, None, False)
    for group in other._ppo.optimizer.param_groups:
        group["lr"] = 1e-2
    wanted = other._ppo.update()
    assert {name: got[name] for name in wanted} == pytest.approx(wanted, abs=1e-5)
    for mine, its in zip(learner.state().values(), other.state().values(), strict=True):
        for name, value in mine.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, its[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_policy_one_iteration_old_weighs_the_advantages():
    """By hand: one action of deviation 1, the acting policy's mean is 0, the present one's 0.5."""
    actor = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(actor.weight)
    torch.nn.init.constant_(actor.bias, 0.5)
    networks = Networks(actor, torch.nn.Linear(1, 1), torch.nn.Parameter(torch.zeros(1)), (-1.0, 1.0))
    actions, zero = torch.tensor([[0.0], [0.5], [9.0]]), torch.zeros(1)
    acted = log_prob(actions, torch.zeros(3, 1), zero)
    got = decoupled(networks, Samples(torch.zeros(3, 1), zero, actions, acted, torch.tensor([1.0, -2.0, 3.0]), zero))
    up = float(np.exp(0.125))
    torch.testing.assert_close(got.advantages, torch.tensor([1.0 / up, -2.0 * up, 3.0 * 2.0]))
    torch.testing.assert_close(got.log_prob, log_prob(actions, torch.full((3, 1), 0.5), zero))


def test_running_normalisation_is_that_of_rsl_rl():
    torch.manual_seed(4)
    mine = make_learner().actor.obs_normalizer
    its = copy.deepcopy(mine)
    for _ in range(3):
        x = torch.randn(40, 9) * 5.0 + 100.0
        average(mine, x)
        its.update(x)
    for name, value in its.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-4, atol=1e-4)
    mine.until = 0
    before = mine.mean
    average(mine, torch.randn(40, 9))
    torch.testing.assert_close(mine.mean, before, rtol=0, atol=0)


def test_a_worker_needs_no_torch():
    code = (
        "import sys; import sim2real.learn.rollout, sim2real.learn.experiment; "
        "sys.exit(' '.join(m for m in ('torch', 'rsl_rl', 'matplotlib', 'cv2') if m in sys.modules) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
