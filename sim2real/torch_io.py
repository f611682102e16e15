"""Between torch and the outside: images to tensors, networks to ONNX, state to files. For training only."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

OPSET = 18


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [N, H, W, 3] to float [N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255.0


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
            dynamic_shapes={name: {0: batch} for name in keywords} or tuple({0: batch} for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def save_state(state: Any, path: Path) -> None:
    """Write a state dict at once: to a temporary name beside ``path``, then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    temporary.replace(path)
