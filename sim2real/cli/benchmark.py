"""Commands that compare: benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim2real.cli.console import console, progress_bars, stage_reporter
from sim2real.errors import ConfigError, Sim2RealError
from sim2real.files import write_text
from sim2real.interrupts import terminable

app = typer.Typer(no_args_is_help=True, help="Compare methods on targets that no training saw.")


@app.callback()
def _benchmarks() -> None:
    """Compare methods on targets that no training saw."""


@app.command()
def transfer(
    names: Annotated[
        list[str] | None, typer.Argument(help="More methods and tasks, as in --methods none rfi --tasks hover.")
    ] = None,
    methods: Annotated[list[str] | None, typer.Option("--methods", help="A row; repeatable. All by default.")] = None,
    tasks: Annotated[list[str] | None, typer.Option("--tasks", help="hover, so101_push or so101_reach.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of every row.")] = 3,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes a cell.")] = 100,
    off: Annotated[bool, typer.Option("--off", help="Also every method with its mechanism switched off.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, a third of the training, 40 episodes.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the last call stopped, as every call does.")
    ] = True,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run episodes.")] = 2,
    run: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("runs/transfer"),
    results: Annotated[Path, typer.Option(help="JSON lines of the results.")] = Path(
        "benchmarks/results/transfer.jsonl"
    ),
) -> None:
    """Train methods in simulation and try them on a target, as one table with intervals."""
    from sim2real.evaluate import transfer as benchmark
    from sim2real.evaluate.transfer_table import markdown, rich_table, summarise

    more = [name for name in names or () if name in benchmark.TASKS]
    chosen = (*(tasks or ()), *more) or ("hover",)
    rows_of = (*(methods or ()), *(name for name in names or () if name not in more)) or benchmark.METHODS
    plan = benchmark.Plan(rows_of, chosen, seeds, episodes, off, quick, workers)
    stopped: BaseException | None = None
    with progress_bars() as progress, terminable():
        try:
            benchmark.run(plan, run, results, stage_reporter(progress))
        except (Sim2RealError, KeyboardInterrupt) as error:
            stopped = error
    text = ""
    for task in chosen if not isinstance(stopped, ConfigError) else ():
        if lines := benchmark.finished(plan, run, task):
            rows = summarise(lines)
            title = f"Transfer: {task}, target simulator{', quick' if quick else ''}"
            console.print(rich_table(rows, title))
            text += markdown(rows, title) + "\n"
    if text:
        write_text(run / "transfer.md", text.rstrip() + "\n")
        console.print(f"Lines: {results}\nTable: {run / 'transfer.md'}")
    if isinstance(stopped, KeyboardInterrupt):
        console.print("Stopped; what was finished is kept. Run the same command again to go on.")
        raise typer.Exit(130)
    if stopped is not None:
        raise stopped
