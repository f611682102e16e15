"""The transfer benchmark's table: a row a method, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from sim2real.evaluate.episodes import wilson
from sim2real.evaluate.rows import SMALLEST_GAP, Line, bootstrap

NONE, ORACLE = "none", "oracle"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """One row: everything that was measured of a method on a task.

    Attributes:
        name: Of the method; ``off`` behind it where its mechanism is switched off.
        cells: Condition to success over variants and seeds, with its Wilson interval.
        mean: Success over all cells and seeds.
        interval: Of the mean, 95 %: from the bootstrap over seeds and the Wilson interval of all episodes, the wider
            ends. With one seed only the second says anything.
        worst: Success in the worst cell, over seeds.
        seeds: Number of trainings.
        minutes: Wall time of a training, over seeds; None where nothing is trained or nobody knows.
        lines: Of the method's file.
        deployable: Whether its bundle runs on a robot.
        cheats: Whether it reads the target's truth.
    """

    name: str
    cells: dict[str, tuple[float, Interval]]
    mean: float
    interval: Interval
    worst: float
    seeds: int
    minutes: float | None
    lines: int | None
    deployable: bool
    cheats: bool


def summarise(lines: Sequence[Line]) -> list[Summary]:
    """Make the rows of one task's lines, in the order in which they come; those that cheat last."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line["method"] + (" off" if line["off"] else ""), []).append(line)
    return sorted((_summary(name, group) for name, group in groups.items()), key=lambda summary: summary.cheats)


def _summary(name: str, lines: Sequence[Line]) -> Summary:
    conditions = dict.fromkeys(line["condition"] for line in lines)
    seeds = sorted({line["seed"] for line in lines})
    cells = {}
    for condition in conditions:
        here = [line for line in lines if line["condition"] == condition]
        cells[condition] = (_mean(here), _wilson(here))
    places = dict.fromkeys((line["variant"], line["condition"]) for line in lines)
    of_places = [_mean([x for x in lines if (x["variant"], x["condition"]) == place]) for place in places]
    low, high = bootstrap([_mean([x for x in lines if x["seed"] == seed]) for seed in seeds])
    all_low, all_high = _wilson(lines)
    times = [line["wall_s"] / 60 for line in lines if line["wall_s"] is not None]
    return Summary(
        name,
        cells,
        _mean(lines),
        (min(low, all_low), max(high, all_high)),
        min(of_places),
        len(seeds),
        float(np.mean(times)) if times else None,
        lines[0]["lines"],
        lines[0]["deployable"],
        lines[0]["cheats"],
    )


def _mean(lines: Sequence[Line]) -> float:
    return float(np.average([line["value"] for line in lines], weights=[line["n"] for line in lines]))


def _wilson(lines: Sequence[Line]) -> Interval:
    return wilson(round(sum(line["value"] * line["n"] for line in lines)), sum(line["n"] for line in lines))


def fraction_of_gap(rows: Sequence[Summary], row: Summary) -> float | None:
    """Fraction of the gap between none and oracle that a row closes; None without them, or where the gap is small."""
    means = {other.name: other.mean for other in rows}
    if not {NONE, ORACLE} <= set(means) or means[ORACLE] - means[NONE] < SMALLEST_GAP:
        return None
    return (row.mean - means[NONE]) / (means[ORACLE] - means[NONE])


def remark(rows: Sequence[Summary], row: Summary) -> str:
    """Say what a reader must know about a row: no effect shown, or that it reads the truth."""
    if row.cheats:
        return "reads the target's truth"
    off = next((other for other in rows if other.name == f"{row.name} off"), None)
    if off is not None and row.interval[0] <= off.mean <= row.interval[1]:
        return "no effect shown"
    return "" if row.deployable else "runs in process only"


def table_rows(rows: Sequence[Summary]) -> tuple[list[str], list[list[str]]]:
    """Headings and texts of the table."""
    conditions = list(dict.fromkeys(condition for row in rows for condition in row.cells))
    gap = any(fraction_of_gap(rows, row) is not None for row in rows)
    heads = ["method", "seeds", *(c.replace("_", " ") for c in conditions), "mean [95 %]", "worst cell"]
    heads += [*(["of the gap"] if gap else []), "min a training", "lines", "deployable", ""]
    texts = []
    for row in rows:
        cells = [_cell(*row.cells[c]) if c in row.cells else "" for c in conditions]
        closed = fraction_of_gap(rows, row)
        text = [row.name, str(row.seeds), *cells, _cell(row.mean, row.interval), f"{row.worst:.0%}"]
        text += [f"{closed:.0%}" if closed is not None else ""] if gap else []
        text += [f"{row.minutes:.1f}" if row.minutes is not None else "", "" if row.lines is None else str(row.lines)]
        texts.append([*text, "yes" if row.deployable else "no", remark(rows, row)])
    return heads, texts


def _cell(value: float, interval: Interval) -> str:
    return f"{100 * value:.1f} % [{100 * interval[0]:.0f}–{100 * interval[1]:.0f}]"


def rich_table(rows: Sequence[Summary], title: str) -> Table:
    """The table for a terminal; rows that read the target's truth come after a line."""
    heads, texts = table_rows(rows)
    table = Table(*heads, title=title)
    for index, (row, text) in enumerate(zip(rows, texts, strict=True)):
        if row.cheats and index and not rows[index - 1].cheats:
            table.add_section()
        table.add_row(*text)
    return table


def markdown(rows: Sequence[Summary], title: str) -> str:
    """The table as Markdown."""
    heads, texts = table_rows(rows)
    lines = [f"## {title}", "", _row(heads), _row(["---"] * len(heads)), *(_row(text) for text in texts), ""]
    if fraction_of_gap(rows, rows[0]) is None:
        lines.append(f"No fraction of a gap: it needs the rows {NONE} and {ORACLE}, at least {SMALLEST_GAP:.0%} apart.")
    return "\n".join(lines).rstrip() + "\n"


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
