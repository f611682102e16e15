"""From a configuration to a policy bundle: train, measure, export. Resumes where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from sim2real.config import ExperimentConfig, prepare_run, validate_config
from sim2real.errors import ConfigError
from sim2real.files import lock_folder, write_text
from sim2real.learn.artifact import Candidate
from sim2real.learn.experiment import Experiment, load_experiment
from sim2real.learn.ppo import seed_of
from sim2real.learn.simulated import run_simulated
from sim2real.methods import load_method
from sim2real.methods.base import Run, Stopped
from sim2real.provenance import provenance
from sim2real.runtime.bundle import write_bundle
from sim2real.runtime.golden import record_golden, recorded_inputs
from sim2real.runtime.policy import PolicyRunner
from sim2real.types import Array, Progress

PACKAGES = ("torch", "pybullet", "rsl-rl-lib", "numpy", "onnxruntime")


def train(
    config: ExperimentConfig, run_dir: Path, on_progress: Progress, bundle_dir: Path | None = None
) -> Path | None:
    """Train the configured policy and export it; continues an earlier run of the same configuration.

    Args:
        config: The experiment.
        run_dir: Folder of the run: configuration, checkpoint, TensorBoard events, history, bundle.
        on_progress: Called after every iteration, round and stage.
        bundle_dir: Where the bundle goes; ``run_dir / "bundle"`` by default.

    Returns:
        The bundle's path, or None when Ctrl-C ended it early; what was finished is kept.

    Raises:
        ConfigError: The configuration is wrong, the folder holds a run of another one, or another process trains there.
    """
    experiment, method = load_experiment(config), load_method(config.method)
    method.check(experiment)
    with lock_folder(run_dir):
        prepare_run(config, run_dir)
        try:
            candidate = method.train(experiment, Run(run_dir, on_progress))
            write_text(run_dir / "history.json", json.dumps(candidate.history))
            return export(experiment, candidate, bundle_dir or run_dir / "bundle", on_progress)
        except (Stopped, KeyboardInterrupt):
            return None


def export(experiment: Experiment, candidate: Candidate, bundle_dir: Path, on_progress: Progress) -> Path:
    """Write a trained policy as a bundle, with a golden trace recorded in the training simulator."""
    spec, model = candidate.spec, candidate.onnx()
    on_progress("export", 1, 3, {})
    runner = PolicyRunner.from_onnx(spec, model)
    golden = record_golden(runner, _closed_loop(experiment, runner))
    candidate.check(model, recorded_inputs(spec, golden))
    held_out = seed_of(experiment.config.seed, "held out")
    measured = run_simulated(experiment, PolicyRunner.from_onnx(spec, model, 256), held_out)
    on_progress("export", 2, 3, {"success": measured.success})
    path = write_bundle(
        bundle_dir,
        spec=spec,
        robot=experiment.robot.spec,
        urdf=experiment.robot.urdf.read_bytes() if experiment.robot.spec.ee else None,
        provenance=provenance(experiment.config, PACKAGES, {"training_simulator": measured.summary()}),
        policy_onnx=model,
        golden=golden,
        replace=True,
    )
    on_progress("export", 3, 3, {"success": measured.success})
    return path


def export_run(run_dir: Path, bundle_dir: Path, on_progress: Progress) -> Path | None:
    """Export a finished run again.

    Returns:
        The bundle's path, or None when Ctrl-C came before it was written.

    Raises:
        ConfigError: The folder is not a finished run.
    """
    config = load_run(run_dir)
    if not (run_dir / "history.json").is_file():
        raise ConfigError(f"{run_dir} is not finished; run 'sim2real train' again to finish it")
    return train(config, run_dir, on_progress, bundle_dir)


def load_run(run_dir: Path) -> ExperimentConfig:
    """Read the configuration of a training run.

    Raises:
        ConfigError: The folder is not a training run.
    """
    file = run_dir / "config.yaml"
    if not file.is_file() or not (run_dir / "checkpoint.pt").is_file():
        raise ConfigError(f"{run_dir} is not a training run (no config.yaml and checkpoint.pt); run 'sim2real train'")
    return validate_config(yaml.safe_load(file.read_text()), str(file))


def _closed_loop(experiment: Experiment, runner: PolicyRunner) -> Iterator[dict[str, Array]]:
    env = experiment.make_env(seed_of(experiment.config.seed, "golden"), 1, restart=False)
    for _ in range(env.episode_steps):
        yield experiment.task.signals.measure(env.sim.measured(), env.goal)
        env.sim.step(runner.command)
    env.sim.close()
