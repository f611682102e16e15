"""A whole adaptation: read, check, train, keep the best checkpoint that the gate lets pass, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sim2real.adapt.checkpoints import Keeper
from sim2real.adapt.config import AdaptConfig
from sim2real.adapt.data import Data, check_depth
from sim2real.adapt.detector import load_segmenter, train_detector
from sim2real.adapt.domains import Domain, Image
from sim2real.adapt.finish import Finished, finish
from sim2real.adapt.networks import Segmenter
from sim2real.adapt.origin import note_data
from sim2real.adapt.train import Trainer
from sim2real.adapt.training import Progress, run_training
from sim2real.adapt.translate import cut_exemplars
from sim2real.config import prepare_run
from sim2real.files import lock_folder
from sim2real.learn.torch_io import save_state
from sim2real.runtime.translation import EXEMPLARS

EXEMPLAR_COUNT = 256


def adapt(config: AdaptConfig, data: Data, run: Path, on_progress: Progress | None = None) -> Finished | None:
    """Train a generator; going on with a run that is there.

    Writes ``config.yaml``, ``data.json`` (which images it is trained on), ``checkpoint.pt``, ``best.pt`` (averaged
    weights of the kept checkpoint), ``generator.onnx``, ``gate.json``, ``metrics.json``, ``history.json`` and
    TensorBoard events.

    Args:
        config: The run.
        data: From ``load_data``.
        run: Folder.
        on_progress: Called at every check with step, steps and figures.

    Returns:
        The kept checkpoint, judged; None where Ctrl-C ended training early.

    Raises:
        ConfigError: The folder holds a run with other settings or images, or the networks do not fit the images.
        AdaptationError: A loss became not finite.
    """
    check_depth(config, data.source.size)
    with lock_folder(run):
        prepare_run(config, run)
        return _adapt(config, data, run, on_progress)


def _adapt(config: AdaptConfig, data: Data, run: Path, on_progress: Progress | None) -> Finished | None:
    note_data(run, (data.source, data.source_held), (data.target, data.target_held))
    if config.threads:
        torch.set_num_threads(config.threads)
    detector = _detector(config, data.source, run, "detector", config.seed)
    # The guide is another network than the gate's: a generator that has learned to please one has not met the other.
    guide = _detector(config, data.source, run, "guide", config.seed + 100) if config.weights.perception else None
    exemplars = _exemplars(config, data.target, run)
    trainer = Trainer(config, data.source, data.target, guide)
    keeper = Keeper(data, detector, exemplars, run)
    try:
        finished = run_training(trainer, run, keeper.look, on_progress)
    finally:
        keeper.close()
    if not finished:
        return None
    return finish(config, data, detector, exemplars, run)


def _exemplars(config: AdaptConfig, target: Domain, run: Path) -> Image | None:
    if not config.generator.exemplar:
        return None
    pieces = cut_exemplars(target.images, EXEMPLAR_COUNT, config.seed)
    temporary = run / f"{EXEMPLARS}.tmp.npy"
    np.save(temporary, pieces)
    temporary.replace(run / EXEMPLARS)
    return pieces


def _detector(config: AdaptConfig, source: Domain, run: Path, name: str, seed: int) -> Segmenter | None:
    if source.masks is None:
        return None
    file = run / f"{name}.pt"
    if not file.is_file():
        classes = max([int(source.masks.max()), *source.classes]) + 1
        save_state(train_detector(source, classes, config.gate.detector_steps, seed).state_dict(), file)
    return load_segmenter(file)
