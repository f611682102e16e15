"""Trained networks as ONNX bytes, checked against torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sim2real.errors import BundleError
from sim2real.learn.torch_io import to_onnx
from sim2real.runtime.policy import onnx_session

TOLERANCE = 1e-5


def export_policy(policy: nn.Module, observation_size: int, parameter_size: int, memory_size: int = 0) -> bytes:
    """π as ONNX.

    ``observation`` [N, O] and, with ``parameter_size``, ``parameters`` [N, P] to ``action`` [N, A]; with
    ``memory_size``, ``memory`` [N, M] besides to ``next_memory`` [N, M].
    """
    sizes = {"observation": observation_size}
    if parameter_size:
        sizes["parameters"] = parameter_size
    if memory_size:
        return _export(policy, sizes | {"memory": memory_size}, ["action", "next_memory"])
    return _export(policy, sizes, ["action"])


def export_estimator(estimator: nn.Module, size: int) -> bytes:
    """φ as ONNX: ``history`` [N, E] to ``mean`` and ``std`` [N, P]."""
    return _export(estimator, {"history": size}, ["mean", "std"])


def _export(module: nn.Module, inputs: dict[str, int], outputs: list[str]) -> bytes:
    example = {name: torch.randn(2, size) for name, size in inputs.items()}
    data = to_onnx(module.eval(), example, outputs)
    _check(module, data, inputs, outputs)
    return data


def _check(module: nn.Module, data: bytes, inputs: dict[str, int], outputs: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    session = onnx_session(data)
    for count in (1, 256):
        batch = {name: torch.randn(count, size, generator=generator) for name, size in inputs.items()}
        with torch.inference_mode():
            result = module(*batch.values())
        expected = result if isinstance(result, tuple) else (result,)
        got = session.run(outputs, {name: value.numpy() for name, value in batch.items()})
        for name, a, b in zip(outputs, expected, got, strict=True):
            # Rounding grows with the value; a command is made from what lies within ±1.
            difference = float((np.abs(a.numpy() - b) / np.maximum(1.0, np.abs(b))).max())
            if not difference <= TOLERANCE:
                raise BundleError(
                    f"the exported network's '{name}' differs from torch by {difference:.1e}, allowed are "
                    f"{TOLERANCE:.0e}; do not fly this, report it with the run's config.yaml"
                )
