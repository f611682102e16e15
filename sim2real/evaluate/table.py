"""The table: policy × variant × condition, in process or over ROS 2."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sim2real.deploy.middleware import check_middleware
from sim2real.errors import ConfigError
from sim2real.evaluate.episodes import SETTLE_S, CellResult, Runner, run
from sim2real.learn.experiment import bundle_experiment
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.perception import Locator, PerceptionBundle
from sim2real.targets.base import Sighted, Target, target_for
from sim2real.tasks.expert import expert_runner
from sim2real.types import Progress

CONTROLLER = "controller"
# policy → variant → condition → cell
Results = dict[str, dict[str, dict[str, dict[str, Any]]]]


def target_of(bundles: Mapping[str, Path], name: str = "") -> Target:
    """Make the target that these bundles are for; ``name`` chooses another one, as ``target_for`` takes it.

    Raises:
        ConfigError: They are for different robots or tasks, or there is no target for theirs.
    """
    loaded = [PolicyBundle.load(path) for path in bundles.values()]
    kinds = {(bundle.spec.robot, bundle.spec.task) for bundle in loaded}
    if len(kinds) != 1:
        raise ConfigError(f"these bundles are for different robots or tasks: {sorted(kinds)}; evaluate them apart")
    case = bundle_experiment(loaded[0])
    return target_for(case.robot, case.task, name)


def evaluate_in_process(
    bundles: Mapping[str, Path],
    episodes: int,
    seed: int,
    on_progress: Progress,
    processes: int = 2,
    perception: Path | None = None,
    conditions: Sequence[str] = (),
    target: str = "",
    seconds: float | None = None,
    goal_s: float = math.inf,
    controller: bool = False,
) -> Results:
    """Run every bundle in every cell of its target, in worker processes.

    Args:
        bundles: Bundle paths by policy name.
        episodes: Episodes a cell.
        seed: Every policy meets the same starts, trims and noise.
        on_progress: Called after each cell.
        processes: Worker processes.
        perception: Bundle of a network that finds the object in the target's images, in place of its true position.
        conditions: Some of the target's; all by default.
        target: A key of ``TARGETS`` or ``module:Class``; the robot's own by default.
        seconds: Length of the episodes; the task's by default.
        goal_s: Give a new goal every so often.
        controller: Also run the task's own controller, as policy ``controller``.

    Raises:
        ConfigError: The target has no such condition, or the task has no controller.
    """
    judge = target_of(bundles, target)
    if unknown := sorted(set(conditions) - set(judge.conditions())):
        raise ConfigError(f"the target has no conditions {unknown}; it has {', '.join(judge.conditions())}")
    chosen = tuple(conditions) or judge.conditions()
    policies = {**bundles, **({CONTROLLER: next(iter(bundles.values()))} if controller else {})}
    jobs = [(p, v, c) for p in policies for v in judge.variants for c in chosen]
    results: Results = {p: {v: {c: {} for c in chosen} for v in judge.variants} for p in policies}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        cells = {
            pool.submit(
                _cell, policies[p], v, c, episodes, seed, perception, target, seconds, goal_s, p == CONTROLLER
            ): (p, v, c)
            for p, v, c in jobs
        }
        for done, future in enumerate(as_completed(cells), 1):
            policy, variant, condition = cells[future]
            results[policy][variant][condition] = future.result()
            on_progress("episodes in process", done, len(jobs), {})
    return results


def _cell(
    path: Path,
    variant: str,
    condition: str,
    episodes: int,
    seed: int,
    perception: Path | None,
    target: str,
    seconds: float | None,
    goal_s: float,
    controller: bool,
) -> Any:
    locator = None if perception is None else PerceptionBundle.load(perception).locator()
    bundle = PolicyBundle.load(path)
    cell = run_cell(bundle, variant, condition, episodes, seed, False, locator, target, seconds, goal_s, controller)
    return cell.summary()


def run_cell(
    bundle: PolicyBundle,
    variant: str,
    condition: str,
    episodes: int,
    seed: int,
    record: bool = False,
    locator: Locator | None = None,
    target: str = "",
    seconds: float | None = None,
    goal_s: float = math.inf,
    controller: bool = False,
) -> CellResult:
    """Run a bundle on one variant of its target under one condition, in process.

    Args:
        bundle: The policy.
        variant: One of the target's.
        condition: One of the target's.
        episodes: Number of episodes, side by side.
        seed: Of starts, goals and noise.
        record: Keep the distances over time.
        locator: Finds the object in the target's images, in place of its true position.
        target: A key of ``TARGETS`` or ``module:Class``; the robot's own by default.
        seconds: Length of the episodes; the task's by default.
        goal_s: Give a new goal every so often.
        controller: Run the task's own controller in place of the policy.

    Raises:
        ConfigError: This target has no camera, or the task has no controller.
        SpecError: The task has no object to find.
    """
    case = bundle_experiment(bundle)
    judge = target_for(case.robot, case.task, target)
    if locator is not None:
        if not isinstance(judge, Sighted):
            raise ConfigError(f"target '{judge.name}' has no camera; leave --perception out")
        judge.look_through(locator)
    make: Callable[[int], Runner] = bundle.runner
    if controller:
        make = partial(expert_runner, bundle.spec, case.task)
    return run(make, case, judge, variant, condition, episodes, seed, record, seconds, goal_s)


def evaluate_over_ros2(
    bundles: Mapping[str, Path],
    episodes: int,
    seed: int,
    on_progress: Progress,
    real_time: bool = False,
    seconds: float | None = None,
) -> Results:
    """Run every bundle over real ROS 2 topics, all variants of the target at the same time.

    Args:
        bundles: Bundle paths by policy name.
        episodes: Episodes a cell.
        seed: Of the first episode's start and noise; each episode has the next seed.
        on_progress: Called after each episode.
        real_time: Run on the wall clock, in place of lockstep in simulated time.
        seconds: Length of the episodes; the task's by default.

    Raises:
        ConfigError: The middleware that ``RMW_IMPLEMENTATION`` asks for is missing.
        Sim2RealError: A node did not start or answer; or, in real time, over 1 % of all cycles were late.
    """
    check_middleware()
    from sim2real.evaluate.over_ros2 import run_fleet  # noqa: PLC0415 (in-process episodes need no rclpy)

    target = target_of(bundles)
    return run_fleet(
        bundles,
        target.variants,
        target.conditions(),
        episodes,
        seed,
        lambda d, n: on_progress("episodes over ROS 2", d, n, {}),
        real_time,
        seconds,
    )


def mean_success(variants: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float:
    """Average success over all cells of one policy."""
    return float(np.mean([cell["success"] for cells in variants.values() for cell in cells.values()]))


def mean_within(variants: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float:
    """Average fraction of time within tolerance over all cells of one policy, in episodes long enough for it."""
    return float(np.mean([cell["within"] for cells in variants.values() for cell in cells.values()]))


def worst_success(variants: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float:
    """Success in the worst cell of one policy."""
    return min(float(cell["success"]) for cells in variants.values() for cell in cells.values())


def print_table(console: Console, results: Results, where: str) -> None:
    """Print the table: success, 95 % interval, median final error, crashes."""
    names = list(next(iter(next(iter(results.values())).values())))
    table = Table("policy", "robot", *[c.replace("_", " ") for c in names], title=where)
    for policy, variants in results.items():
        for variant, cells in variants.items():
            table.add_row(policy, variant, *[_cell_text(cells[condition]) for condition in names])
        table.add_row(
            f"[bold]{policy}",
            "[bold]mean / worst",
            f"[bold]{mean_success(variants):.0%} / {worst_success(variants):.0%}",
        )
        table.add_section()
    console.print(table)
    every = [cell for of_policy in results.values() for each in of_policy.values() for cell in each.values()]
    if any("late_policy" in cell for cell in every):
        late = [max(cell.get(name, 0.0) for cell in every) for name in ("late_policy", "late_target")]
        console.print(f"late cycles in real time: policy nodes {late[0]:.2%}, targets {late[1]:.2%}", style="dim")
    console.print(
        "success at the end [95 % interval], median distance in the last second, crashes if any; in long episodes the "
        f"fraction of time within tolerance, from {SETTLE_S:.0f} s after each goal on",
        style="dim",
    )


def _cell_text(cell: Mapping[str, Any]) -> str:
    low, high = cell["ci95"]
    crashes = f" {cell['crashes']} crashed" if cell["crashes"] else ""
    within = f" within {cell['within']:.1%}" if cell.get("within") is not None else ""
    return f"{cell['success']:.0%} [{low:.0%}–{high:.0%}] {cell['final_error_m']:.3f} m{crashes}{within}"
