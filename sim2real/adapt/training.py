"""A training that goes on where it was stopped."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from sim2real.adapt.train import Trainer
from sim2real.files import write_text
from sim2real.interrupts import ENDING
from sim2real.learn.torch_io import save_state

Progress = Callable[[int, int, dict[str, float]], None]


def run_training(
    trainer: Trainer,
    run: Path,
    on_check: Callable[[Trainer, dict[str, float]], None] | None = None,
    on_progress: Progress | None = None,
) -> bool:
    """Train to the end of the configuration, going on from the run's checkpoint if there is one.

    Args:
        trainer: At its start.
        run: Folder with ``checkpoint.pt`` and ``history.json``.
        on_check: Called every ``check_every`` steps and at the end, before the checkpoint is written, with the mean
            losses since the last time and the speed.
        on_progress: Called at every check with step, steps and figures.

    Returns:
        False where Ctrl-C ended it early; a checkpoint is there.

    Raises:
        AdaptationError: A loss is not finite.
    """
    config = trainer.config
    checkpoint = run / "checkpoint.pt"
    if checkpoint.is_file():
        trainer.restore(torch.load(checkpoint, weights_only=True))
    sums: dict[str, float] = {}
    count, images, start = 0, 0, time.perf_counter()
    with _interrupts() as interrupted:
        while trainer.step < config.steps and not interrupted.is_set():
            for name, value in trainer.update().items():
                sums[name] = sums.get(name, 0.0) + value
            count, images = count + 1, images + config.batch_size
            if trainer.step % config.check_every and trainer.step < config.steps:
                continue
            figures = {name: total / count for name, total in sums.items()}
            figures |= {"step": float(trainer.step), "images_per_s": images / (time.perf_counter() - start)}
            if on_check is not None:
                on_check(trainer, figures)
            trainer.history.append(figures)
            save_state(trainer.state(), checkpoint)
            write_text(run / "history.json", json.dumps(trainer.history, indent=1) + "\n")
            if on_progress is not None:
                on_progress(trainer.step, config.steps, figures)
            sums, count, images, start = {}, 0, 0, time.perf_counter()
    if trainer.step < config.steps:
        save_state(trainer.state(), checkpoint)
        return False
    return True


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM as an event that is looked at between steps; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in ENDING}

    def handle(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    for number in ENDING:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
