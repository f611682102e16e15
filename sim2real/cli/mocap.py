"""Options and table of ``sim2real replay --mocap``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sim2real.cli.console import console
from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.recordings.mocap import Mocap


@dataclass(frozen=True)
class MocapFiles:
    """Options as they were given."""

    files: tuple[Path, ...]
    topic: str | None

    def read(self, recordings: Sequence[str]) -> list[Mocap]:
        """Motion capture of every recording: by the file's name, else in their order; none where none was given.

        Raises:
            ConfigError: There are more or fewer files than recordings.
        """
        from sim2real.recordings.mocap import read_mocap

        if self.files and len(self.files) != len(recordings):
            raise ConfigError(
                f"{len(self.files)} files of motion capture are given for {len(recordings)} recordings "
                f"({', '.join(recordings)}); give one --mocap for each, in their order"
            )
        named = {file.stem: file for file in self.files}
        same = len(named) == len(recordings) and set(named) == set(recordings)
        return [read_mocap(file, self.topic) for file in ([named[name] for name in recordings] if same else self.files)]


def mocap_of(
    mocap: Annotated[
        list[Path] | None,
        typer.Option(help="Motion capture of the end effector (.csv, .npz, bag); one for each recording; arms only."),
    ] = None,
    mocap_topic: Annotated[str | None, typer.Option(help="Its topic in bags with several bodies.")] = None,
) -> MocapFiles:
    """Make one value of the options."""
    return MocapFiles(tuple(mocap or ()), mocap_topic)


def show_gap(gap: dict[str, Any]) -> None:
    """Print the gap of the end effector, of encoders and of simulation."""
    title = "End effector against motion capture, half of a recording that fitted nothing: median, 95 % quantile"
    table = Table("recording", "encoders", "simulated", "added by simulation", "clock [s]", "not seen", title=title)
    for name, row in (*gap["per_motion"].items(), ("[bold]all", gap)):
        cells = []
        for part in ("encoders", "simulated", "added"):
            cell = f"{row[part]['median_mm']:.1f}, {row[part]['p95_mm']:.1f} mm"
            if "median_deg" in row[part]:
                cell += f"\n{row[part]['median_deg']:.2f}, {row[part]['p95_deg']:.2f}°"
            cells.append(cell)
        extra = (f"{row['time_offset_s']:+.3f}", f"{row['lost']:.1%}") if "lost" in row else ("", "")
        table.add_row(name, *cells, *extra)
    console.print(table)
