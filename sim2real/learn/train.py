"""From a configuration to a policy bundle: train, identify, measure, export. Resumes where it stopped."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from sim2real.config import ExperimentConfig, prepare_run, validate_config
from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.learn.build import build_env, build_spec, robot_and_task
from sim2real.learn.onnx_export import export_estimator, export_policy
from sim2real.learn.osi import Estimator, UniversalPolicy, train_osi
from sim2real.learn.ppo import Trainer, seed_of
from sim2real.learn.simulated import fly_simulated
from sim2real.learn.torch_io import save_state
from sim2real.provenance import provenance
from sim2real.runtime.bundle import record_golden, write_bundle
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import PolicySpec
from sim2real.types import Progress

PACKAGES = ("torch", "pybullet", "rsl-rl-lib", "numpy", "onnxruntime")

# stage, step done, steps in all, figures


class RecurrentPolicy(nn.Module):
    """π as a plain module of (observation [N, O], memory [N, 2H]) → mean action [N, A], next memory [N, 2H]."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.normalizer, self.mlp, self.lstm = actor.obs_normalizer, actor.mlp, actor.rnn.rnn

    def forward(self, observation: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Deterministic action; one step of the LSTM (Hochreiter and Schmidhuber 1997) written out for export."""
        lstm = self.lstm
        hidden, cell = memory.chunk(2, dim=-1)
        x = self.normalizer(observation)
        gates = nn.functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0)
        gates = gates + nn.functional.linear(hidden, lstm.weight_hh_l0, lstm.bias_hh_l0)
        take, keep, new, show = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(take) * torch.tanh(new)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return self.mlp(hidden), torch.cat((hidden, cell), dim=-1)


class BlindPolicy(nn.Module):
    """π as a plain module of observation [N, O] → mean action [N, A]."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.normalizer = actor.obs_normalizer
        self.mlp = actor.mlp

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Deterministic action."""
        return self.mlp(self.normalizer(observation))


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
        The bundle's path, or None when Ctrl-C ended training early (a checkpoint is there).
    """
    prepare_run(config, run_dir)
    told = config.method == "up_osi"
    trainer = Trainer(
        functools.partial(build_env, config), config.ppo, run_dir, config.sim.workers, seed_of(config.seed, "ppo"), told
    )
    trainer.load()
    total = config.ppo.iterations
    finished = trainer.train(lambda i, figures: on_progress("PPO", i, total, figures))
    if not finished:
        return None
    estimator, rounds = _identify(config, trainer, run_dir, on_progress) if told else (None, [])
    write_text(run_dir / "history.json", json.dumps({"ppo": trainer.history, "osi": rounds}))
    return export(config, trainer.actor, estimator, run_dir, bundle_dir or run_dir / "bundle", on_progress)


def _identify(
    config: ExperimentConfig, trainer: Trainer, run_dir: Path, on_progress: Progress
) -> tuple[Estimator, list[dict[str, float]]]:
    assert config.osi is not None  # the configuration's validator has seen to it
    seed = seed_of(config.seed, "osi")
    env = build_env(config, seed, config.osi.robots, record_history=True)
    rounds = config.osi.rounds
    estimator, figures = train_osi(
        env, trainer.actor, config.osi, seed, lambda i, f: on_progress("identification", i + 1, rounds, f)
    )
    env.sim.close()
    save_state(estimator.state_dict(), run_dir / "estimator.pt")
    return estimator, figures


def export(
    config: ExperimentConfig,
    actor: Any,
    estimator: Estimator | None,
    run_dir: Path,
    bundle_dir: Path,
    on_progress: Progress,
) -> Path:
    """Write the trained networks as a policy bundle, with a golden trace flown in the training simulator."""
    spec = build_spec(config)
    kind = RecurrentPolicy if spec.memory else UniversalPolicy if estimator is not None else BlindPolicy
    policy_onnx = export_policy(kind(actor).eval(), spec.observation_size, len(spec.parameters), spec.memory)
    estimator_onnx = export_estimator(estimator, spec.estimator_size) if estimator is not None else None
    on_progress("export", 1, 3, {})
    runner = PolicyRunner.from_onnx(spec, policy_onnx, estimator_onnx)
    golden = record_golden(runner, _closed_loop(config, spec, runner))
    measured = fly_simulated(
        config, PolicyRunner.from_onnx(spec, policy_onnx, estimator_onnx, count=256), seed_of(config.seed, "held out")
    )
    on_progress("export", 2, 3, {"success": measured.success})
    model, _ = robot_and_task(config)
    path = write_bundle(
        bundle_dir,
        spec=spec,
        robot=model.spec,
        urdf=model.urdf.read_bytes() if model.spec.ee else None,
        provenance=provenance(config, PACKAGES, {"training_simulator": measured.summary()}),
        policy_onnx=policy_onnx,
        estimator_onnx=estimator_onnx,
        golden=golden,
        replace=True,
    )
    on_progress("export", 3, 3, {"success": measured.success})
    return path


def export_run(run_dir: Path, bundle_dir: Path, on_progress: Progress) -> Path:
    """Export a finished run again.

    Raises:
        ConfigError: The folder is not a finished run.
    """
    file = run_dir / "config.yaml"
    if not file.is_file() or not (run_dir / "checkpoint.pt").is_file():
        raise ConfigError(f"{run_dir} is not a training run (no config.yaml and checkpoint.pt); run 'sim2real train'")
    config = validate_config(yaml.safe_load(file.read_text()), str(file))
    told = config.method == "up_osi"
    trainer = Trainer(
        functools.partial(build_env, config), config.ppo, run_dir, config.sim.workers, seed_of(config.seed, "ppo"), told
    )
    trainer.load()
    trainer.use_best()
    estimator = None
    if told:
        if not (run_dir / "estimator.pt").is_file():
            raise ConfigError(f"{run_dir} has no estimator yet; run 'sim2real train' again to finish it")
        assert config.osi is not None
        spec = build_spec(config)
        estimator = Estimator(spec.estimator_size, len(spec.parameters), config.osi.hidden)
        estimator.load_state_dict(torch.load(run_dir / "estimator.pt", weights_only=True))
        estimator.eval()
    return export(config, trainer.actor, estimator, run_dir, bundle_dir, on_progress)


def _closed_loop(config: ExperimentConfig, spec: PolicySpec, runner: PolicyRunner) -> Iterator[dict[str, np.ndarray]]:
    env = build_env(config, seed_of(config.seed, "golden"), robots=1, restart=False)
    sim = env.sim
    for _ in range(env.episode_steps):
        yield sim.model.measure(sim.estimate(), env.goal)
        sim.step(runner.command)
    sim.close()
