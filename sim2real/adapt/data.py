"""Both domains of an adaptation, read, checked and split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sim2real.adapt.config import AdaptConfig
from sim2real.adapt.domains import Domain, check_masks, check_pair, load_domain, with_pairs
from sim2real.errors import ConfigError

HELD_OUT, MOST_HELD_OUT = 0.1, 200
REAL_HELD_OUT = 20  # at least so many real images, or a third of them: a distance to fewer is chance


@dataclass(frozen=True)
class Data:
    """Both domains, split; nothing held out is ever trained on."""

    source: Domain
    source_held: Domain
    target: Domain
    target_held: Domain

    @classmethod
    def of(cls, source: Domain, target: Domain, seed: int) -> Data:
        """Split two domains; where every rendered image has its pair, the camera's images are these, split likewise."""
        train, held = source.split(HELD_OUT, MOST_HELD_OUT, seed)
        if train.pairs is not None and held.pairs is not None:
            real_parts = (
                Domain(target.name, part, folder=target.folder, resized=target.resized)
                for part in (train.pairs, held.pairs)
            )
            return cls(train, held, *real_parts)
        real = max(HELD_OUT, min(REAL_HELD_OUT / len(target), 1 / 3))
        return cls(train, held, *target.split(real, MOST_HELD_OUT, seed))


def load_data(config: AdaptConfig, sim: Path, real: Path) -> Data:
    """Read, check and split two datasets.

    Raises:
        ConfigError: A folder holds no dataset.
        AdaptationError: The images cannot be used; it says why.
    """
    source = load_domain(sim, "sim", config.image_size, labels=config.task.kind == "classify")
    check_masks(source)
    target = load_domain(real, "real", size=source.size)
    if config.weights.paired:
        source = with_pairs(source, sim, real)
    check_pair(
        source,
        target,
        needs_masks=config.task.kind == "segment" or config.weights.content > 0 or config.weights.perception > 0,
    )
    return Data.of(source, target, config.seed)


def check_depth(config: AdaptConfig, size: tuple[int, int]) -> None:
    """Refuse discriminators that halve images of a size (height, width) until nothing is left.

    Raises:
        ConfigError: They do.
    """
    layers, scales = config.discriminator.layers, config.discriminator.scales
    most = min(size).bit_length()
    if config.weights.adversarial + config.weights.cycle > 0 and layers + scales > most:
        raise ConfigError(
            f"discriminator.layers={layers} with discriminator.scales={scales} leaves nothing of images of {size[1]} x "
            f"{size[0]}: together they may be {most}; set fewer, or a larger image_size"
        )
