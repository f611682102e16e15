"""Pictures made of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

CAPTION_PX = 18  # height of a line of text


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], columns: int = 8, gap: int = 1, captions: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """Images [H, W, 3] of one size side by side, ``gap`` px apart, each under its caption where there are any."""
    if captions is not None:
        images = [captioned(image, text) for image, text in zip(images, captions, strict=True)]
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    down, across = height + gap, width + gap
    sheet = np.full((rows * down - gap, columns * across - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * down, (index % columns) * across
        sheet[top : top + height, left : left + width] = image
    return sheet


def captioned(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """An image [H, W, 3] under a line of text (ASCII), as much of it as the width takes."""
    strip = np.full((CAPTION_PX, image.shape[1], 3), 255, dtype=np.uint8)
    cv2.putText(strip, text, (3, CAPTION_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((strip, image), axis=0)


def enlarged(images: NDArray[np.uint8], least: int) -> NDArray[np.uint8]:
    """Images [..., H, W, 3] at least ``least`` px high, by whole factors."""
    factor = max(1, -(-least // images.shape[-3]))
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def marked(image: NDArray[np.uint8], at: Sequence[float], radius: float) -> NDArray[np.uint8]:
    """An image [H, W, 3] with a white and black ring around a point (column, row), px."""
    result = np.array(image)
    centre = (round(at[0]), round(at[1]))
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.circle(result, centre, round(radius), colour, width, cv2.LINE_AA)
    return result
