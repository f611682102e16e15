"""Photometric augmentation of batches of images: what camera, lens and cable do to a picture, on CPU or GPU by kornia.

Terms are those of ``augment.yaml``, drawn by the same classes as the physics and the looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import kornia
import numpy as np
import torch
import yaml

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.sim.randomization import Randomization
from sim2real.types import Array

_FILE = yaml.safe_load((Path(__file__).parent / "augment.yaml").read_text())
PARAMETERS = {name: PhysicsParameter.model_validate(entry) for name, entry in _FILE["parameters"].items()}
TERMS = {name: RandomizationTerm.model_validate(entry) for name, entry in _FILE["randomization"].items()}
_KERNELS = (3, 5, 7)  # px, of motion blur
_LEAST_BLUR, _LEAST_MOTION, _LEAST_COMPRESSION, _LEAST_PATCH = 0.2, 1.5, 5.0, 1.0


class Augmentation:
    """Draws parameters for every image of a batch, and applies them.

    Args:
        terms: Terms of ``augment.yaml`` by name; empty changes nothing.
        seed: Of everything random.

    Raises:
        ConfigError: A term's range leaves its parameter's bounds.
    """

    def __init__(self, terms: Mapping[str, RandomizationTerm] = TERMS, seed: int = 0) -> None:
        self._params = PhysicsParams(PARAMETERS, 1)
        self._rng = np.random.default_rng([seed, 21])
        self._randomization = Randomization(terms, self._params, self._rng)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Augment images [N, 3, H, W] in [0, 1]; another draw for each of them and at each call."""
        generator = torch.Generator(images.device).manual_seed(int(self._rng.integers(2**31)))
        return apply(images, self._randomization.sample(len(images)), generator)


def chosen(names: str | tuple[str, ...]) -> dict[str, RandomizationTerm]:
    """Terms by name; ``all`` of them, or some.

    Raises:
        ConfigError: An unknown name.
    """
    if names == "all":
        return dict(TERMS)
    unknown = sorted(set(names) - set(TERMS))
    if unknown:
        raise ConfigError(f"there are no photometric terms {unknown}; known: {', '.join(TERMS)}")
    return {name: TERMS[name] for name in names}


