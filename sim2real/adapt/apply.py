"""A dataset translated by a run's generator into a new one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.adapt.check import load_run_config
from sim2real.adapt.domains import read_frame
from sim2real.adapt.translate import translate_any_size
from sim2real.errors import AdaptationError, ConfigError
from sim2real.images.dataset import HEADER, DatasetWriter, ImageDataset, fit, read_dataset, read_header
from sim2real.runtime.translation import Translator, file_hashes

BATCH = 16

log = logging.getLogger(__name__)


def apply(
    run: Path,
    dataset: Path,
    out: Path,
    anyway: bool = False,
    resume: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Translate a dataset into a new one: images change, masks and everything known of the frames stay.

    Frames that cannot be read, or lack the mask that others have, are left out; images of another size than the first
    are brought to it, with their masks. Both are counted and logged. Every new frame says in ``from_frame`` which it
    was.

    Args:
        run: Finished run.
        dataset: To translate.
        out: Folder for the new one.
        anyway: Also where the gate refused the run.
        resume: Go on with a folder that an interrupted call left, with the same generator and dataset.
        on_progress: Called after every batch with frames done and in all.

    Returns:
        Number of frames in ``out``.

    Raises:
        ConfigError: No run, no dataset, or a folder that is not empty, or begun with another generator or dataset.
        AdaptationError: The gate refused the run, or no image can be read.
    """
    translator = Translator(run, anyway)
    source = read_dataset(dataset)
    with_masks = any("mask" in frame for frame in source.frames)
    height, width = _first_size(source, with_masks)
    made = {
        "run": str(run), "preset": load_run_config(run).name, "from": str(dataset.resolve()), "files": file_hashes(run),
    }  # fmt: skip
    if resume:
        _same_origin(out, made)
    resized = 0
    with DatasetWriter(out, width, height, source.classes, {**source.about, "adapted": made}, resume) as writer:
        begin = read_dataset(out).frames[-1]["from_frame"] + 1 if writer.count else 0
        for start in range(begin, len(source), BATCH):
            rows, images, masks = [], [], []
            for row in range(start, min(start + BATCH, len(source))):
                read = read_frame(dataset, source.frames[row], with_masks)
                if isinstance(read, str):
                    continue
                image, mask = read
                resized += image.shape[:2] != (height, width)
                rows.append(row)
                images.append(fit(image, (height, width)))
                masks.append(None if mask is None else fit(mask, (height, width), nearest=True))
            adapted = translate_any_size(translator, np.stack(images), np.array(rows)) if rows else ()
            for row, image, mask in zip(rows, adapted, masks, strict=True):
                known = {k: v for k, v in source.frames[row].items() if k not in ("image", "mask", "from_frame")}
                writer.add(image, mask, from_frame=row, **known)
            if on_progress is not None:
                on_progress(min(start + BATCH, len(source)), len(source))
        count = writer.count
    if count < len(source):
        why = "cannot be read" + (", or have no mask of their size" if with_masks else "")
        log.warning("%s: left out %d of %d frames, which %s", dataset, len(source) - count, len(source), why)
    if resized:
        log.warning("%s: brought %d images to the size of the first, %d x %d", dataset, resized, width, height)
    return count


def _first_size(source: ImageDataset, with_masks: bool) -> tuple[int, int]:
    """Height and width of a dataset's first frame that can be read."""
    for frame in source.frames:
        read = read_frame(source.folder, frame, with_masks)
        if not isinstance(read, str):
            height, width = read[0].shape[:2]
            return height, width
    raise AdaptationError(f"{source.folder} has no image that can be read{' with its mask' if with_masks else ''}")


def _same_origin(out: Path, made: dict[str, Any]) -> None:
    """Refuse to go on with a dataset that another generator or another dataset began."""
    if not (out / HEADER).is_file():
        return
    before = read_header(out)["about"].get("adapted", {})
    what = {"files": f"the generator of {before.get('run')}", "from": f"images of {before.get('from')}"}
    other = [text for name, text in what.items() if before.get(name) != made[name]]
    if other:
        raise ConfigError(
            f"{out} was begun with {' and '.join(other)}, not with what is given now; choose another folder"
        )
