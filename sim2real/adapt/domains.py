"""The two domains as arrays: read, brought to one size, and refused or thinned out where they are bad."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.dataset import read_dataset
from sim2real.errors import AdaptationError, ConfigError

Image = NDArray[np.uint8]

MULTIPLE = 32  # of both sides, so that every halving of the networks is whole
FEWEST = 16
SURFACE = 0.25  # of all pixels; a class that covers more is a table or a wall, not an object that could move
FLAT = 2.0  # standard deviation of pixel values, of 255, under which an image shows nothing

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
        skipped: How many images were left out, by reason.
    """

    name: str
    images: Image
    masks: Image | None = None
    labels: NDArray[np.int64] | None = None
    pairs: Image | None = None
    classes: dict[int, str] = field(default_factory=dict)
    frames: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    skipped: dict[str, int] = field(default_factory=dict)

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
        return Domain(self.name, self.images[rows], masks, labels, pairs, self.classes, frames)

    def split(self, share: float, most: int, seed: int) -> tuple[Domain, Domain]:
        """Training and held-out images: ``share`` of all, at least 4 and at most ``most`` of them held out."""
        order = np.random.default_rng(seed).permutation(len(self))
        held = int(np.clip(round(share * len(self)), 4, most))
        return self.take(np.sort(order[held:])), self.take(np.sort(order[:held]))


def objects_of(masks: Image) -> NDArray[np.int64]:
    """Classes of masks [N, H, W] that are objects: neither background (0) nor a surface such as a table or a wall."""
    share = np.bincount(masks.ravel()) / masks.size
    return np.flatnonzero((share > 0) & (share <= SURFACE) & (np.arange(len(share)) > 0))


def network_size(height: int, width: int, image_size: int) -> tuple[int, int]:
    """Height and width the networks see: the shorter side ``image_size`` (0: as it is), multiples of 32."""
    scale = image_size / min(height, width) if image_size else 1.0
    return (
        max(MULTIPLE, MULTIPLE * round(scale * height / MULTIPLE)),
        max(MULTIPLE, MULTIPLE * round(scale * width / MULTIPLE)),
    )


def fit(image: Image, size: tuple[int, int], nearest: bool = False) -> Image:
    """An image scaled to cover ``size`` (height, width) and cut to it in the middle; class numbers need ``nearest``."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    scale = max(size[0] / height, size[1] / width)
    scaled = (max(size[1], round(width * scale)), max(size[0], round(height * scale)))
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    result = cv2.resize(image, scaled, interpolation=method)
    top, left = (result.shape[0] - size[0]) // 2, (result.shape[1] - size[1]) // 2
    return result[top : top + size[0], left : left + size[1]]


def load_domain(
    folder: Path, name: str, image_size: int = 0, size: tuple[int, int] | None = None, labels: bool = False
) -> Domain:
    """Read a dataset, or a folder of images of any sizes.

    Images that cannot be read, show nothing, or repeat another are left out, counted and logged.

    Args:
        folder: Dataset or folder.
        name: Of the domain, for messages: ``sim``, ``real``.
        image_size: Shorter side in px; 0 keeps the first image's.
        size: Height and width, in place of ``image_size``.
        labels: Every frame has a ``label``, a class number.

    Raises:
        ConfigError: There is no dataset, or its layout is broken.
        AdaptationError: Too few usable images.
    """
    dataset = read_dataset(folder)
    images: list[Image] = []
    masks: list[Image] = []
    frames: list[int] = []
    skipped = {"unreadable": 0, "flat": 0, "duplicate": 0, "without a mask": 0}
    resized = 0
    seen: set[bytes] = set()
    with_masks = any("mask" in frame for frame in dataset.frames)
    for index, frame in enumerate(dataset.frames):
        image = cv2.imread(str(folder / frame["image"]), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(folder / frame["mask"]), cv2.IMREAD_GRAYSCALE) if "mask" in frame else None
        if image is None:
            skipped["unreadable"] += 1
            continue
        if with_masks and (mask is None or mask.shape != image.shape[:2]):
            skipped["without a mask"] += 1
            continue
        if image.std() < FLAT:
            skipped["flat"] += 1
            continue
        digest = hashlib.sha1(image.tobytes(), usedforsecurity=False).digest()
        if digest in seen:
            skipped["duplicate"] += 1
            continue
        seen.add(digest)
        size = size or network_size(image.shape[0], image.shape[1], image_size)
        resized += image.shape[:2] != size
        images.append(fit(image, size)[..., ::-1])
        frames.append(index)
        if mask is not None:
            masks.append(fit(mask, size, nearest=True))
    skipped = {reason: count for reason, count in skipped.items() if count}
    if skipped:
        log.warning("%s: left out %s", folder, ", ".join(f"{count} {reason}" for reason, count in skipped.items()))
    if resized and size is not None:
        log.info("%s: %d of %d images resized to %d x %d", folder, resized, len(images), size[1], size[0])
    if len(images) < FEWEST:
        left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "none left out"
        raise AdaptationError(
            f"{folder} ({name}) has {len(images)} usable images of {len(dataset)} ({left_out}); at least {FEWEST} are "
            "needed, 50 for a result worth having: collect more"
        )
    kept = np.array(frames)
    return Domain(
        name=name,
        images=np.stack(images),
        masks=np.stack(masks) if masks else None,
        labels=dataset.column("label").astype(np.int64)[kept] if labels else None,
        classes=dataset.classes,
        frames=kept,
        skipped=skipped,
    )


def check_pair(source: Domain, target: Domain, needs_masks: bool) -> None:
    """Refuse domains that cannot be what they are said to be.

    Raises:
        AdaptationError: They share images, source masks are missing, the domains look swapped, or masks are empty.
    """
    digests = [
        {hashlib.sha1(image.tobytes(), usedforsecurity=False).digest() for image in domain.images}
        for domain in (source, target)
    ]
    shared = len(digests[0] & digests[1])
    if shared:
        raise AdaptationError(
            f"{shared} images are in both '{source.name}' and '{target.name}'; give two folders of different images"
        )
    if needs_masks and source.masks is None:
        swapped = target.masks is not None
        raise AdaptationError(
            f"'{target.name}' has masks and '{source.name}' has none: are the two folders swapped?"
            if swapped
            else f"'{source.name}' has no masks, and this preset needs them; render with masks, or use preset 'cut' "
            "with --set task.kind=none"
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
