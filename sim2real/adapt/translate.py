"""A generator as a function of images, in torch while it trains and in onnxruntime afterwards; with the same noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real.adapt.domains import Image, fit
from sim2real.adapt.networks import Generator, exemplar_of
from sim2real.errors import AdaptationError, ConfigError
from sim2real.policy import onnx_session
from sim2real.torch_io import to_onnx, to_tensor

TOLERANCE = 1e-3  # of a pixel value in [0, 1]: a quarter of a step of 8 bits
EXEMPLARS = "exemplars.npy"


def frame_noise(shape: tuple[int, ...], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Standard normal noise [N, *shape] that depends on each frame's number alone."""
    return np.stack([np.random.default_rng(int(frame)).standard_normal(shape, np.float32) for frame in frames])


def frame_exemplars(pieces: Image, frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """One of ``pieces`` [M, H, W, 3] for every frame, by its number alone: [N, 3, H, W] in [0, 1]."""
    rows = [int(np.random.default_rng([1, int(frame)]).integers(len(pieces))) for frame in frames]
    return np.ascontiguousarray(pieces[rows].transpose(0, 3, 1, 2), np.float32) / np.float32(255.0)


def cut_exemplars(images: Image, count: int, seed: int) -> Image:
    """Pieces [count, H, W, 3] of camera images, as a generator with ``exemplar`` takes them; see ``exemplar_of``."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(images), (count,), generator=random).numpy()
    pieces = exemplar_of(to_tensor(images[rows]), random)
    return (pieces * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


@torch.no_grad()
def translate(generator: Generator, images: Image, exemplars: Image | None = None, batch: int = 16) -> Image:
    """Translate images [N, H, W, 3] with a torch generator; H and W as it was trained.

    Args:
        generator: Any.
        images: Numbered from 0 for noise and exemplar.
        exemplars: From ``cut_exemplars``, where the generator takes them.
        batch: Images at a time.
    """
    generator.eval()
    result = np.empty_like(images)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        frames = np.arange(start, start + len(part))
        x = to_tensor(part).contiguous(memory_format=torch.channels_last)
        noise = exemplar = None
        if generator.noise_channels:
            noise = torch.from_numpy(frame_noise(generator.noise_shape(1, *part.shape[1:3])[1:], frames))
        if exemplars is not None and generator.exemplar:
            exemplar = torch.from_numpy(frame_exemplars(exemplars, frames))
        y = generator(x, noise, exemplar)
        result[start : start + batch] = (y * 255.0).round().byte().permute(0, 2, 3, 1).numpy()
    return result


def export_generator(generator: Generator, size: tuple[int, int]) -> bytes:
    """A generator as ONNX: ``image`` [N, 3, H, W], with ``noise`` and ``exemplar`` where it takes them, to ``adapted``.

    Args:
        generator: Trained.
        size: H and W, px; fixed in the file, N is free. The file remembers nothing else.

    Raises:
        AdaptationError: onnxruntime gives something else than torch.
    """
    shapes: dict[str, tuple[int, ...]] = {"image": (3, *size)}
    if generator.noise_channels:
        shapes["noise"] = generator.noise_shape(1, *size)[1:]
    if generator.exemplar:
        shapes["exemplar"] = (3, *size)
    generator = generator.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    random = torch.Generator().manual_seed(0)
    example = {name: torch.rand((2, *shape), generator=random) for name, shape in shapes.items()}
    arguments = {"x" if name == "image" else name: value for name, value in example.items()}
    data = to_onnx(generator, example, ["adapted"], list(arguments))
    with torch.inference_mode():
        expected = generator(**arguments).numpy()
    feed = {name: value.numpy() for name, value in example.items()}
    difference = float(np.abs(onnx_session(data).run(["adapted"], feed)[0] - expected).max())
    if not difference <= TOLERANCE:
        raise AdaptationError(
            f"the exported generator differs from torch by {difference:.1e}, allowed are {TOLERANCE:.0e}; do not use "
            "it, report it with the run's config.yaml"
        )
    return data


class Translator:
    """A run's exported generator in onnxruntime.

    Args:
        run: Folder that ``sim2real adapt`` wrote.
        anyway: Also where the gate refused it.

    Raises:
        ConfigError: No finished run there.
        AdaptationError: The gate refused it, and ``anyway`` is not given.
    """

    def __init__(self, run: Path, anyway: bool = False) -> None:
        file, verdict = run / "generator.onnx", run / "gate.json"
        if not file.is_file() or not verdict.is_file():
            raise ConfigError(
                f"{run} is no finished adaptation (no generator.onnx and gate.json); run 'sim2real adapt'"
            )
        gate: dict[str, Any] = json.loads(verdict.read_text())
        if not gate["passed"] and not anyway:
            raise AdaptationError(
                f"the gate refused {run}: {'; '.join(gate['reasons'])}. Look at its report.html, train again with "
                "stronger consistency (weights.task, weights.content), or insist with --anyway"
            )
        pieces = run / EXEMPLARS
        self._load(file.read_bytes(), np.load(pieces) if pieces.is_file() else None)

    @classmethod
    def from_onnx(cls, data: bytes, exemplars: Image | None = None) -> Translator:
        """Of a network's bytes, without a run and a gate."""
        translator = cls.__new__(cls)
        translator._load(data, exemplars)
        return translator

    def _load(self, data: bytes, exemplars: Image | None) -> None:
        self._exemplars = exemplars
        self._session = onnx_session(data)
        inputs = {i.name: i.shape for i in self._session.get_inputs()}
        self.size: tuple[int, int] = (inputs["image"][2], inputs["image"][3])
        self._noise = tuple(inputs["noise"][1:]) if "noise" in inputs else None

    def __call__(self, images: Image, frames: NDArray[np.int64] | None = None) -> Image:
        """Translate images [N, H, W, 3] RGB of any size; ``frames`` [N] number them for the noise."""
        frames = np.arange(len(images)) if frames is None else frames
        height, width = images.shape[1:3]
        fitted = np.stack([fit(image, self.size) for image in images])
        feed = {"image": np.ascontiguousarray(fitted.transpose(0, 3, 1, 2), np.float32) / np.float32(255.0)}
        if self._noise is not None:
            feed["noise"] = frame_noise(self._noise, frames)
        if self._exemplars is not None:
            feed["exemplar"] = frame_exemplars(self._exemplars, frames)
        adapted = self._session.run(["adapted"], feed)[0]
        result = np.rint(adapted.transpose(0, 2, 3, 1) * 255.0).astype(np.uint8)
        return np.stack([fit(image, (height, width)) for image in result])
