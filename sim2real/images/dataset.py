"""Datasets of images: one layout for what is rendered, collected and adapted, readable with any tool.

::

    DATASET/
      dataset.json        {"format": "sim2real-images", "version": 1, "width", "height", "classes", "about"}
      images/000000.png   RGB, 8 bits
      masks/000000.png    optional: a class number for every pixel
      frames.jsonl        one JSON object a frame: its image, its mask, and what else is known

An image is written before its line, each at once, so a killed writer leaves a shorter dataset but a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import numpy as np

from sim2real.errors import ConfigError
from sim2real.files import LOCK, lock_folder, write_text
from sim2real.types import Array, Image

FORMAT, VERSION = "sim2real-images", 1
HEADER, FRAMES = "dataset.json", "frames.jsonl"
DARKEST_WHITE = 2**14  # of an image that uses its 16 bits
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class DatasetWriter:
    """Appends frames to a dataset; a context manager.

    Args:
        folder: Of the dataset; made where it is missing.
        width, height: Of every image, px.
        classes: What the numbers in masks mean.
        about: Where the images come from, for people.
        resume: Go on with a dataset that this folder holds already.

    Attributes:
        count: Frames so far.
        fast: Write images in half the time, and up to twice as large; may be set at any time.

    Raises:
        ConfigError: The folder holds something else, a dataset and ``resume`` is not given, or another process writes
            to it.
    """

    def __init__(
        self,
        folder: Path,
        width: int,
        height: int,
        classes: Mapping[int, str] | None = None,
        about: Mapping[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.folder, self._size = folder, (height, width)
        self.count = 0
        self.fast = False
        self._lock = lock_folder(folder)
        try:
            self._lines = self._open(classes, about, resume)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, classes: Mapping[int, str] | None, about: Mapping[str, Any] | None, resume: bool) -> IO[bytes]:
        folder, (height, width) = self.folder, self._size
        lines = folder / FRAMES
        if (folder / HEADER).is_file():
            if not resume:
                raise ConfigError(f"{folder} holds a dataset already; choose another folder, or go on with --resume")
            header = read_header(folder)
            if (header["width"], header["height"]) != (width, height):
                raise ConfigError(
                    f"{folder} holds images of {header['width']} x {header['height']}, not {width} x {height}; choose "
                    "another folder"
                )
            kept, end = _whole_lines(lines)
            self.count = len(kept)
            with lines.open("ab") as file:
                file.truncate(end)
        elif any(entry.name != LOCK for entry in folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and holds no dataset; choose another folder")
        else:
            (folder / "images").mkdir(parents=True, exist_ok=True)
            header = {
                "format": FORMAT, "version": VERSION, "width": width, "height": height,
                "classes": {str(number): name for number, name in (classes or {}).items()}, "about": dict(about or {}),
            }  # fmt: skip
            write_text(folder / HEADER, json.dumps(header, indent=2) + "\n")
        return lines.open("ab")

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, image: Image, mask: Image | None = None, **fields: Any) -> None:
        """Append a frame.

        Args:
            image: [H, W, 3] RGB.
            mask: Class numbers [H, W].
            **fields: What else is known of the frame; arrays become lists.

        Raises:
            ConfigError: Another size than the dataset's.
        """
        if image.shape != (*self._size, 3) or (mask is not None and mask.shape != self._size):
            got = image.shape if image.shape != (*self._size, 3) else mask.shape  # type: ignore[union-attr]
            raise ConfigError(f"{self.folder} takes images of {self._size[1]} x {self._size[0]}, got an array {got}")
        name = f"{self.count:06d}.png"
        frame: dict[str, Any] = {"image": f"images/{name}"}
        _write_png(self.folder / "images" / name, image[..., ::-1], self.fast)
        if mask is not None:
            (self.folder / "masks").mkdir(exist_ok=True)
            _write_png(self.folder / "masks" / name, mask)
            frame["mask"] = f"masks/{name}"
        frame |= {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in fields.items()}
        self._lines.write((json.dumps(frame) + "\n").encode())
        self._lines.flush()
        self.count += 1

    def close(self) -> None:
        """Put everything on the disk and close; harmless when closed."""
        if not self._lines.closed:
            self._lines.flush()
            os.fsync(self._lines.fileno())
            self._lines.close()
        self._lock.release()


@dataclass(frozen=True)
class ImageDataset:
    """Frames of a folder; images are read when they are asked for.

    Attributes:
        folder: Where it is.
        frames: What is known of every frame; ``image`` is its file, relative to the folder.
        classes: What the numbers in masks mean.
        about: Where the images come from.
    """

    folder: Path
    frames: list[dict[str, Any]]
    classes: dict[int, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def images(self) -> Image:
        """All images [N, H, W, 3] RGB.

        Raises:
            ConfigError: A file is missing, no image, or of another size than the first.
        """
        return self._read("image", cv2.IMREAD_COLOR)[..., ::-1]

    @cached_property
    def masks(self) -> Image | None:
        """Class numbers of all pixels [N, H, W]; None where frames have no masks.

        Raises:
            ConfigError: A file is missing or of another size, or only some frames have masks.
        """
        having = sum("mask" in frame for frame in self.frames)
        if not having:
            return None
        if having < len(self.frames):
            raise ConfigError(f"{self.folder}: only {having} of {len(self.frames)} frames have masks")
        return self._read("mask", cv2.IMREAD_GRAYSCALE)

    def column(self, name: str) -> Array:
        """One field of all frames [N, ...].

        Raises:
            ConfigError: A frame lacks it, or it is not made of numbers of one shape.
        """
        try:
            values = np.array([frame[name] for frame in self.frames], dtype=np.float64)
        except KeyError as error:
            index = next(i for i, frame in enumerate(self.frames) if name not in frame)
            known = sorted(set(self.frames[index]) - {"image", "mask"})
            raise ConfigError(f"{self.folder / FRAMES}, frame {index} lacks '{name}'; it has {known}") from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.folder / FRAMES}: '{name}' is not made of numbers of one shape") from error
        if not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
            raise ConfigError(f"{self.folder / FRAMES}, frame {index}: '{name}' is not finite")
        return values

    def _read(self, key: str, mode: int) -> Image:
        result: Image | None = None
        for index, frame in enumerate(self.frames):
            path = self.folder / frame[key]
            image = read_color(path) if mode == cv2.IMREAD_COLOR else cv2.imread(str(path), mode)
            if image is None:
                raise ConfigError(f"{path} cannot be read as an image; remove it or save it again")
            if result is None:
                result = np.empty((len(self.frames), *image.shape), dtype=np.uint8)
            if image.shape != result.shape[1:]:
                raise ConfigError(
                    f"{path} is {image.shape[1]} x {image.shape[0]}, the images before are {result.shape[2]} x "
                    f"{result.shape[1]}; bring them to one size first"
                )
            result[index] = image
        assert result is not None
        return result


def read_dataset(folder: Path) -> ImageDataset:
    """A dataset, or a plain folder of images as one without masks and fields.

    Raises:
        ConfigError: Nothing usable there.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; give a dataset or a folder of images")
    if not (folder / HEADER).is_file():
        files = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        if not files:
            inside = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and _holds_images(p)]
            if inside:
                raise ConfigError(f"{folder} holds no images, its sub-folders do: give one of {', '.join(inside[:8])}")
            raise ConfigError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
        return ImageDataset(folder, [{"image": name} for name in files])
    header = read_header(folder)
    frames, _ = _whole_lines(folder / FRAMES)
    if not frames:
        raise ConfigError(f"{folder} is a dataset without frames; record or render it again")
    classes = {int(number): str(name) for number, name in header["classes"].items()}
    return ImageDataset(folder, frames, classes, header["about"])


