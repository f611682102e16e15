"""Rows of an experiment's results: JSON lines, intervals, and the fraction of a gap that a method closes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sim2real.errors import ConfigError

SMALLEST_GAP = 0.2  # in success; below it a task cannot tell methods apart
_BOOTSTRAPS = 10_000
Line = dict[str, Any]


def read_lines(file: Path) -> list[Line]:
    """Read result lines; a last line that an interruption cut off is left out.

    Raises:
        ConfigError: Another line is broken.
    """
    if not file.is_file():
        return []
    texts = file.read_text().splitlines()
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(dict(json.loads(text)))
        except (ValueError, TypeError) as error:
            if number == len(texts):
                break
            raise ConfigError(f"{file}, line {number} is broken ({error}); remove it, its cell runs again") from error
    return lines


def append_line(file: Path, line: Mapping[str, Any]) -> None:
    """Write one more line at once; what an interruption cut off before is replaced."""
    lines = [*read_lines(file), dict(line)]
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    temporary.replace(file)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over seeds, by resampling them (Efron 1979); the value itself for one seed."""
    array = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(0).integers(0, len(array), (_BOOTSTRAPS, len(array)))
    low, high = np.percentile(array[picks].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def seed_means(lines: Sequence[Line], row: str) -> list[float]:
    """Mean success over all cells of a row, one number a seed."""
    seeds = sorted({line["seed"] for line in lines if line["row"] == row})
    of = {seed: [x["success"] for x in lines if x["row"] == row and x["seed"] == seed] for seed in seeds}
    return [float(np.mean(cells)) for cells in of.values()]


def fraction_of_gap(lines: Sequence[Line], row: str, none: str, oracle: str) -> float | None:
    """Fraction of the gap between ``none`` and ``oracle`` that ``row`` closes; None where there is hardly a gap."""
    low, here, high = (seed_means(lines, name) for name in (none, row, oracle))
    if not (low and here and high) or np.mean(high) - np.mean(low) < SMALLEST_GAP:
        return None
    return float((np.mean(here) - np.mean(low)) / (np.mean(high) - np.mean(low)))


def _mean_success(lines: Sequence[Line], row: str, variant: str, condition: str) -> str:
    cell = (row, variant, condition)
    found = [line["success"] for line in lines if (line["row"], line["variant"], line["condition"]) == cell]
    return f"{np.mean(found):.0%}" if found else ""


def table_of(lines: Sequence[Line], title: str, none: str = "", oracle: str = "") -> Table:
    """Make the table: rows, success in every variant and condition over seeds, mean with interval, fraction of gap."""
    variants, conditions = (list(dict.fromkeys(line[key] for line in lines)) for key in ("variant", "condition"))
    gap = [f"of the gap {none} to {oracle}"] if none and oracle else []
    table = Table("row", "seeds", "variant", *conditions, "mean [95 %]", *gap, title=title)
    for row in dict.fromkeys(line["row"] for line in lines):
        means = seed_means(lines, row)
        for variant in variants:
            cells = [_mean_success(lines, row, variant, condition) for condition in conditions]
            if variant != variants[-1]:
                table.add_row(row, str(len(means)), variant, *cells)
        low, high = bootstrap(means)
        closed = fraction_of_gap(lines, row, none, oracle) if gap else None
        last = [f"{closed:.0%}" if closed is not None else "no gap"] if gap else []
        table.add_row(row, str(len(means)), variants[-1], *cells, f"{np.mean(means):.1%} [{low:.0%}–{high:.0%}]", *last)
    return table
