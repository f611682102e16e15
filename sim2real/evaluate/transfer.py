"""The transfer benchmark: methods × tasks, trained in simulation and tried on targets, as one table.

A row of the table is a method; every one is trained with the same seeds and meets the same episodes. Rows that read the
target's truth are set apart. Results are JSON lines, one a cell, and a cell that is there is not run again.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sim2real.config import ExperimentConfig, load_config
from sim2real.errors import ConfigError
from sim2real.evaluate import bench
from sim2real.evaluate.bench import Row
from sim2real.evaluate.oracle import train_oracle
from sim2real.evaluate.rows import Line, append_line, read_lines
from sim2real.files import write_text
from sim2real.learn.experiment import load_experiment
from sim2real.methods import load_method
from sim2real.provenance import made
from sim2real.types import Progress

RESULTS = Path("benchmarks/results/transfer.jsonl")
ALIASES = {"nominal": "none", "random_forces": "rfi"}
QUICK_ITERATIONS, QUICK_EPISODES = 0.35, 40
OFF = "_off"
ORACLE = "oracle"
_ONE = "task={name: hover}"
_ARM_IDENTIFY = "object_mass, object_friction, object_radius, table_height, "
_SERVO = "delay, shoulder_lift.no_load_speed, shoulder_lift.gravity_scale, elbow_flex.gravity_scale"


def _arm(config: str, task: str, identify: str) -> tuple[Row, ...]:
    """Rows of an arm's task, over its configuration."""
    memory = f"task={{name: {task}, history: 6}}"
    estimator = "rounds: 4, robots: 256, batches_per_round: 1500"
    return (
        Row("none", config, ("method=nominal", "randomize=[]")),
        Row("randomized", config),
        Row("rfi", config, ("method=random_forces", "randomize=[]")),
        Row("controller", config, runner="expert"),
        Row("history", config, (memory,)),
        Row("lstm", config, ("ppo.lstm=128",)),
        Row("up_osi", config, (f"method={{name: up_osi, identify: [{identify}], {estimator}}}",)),
        Row("epopt", config, ("method=epopt",)),
        Row("rma", config, (f"method={{name: rma, {estimator}}}",)),
        Row("adr", config, (memory, "method=adr")),
    )


# Task: its rows, in the order of the table.
TASKS: dict[str, tuple[Row, ...]] = {
    "hover": (
        Row("none", "nominal"),
        Row("randomized", "randomized", (_ONE,)),
        Row("rfi", "random_forces"),
        Row("controller", "randomized", runner="expert"),
        Row("history", "randomized"),
        Row("lstm", "randomized", (_ONE, "ppo.lstm=128")),
        Row("up_osi", "up_osi"),
        Row("epopt", "epopt"),
        Row("rma", "rma"),
        Row("adr", "adr"),
        Row(ORACLE, "nominal", ("sim.robots=256", "sim.workers=2", "ppo.iterations=800"), runner=ORACLE),
    ),
    "so101_push": _arm("so101_push", "push", _ARM_IDENTIFY + _SERVO),
    "so101_reach": _arm("so101_reach", "reach", _SERVO),
}
METHODS = tuple(row.name for row in TASKS["hover"])


@dataclass(frozen=True)
class Plan:
    """Everything that a run of the benchmark is asked for.

    Attributes:
        methods: Rows by name; all by default.
        tasks: Keys of ``TASKS``.
        seeds: Number of trainings of every row.
        episodes: Episodes a cell.
        off: Also run every method with its mechanism switched off.
        quick: One seed, fewer iterations and episodes: a look, not a result.
        processes: Worker processes of the episodes.
    """

    methods: tuple[str, ...] = METHODS
    tasks: tuple[str, ...] = ("hover",)
    seeds: int = 3
    episodes: int = 100
    off: bool = False
    quick: bool = False
    processes: int = 2

    @property
    def seed_range(self) -> range:
        """Seeds of the trainings."""
        return range(1 if self.quick else self.seeds)

    @property
    def count(self) -> int:
        """Episodes a cell."""
        return min(self.episodes, QUICK_EPISODES) if self.quick else self.episodes

    def rows(self, task: str) -> list[Row]:
        """Rows of a task, each followed by its switched-off one where that is asked for.

        Raises:
            ConfigError: There is no such task or method.
        """
        if task not in TASKS:
            raise ConfigError(f"there is no task '{task}' in this benchmark; there are {', '.join(TASKS)}")
        wanted = [ALIASES.get(name, name) for name in self.methods]
        if unknown := [name for name in wanted if name not in METHODS]:
            raise ConfigError(f"this benchmark has no methods {unknown}; it has {', '.join(METHODS)}")
        rows: list[Row] = []
        for row in (self._sized(row) for row in TASKS[task] if row.name in wanted):
            rows.append(row)
            rows += [off for off in (switched_off(row),) if off and self.off]
        return rows

    def _sized(self, row: Row) -> Row:
        if not self.quick or row.runner not in ("", ORACLE):
            return row
        iterations = load_config(row.config, row.settings).ppo.iterations
        fewer = f"ppo.iterations={max(1, round(QUICK_ITERATIONS * iterations))}"
        return replace(row, settings=(*row.settings, fewer))


