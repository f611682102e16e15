"""Export: every kind of network as one ONNX graph that computes what torch computes."""

import copy

import numpy as np
import pytest
import torch

from sim2real.config import load_config
from sim2real.errors import BundleError
from sim2real.learn.artifact import Candidate
from sim2real.learn.experiment import load_experiment
from sim2real.learn.rollout import read_groups
from sim2real.learn.rsl_rl import make_network, make_ppo, memory_size, tensors


def untrained(lstm=0, groups=("observation",), seed=0):
    """A candidate with fresh weights, reading ``groups``."""
    torch.manual_seed(seed)
    experiment = load_experiment(load_config("randomized", ["task={name: hover}", f"ppo.lstm={lstm}", "sim.robots=4"]))
    task, ppo = experiment.task, experiment.config.ppo
    terms = {"observation": task.observation(), "history": task.history()}
    experiment = experiment.with_groups(**{name: terms[name] for name in groups})
    env = experiment.make_env(0)
    actor = make_ppo(tensors(read_groups(env, groups)), 4, ppo, groups).actor
    env.sim.close()
    return Candidate(experiment.spec(memory_size(ppo)), make_network(actor, ppo))


def made_up_inputs(candidate, rows=40, seed=1):
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal((rows, size)).astype(np.float32) for n, size in candidate.spec.inputs().items()}


@pytest.mark.parametrize("lstm", [0, 8])
@pytest.mark.parametrize("groups", [("observation",), ("observation", "history")])
def test_an_actor_is_exported_whatever_it_reads(lstm, groups):
    candidate = untrained(lstm, groups)
    assert list(candidate.spec.inputs()) == [*groups, *(["memory"] if lstm else [])]
    inputs, model = made_up_inputs(candidate), candidate.onnx()
    with torch.inference_mode():
        made = candidate.network(*map(torch.from_numpy, inputs.values()))
    expected = made if isinstance(made, tuple) else (made,)
    got = candidate.runner(3)._network(inputs)
    for name, value in zip(candidate.spec.outputs(), expected, strict=True):
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)
    candidate.check(model, inputs)
    assert {p.dtype for p in candidate.network.parameters()} == {torch.float32}, "the comparison leaves it as it was"


def test_a_graph_that_computes_something_else_is_refused():
    candidate, other = untrained(), untrained(seed=1)
    with pytest.raises(BundleError, match="the exported network's 'action' differs from torch"):
        candidate.check(other.onnx(), made_up_inputs(candidate))


def test_a_weight_that_is_slightly_off_is_refused():
    candidate = untrained()
    inputs, model = made_up_inputs(candidate), candidate.onnx()
    with torch.no_grad():
        candidate.network.mlp[-1].bias[2] += 1e-4
    with pytest.raises(BundleError, match="differs from torch"):
        candidate.check(model, inputs)


def test_a_network_that_rounds_coarsely_is_no_wrong_export():
    """Hidden values of thousands that cancel in the action: single precision leaves few of its digits."""
    candidate = untrained()
    with torch.no_grad():
        candidate.network.mlp[2].bias += 2e4
        candidate.network.mlp[4].bias -= 2e4 * candidate.network.mlp[4].weight.sum(dim=1)
    inputs, model = made_up_inputs(candidate), candidate.onnx()
    double = copy.deepcopy(candidate.network).double()
    with torch.inference_mode():
        single = candidate.network(torch.from_numpy(inputs["observation"])).double()
        rounding = (single - double(torch.from_numpy(inputs["observation"]).double())).abs().max()
    assert single.abs().max() < 1.0 and 1e-5 < rounding < 1e-3, "more than a fixed tolerance would let pass"
    candidate.check(model, inputs)
    with torch.no_grad():
        candidate.network.mlp[4].bias += 0.01
    with pytest.raises(BundleError, match="differs from torch"):
        candidate.check(model, inputs)


def test_digits_beyond_the_reach_of_the_command_do_not_count():
    candidate = untrained()
    with torch.no_grad():
        candidate.network.mlp[4].weight.zero_()
        candidate.network.mlp[4].bias.fill_(3.0)
    inputs, model = made_up_inputs(candidate), candidate.onnx()
    with torch.no_grad():
        candidate.network.mlp[4].bias += 0.5
    candidate.check(model, inputs)
