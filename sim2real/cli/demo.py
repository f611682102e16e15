"""The main job, end to end: ``sim2real demo``."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

import torch
import yaml
from rich.console import Console

from sim2real.cli.console import progress_bars, save_json, stage_reporter
from sim2real.config import load_config, validate_config
from sim2real.deploy.middleware import check_middleware
from sim2real.deploy.ros_package import export_ros_package
from sim2real.errors import Sim2RealError
from sim2real.evaluate.report import TABLES, Report, animate, write_report
from sim2real.evaluate.table import (
    evaluate_in_process,
    evaluate_over_ros2,
    mean_success,
    mean_within,
    print_table,
    run_cell,
    target_of,
    worst_success,
)
from sim2real.interrupts import shielded, terminable
from sim2real.learn.experiment import load_experiment
from sim2real.learn.ppo import seed_of
from sim2real.learn.simulated import run_simulated
from sim2real.methods.train import train
from sim2real.provenance import commit
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.tasks.success import criterion


@dataclass(frozen=True)
class Plan:
    """A demo: what is trained, and what is shown of it.

    Attributes:
        trainings: Policy → shipped configuration and settings; trained in rounds, a round at the same time.
        rounds: Names of policies.
        best: The policy that is exported and looked at closely.
        over_ros2: Policies that also run over ROS 2, ``ros2_episodes`` a cell.
        package: Name of the ROS 2 package.
        title: Of the report.
        shown: Variant and condition of the target whose episodes are drawn.
        long: Long episodes of the best policy: name of their results, seconds, episodes a cell, and whether under all
            conditions or the first one only.
    """

    trainings: Mapping[str, tuple[str, tuple[str, ...]]]
    rounds: tuple[tuple[str, ...], ...]
    best: str
    over_ros2: tuple[str, ...]
    ros2_episodes: int
    package: str
    title: str
    shown: tuple[str, str]
    long: tuple[tuple[str, float, int, bool], ...]


DRONE = Plan(
    trainings={name: (name, ()) for name in ("nominal", "randomized", "up_osi")},
    rounds=(("nominal", "randomized"), ("up_osi",)),
    best="up_osi",
    over_ros2=("nominal", "up_osi"),
    ros2_episodes=2,
    package="crazyflie_hover",
    title="Crazyflie hover: trained in PyBullet, flown on airframes never seen",
    shown=("cf2x_T350", "payload"),
    long=(("minute", 60.0, 10, True), ("ten_minutes", 600.0, 2, False)),
)
_SHORT = ("ppo.iterations=30", "sim.workers=1", "sim.robots=192")
ARM = Plan(
    trainings={
        "nominal": ("so101_push", ("method=nominal", "randomize=[]", *_SHORT)),
        "randomized": ("so101_push", _SHORT),
    },
    rounds=(("nominal", "randomized"),),
    best="randomized",
    over_ros2=("randomized",),
    ros2_episodes=2,
    package="so101_push",
    title="SO-101 pushing: trained in PyBullet, tried on an arm and objects never seen",
    shown=("so101", "heavy"),
    long=(("minute", 60.0, 4, False),),
)


def run_demo(console: Console, plan: Plan, run_dir: Path, episodes: int, ros2: bool, overrides: Sequence[str]) -> None:
    """Train a plan's policies, export them, try them on their target, write results and report.

    Args:
        console: Where progress and table go.
        plan: What is trained and shown.
        run_dir: Folder of everything; finished trainings in it are not repeated.
        episodes: In-process episodes a cell.
        ros2: Also fly over ROS 2.
        overrides: ``key=value`` settings for all trainings.

    Raises:
        Sim2RealError: A training stopped early or failed.
    """
    if ros2:
        check_middleware()  # before minutes of training
    started = time.monotonic()
    durations: dict[str, float] = {}

    def lap(name: str) -> None:
        durations[name] = time.monotonic() - started - sum(durations.values())

    console.rule("[bold]1  train in PyBullet")
    for names in plan.rounds:
        _train_all(console, plan, run_dir, names, overrides)
        lap(f"training {' and '.join(names)}")

    console.rule("[bold]2  export")
    bundles = {name: run_dir / name / "bundle" for name in plan.trainings}
    for name, path in bundles.items():
        checked = verify(PolicyBundle.load(path))
        if not checked.ok:
            raise Sim2RealError(checked.message)
        console.print(f"{name}: {path}, golden trace replayed")
    package = export_ros_package(bundles[plan.best], run_dir / "ros2_ws" / "src", plan.package)
    console.print(f"ROS 2 package: {package}")

    console.rule("[bold]3  run on a target that no training saw")
    with progress_bars() as progress:
        report_stage = stage_reporter(progress)
        flown = evaluate_in_process(bundles, episodes, 0, report_stage, controller=True)
        results: dict[str, Any] = {"in_process": flown}
        lap("episodes in process")
        best = {plan.best: bundles[plan.best]}
        first = target_of(best).conditions()[:1]
        for name, seconds, count, every in plan.long:
            results[name] = evaluate_in_process(
                best,
                count,
                0,
                report_stage,
                conditions=() if every else first,
                seconds=seconds,
            )
            lap(f"episodes of {seconds:.0f} s")
        if ros2:
            chosen = {name: bundles[name] for name in plan.over_ros2}
            results["ros2"] = evaluate_over_ros2(chosen, plan.ros2_episodes, 0, report_stage)
            lap("episodes over ROS 2")
    for where, label in TABLES:
        if where in results:
            print_table(console, results[where], label)

    console.rule("[bold]4  report")
    page = _report(plan, run_dir, bundles, results, durations, episodes)
    results |= {"durations_s": durations, "commit": commit()}
    save_json(run_dir / "results.json", results)
    for sentence in verdict(plan, results):
        console.print(sentence)
    console.print(f"Report: {page}\nFigures: {run_dir / 'results.json'}")
    console.print(f"Took {(time.monotonic() - started) / 60:.1f} minutes.")


def verdict(plan: Plan, results: Mapping[str, Any]) -> list[str]:
    """The results in sentences: the best policy, what it is compared with, and how long it holds."""
    flown = results["in_process"]
    means = {name: mean_success(cells) for name, cells in flown.items()}
    others = ", ".join(f"{name} {mean:.0%}" for name, mean in means.items() if name != plan.best)
    sentences = [
        f"{plan.best} succeeds in {means[plan.best]:.1%} of its episodes, in its worst cell in "
        f"{worst_success(flown[plan.best]):.0%}; {others}."
    ]
    for name, seconds, _, _ in plan.long:
        long = results[name][plan.best]
        sentences.append(
            f"In episodes of {seconds:.0f} s {plan.best} is within tolerance for {mean_within(long):.1%} of the time."
        )
    return sentences


def _train_all(console: Console, plan: Plan, run_dir: Path, names: Sequence[str], overrides: Sequence[str]) -> None:
    context = get_context("spawn")
    queue = context.Queue()
    processes = {}
    threads = max(1, (os.cpu_count() or 1) // len(names))
    for name in names:
        if (run_dir / name / "bundle" / "manifest.json").is_file():
            console.print(f"{name}: trained already, in {run_dir / name}")
            continue
        config, settings = plan.trainings[name]
        processes[name] = context.Process(
            target=_train_one, args=(name, config, run_dir / name, [*settings, *overrides], queue, threads)
        )
    with progress_bars() as progress, terminable():
        reporters = {name: stage_reporter(progress, f"{name} ") for name in processes}
        with shielded():  # they are told to end below, once
            for process in processes.values():
                process.start()
        try:
            while any(process.is_alive() for process in processes.values()) or not queue.empty():
                try:
                    name, *event = queue.get(timeout=0.2)
                except Empty:
                    continue
                reporters[name](*event)
        except BaseException:
            for process in processes.values():
                process.terminate()
            raise
        finally:
            for process in processes.values():
                process.join(timeout=20)
    for name, process in processes.items():
        if process.exitcode != 0:
            raise Sim2RealError(
                f"training '{name}' did not finish (exit code {process.exitcode}); its checkpoint is in "
                f"{run_dir / name}, run the same command again to go on"
            )


def _train_one(name: str, config: str, folder: Path, overrides: list[str], queue: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    bundle = None
    with contextlib.suppress(KeyboardInterrupt), terminable():
        bundle = train(load_config(config, overrides), folder, lambda *event: queue.put((name, *event)))
    queue.close()
    queue.join_thread()
    if bundle is None:
        raise SystemExit(130)


def _report(
    plan: Plan,
    run_dir: Path,
    bundles: dict[str, Path],
    results: dict[str, Any],
    durations: dict[str, float],
    episodes: int,
) -> Path:
    variant, condition = plan.shown
    config = validate_config(yaml.safe_load((run_dir / plan.best / "config.yaml").read_text()), plan.best)
    loaded = {name: PolicyBundle.load(path) for name, path in bundles.items()}
    flights = None
    experiment = load_experiment(config)
    if loaded[plan.best].spec.report:
        flights = run_simulated(experiment, loaded[plan.best].runner(256), seed_of(config.seed, "report"))
        results["identification"] = {
            "where": "training simulator, held-out physics",
            "after_1s": flights.identification(1.0),
            "after_4s": flights.identification(4.0),
        }
    trajectories = {}
    for name, bundle in loaded.items():
        distance = run_cell(bundle, variant, condition, 20, 1, record=True).distance
        assert distance is not None  # it was asked for
        trajectories[name] = distance
    provenance = loaded[plan.best].provenance
    report = Report(
        title=plan.title,
        verdict=verdict(plan, results),
        criterion=criterion(experiment.task),
        hold_s=experiment.task.hold_s,
        results=results,
        learning={n: json.loads((run_dir / n / "history.json").read_text())["ppo"] for n in bundles},
        trajectories=trajectories,
        trajectory_label=f"Target simulator, {variant}, {condition.replace('_', ' ')}, 20 episodes a policy.",
        flights=flights,
        animation=animate(experiment, loaded[plan.best].runner(1), seed_of(config.seed, "animation")),
        facts={
            "commit": provenance["commit"],
            "created": provenance["created"],
            "versions": ", ".join(f"{k} {v}" for k, v in provenance["versions"].items()),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "episodes a cell, in process": str(episodes),
            **{f"took: {name}": f"{seconds:.0f} s" for name, seconds in durations.items()},
        },
    )
    return write_report(report, run_dir / "report.html")
