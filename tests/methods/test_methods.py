"""Methods: what they refuse, the whole pipeline to a bundle, and UP-OSI with its mechanism switched off."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import random_frames

from sim2real.config import load_config
from sim2real.errors import BundleError, ConfigError
from sim2real.files import lock_folder
from sim2real.learn.artifact import Candidate
from sim2real.learn.experiment import load_experiment
from sim2real.methods import load_method
from sim2real.methods.base import Run
from sim2real.methods.train import export_run, load_run, train
from sim2real.robots.identified import nominal_parameters
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.runtime.spec import ReportTerm

SMALL = ["sim.robots=8", "sim.workers=1", "ppo.iterations=2", "ppo.steps=16", "ppo.mini_batches=2", "ppo.imitate=10"]
SMALL_OSI = [*SMALL, "method.rounds=2", "method.robots=8", "method.batches_per_round=5"]


def silent(*_):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small UP-OSI run: its configuration, folder, bundle's path and the stages it told of."""
    stages = []
    config, folder = load_config("up_osi", SMALL_OSI), tmp_path_factory.mktemp("runs") / "run"
    path = train(config, folder, lambda stage, done, total, metrics: stages.append((stage, done, total)))
    return config, folder, path, stages


def test_pipeline_from_configuration_to_verified_bundle(finished):
    config, folder, path, stages = finished
    assert [s for s, done, total in stages if done == total] == ["PPO", "identification", "export"]
    bundle = PolicyBundle.load(path)
    assert verify(bundle).ok, verify(bundle).message
    experiment = load_method(config.method).prepare(load_experiment(config))
    report = tuple(ReportTerm(name=term.name, unit=term.unit) for term in experiment.told)
    assert [term.name for term in report] == config.method["identify"]
    assert bundle.spec == experiment.spec(len(report) + 1, report)
    assert list(bundle.spec.inputs()) == ["observation", "history", "memory"]
    assert bundle.provenance["config"]["ppo"]["iterations"] == 2
    assert set(bundle.provenance["metrics"]["training_simulator"]["identification_after_1s"]) == {
        t.name for t in report
    }
    history = json.loads((folder / "history.json").read_text())
    assert len(history["ppo"]) == 2 and len(history["osi"]) == 2
    with pytest.raises(ConfigError, match="other settings"):
        train(load_config("up_osi", [*SMALL_OSI, "seed=5"]), folder, silent)


def test_a_finished_run_is_exported_again_without_training(finished, tmp_path):
    config, folder, path, _ = finished
    stages = []
    again = export_run(folder, tmp_path / "again", lambda stage, *_: stages.append(stage))
    assert set(stages) == {"export"}
    assert PolicyBundle.load(again).spec == PolicyBundle.load(path).spec
    old, new = PolicyBundle.load(path).golden(), PolicyBundle.load(again).golden()
    for name, value in old.items():
        np.testing.assert_array_equal(new[name], value, err_msg=name)
    assert load_run(folder) == config
    with pytest.raises(ConfigError, match="is not a training run"):
        load_run(tmp_path)


