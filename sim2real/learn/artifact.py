"""A trained policy: its contract and its torch network, exported as one ONNX graph and checked against torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sim2real.errors import BundleError
from sim2real.learn.torch_io import to_onnx
from sim2real.runtime.golden import comparable
from sim2real.runtime.policy import PolicyRunner, onnx_network
from sim2real.runtime.spec import PolicySpec
from sim2real.types import Array, Float32

TOLERANCE = 1e-5
ROUNDING = 4.0  # torch's own error in single precision is allowed this many times


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
        """Export the network as one ONNX graph; :meth:`check` compares it with torch."""
        inputs = {name: torch.randn(2, size) for name, size in self.spec.inputs().items()}
        return to_onnx(self.network.eval(), inputs, list(self.spec.outputs()))

    def check(self, model: bytes, inputs: Mapping[str, Float32]) -> None:
        """Compare an exported graph with torch in double precision.

        Inputs that the policy really reads are compared, and the action as the command that it becomes: white noise
        drives what hardly varied in training to thousands, and nobody sees the last digits beyond an action of ±1.

        Args:
            model: From :meth:`onnx`.
            inputs: Recorded inputs of the network, [T, d] by name.

        Raises:
            BundleError: The graph computes something else than torch, beyond what single precision rounds.
        """
        exported = onnx_network(model)
        single = _outputs(self.network, self.spec, inputs, torch.float32)
        double = _outputs(copy.deepcopy(self.network), self.spec, inputs, torch.float64)
        whole = exported(inputs)
        rows = [exported({name: value[t : t + 1] for name, value in inputs.items()}) for t in range(len(double[0]))]
        for i, name in enumerate(self.spec.outputs()):
            allowed = TOLERANCE + ROUNDING * _apart(name, single[i], double[i])
            for got in (whole[name].astype(np.float64), np.concatenate([row[name] for row in rows]).astype(np.float64)):
                difference = _apart(name, got, double[i])
                if not difference <= allowed:
                    raise BundleError(
                        f"the exported network's '{name}' differs from torch by {difference:.1e} on recorded "
                        f"observations, rounding explains {allowed:.1e}; nothing was exported. The training is whole: "
                        "install the torch and onnx versions of constraints.txt, then run 'sim2real export RUN'"
                    )

    def runner(self, count: int = 1) -> PolicyRunner:
        """Make a runner of the exported network."""
        return PolicyRunner.from_onnx(self.spec, self.onnx(), count)


def _outputs(
    network: nn.Module, spec: PolicySpec, inputs: Mapping[str, Float32], precision: torch.dtype
) -> Sequence[Array]:
    """Outputs of a module, in order, computed in the given precision; the module is brought to it."""
    network.eval().to(precision)
    with torch.inference_mode():
        result = network(*(torch.from_numpy(inputs[name]).to(precision) for name in spec.inputs()))
    return [value.double().numpy() for value in (result if isinstance(result, tuple) else (result,))]


def _apart(name: str, a: NDArray[Any], b: NDArray[Any]) -> float:
    """Largest difference of an output, as ``verify`` measures it."""
    got, expected = comparable(name, a, b)
    return float(np.abs(got - expected).max(initial=0.0))
