"""The two domains as arrays: read, brought to one size, and refused or thinned out where they are bad."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.errors import AdaptationError, ConfigError
from sim2real.images.dataset import digest, fit, read_color, read_dataset
from sim2real.types import Image

MULTIPLE = 32  # of both sides, so that every halving of the networks is whole
FEWEST = 16
SURFACE = 0.25  # of all pixels; a class that covers more is a table or a wall, not an object that could move
THUMBNAIL = 16  # cells a side; small enough that noise is averaged away, large enough that a small object is not
FLAT, FLAT_SPAN = 2.0, 12  # of 255: an image whose thumbnail varies (standard deviation) and spans less shows nothing
ALIKE = 3  # of 255: images whose thumbnails differ by no more anywhere show the same

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Domain:
    """Images of one kind.

    Attributes:
        name: For messages.
        images: [N, H, W, 3] RGB.
        masks: Class numbers [N, H, W], or None.
        labels: Class of every image [N], or None.
        pairs: The other domain's image of the same scene [N, H, W, 3] (RCAN), or None.
        classes: What the numbers in the masks mean.
        frames: Which frame of the dataset each image is.
        folder: Where they were read, or None.
        skipped: How many images of the folder were left out, by reason.
        resized: How many images of the folder were brought to another size.
        alike: How many images of the folder differ from one before them by noise only.
    """

    name: str
    images: Image
    masks: Image | None = None
    labels: NDArray[np.int64] | None = None
    pairs: Image | None = None
    classes: dict[int, str] = field(default_factory=dict)
    frames: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    folder: Path | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    resized: int = 0
    alike: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.images.shape[1], self.images.shape[2]

    def take(self, rows: NDArray[Any]) -> Domain:
        """The images at ``rows``."""
        masks = None if self.masks is None else self.masks[rows]
        labels = None if self.labels is None else self.labels[rows]
        pairs = None if self.pairs is None else self.pairs[rows]
        frames = self.frames[rows] if len(self.frames) else self.frames
        return replace(self, images=self.images[rows], masks=masks, labels=labels, pairs=pairs, frames=frames)

    def split(self, fraction: float, most: int, seed: int) -> tuple[Domain, Domain]:
        """Training and held-out images: ``share`` of all, at least 4 and at most ``most`` of them held out."""
        order = np.random.default_rng(seed).permutation(len(self))
        held = int(np.clip(round(fraction * len(self)), 4, most))
        return self.take(np.sort(order[held:])), self.take(np.sort(order[:held]))


def objects_of(masks: Image) -> NDArray[np.int64]:
    """Classes of masks [N, H, W] that are objects: neither background (0) nor a surface such as a table or a wall."""
    fraction = np.bincount(masks.ravel()) / masks.size
    return np.flatnonzero((fraction > 0) & (fraction <= SURFACE) & (np.arange(len(fraction)) > 0))


def network_size(height: int, width: int, image_size: int) -> tuple[int, int]:
    """Height and width the networks see: the shorter side ``image_size`` (0: as it is), multiples of 32."""
    scale = image_size / min(height, width) if image_size else 1.0
    return (
        max(MULTIPLE, MULTIPLE * round(scale * height / MULTIPLE)),
        max(MULTIPLE, MULTIPLE * round(scale * width / MULTIPLE)),
    )


def thumbnail(image: Image) -> NDArray[np.int16]:
    """An image [H, W, 3] as averages of its parts [16, 16, 3]."""
    return cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.int16)


def count_alike(thumbnails: NDArray[np.int16]) -> int:
    """Count thumbnails [N, 16, 16, 3] that differ nowhere from an earlier one by more than ``ALIKE``."""
    count, cells = len(thumbnails), THUMBNAIL // 4
    fine = thumbnails.reshape(count, -1)
    coarse = thumbnails.reshape(count, 4, cells, 4, cells, 3).mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    different: list[int] = []
    known = np.empty_like(coarse)  # of those that differ; what is far apart in it is far apart in full
    for row in range(count):
        near = np.flatnonzero(np.abs(known[: len(different)] - coarse[row]).max(axis=1, initial=0.0) <= ALIKE)
        if not (np.abs(fine[np.array(different, int)[near]] - fine[row]).max(axis=1, initial=0) <= ALIKE).any():
            known[len(different)] = coarse[row]
            different.append(row)
    return count - len(different)


def read_frame(folder: Path, frame: Mapping[str, Any], with_mask: bool) -> tuple[Image, Image | None] | str:
    """Image [H, W, 3] RGB and mask [H, W] of a dataset's frame, or in a word or three why it cannot be used.

    Args:
        folder: Of the dataset.
        frame: Of its frames.
        with_mask: It must have a mask; otherwise none is read.
    """
    image = read_color(folder / frame["image"])
    if image is None:
        return "unreadable"
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if not with_mask:
        return image, None
    mask = cv2.imread(str(folder / frame["mask"]), cv2.IMREAD_GRAYSCALE) if "mask" in frame else None
    return "without a mask" if mask is None or mask.shape != image.shape[:2] else (image, mask)


def load_domain(
    folder: Path, name: str, image_size: int = 0, size: tuple[int, int] | None = None, labels: bool = False
) -> Domain:
    """Read a dataset, or a folder of images of any sizes.

    Images that cannot be read, show nothing, or repeat another are left out, counted and logged; those that differ
    from another by noise only are counted and logged.

    Args:
        folder: Dataset or folder.
        name: Of the domain, for messages: ``sim``, ``real``.
        image_size: Shorter side in px; 0 keeps the first image's.
        size: Height and width, in place of ``image_size``.
        labels: Every frame has a ``label``, a class number.

    Raises:
        ConfigError: There is no dataset, or its layout is broken.
        AdaptationError: Too few usable images, or too few that differ.
    """
    dataset = read_dataset(folder)
    images: list[Image] = []
    masks: list[Image] = []
    thumbnails: list[NDArray[np.int16]] = []
    frames: list[int] = []
    skipped = {"unreadable": 0, "flat": 0, "duplicate": 0, "without a mask": 0}
    resized = 0
    seen: set[str] = set()
    with_masks = any("mask" in frame for frame in dataset.frames)
    for index, frame in enumerate(dataset.frames):
        read = read_frame(folder, frame, with_masks)
        if isinstance(read, str):
            skipped[read] += 1
            continue
        image, mask = read
        small, known = thumbnail(image), digest(image)
        if small.std(axis=(0, 1)).max() < FLAT and np.ptp(small, axis=(0, 1)).max() < FLAT_SPAN:
            skipped["flat"] += 1
            continue
        if known in seen:
            skipped["duplicate"] += 1
            continue
        seen.add(known)
        size = size or network_size(image.shape[0], image.shape[1], image_size)
        resized += image.shape[:2] != size
        images.append(fit(image, size))
        thumbnails.append(small)
        frames.append(index)
        if mask is not None:
            masks.append(fit(mask, size, nearest=True))
    skipped = {reason: count for reason, count in skipped.items() if count}
    left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
    if left_out:
        log.warning("%s: left out %s", folder, left_out)
    alike = count_alike(np.stack(thumbnails)) if thumbnails else 0
    if alike:
        log.warning("%s: %d of %d images differ from others by noise only", folder, alike, len(images))
    if len(images) - alike < FEWEST:
        same = f", of which {alike} differ from others by noise only" if alike else ""
        raise AdaptationError(
            f"{folder} ({name}) has {len(images)} usable images of {len(dataset)} ({left_out or 'none left out'})"
            f"{same}; at least {FEWEST} are needed, 50 for a result worth having: collect more"
        )
    kept = np.array(frames)
    return Domain(
        name=name,
        images=np.stack(images),
        masks=np.stack(masks) if masks else None,
        labels=dataset.column("label").astype(np.int64)[kept] if labels else None,
        classes=dataset.classes,
        frames=kept,
        folder=folder.resolve(),
        skipped=skipped,
        resized=resized,
        alike=alike,
    )


def check_masks(domain: Domain) -> None:
    """Refuse masks whose numbers are no classes.

    Raises:
        AdaptationError: A number that the dataset does not name, or, where it names none, a gap between numbers.
    """
    if domain.masks is None:
        return
    found = {0, *np.flatnonzero(np.bincount(domain.masks.ravel())).tolist()}
    wrong = sorted(found - {0, *domain.classes} if domain.classes else found - set(range(len(found))))
    if not wrong:
        return
    shown = ", ".join(map(str, wrong[:5])) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
    named = ", ".join(f"{number} {name}" for number, name in sorted(domain.classes.items()))
    raise AdaptationError(
        f"masks of '{domain.name}' have pixels of {shown}, "
        + (f"which its dataset.json does not name ({named})" if named else "but class numbers go up one by one from 0")
        + "; save them again with a class number for every pixel, for example 1 in place of 255"
    )


def check_pair(source: Domain, target: Domain, needs_masks: bool) -> None:
    """Refuse domains that cannot be what they are said to be.

    Raises:
        AdaptationError: They share images, source masks are missing, the domains look swapped, or masks are empty.
    """
    shared = len({digest(image) for image in source.images} & {digest(image) for image in target.images})
    if shared:
        raise AdaptationError(
            f"{shared} images are in both '{source.name}' and '{target.name}'; give two folders of different images"
        )
    if source.masks is None and target.masks is not None:
        raise AdaptationError(f"'{target.name}' has masks and '{source.name}' has none: are the two folders swapped?")
    if needs_masks and source.masks is None:
        raise AdaptationError(
            f"'{source.name}' has no masks, and this preset needs them; render with masks ('sim2real render-dataset'). "
            "Preset 'cut' with --set task.kind=none trains without, but its gate can judge nothing and refuses"
        )
    if needs_masks and source.masks is not None and not (source.masks > 0).any():
        raise AdaptationError(f"all masks of '{source.name}' are empty; render them with the objects' numbers")


def with_pairs(source: Domain, source_folder: Path, target_folder: Path) -> Domain:
    """A domain whose frames say in ``pair`` which frame of the other dataset shows the same scene.

    Raises:
        ConfigError: A frame has no ``pair``, or the other dataset no such frame.
    """
    dataset = read_dataset(source_folder)
    if not all("pair" in dataset.frames[row] for row in source.frames):
        raise ConfigError(
            f"the frames of {source_folder} do not say in 'pair' which frame of {target_folder} shows the same scene; "
            "draw both: 'sim2real render-dataset RENDERS --canonical CANONICAL', then --sim RENDERS --real CANONICAL"
        )
    numbers = dataset.column("pair").astype(np.int64)[source.frames]
    others = read_dataset(target_folder)
    wrong = numbers[(numbers < 0) | (numbers >= len(others))]
    if len(wrong):
        raise ConfigError(f"{source_folder}: 'pair' {wrong[0]} is no frame of {target_folder}, which has {len(others)}")
    pairs = np.stack([fit(others.images[number], source.size) for number in numbers])
    return replace(source, pairs=pairs)
