"""Images side by side, to judge an adaptation by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sim2real.adapt.domains import Image
from sim2real.images.pictures import captioned

SHOWN = 6
LEAST_SIDE = 192  # px; smaller images are enlarged to it
COLOURS = ((230, 80, 60), (70, 160, 230), (240, 200, 60), (90, 200, 110), (190, 100, 220))


def sheet(rows: Mapping[str, Image]) -> Image:
    """Rows of images [N, H, W, 3], each under its label, as one picture, one column an image."""
    return np.concatenate([captioned(np.concatenate(list(row), axis=1), label) for label, row in rows.items()], axis=0)


def nearest(features: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.int64]:
    """For every row of ``features`` [N, F] the index of the nearest row of ``others`` [M, F], in spreads of others."""
    scale = others.std(axis=0) + 1e-6
    distance = ((features[:, None] - others[None]) / scale) ** 2
    return distance.sum(axis=-1).argmin(axis=1)


def outlined(images: Image, masks: NDArray[Any]) -> Image:
    """Images [N, H, W, 3] with the edges of the classes in ``masks`` [N, H, W] drawn on them."""
    result = images.copy()
    for image, mask in zip(result, masks, strict=True):
        for number in np.unique(mask)[1:]:
            outline, _ = cv2.findContours((mask == number).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(image, outline, -1, COLOURS[(int(number) - 1) % len(COLOURS)], 1)
    return result
