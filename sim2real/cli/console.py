"""Console, progress bars and JSON output of all commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sim2real.files import must_be_writable, write_text

console = Console()

JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.", callback=must_be_writable),
]


def save_json(path: Path | None, data: Any) -> None:
    """Write ``data`` to ``path`` at once, if a path was given; figures that are not finite become null."""
    if path is not None:
        write_text(path, json.dumps(_finite(data), indent=2, allow_nan=False) + "\n")


def warn_renamed(old: str, new: str) -> None:
    """Say on stderr that an old name still works, and which one takes its place."""
    text = f"'{old}' is now '{new}'; the old name goes with the next release."
    Console(stderr=True).print(f"[yellow]{escape(text)}")


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def progress_bars() -> Progress:
    """A progress display with figures behind each bar."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )


def show_figures(figures: dict[str, float]) -> str:
    """The few figures worth watching, as text."""
    shown = [("success", "success {:.0%}"), ("reward", "reward {:.2f}"), ("rmse", "rmse {:.3f}")]
    parts = [text.format(figures[name]) for name, text in shown if name in figures]
    if "steps_per_s" in figures:
        parts.append(f"{figures['steps_per_s'] / 1000:.0f}k steps/s")
    return "  ".join(parts)


def stage_reporter(progress: Progress, prefix: str = "") -> Callable[[str, int, int, dict[str, float]], None]:
    """A callback that keeps one bar for every stage of a training."""
    bars: dict[str, Any] = {}
    printed: dict[str, int] = {}

    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage not in bars:
            bars[stage] = progress.add_task(f"{prefix}{stage}", total=total, figures="")
        progress.update(bars[stage], completed=done, figures=show_figures(figures))
        due = done == total or done % max(total // 10, 1) == 0
        if not console.is_terminal and due and printed.get(stage) != done:
            printed[stage] = done
            console.print(f"{prefix}{stage} {done}/{total}  {show_figures(figures)}")

    return report