def test_a_refused_export_leaves_a_way_on(finished, tmp_path, monkeypatch):
    """Nothing is trained or identified again, and the run can be exported once the reason is gone."""
    config, folder, _, _ = finished
    run = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(run / "bundle")
    (run / "history.json").unlink()

    def refuse(*_):
        raise BundleError("refused")

    monkeypatch.setattr("sim2real.methods.up_osi.train_estimator", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(Candidate, "check", refuse)
        with pytest.raises(BundleError, match="refused"):
            train(config, run, silent)
    assert not (run / "bundle").exists()
    stages = []
    path = export_run(run, run / "bundle", lambda stage, *_: stages.append(stage))
    assert set(stages) == {"export"} and verify(PolicyBundle.load(path)).ok


def test_two_trainings_do_not_share_a_folder(finished):
    config, folder, _, _ = finished
    with lock_folder(folder), pytest.raises(ConfigError, match=rf"{folder} is being written by process {os.getpid()}"):
        train(config, folder, silent)


def test_up_osi_switched_off_is_told_the_nominal_parameters(finished):
    """The same contract and weights; what is estimated is reported, and the policy does not hear of it."""
    config, folder, path, _ = finished
    method, experiment, run = load_method(config.method), load_experiment(config), Run(folder, silent)
    off = method.off().train(experiment, run)
    on = method.train(experiment, run)
    assert off.spec == on.spec == PolicyBundle.load(path).spec
    told = method.prepare(experiment).told
    nominal = torch.from_numpy(np.clip(nominal_parameters(told), -1.2, 1.2)).repeat(4, 1)
    generator = torch.Generator().manual_seed(0)
    observation, history, memory = (torch.randn(4, size, generator=generator) for size in on.spec.inputs().values())
    with torch.inference_mode():
        blind, seeing = off.network(observation, history, memory.abs()), on.network(observation, history, memory.abs())
        torch.testing.assert_close(blind[0], off.network.policy(observation, nominal))
        other = off.network(observation, torch.flip(history, [0]), memory.abs())
    torch.testing.assert_close(other[0], blind[0], rtol=0, atol=0)
    assert (other[2] - blind[2]).abs().max() > 1e-3, "its report goes on"
    assert (seeing[0] - blind[0]).abs().max() > 1e-4
    for mine, its in zip(blind[1:], seeing[1:], strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0)
    runners = off.runner(3), on.runner(3)
    # One frame: from the second on, last_action differs, and with it what is reported.
    frame = next(iter(random_frames(1, 3)))
    commands = [runner.step(frame) for runner in runners]
    np.testing.assert_allclose(runners[0].report_mean, runners[1].report_mean, rtol=1e-5, atol=1e-5)
    assert np.abs(commands[0] - commands[1]).max() > 1e-6


def test_the_others_have_nothing_to_switch_off():
    for name in ("nominal", "randomized"):
        method = load_method({"name": name})
        assert method.off() is method
        assert method.adapt(candidate := object(), None, None) is candidate


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("nominal", ["randomize=all"], "method 'nominal' means no randomization; remove 'randomize'"),
        ("randomized", ["randomize=[]"], "method 'randomized' needs 'randomize': all, or a list of terms"),
        ("up_osi", ["randomize=[]"], "method 'up_osi' needs 'randomize'"),
        ("up_osi", ["method.identify=[]"], "method 'up_osi' needs 'identify'"),
        ("up_osi", ["ppo.lstm=8"], "an LSTM identifies by itself"),
    ],
)
def test_configurations_that_do_not_suit_the_method(tmp_path, name, overrides, words):
    with pytest.raises(ConfigError, match=words):
        train(load_config(name, overrides), tmp_path / "run", silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"name": "up_osi", "identify": ["delay"], "round": 3},
            "method 'up_osi':\n  round: unknown key; did you mean 'ro",
        ),
        ({"name": "up_osi"}, "method 'up_osi':\n  identify: Field required"),
        ({"name": "nominal", "rounds": 3}, "method 'nominal':\n  rounds: unknown key"),
        ({"name": "uposi"}, "unknown method 'uposi'; did you mean 'up_osi'"),
        ({"name": "no_methods_of_test:Mine"}, "there is no module 'no_methods_of_test'"),
    ],
)
def test_wrong_settings_of_a_method(settings, words):
    with pytest.raises(ConfigError, match=words):
        load_method(settings)


def test_what_a_robot_cannot_identify(tmp_path):
    config = load_config("up_osi", [*SMALL_OSI, "method.identify=[mas]"])
    with pytest.raises(ConfigError, match=r"robot 'crazyflie' cannot identify \['mas'\]; it knows mass_thrust_ratio"):
        train(config, tmp_path / "run", silent)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    config = load_config("randomized", [*SMALL, "ppo.iterations=3"])

    def interrupt(stage, done, *_):
        if (stage, done) == ("PPO", 2):
            raise KeyboardInterrupt

    assert train(config, tmp_path, interrupt) is None
    assert not (tmp_path / "history.json").exists()
    with pytest.raises(ConfigError, match="is not finished"):
        export_run(tmp_path, tmp_path / "bundle", silent)
    stages = []
    path = train(config, tmp_path, lambda stage, done, *_: stages.append((stage, done)))
    assert stages[0] == ("PPO", 3) and verify(PolicyBundle.load(path)).ok
