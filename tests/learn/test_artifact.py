"""Export: every kind of network as one ONNX graph that computes what torch computes."""

import numpy as np
import pytest
import torch

from sim2real.config import load_config
from sim2real.errors import BundleError
from sim2real.learn.artifact import Candidate
from sim2real.learn.experiment import load_experiment
from sim2real.learn.rsl_rl import make_network, make_ppo, memory_size, read_groups


def untrained(lstm=0, groups=("observation",), seed=0):
    """A candidate with fresh weights, reading ``groups``."""
    torch.manual_seed(seed)
    experiment = load_experiment(load_config("randomized", [f"ppo.lstm={lstm}", "sim.robots=2"]))
    task, ppo = experiment.task, experiment.config.ppo
    terms = {"observation": task.observation(), "history": task.history()}
    experiment = experiment.with_groups(**{name: terms[name] for name in groups})
    env = experiment.make_env(0)
    actor = make_ppo(read_groups(env, groups), 4, ppo, groups).actor
    env.sim.close()
    return Candidate(experiment.spec(memory_size(ppo)), make_network(actor, ppo))


@pytest.mark.parametrize("lstm", [0, 8])
@pytest.mark.parametrize("groups", [("observation",), ("observation", "history")])
def test_an_actor_is_exported_whatever_it_reads(lstm, groups):
    candidate = untrained(lstm, groups)
    assert list(candidate.spec.inputs()) == [*groups, *(["memory"] if lstm else [])]
    runner, generator = candidate.runner(3), torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(3, size, generator=generator) for name, size in candidate.spec.inputs().items()}
    with torch.inference_mode():
        made = candidate.network(*inputs.values())
    expected = made if isinstance(made, tuple) else (made,)
    got = runner._network({name: value.numpy() for name, value in inputs.items()})
    for name, value in zip(candidate.spec.outputs(), expected, strict=True):
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


def test_a_graph_that_computes_something_else_is_refused(monkeypatch):
    candidate, other = untrained(), untrained(seed=1)
    from sim2real.learn import artifact

    export = artifact.to_onnx
    monkeypatch.setattr(artifact, "to_onnx", lambda network, *rest: export(other.network.eval(), *rest))
    with pytest.raises(BundleError, match="the exported network's 'action' differs from torch"):
        candidate.onnx()
