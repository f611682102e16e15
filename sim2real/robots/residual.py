"""A small network for the force that a fitted flight model leaves out.

It runs with NumPy, so that replay and the training simulator need no torch. Weights are plain arrays in an ``.npz``
file beside the parameters file that names it with its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.types import Array

INPUTS = 10
_LAYERS = ("w1", "b1", "w2", "b2", "w3", "b3")


@dataclass(frozen=True)
class Residual:
    """Two hidden layers of tanh; the output is a specific force, m/s² in the body frame.

    It knows nothing of torques: a drone's attitude controller answers those, in flight as in training.

    Attributes:
        mean, scale: [10], of the input: body velocity, rate, the world's up in the body frame, lift of the rotors.
        layers: w1, b1, w2, b2, w3, b3.
    """

    mean: Array
    scale: Array
    layers: tuple[Array, ...]

    def __call__(self, v_body: Array, rate: Array, up: Array, lift: Array) -> Array:
        """Specific force [N, 3] m/s² besides the model's, body frame; ``lift`` [N] m/s²."""
        x = (np.concatenate((v_body, rate, up, lift[:, None]), axis=1) - self.mean) * self.scale
        w1, b1, w2, b2, w3, b3 = self.layers
        # Outside what was flown the network knows nothing, and its inputs stay at the edge of what it knows.
        return np.asarray(np.tanh(np.tanh(np.clip(x, -3.0, 3.0) @ w1 + b1) @ w2 + b2) @ w3 + b3)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` of plain arrays."""
        temporary = path.with_name(path.name + ".tmp.npz")
        np.savez(temporary, mean=self.mean, scale=self.scale, **dict(zip(_LAYERS, self.layers, strict=True)))  # type: ignore[arg-type]
        temporary.replace(path)

    @staticmethod
    def load(path: Path) -> Residual:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: The file is missing or not such a network.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {name: np.asarray(data[name], dtype=np.float64) for name in data.files}
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a readable residual network: {error}") from error
        if set(arrays) != {"mean", "scale", *_LAYERS} or arrays["w1"].shape[0] != INPUTS or arrays["b3"].shape != (3,):
            raise ConfigError(f"{path} is no residual network of this version; run 'sim2real identify' again")
        return Residual(arrays["mean"], arrays["scale"], tuple(arrays[name] for name in _LAYERS))


def read_residual(parameters: Path, entry: Mapping[str, str] | None) -> Residual | None:
    """The network that a parameters file names, or None where it names none.

    Args:
        parameters: The file.
        entry: What it holds under ``residual``.

    Raises:
        ConfigError: The network is missing, or not the one that the file was written with.
    """
    if not entry:
        return None
    network = parameters.parent / Path(entry["file"]).name
    if not network.is_file() or hashlib.sha256(network.read_bytes()).hexdigest() != entry["sha256"]:
        raise ConfigError(f"{network} is missing or not the network that {parameters.name} was written with")
    return Residual.load(network)
