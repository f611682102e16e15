"""A dataset's card: what is in it, where it comes from, what was left out, and how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.images.dataset import ImageDataset, read_dataset
from sim2real.images.pictures import contact_sheet
from sim2real.runtime.camera import CameraCalibration
from sim2real.types import Image

CARD, SHEET = "README.md", "contact_sheet.jpg"
SHEET_IMAGES, SHEET_COLUMNS, TILE_WIDTH = 48, 8, 200


def write_card(folder: Path, camera: CameraCalibration | None = None) -> Path:
    """Write ``README.md`` and ``contact_sheet.jpg`` into a dataset's folder.

    Args:
        folder: Of a dataset.
        camera: What it was recorded with.

    Returns:
        The card.

    Raises:
        ConfigError: No dataset, or the sheet cannot be written.
    """
    dataset = read_dataset(folder)
    sheet = _sheet(dataset)
    temporary = folder / f"{SHEET}.tmp.jpg"
    if not cv2.imwrite(str(temporary), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise ConfigError(f"{folder / SHEET} cannot be written; is the disk full?")
    temporary.replace(folder / SHEET)
    return write_text(folder / CARD, _card(dataset, camera))


def _sheet(dataset: ImageDataset) -> Image:
    """Some of the images, spread over the dataset, side by side [H, W, 3] RGB."""
    count = min(SHEET_IMAGES, len(dataset))
    indices = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    tiles = []
    for index in indices:
        image = cv2.imread(str(dataset.folder / dataset.frames[index]["image"]), cv2.IMREAD_COLOR)
        if image is None:
            raise ConfigError(f"{dataset.folder / dataset.frames[index]['image']} cannot be read as an image")
        height = max(1, round(TILE_WIDTH * image.shape[0] / image.shape[1]))
        tiles.append(cv2.resize(image[..., ::-1], (TILE_WIDTH, height), interpolation=cv2.INTER_AREA))
    return contact_sheet(tiles, min(SHEET_COLUMNS, len(tiles)), gap=2)


def _card(dataset: ImageDataset, camera: CameraCalibration | None) -> str:
    about = dataset.about
    seen, drops = about.get("images_seen", len(dataset)), about.get("drops", {})
    parts = [f"# {about.get('what') or dataset.folder.name.removesuffix('.new')}", f"![contact sheet]({SHEET})"]
    parts.append(
        _table(
            ("", ""),
            {
                "images": f"{len(dataset)} of {seen} that came",
                "recorded": f"{about.get('started', '')} to {about.get('finished', '')}",
                "from": about.get("source", ""),
                "missing in transit, by their stamps": about.get("images_missing", ""),
                "any view of the recording is within": (
                    f"{about['cover_radius']} steps of a kept one (a step is a difference as in the gates below)"
                    if "cover_radius" in about
                    else "not thinned out"
                ),
                "made by": f"sim2real, commit {about.get('commit', 'unknown')}",
            },
        )
    )
    parts += ["## Left out", _table(("reason", "images"), drops) if drops else "Nothing."]
    if about.get("ignored"):
        parts.append(_table(("other messages that were not used", ""), about["ignored"]))
    gates = about.get("gates")
    parts += ["## Gates", _table(("gate", ""), gates) if gates else "None: every frame was kept."]
    parts += ["## Camera", _camera(camera) if camera else "Not calibrated: recorded without CameraInfo."]
    robot = _robot(dataset)
    if robot:
        parts += ["## Robot", robot]
    parts += ["## Layout", _LAYOUT]
    return "\n\n".join(parts) + "\n"


_LAYOUT = """`images/` holds PNG files, `frames.jsonl` one JSON object a frame: its image, `stamp_s` (s), and where
recorded `joint_pos` (rad, names in `dataset.json`), `T_base_ee` and `T_base_camera` (4 x 4, m), `sharpness`, `session`.
`sim2real.images.dataset.read_dataset` reads it, and so does anything that reads JSON and PNG."""


def _camera(camera: CameraCalibration) -> str:
    m = camera.matrix
    rows: dict[str, Any] = {
        "lens": f"{camera.lens}, {camera.width} x {camera.height}",
        "fx, fy, cx, cy (px)": ", ".join(f"{v:.2f}" for v in (m[0, 0], m[1, 1], m[0, 2], m[1, 2])),
        "distortion": ", ".join(f"{v:.5f}" for v in camera.distortion),
        "calibrated": camera.date or "date not known",
    }
    if camera.T_base_camera is not None:
        rows["at (m, base frame)"] = ", ".join(f"{v:.4f}" for v in camera.T_base_camera[:3, 3])
    if camera.T_ee_camera is not None:
        rows["at (m, end effector's frame)"] = ", ".join(f"{v:.4f}" for v in camera.T_ee_camera[:3, 3])
    if camera.latency_s is not None:
        rows["images later than joints"] = f"{1e3 * camera.latency_s:.1f} ms; taken into account"
    return _table(("", ""), rows)


def _robot(dataset: ImageDataset) -> str:
    rows = {}
    names = dataset.about.get("joint_names", [])
    if names and "joint_pos" in dataset.frames[0]:
        positions = dataset.column("joint_pos")
        for name, low, high in zip(names, positions.min(axis=0), positions.max(axis=0), strict=True):
            rows[f"{name} (rad)"] = f"{low:+.3f} to {high:+.3f}"
        rows["nearest joint state"] = f"within {1e3 * dataset.column('state_gap_s').max():.1f} ms of every image"
    if "T_base_ee" in dataset.frames[0]:
        ee = dataset.column("T_base_ee")[:, :3, 3]
        for axis, low, high in zip("xyz", ee.min(axis=0), ee.max(axis=0), strict=True):
            rows[f"end effector {axis} (m)"] = f"{low:+.3f} to {high:+.3f}"
    return _table(("", "range"), rows) if rows else ""


def _table(head: tuple[str, str], rows: dict[str, Any]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items()]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