def switched_off(row: Row) -> Row | None:
    """The row of the same method with its mechanism switched off; None where there is none."""
    if row.runner:
        return None
    config = load_config(row.config, row.settings)
    method = load_method(config.method)
    off = method.off()
    if off is method:
        return None
    settings = {"name": config.method["name"], **_settings_of(off)}
    like = "" if getattr(method, "off_trains", True) else row.name
    return Row(row.name + OFF, row.config, (*row.settings, f"method={json.dumps(settings)}"), like=like)


def _settings_of(method: Any) -> dict[str, Any]:
    settings: dict[str, Any] = method.settings.model_dump(mode="json")
    return settings


def run(plan: Plan, folder: Path, results: Path, on_progress: Progress) -> list[Line]:
    """Train and try what is planned; trainings and cells that are finished are not repeated.

    Args:
        plan: What to run.
        folder: Trainings go into ``folder / TASK``.
        results: JSON lines; lines of other runs stay.
        on_progress: Told what goes on.

    Returns:
        The lines of the plan's rows.

    Raises:
        Sim2RealError: A training was stopped; what was finished before is in the results.
    """
    every = {task: plan.rows(task) for task in plan.tasks}  # what is misspelt is said before hours of work
    for task, rows in every.items():
        honest = [row for row in rows if row.runner != ORACLE]
        try:
            bench.run(
                honest, folder / task, plan.seed_range, plan.count, processes=plan.processes, on_progress=on_progress
            )
            for row in rows:
                if row.runner == ORACLE:
                    _run_oracle(row, plan, folder / task, on_progress)
        finally:
            record(finished(plan, folder, task), results)
    return [line for task in plan.tasks for line in finished(plan, folder, task)]


def _run_oracle(row: Row, plan: Plan, place: Path, on_progress: Progress) -> None:
    """Train and try the oracle with every seed; what is finished is not repeated."""
    file = place / "results.jsonl"
    for seed in plan.seed_range:
        known = [(line["row"], tuple(line["settings"]), line["seed"], line["n"]) for line in read_lines(file)]
        if (row.name, row.settings, seed, plan.count) in known:
            continue
        config = load_config(row.config, [*row.settings, f"seed={seed}"])
        experiment, run_dir, began = load_experiment(config), place / f"{row.name}_{seed}", time.monotonic()
        oracle = train_oracle(experiment, config.ppo, run_dir, seed, config.sim.robots, on_progress)
        took = time.monotonic() - began
        write_text(run_dir / "history.json", json.dumps({"ppo": oracle.trainer.history}))
        where = {"row": row.name, "config": row.config, "settings": list(row.settings), "seed": seed, "target": ""}
        for (variant, condition), result in oracle.try_out(plan.count, bench.FIRST_SEED).items():
            cell = {"variant": variant, "condition": condition, **result.summary(), "training_s": took, "made": made()}
            append_line(file, {**where, **cell})


def finished(plan: Plan, folder: Path, task: str) -> list[Line]:
    """The lines of a task that are there already."""
    rows = {(row.name, row.settings): row for row in plan.rows(task)}
    order = list(rows)
    found = []
    for line in read_lines(folder / task / "results.jsonl"):
        key = (line["row"], tuple(line["settings"]))
        if key in rows and line["n"] == plan.count and line["seed"] in plan.seed_range:
            found.append((order.index(key), transfer_line(line, task, rows[key], folder / task)))
    return [line for _, line in sorted(found, key=lambda pair: pair[0])]


def transfer_line(line: Mapping[str, Any], task: str, row: Row, place: Path) -> Line:
    """A cell of the experiment runner as a line of this benchmark's results."""
    run_dir = place / f"{row.name}_{line['seed']}"
    config = load_config(row.config, row.settings)
    oracle = row.runner == ORACLE
    file = inspect.getsourcefile(train_oracle if oracle else type(load_method(config.method)))
    steps = _samples(run_dir)
    return {
        "method": row.name.removesuffix(OFF),
        "off": row.name.endswith(OFF),
        "settings": [f"config={row.config}", *row.settings],
        "task": task,
        "target": line["target"] or config.robot,
        "variant": line["variant"],
        "condition": line["condition"],
        "seed": line["seed"],
        "metric": "success",
        "value": line["success"],
        "ci95": line["ci95"],
        "n": line["n"],
        "target_episodes": round((steps or 0) / _episode_steps(config)) if oracle else 0,
        "env_steps": steps,
        "cpu_s": line.get("training_cpu_s"),
        "wall_s": line.get("training_s"),
        "lines": len(Path(file).read_text().splitlines()) if file and row.runner in ("", ORACLE) else None,
        "deployable": not row.runner,
        "cheats": oracle,
        "made": line["made"],
    }


def _episode_steps(config: ExperimentConfig) -> int:
    experiment = load_experiment(config)
    return round(experiment.task.episode_s * experiment.robot.spec.control_rate_hz)


def _samples(run_dir: Path) -> int | None:
    """Control steps of PPO's training; None where nothing was trained."""
    file = run_dir / "history.json"
    history = yaml.safe_load(file.read_text())["ppo"] if file.is_file() else []
    return int(history[-1]["samples"]) if history else None


def record(lines: Sequence[Line], file: Path) -> None:
    """Write lines beside those that are there; one of the same cell takes its place."""

    def key(line: Line) -> tuple[str, ...]:
        names = ("method", "off", "settings", "task", "target", "variant", "condition", "seed", "metric", "n")
        return tuple(str(line[name]) for name in names)

    merged = {key(line): line for line in [*read_lines(file), *lines]}
    write_text(file, "".join(json.dumps(line) + "\n" for line in merged.values()))
