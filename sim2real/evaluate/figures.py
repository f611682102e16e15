"""Pictures that a page carries inside itself."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a ``data:`` address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure_uri(figure: Any) -> str:
    """A matplotlib figure as an SVG ``data:`` address; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(figure)
    return data_uri(buffer.getvalue(), "svg+xml")
