"""The policy as rollout workers run it: numpy only, its weights in memory that the learner shares with them.

A worker needs no torch. It starts in a second, and a step of a small network costs a third of what torch takes.
"""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim2real.types import Array, Bools, Float32


@dataclass(frozen=True)
class ActorSizes:
    """Sizes of a policy network: an optional LSTM or encoder, then layers with ELU, then a linear one.

    Attributes:
        inputs: Numbers that it reads.
        hidden: Widths of the layers.
        actions: Components of an action.
        lstm: Width of the LSTM before the layers; 0 without.
        encoder: Widths of an encoder's layers with ELU, and of its linear one; empty without.
        encoded: How many of the inputs, the last ones, the layers read through the encoder.
    """

    inputs: int
    hidden: tuple[int, ...]
    actions: int
    lstm: int = 0
    encoder: tuple[int, ...] = ()
    encoded: int = 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name every array of weights: ``std``, ``lstm.*``, ``encoder.K.*`` and ``layer.K.*``, with its shape."""
        shapes: dict[str, tuple[int, ...]] = {"std": (self.actions,)}
        width = self.inputs
        if self.lstm:
            shapes["lstm.input"], shapes["lstm.memory"] = (4 * self.lstm, width), (4 * self.lstm, self.lstm)
            shapes["lstm.bias"], width = (4 * self.lstm,), self.lstm
        if self.encoder:
            before = self.encoded
            for i, out in enumerate(self.encoder):
                shapes[f"encoder.{i}.weight"], shapes[f"encoder.{i}.bias"], before = (out, before), (out,), out
            width += self.encoder[-1] - self.encoded
        for i, out in enumerate((*self.hidden, self.actions)):
            shapes[f"layer.{i}.weight"], shapes[f"layer.{i}.bias"], width = (out, width), (out,), out
        return shapes


class SharedWeights:
    """Arrays of weights in shared memory; picklable to a process that is being started.

    Args:
        sizes: Of the network.
    """

    def __init__(self, sizes: ActorSizes) -> None:
        self.sizes = sizes
        self._size = sum(int(np.prod(shape)) for shape in sizes.shapes().values())
        self._memory = shared_floats(self._size)

    def arrays(self) -> dict[str, Float32]:
        """Views of the arrays by name."""
        flat, views, start = floats(self._memory, (self._size,)), {}, 0
        for name, shape in self.sizes.shapes().items():
            size = int(np.prod(shape))
            views[name], start = flat[start : start + size].reshape(shape), start + size
        return views

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Take other weights in; all of :meth:`ActorSizes.shapes`."""
        for name, view in self.arrays().items():
            view[...] = arrays[name]


class Acting:
    """A policy for N robots.

    Args:
        weights: Read at every :meth:`refresh`.
        count: Robots N.
        rng: Of exploration.

    Attributes:
        memory: Hidden and cell state of the LSTM [2, N, H]; H is 0 without one.
    """

    def __init__(self, weights: SharedWeights, count: int, rng: np.random.Generator) -> None:
        self._weights, self._rng = weights, rng
        self.memory = np.zeros((2, count, weights.sizes.lstm), dtype=np.float32)
        self.refresh()

    def refresh(self) -> None:
        """Copy the newest weights."""
        self._now = {name: value.copy() for name, value in self._weights.arrays().items()}

    def act(self, inputs: Float32) -> tuple[Float32, Float32, Float32]:
        """Sample actions [N, A] for inputs [N, d]; with the distribution's mean [N, A] and deviation [A]."""
        mean, std = self.mean(inputs), self._now["std"]
        return mean + std * self._rng.standard_normal(mean.shape, dtype=np.float32), mean, std

    def mean(self, inputs: Float32) -> Float32:
        """Mean actions [N, A] for inputs [N, d]; one step of memory."""
        sizes, x = self._weights.sizes, inputs
        if sizes.lstm:
            x = self._remember(x)
        if sizes.encoder:
            latent = self._layers("encoder", x[:, -sizes.encoded :], len(sizes.encoder))
            x = np.concatenate((x[:, : -sizes.encoded], latent), axis=1)
        return self._layers("layer", x, len(sizes.hidden) + 1)

    def _layers(self, name: str, x: Float32, count: int) -> Float32:
        """Layers with ELU between them."""
        w = self._now
        for i in range(count):
            x = x @ w[f"{name}.{i}.weight"].T + w[f"{name}.{i}.bias"]
            if i < count - 1:
                x = elu(x)
        return x

    def _remember(self, inputs: Float32) -> Float32:
        """One step of the LSTM (Hochreiter and Schmidhuber 1997), gates in torch's order."""
        w, (hidden, cell) = self._now, self.memory
        gates = inputs @ w["lstm.input"].T + hidden @ w["lstm.memory"].T + w["lstm.bias"]
        take, keep, new, show = np.split(gates, 4, axis=1)
        self.memory[1] = sigmoid(keep) * cell + sigmoid(take) * np.tanh(new)
        self.memory[0] = sigmoid(show) * np.tanh(self.memory[1])
        return self.memory[0].copy()

    def forget(self, robots: Bools) -> None:
        """Clear the memory of some robots, a mask [N]."""
        self.memory[:, robots] = 0.0


def elu(x: Float32) -> Float32:
    """Exponential linear unit; ``x`` is overwritten."""
    below = np.minimum(x, 0.0)
    np.exp(below, out=below)
    below -= 1.0
    np.maximum(x, 0.0, out=x)
    x += below
    return x


def sigmoid(x: Float32) -> Float32:
    """Logistic function, without overflow."""
    result: Float32 = 0.5 * (1.0 + np.tanh(0.5 * x))
    return result


def shared_floats(*shape: int) -> Any:
    """Make room for single-precision numbers in shared memory, zeros; picklable to a process that is being started."""
    return mp.get_context("spawn").RawArray("f", max(1, int(np.prod(shape))))


def floats(memory: Any, shape: tuple[int, ...]) -> Float32:
    """View of what :func:`shared_floats` made."""
    return np.frombuffer(memory, dtype=np.float32)[: int(np.prod(shape))].reshape(shape)
