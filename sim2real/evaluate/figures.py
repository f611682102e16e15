"""Pictures: inside a page, and as files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from sim2real.types import Array


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a ``data:`` address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def figure_uri(figure: Any) -> str:
    """A matplotlib figure as an SVG ``data:`` address; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(figure)
    return data_uri(buffer.getvalue(), "svg+xml")


def plot_motion(path: Path, joints: Sequence[str], time: Array, command: Array) -> None:
    """Write a picture of commands [T, J] rad over their times [T] s, one row a joint."""
    figure, axes = plt.subplots(len(joints), 1, figsize=(10, 1.6 * len(joints)), sharex=True, layout="constrained")
    for axis, joint, track in zip(axes, joints, command.T, strict=True):
        axis.plot(time, track, linewidth=0.8)
        axis.set_ylabel(f"{joint}\nrad", fontsize=8)
    axes[-1].set_xlabel("time, s")
    figure.savefig(path)
    plt.close(figure)
