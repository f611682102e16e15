"""Display of a collection while it runs, and its result."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from sim2real.cli.console import console, save_json

if TYPE_CHECKING:
    from calibration.collect.collector import Collector


@contextmanager
def display(collector: Collector) -> Iterator[Callable[[], None]]:
    """A table that is kept up to date on a terminal, a line every five seconds elsewhere."""
    begin, printed = time.monotonic(), [time.monotonic()]
    before, rate = [time.monotonic(), collector.seen], [0.0]

    def table() -> Table:
        now = time.monotonic()
        if now - before[0] > 1.0:
            rate[0] = (collector.seen - before[1]) / (now - before[0])
            before[:] = [now, collector.seen]
        shown = Table(title=f"{collector.wanted.out}   {now - begin:.0f} s, {rate[0]:.1f} images/s")
        shown.add_column("images")
        shown.add_column("", justify="right")
        shown.add_row("came", str(collector.seen))
        for reason, number in list(collector.drops.most_common()):
            shown.add_row(f"[yellow]{escape(reason)}", str(number))
        goal = f" (of which {collector.wanted.count} will stay)" if collector.wanted.count else ""
        shown.add_row(f"[green]candidates{goal}", str(collector.kept))
        if collector.missing:
            shown.add_row("[red]lost on the way here", str(collector.missing))
        return shown

    if console.is_terminal:
        with Live(table(), console=console, refresh_per_second=5) as screen:
            yield lambda: screen.update(table())
        return

    def line() -> None:
        if time.monotonic() - printed[0] > 5.0:
            printed[0] = time.monotonic()
            console.print(f"{printed[0] - begin:.0f} s: {collector.seen} images, {collector.kept} candidates")

    yield line


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the recording, not the program: what was recorded is finished."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(collector: Collector, json_file: Path | None) -> None:
    """Choose the views, and print what became of the images."""
    from sim2real.images.dataset import read_dataset

    with console.status("choosing views"):
        out = collector.finish()
    dataset = read_dataset(out)
    figures = {
        "images_seen": collector.seen,
        "images_missing": collector.missing,
        "kept": len(dataset),
        "drops": dict(collector.drops.most_common()),
        "ignored": dict(collector.ignored.most_common()),
        "cover_radius": dataset.about.get("cover_radius"),
    }
    table = Table("", "images", title=str(out))
    table.add_row("came", str(collector.seen))
    for reason, number in collector.drops.most_common():
        table.add_row(f"  {escape(reason)}", str(number))
    table.add_row("[bold]kept", f"[bold]{len(dataset)}")
    console.print(table)
    if collector.missing:
        console.print(
            f"[yellow]By their stamps, {collector.missing} more images were lost on the way here. On one "
            "computer, FASTRTPS_DEFAULT_PROFILES_FILE=…/launch/fastdds_images.xml helps, set for both sides."
        )
    for problem, number in collector.ignored.most_common():
        console.print(f"[yellow]{number} times: {escape(problem)}")
    save_json(json_file, figures)
    console.print(f"Card: {out / 'README.md'}")
