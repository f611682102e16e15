"""Statistics of a LeRobot dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim2real.types import Array

if TYPE_CHECKING:
    pass


QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


@dataclass
class ImageStats:
    """Exact statistics of images: a histogram [3, 256] of the values of every channel."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), dtype=np.int64))
    images: int = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Count an image [H, W, 3]."""
        for channel in range(3):
            self.counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
        self.images += 1

    def figures(self) -> dict[str, Any]:
        """Per channel [3, 1, 1], pixels in 0 to 1."""
        values, total = np.arange(256) / 255.0, self.counts.sum(axis=1)
        mean = self.counts @ values / total
        std = np.sqrt(np.maximum(self.counts @ values**2 / total - mean**2, 0.0))
        there = self.counts > 0
        summed = np.cumsum(self.counts, axis=1) / total[:, None]
        figures = {
            "min": values[there.argmax(axis=1)],
            "max": values[255 - there[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": std,
        }
        figures |= {name: values[(summed >= quantile).argmax(axis=1)] for name, quantile in QUANTILES.items()}
        return {name: value.reshape(3, 1, 1).tolist() for name, value in figures.items()} | {"count": [self.images]}


def own_columns(indices: NDArray[np.int64], episode: int, first: int, fps: int) -> dict[str, NDArray[Any]]:
    """Columns that LeRobot wants of every frame, for the frames ``indices`` [N] of one episode."""
    frame = indices - first
    return {
        "timestamp": frame / fps,
        "frame_index": frame,
        "episode_index": np.full(len(indices), episode),
        "index": indices,
        "task_index": np.zeros(len(indices), dtype=np.int64),
    }


def statistics_of(
    features: dict[str, Any],
    key: str,
    columns: dict[str, Array],
    indices: NDArray[np.int64],
    episode: int | None,
    fps: int,
    seen: ImageStats,
    episodes: list[NDArray[np.int64]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Statistics of every feature, of one episode, or of ``episodes`` together where ``episode`` is None."""
    parts = [indices] if episodes is None else episodes
    numbers = range(len(parts)) if episode is None else [episode]
    own = [own_columns(part, number, int(part[0]), fps) for part, number in zip(parts, numbers, strict=True)]
    stats: dict[str, dict[str, Any]] = {}
    for name in features:
        if name == key:
            stats[name] = seen.figures()
        else:
            column = columns[name][indices] if name in columns else np.concatenate([each[name] for each in own])
            stats[name] = _number_stats(np.asarray(column, dtype=np.float64))
    return stats


def _number_stats(values: Array) -> dict[str, Any]:
    values = values.reshape(len(values), -1)
    figures = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
    }
    figures |= {name: np.quantile(values, quantile, axis=0) for name, quantile in QUANTILES.items()}
    return {name: value.tolist() for name, value in figures.items()} | {"count": [len(values)]}
