"""Between torch and the outside (images, ONNX, files), and what several trainings do to tensors. For training only."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from sim2real.files import write_bytes

OPSET = 18
MOST_THREADS = 4  # more gain nothing for networks of this size
RAMP = 0.1  # of a run, in which a teacher's weight grows to its value


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def spare_threads(workers: int) -> int:
    """Threads for a learner beside its workers: the cores that neither they nor other programs use, 1 to 4.

    Two threads that share a busy core wait for each other: an update of 0.3 s then takes seconds.
    """
    others = max(0.0, os.getloadavg()[0] - workers - 1)
    return int(min(max(len(os.sched_getaffinity(0)) - workers - others, 1), MOST_THREADS))


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float [N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255.0


def moved(images: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Images [N, C, H, W] moved by columns and rows [N, 2], whole px; what comes in repeats the border."""
    height, width = images.shape[-2:]
    most = int(by.abs().max())
    wide = functional.pad(images, (most, most, most, most), mode="replicate")
    left, top = (most - by).T.tolist()
    return torch.stack([image[:, v : v + height, u : u + width] for image, u, v in zip(wide, left, top, strict=True)])


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, step: int, statistics: bool) -> None:
    """Move a slow average towards a network; fast at the start of a run.

    Args:
        average: Of the network's kind.
        network: That is followed.
        decay: What stays of the average, a step.
        step: Of the run, from 0.
        statistics: Batch norm's are averaged too; otherwise they are the network's.
    """
    share = 1.0 - min(decay, (step + 1.0) / (step + 10.0))
    for mine, its in zip(average.parameters(), network.parameters(), strict=True):
        mine.lerp_(its, share)
    for buffer, its_buffer in zip(average.buffers(), network.buffers(), strict=True):
        if statistics and buffer.dtype.is_floating_point:
            buffer.lerp_(its_buffer, share)
        else:
            buffer.copy_(its_buffer)


def teacher_ramp(done: float, starts: float) -> float:
    """Share of its weight that a mean teacher has at a share of the run, when it is listened to from ``starts`` on."""
    return float(np.clip((done - starts) / RAMP, 0.0, 1.0))


def to_onnx(
    module: nn.Module, inputs: Mapping[str, torch.Tensor], outputs: list[str], keywords: Sequence[str] = ()
) -> bytes:
    """A network as ONNX whose batch size is free; its caller compares what it gives with torch.

    Args:
        module: In evaluation mode.
        inputs: Examples [2, ...] by name, in the order of the module's arguments.
        outputs: Names.
        keywords: The module's names for its inputs, where they are not simply its first arguments.
    """
    examples = tuple(inputs.values())
    batch = torch.export.Dim("batch")
    free = tuple({0: batch} for _ in inputs)
    varies = any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(module.forward).parameters.values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            () if keywords else examples,
            kwargs=dict(zip(keywords, examples, strict=True)) if keywords else None,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={name: {0: batch} for name in keywords} or ((free,) if varies else free),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def save_state(state: Any, path: Path) -> None:
    """Write a state dict at once, see :func:`sim2real.files.write_bytes`."""
    data = io.BytesIO()  # torch's own writer says nothing of a full disk
    torch.save(state, data)
    write_bytes(path, data.getbuffer())
