"""A generator as a function of images in torch, and its export; ``sim2real.runtime.translation`` runs it afterwards."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sim2real.adapt.domains import Image
from sim2real.adapt.networks import Generator, exemplar_of
from sim2real.errors import AdaptationError
from sim2real.images.dataset import fit
from sim2real.learn.torch_io import to_onnx, to_tensor
from sim2real.runtime.policy import onnx_session
from sim2real.runtime.translation import Translator, frame_exemplars, frame_noise

TOLERANCE = 1e-3  # of a pixel value in [0, 1]: a quarter of a step of 8 bits


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


def translate_any_size(translator: Translator, images: Image, frames: NDArray[np.int64]) -> Image:
    """Translate images [N, H, W, 3] of any size, brought to the generator's and back; ``frames`` [N] number them."""
    height, width = images.shape[1:3]
    adapted = translator(np.stack([fit(image, translator.size) for image in images]), frames)
    return np.stack([fit(image, (height, width)) for image in adapted])
