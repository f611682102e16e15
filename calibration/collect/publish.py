"""Candidates of a finished recording become a dataset at once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibration.collect.card import write_card
from sim2real.files import write_text
from sim2real.images.dataset import FORMAT, FRAMES, HEADER, VERSION, ImageDataset
from sim2real.runtime.camera import CameraCalibration

CAMERA, MOTION = "camera.yaml", "motion.csv"


def publish(
    candidates: ImageDataset,
    chosen: Sequence[int],
    out: Path,
    about: dict[str, Any],
    camera: CameraCalibration | None,
) -> None:
    """Write chosen candidates to ``out`` with their card, then remove the candidates.

    The dataset is written under another name and renamed when it is whole.

    Args:
        candidates: The recording's images.
        chosen: Frames to keep.
        out: Folder of the dataset.
        about: Of its header.
        camera: Calibration, for the card.
    """
    new = out.with_name(out.name + ".new")
    if new.exists():  # left by a run that was killed here; the candidates are still whole
        shutil.rmtree(new)
    (new / "images").mkdir(parents=True)
    lines = []
    for index, old in enumerate(chosen):
        name = f"images/{index:06d}.png"
        _link(candidates.folder / candidates.frames[old]["image"], new / name)
        lines.append(json.dumps(candidates.frames[old] | {"image": name}))
    write_text(new / FRAMES, "\n".join(lines) + "\n")
    for name in (CAMERA, MOTION):
        if (candidates.folder / name).is_file():
            shutil.copy(candidates.folder / name, new / name)
    before = json.loads((candidates.folder / HEADER).read_text())
    size = {name: before[name] for name in ("width", "height")}
    header = {"format": FORMAT, "version": VERSION, **size, "classes": {}, "about": about}
    write_text(new / HEADER, json.dumps(header, indent=2) + "\n")
    write_card(new, camera)
    new.replace(out)
    shutil.rmtree(candidates.folder)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy(source, target)
