"""Pictures made of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def contact_sheet(images: Sequence[NDArray[np.uint8]], columns: int = 8, gap: int = 1) -> NDArray[np.uint8]:
    """Images [H, W, 3] of one size side by side, ``gap`` px apart."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    down, across = height + gap, width + gap
    sheet = np.full((rows * down - gap, columns * across - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * down, (index % columns) * across
        sheet[top : top + height, left : left + width] = image
    return sheet
