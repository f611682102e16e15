"""The experiment runner: rows × seeds × variants × conditions, trained and tried on a target, resumable.

A run is a folder with a training for each row and seed, and ``results.jsonl`` with a line for each finished cell. What
is finished is never repeated. A benchmark is a short table of rows over :func:`run`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import cast

from rich.console import Console

from sim2real.config import load_config
from sim2real.errors import Sim2RealError
from sim2real.evaluate.episodes import CellResult, Runner
from sim2real.evaluate.episodes import run as run_episodes
from sim2real.evaluate.rows import Line, append_line, read_lines, table_of
from sim2real.learn.experiment import Experiment, load_experiment
from sim2real.methods.train import train
from sim2real.provenance import made
from sim2real.registry import resolve
from sim2real.runtime.bundle import PolicyBundle
from sim2real.targets.base import target_for
from sim2real.tasks.expert import expert_runner
from sim2real.types import Progress

_TRAINED = ("checkpoint.pt", "estimator.pt", "estimator.json")  # of a run, without what says whose it is
FIRST_SEED = 12345  # of starts, goals and noise on the target: the same for every row
# bundle, variant, condition, count → runner: a row that stands on another row's bundle
MakeRunner = Callable[[PolicyBundle, str, str, int], Runner]


@dataclass(frozen=True)
class Row:
    """One row of an experiment.

    Attributes:
        name: In tables and results.
        config: A configuration's file or shipped name.
        settings: ``key=value`` over it, as of ``--set``.
        of: The row whose training this one uses, where it trains nothing itself.
        runner: ``expert`` for the task's scripted expert, or ``module:function`` (:data:`MakeRunner`) that makes a
            runner of the bundle of ``of``.
        like: The row before it whose finished training this one takes over under its own settings: of a method whose
            mechanism is switched off after the training.
    """

    name: str
    config: str
    settings: tuple[str, ...] = ()
    of: str = ""
    runner: str = ""
    like: str = ""


@dataclass(frozen=True)
class Cell:
    """The work of one process: a row and seed in one variant and condition of its target."""

    row: Row
    seed: int
    bundle: Path | None
    variant: str
    condition: str
    episodes: int
    target: str

    def key(self) -> tuple[str, tuple[str, ...], int, str, str, int]:
        """Everything that tells it from others in the results."""
        return self.row.name, self.row.settings, self.seed, self.variant, self.condition, self.episodes


def run(
    rows: Sequence[Row],
    folder: Path,
    seeds: Sequence[int] = (0,),
    episodes: int = 100,
    conditions: Sequence[str] = (),
    target: str = "",
    processes: int = 2,
    on_progress: Progress = lambda *_: None,
    results: Path | None = None,
) -> list[Line]:
    """Train and try every row with every seed; finished trainings and cells are not repeated.

    Args:
        rows: In the order in which they are trained.
        folder: Trainings go here.
        seeds: Of trainings.
        episodes: Episodes a cell.
        conditions: Some of the target's; all by default.
        target: A key of ``TARGETS`` or ``module:Class``; the robot's own by default.
        processes: Worker processes of the cells; trainings run one at a time, with workers of their own.
        on_progress: Told what goes on.
        results: JSON lines; ``folder / "results.jsonl"`` by default.

    Returns:
        All lines of the results.

    Raises:
        Sim2RealError: A training was stopped; the same call goes on.
    """
    file = results or folder / "results.jsonl"
    for row in rows:
        for seed in seeds if row.runner != "expert" else seeds[:1]:
            trained = next((r for r in rows if r.name == row.of), row)
            bundle = None if row.runner == "expert" else _train(trained, seed, folder, on_progress)
            _try(row, seed, bundle, file, episodes, conditions, target, processes, on_progress)
    return read_lines(file)


def _train(row: Row, seed: int, folder: Path, on_progress: Progress) -> Path:
    place = folder / "_".join([row.name, str(seed)])
    bundle = place / "bundle"
    if (bundle / "manifest.json").is_file():
        return bundle
    config = load_config(row.config, [*row.settings, f"seed={seed}"])
    if row.like and not (place / "checkpoint.pt").is_file():
        for name in _TRAINED:
            if (source := folder / f"{row.like}_{seed}" / name).is_file():
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, place / name)
    began, cpu = time.monotonic(), _cpu_s()

    def tell(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        on_progress(f"{row.name}, seed {seed}: {stage}", done, total, metrics)

    if train(config, place, tell) is None:
        raise Sim2RealError(f"training '{row.name}' was stopped; its checkpoint is in {place}, run the same again")
    (place / "seconds.txt").write_text(f"{time.monotonic() - began:.0f}\n")
    (place / "cpu_seconds.txt").write_text(f"{_cpu_s() - cpu:.0f}\n")
    return bundle


def _cpu_s() -> float:
    """CPU time of this process and of those it has waited for, s."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _try(
    row: Row,
    seed: int,
    bundle: Path | None,
    file: Path,
    episodes: int,
    conditions: Sequence[str],
    target: str,
    processes: int,
    on_progress: Progress,
) -> None:
    experiment = load_experiment(load_config(row.config, list(row.settings)))
    judge = target_for(experiment.robot, experiment.task, target)
    chosen = [c for c in judge.conditions() if not conditions or c in conditions]
    cells = [Cell(row, seed, bundle, v, c, episodes, target) for v in judge.variants for c in chosen]
    known = {
        (x["row"], tuple(x["settings"]), x["seed"], x["variant"], x["condition"], x["n"]) for x in read_lines(file)
    }
    waiting = [cell for cell in cells if cell.key() not in known]
    if not waiting:
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_cell, cell): cell for cell in waiting}
        for done, future in enumerate(as_completed(futures), 1):
            append_line(file, _line(futures[future], future.result()))
            on_progress(f"{row.name}, seed {seed}: episodes", done, len(waiting), {})


