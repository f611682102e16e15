"""Checkpoints of a run: each is judged, the best is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sim2real.adapt import sheets
from sim2real.adapt.config import AdaptConfig
from sim2real.adapt.data import Data
from sim2real.adapt.domains import Image
from sim2real.adapt.gate import judge
from sim2real.adapt.metrics import features, kernel_distance
from sim2real.adapt.networks import Generator, Segmenter, task_network
from sim2real.adapt.train import Trainer
from sim2real.adapt.translate import translate
from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.learn.torch_io import save_state
from sim2real.types import Array

REAL_VARIED = 400  # real images that say how much features vary


class Keeper:
    """Judges every checkpoint and keeps the best: one that passes before one that does not, then the nearest."""

    def __init__(self, data: Data, detector: Segmenter | None, exemplars: Image | None, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import

        self._data, self._detector, self._exemplars, self._run = data, detector, exemplars, run
        self._real, self._varied = real_features(data)
        self._events: Any = SummaryWriter(str(run))

    def look(self, trainer: Trainer, figures: dict[str, float]) -> None:
        """Judge the averaged networks of a trainer, and keep them where they are the best so far.

        Args:
            trainer: At a checkpoint.
            figures: Losses; ``kid`` and ``passed`` are added.
        """
        generator, task = generator_of(trainer.averages), task_of(trainer.averages)
        verdict, adapted = judge(
            lambda images: translate(generator, images, self._exemplars),
            self._data.source_held,
            trainer.config.gate,
            self._detector,
            task,
        )
        kid = kernel_distance(features(adapted), self._real, self._varied)
        figures |= {"kid": kid, "passed": float(verdict.passed)}
        row = {"step": trainer.step, "kid": kid, "passed": verdict.passed, "reasons": list(verdict.reasons)}
        checks = [r for r in read_checks(self._run) if r["step"] < trainer.step]
        best = best_check(checks)
        if best is None or best_check([best, row]) is row:
            save_state(trainer.averages.state_dict(), self._run / "best.pt")
        write_text(self._run / "checks.json", json.dumps([*checks, row], indent=1) + "\n")
        for name, value in {**figures, **verdict.figures}.items():
            self._events.add_scalar(name.replace(".", "/"), value, trainer.step)
        count = min(8, len(adapted), len(self._data.target_held))
        rows = {"rendered": self._data.source_held.images, "adapted": adapted, "real": self._data.target_held.images}
        grid = sheets.sheet({label: images[:count] for label, images in rows.items()})
        self._events.add_image("rendered, adapted, real", grid, trainer.step, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        """Close the TensorBoard events."""
        self._events.close()


def read_checks(run: Path) -> list[dict[str, Any]]:
    """Read the verdicts on all checkpoints of a run."""
    file = run / "checks.json"
    return json.loads(file.read_text()) if file.is_file() else []


def best_check(checks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The check whose checkpoint is kept."""
    return min(checks, key=lambda row: (not row["passed"], row["kid"]), default=None)


def task_of(networks: nn.ModuleDict) -> nn.Module | None:
    """The task network of a run's networks, if it trains one."""
    return networks["task"] if "task" in networks else None


def generator_of(networks: nn.ModuleDict) -> Generator:
    """The generator of a run's networks."""
    generator = networks["generator"]
    assert isinstance(generator, Generator)
    return generator


def load_best(config: AdaptConfig, run: Path) -> nn.ModuleDict:
    """Averaged networks of the kept checkpoint.

    Raises:
        ConfigError: The run has none yet.
    """
    file = run / "best.pt"
    if not file.is_file():
        raise ConfigError(f"{run} has no checkpoint yet; run 'sim2real adapt' with the same --out to go on")
    state = torch.load(file, weights_only=True)
    networks = nn.ModuleDict({"generator": Generator(config.generator)})
    if config.weights.cycle:
        networks["backward_generator"] = Generator(config.generator)
    if "task.out.weight" in state:
        networks["task"] = task_network(config.task, int(state["task.out.weight"].shape[0]))
    networks.load_state_dict(state)
    return networks.eval()


def real_features(data: Data) -> tuple[Array, Array]:
    """Features [N, F] of the held-out real images, and [M, F] of more of them, which say how much features vary."""
    held = features(data.target_held.images)
    more = max(REAL_VARIED - len(held), 0)
    return held, np.concatenate((held, features(data.target.images[:more]))) if more else held
