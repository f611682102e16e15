"""The table: policy × airframe × condition, in process or over ROS 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sim2real.config import validate_config
from sim2real.errors import ConfigError
from sim2real.evaluate import arm_in_process
from sim2real.evaluate.in_process import CellResult, fly
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.perception import Locator, PerceptionBundle
from sim2real.targets.drone import AIRFRAMES, CONDITIONS
from sim2real.types import Progress

# policy → airframe → condition → cell
Results = dict[str, dict[str, dict[str, dict[str, Any]]]]


@dataclass(frozen=True)
class Target:
    """What stands in for a robot: its variants, and the conditions each is tried under."""

    airframes: tuple[str, ...]
    conditions: tuple[str, ...]


def target_of(bundles: Mapping[str, Path]) -> Target:
    """The target that these bundles are for.

    Raises:
        ConfigError: They are for different robots or tasks, or there is no target for theirs.
    """
    kinds = {(bundle.spec.robot, bundle.spec.task) for bundle in map(PolicyBundle.load, bundles.values())}
    if len(kinds) != 1:
        raise ConfigError(f"these bundles are for different robots or tasks: {sorted(kinds)}; evaluate them apart")
    robot, task = kinds.pop()
    if robot == "crazyflie":
        return Target(tuple(AIRFRAMES), tuple(CONDITIONS))
    if robot == arm_in_process.AIRFRAME:
        return Target((robot,), arm_in_process.conditions(task))
    raise ConfigError(f"there is no target for robot '{robot}' yet; there are targets for crazyflie and so101")


def fly_in_process(
    bundles: Mapping[str, Path],
    episodes: int,
    seed: int,
    on_progress: Progress,
    processes: int = 2,
    perception: Path | None = None,
    conditions: Sequence[str] = (),
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

    Raises:
        ConfigError: The target has no such condition.
    """
    target = target_of(bundles)
    if unknown := sorted(set(conditions) - set(target.conditions)):
        raise ConfigError(f"the target has no conditions {unknown}; it has {', '.join(target.conditions)}")
    target = replace(target, conditions=tuple(conditions) or target.conditions)
    jobs = [(p, a, c) for p in bundles for a in target.airframes for c in target.conditions]
    results: Results = {p: {a: {c: {} for c in target.conditions} for a in target.airframes} for p in bundles}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_fly_cell, bundles[p], a, c, episodes, seed, perception): (p, a, c) for p, a, c in jobs}
        for done, future in enumerate(as_completed(futures), 1):
            policy, airframe, condition = futures[future]
            results[policy][airframe][condition] = future.result()
            on_progress("episodes in process", done, len(jobs), {})
    return results


def _fly_cell(
    path: Path, airframe: str, condition: str, episodes: int, seed: int, perception: Path | None
) -> dict[str, Any]:
    locator = None if perception is None else PerceptionBundle.load(perception).locator()
    return run_cell(PolicyBundle.load(path), airframe, condition, episodes, seed, locator=locator).summary()


def run_cell(
    bundle: PolicyBundle,
    airframe: str,
    condition: str,
    episodes: int,
    seed: int,
    record: bool = False,
    locator: Locator | None = None,
) -> CellResult:
    """Run a bundle on one variant of its target under one condition, in process.

    Args:
        bundle: The policy.
        airframe: Variant of the target.
        condition: One of the target's.
        episodes: Number of episodes, side by side.
        seed: Of starts, goals and noise.
        record: Keep the distances over time.
        locator: Finds the object in the target's images, in place of its true position.

    Raises:
        ConfigError: This target has no camera.
    """
    if bundle.spec.robot == arm_in_process.AIRFRAME:
        config = validate_config(bundle.provenance["config"], f"{bundle.path}/provenance.json")
        return arm_in_process.work(bundle.runner, config, condition, episodes, seed, record, locator)
    if locator is not None:
        raise ConfigError(f"the target for '{bundle.spec.robot}' has no camera; leave --perception out")
    return fly(bundle.runner, airframe, condition, episodes, seed, record)


def fly_over_ros2(bundles: Mapping[str, Path], episodes: int, seed: int, on_progress: Progress) -> Results:
    """Run every bundle over real ROS 2 topics, in real time, all variants of the target at the same time."""
    from sim2real.evaluate.over_ros2 import fly_fleet  # noqa: PLC0415 (in-process episodes need no rclpy)

    target = target_of(bundles)
    return fly_fleet(
        bundles,
        target.airframes,
        target.conditions,
        episodes,
        seed,
        lambda d, n: on_progress("episodes over ROS 2", d, n, {}),
    )


def mean_success(airframes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float:
    """Average success over all cells of one policy."""
    return float(np.mean([cell["success"] for cells in airframes.values() for cell in cells.values()]))


def worst_success(airframes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float:
    """Success in the worst cell of one policy."""
    return min(float(cell["success"]) for cells in airframes.values() for cell in cells.values())


def share_of_gap(results: Results, policy: str, oracle: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> float:
    """Share of the gap between the nominal policy and the oracle that ``policy`` closed."""
    nominal = mean_success(results["nominal"])
    return (mean_success(results[policy]) - nominal) / (mean_success(oracle) - nominal)


def print_table(console: Console, results: Results, where: str) -> None:
    """Print the table: success, 95 % interval, median final error, crashes."""
    names = list(next(iter(next(iter(results.values())).values())))
    table = Table("policy", "robot", *[c.replace("_", " ") for c in names], title=f"Target simulator, {where}")
    for policy, airframes in results.items():
        for airframe, cells in airframes.items():
            table.add_row(policy, airframe, *[_cell_text(cells[condition]) for condition in names])
        table.add_row(
            f"[bold]{policy}",
            "[bold]mean / worst",
            f"[bold]{mean_success(airframes):.0%} / {worst_success(airframes):.0%}",
        )
        table.add_section()
    console.print(table)
    console.print("success [95 % interval], median distance in the last second, crashes if any", style="dim")


def _cell_text(cell: Mapping[str, Any]) -> str:
    low, high = cell["ci95"]
    crashes = f" {cell['crashes']} crashed" if cell["crashes"] else ""
    return f"{cell['success']:.0%} [{low:.0%}–{high:.0%}] {cell['final_error_m']:.3f} m{crashes}"
