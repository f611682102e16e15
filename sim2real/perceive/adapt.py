"""Rendered images through an adaptation's generator, once, beside the rendered ones; labels and masks stay."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.images.dataset import HEADER, DatasetWriter, read_dataset
from sim2real.runtime.translation import Translator, file_hashes
from sim2real.types import Progress

BATCH = 20


def adapt_dataset(run: Path, rendered: Path, folder: Path, count: int, unadapted: float, on_progress: Progress) -> int:
    """Write the first ``count`` frames of a dataset again, translated; going on with what is there.

    Which frames stay as they are, and each frame's noise, depend on the frame's number alone.

    Args:
        run: Finished adaptation that its gate let pass.
        rendered: Dataset with at least ``count`` frames.
        folder: Of the new dataset; every frame says in ``adapted`` whether it went through the generator.
        count: Frames in it at the end.
        unadapted: Fraction of frames that stay as they are.
        on_progress: Called now and then.

    Returns:
        Frames in the new dataset; fewer than ``count`` when Ctrl-C came.

    Raises:
        ConfigError: No finished run, or ``folder`` holds something else, or images of another generator.
        AdaptationError: The gate refused the run, or its generator takes images of another size.
    """
    translator = Translator(run)
    source = read_dataset(rendered)
    images, masks = source.images[:count], source.masks
    height, width = images.shape[1:3]
    translator.need_size(height, width)
    made_by = {"run": str(run), "files": file_hashes(run), "unadapted": unadapted}
    _same_generator(folder, made_by)
    about = {**source.about, "adapted": made_by}
    with (
        DatasetWriter(folder, width, height, source.classes, about, resume=True) as writer,
        contextlib.suppress(KeyboardInterrupt),
    ):
        while writer.count < count:
            rows = np.arange(writer.count, min(writer.count + BATCH, count))
            through = np.array([np.random.default_rng([13, int(row)]).uniform() >= unadapted for row in rows])
            shown = images[rows].copy()
            if through.any():
                shown[through] = translator(shown[through], rows[through])
            for row, image, went in zip(rows.tolist(), shown, through.tolist(), strict=True):
                known = {k: v for k, v in source.frames[row].items() if k not in ("image", "mask", "adapted")}
                writer.add(image, None if masks is None else masks[row], adapted=went, **known)
            if writer.count % (10 * BATCH) == 0 or writer.count == count:
                on_progress("adapting", writer.count, count, {})
        return writer.count
    return writer.count


def _same_generator(folder: Path, made_by: dict[str, object]) -> None:
    header = folder / HEADER
    if not header.is_file():
        return
    found = json.loads(header.read_text()).get("about", {}).get("adapted", {})
    if any(found.get(name) != made_by[name] for name in ("files", "unadapted")):
        raise ConfigError(
            f"{folder} holds images of another generator (see its {HEADER}), and the run beside it may have learned "
            "from them; train into another folder with --run"
        )