def _line(cell: Cell, result: CellResult) -> Line:
    where = {"row": cell.row.name, "config": cell.row.config, "settings": list(cell.row.settings), "seed": cell.seed}
    took = {
        name: float(file.read_text()) if (file := cell.bundle.parent / f"{stem}.txt").is_file() else None
        for name, stem in (("training_s", "seconds"), ("training_cpu_s", "cpu_seconds"))
        if cell.bundle
    }
    place = {"target": cell.target, "variant": cell.variant, "condition": cell.condition}
    return {**where, **place, **result.summary(), **took, "made": made()}


def run_cell(cell: Cell) -> CellResult:
    """Run one cell in this process."""
    if cell.bundle is None:
        experiment = load_experiment(load_config(cell.row.config, list(cell.row.settings)))
        return _episodes(cell, experiment, lambda n: expert_runner(experiment.spec(), experiment.task, n))
    bundle = PolicyBundle.load(cell.bundle)
    experiment = load_experiment(load_config(cell.row.config, list(cell.row.settings)))
    if not cell.row.runner:
        return _episodes(cell, experiment, bundle.runner)
    make = cast(MakeRunner, resolve(cell.row.runner, {}, "runner"))
    return _episodes(cell, experiment, lambda n: make(bundle, cell.variant, cell.condition, n))


def _episodes(cell: Cell, experiment: Experiment, make_runner: Callable[[int], Runner]) -> CellResult:
    target = target_for(experiment.robot, experiment.task, cell.target)
    return run_episodes(make_runner, experiment, target, cell.variant, cell.condition, cell.episodes, FIRST_SEED)


def main(rows: Sequence[Row], about: str, results: Path, none: str = "", oracle: str = "") -> None:
    """Run a benchmark from the command line: the whole of a benchmark's script but its rows.

    Args:
        rows: The table.
        about: Its description, for ``--help``.
        results: Where its lines are recorded by default.
        none: Row without the method, where the gap begins.
        oracle: Row where the gap ends.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trainings go; finished ones are not repeated")
    parser.add_argument("--episodes", type=int, default=100, help="episodes a cell")
    parser.add_argument("--only", nargs="*", choices=[row.name for row in rows], help="these rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--conditions", nargs="*", default=[])
    parser.add_argument("--json", type=Path, default=results, help="JSON lines of the results")
    arguments = parser.parse_args()
    console = Console()
    chosen = [row for row in rows if arguments.only is None or row.name in arguments.only]

    def tell(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        shown = f", success {metrics['success']:.0%}" if "success" in metrics else ""
        console.print(f"{stage} {done}/{total}{shown}", highlight=False)

    lines = run(
        chosen, arguments.folder, arguments.seeds, arguments.episodes, arguments.conditions, on_progress=tell,
        results=arguments.json,
    )  # fmt: skip
    console.print(table_of(lines, about.partition("\n")[0], none, oracle))