def apply(images: torch.Tensor, params: Array, generator: torch.Generator) -> torch.Tensor:
    """Apply a camera's photometric effects to images.

    In the order of a camera: what stands before the lens, vignette, exposure and white balance, defocus and motion,
    noise, tone curve, compression.

    Args:
        images: [N, 3, H, W] in [0, 1].
        params: Parameters [N, P], in the order of ``PARAMETERS``.
        generator: Of noise and patches, on the images' device.

    Returns:
        As many images of the same size in [0, 1].

    Raises:
        ConfigError: The images or the parameters have another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3 or params.shape != (len(images), len(PARAMETERS)):
        raise ConfigError(
            f"images [N, 3, H, W] and parameters [N, {len(PARAMETERS)}] are wanted, not {list(images.shape)} and "
            f"{list(params.shape)}"
        )
    table = torch.as_tensor(params, dtype=images.dtype, device=images.device)
    p = {name: table[:, column] for column, name in enumerate(PARAMETERS)}
    result = _hide(images, p["occlusion"], generator)
    gain = (
        torch.stack((p["white_red"], torch.ones_like(p["exposure"]), p["white_blue"]), dim=1) * p["exposure"][:, None]
    )
    result = (result * gain[:, :, None, None] * _vignette(images, p["vignette"])).clamp(0.0, 1.0)
    result = _blur(result, p["blur"])
    result = _move(result, p["motion"], p["motion_angle"])
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    result = (result + p["noise"][:, None, None, None] * noise).clamp(1e-4, 1.0)
    result = kornia.enhance.adjust_gamma(result, p["gamma"])
    return _compress(result, 100.0 - p["compression"])


def audit_augmentation(
    images: torch.Tensor, terms: Mapping[str, RandomizationTerm] = TERMS, seed: int = 0
) -> dict[str, float]:
    """Mean change of a pixel, 0 to 255, when each term alone is at the end of its range that changes more.

    Args:
        images: [N, 3, H, W] in [0, 1].
        terms: Terms of ``augment.yaml`` by name.
        seed: Of noise and patches.
    """
    nominal = np.tile([p.nominal for p in PARAMETERS.values()], (len(images), 1))
    columns = {name: column for column, name in enumerate(PARAMETERS)}
    effects = {}
    for name, term in terms.items():
        base = nominal.copy()
        if name == "motion_angle" and "motion" in terms:
            base[:, columns["motion"]] = terms["motion"].range[1]  # an angle shows where there is motion
        before = apply(images, base, torch.Generator(images.device).manual_seed(seed))
        changes = []
        for fraction in (0.0, 0.3, 1.0):  # angles come round
            moved = base.copy()
            moved[:, columns[name]] = term.range[0] + fraction * (term.range[1] - term.range[0])
            low, high = PARAMETERS[name].low, PARAMETERS[name].high
            moved[:, columns[name]] = np.clip(moved[:, columns[name]], low, high)
            after = apply(images, moved, torch.Generator(images.device).manual_seed(seed))
            changes.append(255.0 * float((after - before).abs().mean()))
        effects[name] = max(changes)
    return effects


def _rows(chosen_rows: torch.Tensor) -> torch.Tensor:
    return torch.nonzero(chosen_rows).ravel()


def _hide(images: torch.Tensor, side: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A patch of one colour somewhere, up to twice as long as wide."""
    rows = _rows(side >= _LEAST_PATCH)
    if not len(rows):
        return images
    height, width = images.shape[-2:]
    samples = torch.rand(len(rows), 6, generator=generator, device=images.device, dtype=images.dtype)
    stretch = torch.exp((samples[:, 0] - 0.5) * 0.7)
    v = torch.arange(height, device=images.device, dtype=images.dtype)
    u = torch.arange(width, device=images.device, dtype=images.dtype)
    tall, wide = 0.5 * side[rows] * stretch, 0.5 * side[rows] / stretch
    inside_v = (v - samples[:, 1:2] * height).abs() < tall[:, None]
    inside_u = (u - samples[:, 2:3] * width).abs() < wide[:, None]
    inside = (inside_v[:, :, None] & inside_u[:, None, :])[:, None]
    result = images.clone()
    result[rows] = torch.where(inside, samples[:, 3:, None, None], images[rows])
    return result


def _vignette(images: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """Light that is left [N, 1, H, W]: falls with the square of the distance from the middle."""
    height, width = images.shape[-2:]
    grid = kornia.geometry.create_meshgrid(height, width, device=images.device, dtype=images.dtype)  # -1 to 1
    return 1.0 - fraction[:, None, None, None] * 0.5 * grid.square().sum(dim=-1)[:, None]


def _blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    rows = _rows(sigma >= _LEAST_BLUR)
    if not len(rows):
        return images
    result = images.clone()
    size = 2 * int(np.ceil(2.0 * float(sigma.max()))) + 1
    sigmas = sigma[rows][:, None].expand(-1, 2)
    result[rows] = kornia.filters.gaussian_blur2d(images[rows], (size, size), sigmas, border_type="replicate")
    return result


def _move(images: torch.Tensor, length: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    result = images
    for size in _KERNELS:
        nearest = (length >= _LEAST_MOTION) & ((length - size).abs() <= 1.0) & (length - size != 1.0)
        rows = _rows(nearest | (length > size) if size == _KERNELS[-1] else nearest)
        if len(rows):
            result = result.clone() if result is images else result
            still = torch.zeros_like(angle[rows])
            result[rows] = kornia.filters.motion_blur(images[rows], size, angle[rows], still, border_type="replicate")
    return result


def _compress(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """JPEG; images whose sides are no multiples of 16 are continued by their border for that."""
    rows = _rows(quality <= 100.0 - _LEAST_COMPRESSION)
    if not len(rows):
        return images
    height, width = images.shape[-2:]
    padding = (0, -width % 16, 0, -height % 16)
    padded = torch.nn.functional.pad(images[rows], padding, mode="replicate")
    coded = kornia.enhance.jpeg_codec_differentiable(padded, quality[rows])
    result = images.clone()
    result[rows] = coded[..., :height, :width].clamp(0.0, 1.0)
    return result
