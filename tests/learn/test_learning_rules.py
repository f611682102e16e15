"""Rules of the algorithms that a learning curve does not show when they are broken."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from sim2real.config import PPOConfig
from sim2real.errors import SimulationError
from sim2real.learn.buffers import Buffers
from sim2real.learn.estimator import EstimateFilter, OSISettings, train_estimator
from sim2real.learn.rsl_rl import Learner, tensors
from sim2real.robots.identified import ParameterTerm


def test_the_value_of_what_would_have_come_stands_in_when_time_is_up():
    """By hand: a robot that failed has nothing left to gain, one whose time was up has what the critic expects."""
    config = PPOConfig(iterations=1, steps=3, gamma=0.9, gae_lambda=1.0, mini_batches=1, hidden=(4,))
    sizes = {"observation": 2, "privileged": 1}
    groups = TensorDict({name: torch.zeros(3, size) for name, size in sizes.items()}, batch_size=[3])
    torch.manual_seed(0)
    learner = Learner(groups, 1, 1, config, ("observation",))
    buffers = Buffers(3, sizes, 3, 1)
    for name, size in sizes.items():
        buffers.groups[name][...] = torch.randn(3, 3, size)
        buffers.last_groups[name][...] = torch.randn(3, size)
    buffers.std[...] = 1.0
    buffers.rewards[...] = 1.0
    buffers.truncated[1, 0] = 1.0  # robot 0: time is up in the second step
    buffers.terminated[1, 1] = 1.0  # robot 1: has failed in it; robot 2 goes on
    learner._fill([buffers], None, False)
    storage = learner._ppo.storage
    value, last = storage.values[..., 0], learner._ppo.critic(
        tensors(buffers.last_groups)
    )[..., 0]  # fmt: skip
    end = 1.0 + 0.9 * last.detach()
    wanted = torch.stack([
        torch.stack([1 + 0.9 * (1 + 0.9 * value[1, 0]), torch.tensor(1 + 0.9), 1 + 0.9 * (1 + 0.9 * end[2])]),
        torch.stack([1 + 0.9 * value[1, 0], torch.tensor(1.0), 1 + 0.9 * end[2]]),
        end,
    ])  # fmt: skip
    assert value[1, 0].abs() > 0.01, "a critic that expects nothing would hide the fault"
    torch.testing.assert_close(storage.returns[..., 0], wanted)


TERMS = tuple(ParameterTerm(name=name, unit="1", low=-1.0, high=1.0, nominal=0.0) for name in ("a", "b"))


class FourRobots:
    """As much of an environment as the estimator's training needs."""

    count, episode_steps, parameter_terms = 4, 5, TERMS
    success = np.zeros(4, dtype=bool)

    def __init__(self):
        self._rng, self.starts = np.random.default_rng(0), 0

    def reset(self):
        self.starts += 1

    def observation(self, group="observation"):
        return self._rng.standard_normal((4, 3)).astype(np.float32)

    def parameters(self):
        return np.array([[0.9, -0.9], [0.8, -0.8], [0.7, -0.7], [0.6, -0.6]], dtype=np.float32)

    def step(self, action):
        return np.zeros(4), np.zeros(4, dtype=bool), np.zeros(4, dtype=bool)


def test_the_estimator_learns_where_its_own_estimates_lead():
    """Only the first round is told the truth: after it the policy hears the estimates, errors and all (DAgger)."""
    env, told = FourRobots(), []

    def policy(observation, parameters):
        told.append((env.starts, parameters.clone()))
        return torch.zeros(len(parameters), 4)

    estimates = EstimateFilter(TERMS, 0.02, 0.0)
    settings = OSISettings(rounds=3, robots=4, samples_per_episode=5, batches_per_round=1, hidden=(4,))
    train_estimator(env, policy, estimates, settings, 0)
    truth = torch.from_numpy(env.parameters())
    assert env.starts == 3
    for round_, parameters in told:
        if round_ == 1:
            torch.testing.assert_close(parameters, truth)
        else:
            assert (parameters - truth).abs().max() > 0.1, f"round {round_} was told the truth"


@pytest.mark.parametrize("told_truth", [True, False])
def test_what_the_policy_hears_is_what_the_estimator_says(told_truth):
    from sim2real.learn.estimator import Samples, run_and_record

    env, told, said = FourRobots(), [], torch.tensor([[0.1, 0.2]]).repeat(4, 1)

    def policy(observation, parameters):
        told.append(parameters.clone())
        return torch.zeros(4, 4)

    estimator = None if told_truth else lambda history: (said, said)
    data = Samples()
    run_and_record(env, policy, estimator, EstimateFilter(TERMS, 0.02, 0.0), 5, data, 0)
    wanted = torch.from_numpy(env.parameters()) if told_truth else said
    assert len(told) == env.episode_steps and all(torch.equal(parameters, wanted) for parameters in told)
    assert all(np.abs(row).max() > 0.5 for row in np.concatenate(data.truth)), "the samples hold the truth either way"


@pytest.mark.parametrize(("losses", "weight"), [({"value": float("nan")}, 0.0), ({"value": 1.0}, float("inf"))])
def test_a_training_that_diverges_is_a_sentence(losses, weight):
    from sim2real.learn.ppo import Trainer

    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.iteration = PPOConfig(iterations=9), 4
    actor = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(actor.weight, weight)
    trainer._learner = SimpleNamespace(update=lambda *_: losses, actor=actor)
    with pytest.raises(SimulationError, match=r"diverged in iteration 5: .* lower 'ppo.learning_rate'"):
        trainer._update([], None, False)
