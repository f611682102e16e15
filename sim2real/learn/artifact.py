"""A trained policy: its contract and its torch network, exported as one ONNX graph and checked against torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from sim2real.errors import BundleError
from sim2real.learn.torch_io import to_onnx
from sim2real.runtime.policy import PolicyRunner, onnx_session
from sim2real.runtime.spec import PolicySpec

TOLERANCE = 1e-5


@dataclass
class Candidate:
    """A method's result, deployable as it is.

    Attributes:
        spec: The contract.
        network: A module from the contract's inputs, in order, to a tuple of its outputs, in order.
        history: Metrics of every stage of the training, by stage.
    """

    spec: PolicySpec
    network: nn.Module
    history: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def onnx(self) -> bytes:
        """Export the network as one ONNX graph.

        Raises:
            BundleError: onnxruntime computes something else than torch.
        """
        inputs, outputs = self.spec.inputs(), list(self.spec.outputs())
        network = self.network.eval()
        data = to_onnx(network, {name: torch.randn(2, size) for name, size in inputs.items()}, outputs)
        _check(network, data, inputs, outputs)
        return data

    def runner(self, count: int = 1) -> PolicyRunner:
        """Make a runner of the exported network."""
        return PolicyRunner.from_onnx(self.spec, self.onnx(), count)


def _check(network: nn.Module, data: bytes, inputs: dict[str, int], outputs: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    session = onnx_session(data)
    for count in (1, 256):
        batch = {name: torch.randn(count, size, generator=generator) for name, size in inputs.items()}
        with torch.inference_mode():
            result: Any = network(*batch.values())
        expected = result if isinstance(result, tuple) else (result,)
        got = session.run(outputs, {name: value.numpy() for name, value in batch.items()})
        for name, a, b in zip(outputs, expected, got, strict=True):
            # Rounding grows with the value; a command is made from what lies within ±1.
            difference = float((np.abs(a.numpy() - b) / np.maximum(1.0, np.abs(b))).max())
            if not difference <= TOLERANCE:
                raise BundleError(
                    f"the exported network's '{name}' differs from torch by {difference:.1e}, allowed are "
                    f"{TOLERANCE:.0e}; do not run this, report it with the run's config.yaml"
                )
