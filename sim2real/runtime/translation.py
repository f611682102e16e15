"""A finished adaptation's generator as a function of images: NumPy and onnxruntime only, so the robot runs it too.

What of a run's folder is read::

    gate.json        whether the generator may be used, why not, what it makes of an image, SHA-256 of the files
    generator.onnx   ``image`` float [N, 3, H, W] in [0, 1], with ``noise`` and ``exemplar`` where it takes them, to
                     ``adapted`` of the image's shape
    exemplars.npy    pieces of camera images, where it takes them
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import AdaptationError, ConfigError
from sim2real.runtime.policy import onnx_session
from sim2real.types import Image

GENERATOR, GATE, EXEMPLARS = "generator.onnx", "gate.json", "exemplars.npy"


def frame_noise(shape: tuple[int, ...], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Standard normal noise [N, *shape] that depends on each frame's number alone."""
    return np.stack([np.random.default_rng(int(frame)).standard_normal(shape, np.float32) for frame in frames])


def frame_exemplars(pieces: Image, frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """One of ``pieces`` [M, H, W, 3] for every frame, by its number alone: [N, 3, H, W] in [0, 1]."""
    rows = [int(np.random.default_rng([1, int(frame)]).integers(len(pieces))) for frame in frames]
    return as_planes(pieces[rows])


def as_planes(images: Image) -> NDArray[np.float32]:
    """uint8 [N, H, W, 3] to float [N, 3, H, W] in [0, 1]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(255.0)


class Translator:
    """A run's exported generator in onnxruntime.

    Args:
        run: Folder that ``sim2real adapt`` wrote.
        anyway: Also where the gate refused it.

    Attributes:
        size: Height and width of its images, px.
        towards: ``camera`` or ``canonical``; see ``AdaptConfig.towards``.
        objects_judged: Whether the gate saw what it does to objects.

    Raises:
        ConfigError: No finished run there.
        AdaptationError: The gate refused it, and ``anyway`` is not given; or its files are broken, or not those that
            were judged.
    """

    def __init__(self, run: Path, anyway: bool = False) -> None:
        verdict = run / GATE
        data, exemplars = read_generator(run)
        try:
            gate: dict[str, Any] = json.loads(verdict.read_text())
            passed, reasons, judged = gate["passed"], "; ".join(gate["reasons"]), gate["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AdaptationError(f"{verdict} is no verdict of this version; run 'sim2real adapt check'") from error
        if judged != file_hashes(run):
            raise AdaptationError(
                f"{run}: {GENERATOR} (or {EXEMPLARS}) is not what {GATE} judged; run 'sim2real adapt check', or copy "
                "the run again"
            )
        if not passed and not anyway:
            raise AdaptationError(
                f"the gate refused {run}: {reasons}. Look at its report.html, train again with "
                "stronger consistency (weights.task, weights.content), or insist with --anyway"
            )
        self.towards: str = gate.get("towards", "camera")
        self.objects_judged: bool = gate.get("objects_judged", False)
        self._load(data, exemplars)

    @classmethod
    def from_onnx(cls, data: bytes, exemplars: Image | None = None) -> Translator:
        """Make one of a network's bytes, without a run and a gate."""
        translator = cls.__new__(cls)
        translator.towards, translator.objects_judged = "camera", False
        translator._load(data, exemplars)
        return translator

    def _load(self, data: bytes, exemplars: Image | None) -> None:
        self._exemplars = exemplars
        try:
            self._session = onnx_session(data)
        except Exception as error:
            raise AdaptationError(f"{GENERATOR} cannot be loaded ({error}); copy the run again") from error
        inputs = {i.name: i.shape for i in self._session.get_inputs()}
        if "image" not in inputs or ("exemplar" in inputs) != (exemplars is not None):
            raise AdaptationError(
                f"{GENERATOR} takes {', '.join(inputs)}: it is no generator, or {EXEMPLARS} is missing; copy the run "
                "again"
            )
        self.size: tuple[int, int] = (inputs["image"][2], inputs["image"][3])
        self._noise = tuple(inputs["noise"][1:]) if "noise" in inputs else None

    def need_size(self, height: int, width: int) -> None:
        """Refuse images of another size than the generator's.

        Raises:
            AdaptationError: They are.
        """
        if (height, width) != self.size:
            raise AdaptationError(
                f"the generator takes images of {self.size[1]} x {self.size[0]}, these are {width} x {height}; adapt "
                "again from images of this size with '--set image_size=0'"
            )

    def __call__(self, images: Image, frames: NDArray[np.int64] | None = None) -> Image:
        """Translate images [N, H, W, 3] RGB of its size; ``frames`` [N] number them for noise and exemplar.

        Raises:
            AdaptationError: They are of another size, or what comes out is not finite.
        """
        self.need_size(*images.shape[1:3])
        frames = np.arange(len(images)) if frames is None else frames
        feed = {"image": as_planes(images)}
        if self._noise is not None:
            feed["noise"] = frame_noise(self._noise, frames)
        if self._exemplars is not None:
            feed["exemplar"] = frame_exemplars(self._exemplars, frames)
        adapted = self._session.run(["adapted"], feed)[0]
        if not np.isfinite(adapted).all():
            raise AdaptationError("the generator gives pixels that are not finite; train it again")
        return np.rint(adapted.transpose(0, 2, 3, 1) * 255.0).astype(np.uint8)


def read_generator(run: Path) -> tuple[bytes, Image | None]:
    """A run's network, and the pieces of camera images that it takes, if it does: whatever its gate says.

    Raises:
        ConfigError: No finished run there.
    """
    file, pieces = run / GENERATOR, run / EXEMPLARS
    if not file.is_file():
        raise ConfigError(f"{run} is no finished adaptation (no {GENERATOR}); run 'sim2real adapt'")
    return file.read_bytes(), np.load(pieces, allow_pickle=False) if pieces.is_file() else None


def file_hashes(run: Path) -> dict[str, str]:
    """SHA-256 of the files of a run that make images."""
    files = [run / name for name in (GENERATOR, EXEMPLARS) if (run / name).is_file()]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def typical_time_s(translator: Translator, repeats: int = 15) -> float:
    """Median time that one image takes here, s, after a few that do not count."""
    image = np.zeros((1, *translator.size, 3), np.uint8)
    times = []
    for repeat in range(repeats + 3):
        began = time.perf_counter()
        translator(image)
        if repeat >= 3:
            times.append(time.perf_counter() - began)
    return float(np.median(times))