def _holds_images(folder: Path) -> bool:
    return (folder / HEADER).is_file() or any(p.suffix.lower() in SUFFIXES for p in folder.iterdir())


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


def read_color(path: Path) -> Image | None:
    """An image file as BGR [H, W, 3], 8 bits a channel; None where it cannot be read.

    Raises:
        ConfigError: It has 16 bits a channel and uses only the lower ones: taken as it is, it would be black.
    """
    image = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    if image is None or image.dtype == np.uint8:
        return image
    most = int(image.max(initial=0))
    if image.dtype != np.uint16 or most < DARKEST_WHITE:
        bits = max(1, most.bit_length()) if image.dtype == np.uint16 else 16
        raise ConfigError(
            f"{path} has {image.dtype.itemsize * 8} bits a channel with values up to {most} of 65535: {bits} bits of a "
            f"sensor, whose image would be black; save it with 8 bits a channel: divide by {2 ** max(bits - 8, 0)}"
        )
    return np.asarray(image >> 8, dtype=np.uint8)


def digest(image: Image) -> str:
    """SHA-1 of an image's pixels, by which it is known again."""
    return hashlib.sha1(np.ascontiguousarray(image).tobytes(), usedforsecurity=False).hexdigest()


def read_header(folder: Path) -> dict[str, Any]:
    """Size, classes and description of a dataset.

    Raises:
        ConfigError: There is no header, or one of another format.
    """
    path = folder / HEADER
    try:
        header = json.loads(path.read_text())
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise ConfigError(
                f"{path}: format '{header['format']}' version {header['version']} is not {FORMAT} {VERSION}"
            )
        return {name: header[name] for name in ("width", "height", "classes", "about")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no dataset's header ({type(error).__name__}: {error})") from error


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Frames of all whole lines, and where the last of them ends; a torn line at the end is left out.

    Raises:
        ConfigError: A line in the middle is not a frame.
    """
    raw = path.read_bytes() if path.is_file() else b""
    frames: list[dict[str, Any]] = []
    end = 0
    for number, line in enumerate(raw.splitlines(keepends=True), start=1):
        last = end + len(line) == len(raw)
        try:
            frame = json.loads(line)
            whole = isinstance(frame, dict) and isinstance(frame.get("image"), str) and line.endswith(b"\n")
        except ValueError:
            whole = False
        if not whole:
            if last:
                break
            raise ConfigError(f"{path}, line {number} is no frame; restore it or remove the line")
        frames.append(frame)
        end += len(line)
    return frames, end


def _write_png(path: Path, image: Image, fast: bool = False) -> None:
    temporary = path.with_name(path.stem + ".tmp.png")
    # Level 1: a third larger than the default, several times as fast.
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if fast:
        settings += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
        if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # OpenCV 4.11 and newer
            settings += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
    if not cv2.imwrite(str(temporary), image, settings):
        raise ConfigError(f"{path} cannot be written; is the disk full?")
    temporary.replace(path)
