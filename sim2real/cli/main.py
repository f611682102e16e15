"""The ``sim2real`` command: thin wrappers around the library, one function a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robot_drivers.limits import DriverError
from sim2real.cli.adapt import app as adapt
from sim2real.cli.calibrate import app as calibrate
from sim2real.cli.collect import app as collect
from sim2real.cli.console import JsonFile, console, progress_bars, save_json, stage_reporter
from sim2real.cli.looks import app as looks
from sim2real.cli.motion import app as motion
from sim2real.cli.perceive import app as perceive
from sim2real.cli.perceive import train_localizer
from sim2real.cli.recordings import app as recordings
from sim2real.errors import ConfigError, Sim2RealError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train robot policies in simulation, identify the robot online, deploy over ROS 2.",
)
app.add_typer(recordings)
app.add_typer(motion)
app.add_typer(looks)
app.add_typer(perceive)
app.add_typer(calibrate, name="calibrate")
app.add_typer(collect, name="collect")
app.add_typer(adapt, name="adapt")

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, for example ppo.iterations=10. Repeatable."),
]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped one: nominal, randomized, up_osi.")],
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    overrides: Overrides = None,
) -> None:
    """Train a policy or a localizer and export its bundle; run it again to resume."""
    from sim2real.config import read_settings, task_name, validate_config

    data, origin = read_settings(config, overrides or ())
    if task_name(data) == "localize":
        folder, bundle = train_localizer(data, origin, run)
    else:
        from sim2real.learn.train import train as train_policy

        settings = validate_config(data, origin)
        folder = run or Path("runs") / settings.name
        with progress_bars() as progress:
            bundle = train_policy(settings, folder, stage_reporter(progress))
    if bundle is None:
        console.print(f"Stopped early; the checkpoint is in {folder}. Run the same command again to go on.")
        raise typer.Exit(130)
    console.print(f"Bundle: {bundle}\nLearning curves: tensorboard --logdir {folder}")


@app.command()
def audit(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped one: randomized, up_osi.")],
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Check that every randomization term moves the robot, and rank them by how far."""
    from dataclasses import asdict

    from sim2real.config import load_config
    from sim2real.learn.build import chosen_terms, excitation, robot_and_task
    from sim2real.sim.audit import Auditor
    from sim2real.sim.audit import audit as run_audit

    settings = load_config(config, overrides or ())
    model, _ = robot_and_task(settings)
    terms = chosen_terms(settings, model)
    if not terms:
        console.print(f"'{settings.name}' randomizes nothing, so there is nothing to audit.")
        return
    with console.status("rolling out every term alone"):
        rows = run_audit(model, terms)
        # What shows nowhere while every joint waves may show while the task is done: an object is touched.
        silent = {row.term: terms[row.term] for row in rows if not row.moves}
        does = excitation(settings) if silent else None
        if does is not None:
            again = {row.term: row for row in run_audit(model, silent, Auditor(model, excitation=does))}
            rows = sorted((again.get(row.term, row) for row in rows), key=lambda row: -row.effect)
    table = Table("term", "low", "high", "moves position by [m]", "effect on signals [spreads]", title="Sensitivity")
    for row in rows:
        style = "" if row.moves else "bold red"
        table.add_row(
            row.term, f"{row.low:.4g}", f"{row.high:.4g}", f"{row.distance_m:.4f}", f"{row.effect:.5f}", style=style
        )
    console.print(table)
    save_json(json_file, {"config": settings.name, "terms": [asdict(row) for row in rows]})
    bounded = [f"{row.term} {row.cut:.0%}" for row in rows if row.cut > 0.0]
    if bounded:
        console.print(f"Draws outside the bounds of their parameter are set to the bound: {', '.join(bounded)}.")
    dead = [row.term for row in rows if not row.moves]
    if dead:
        console.print(
            f"[bold red]No effect: {', '.join(dead)}.[/] Nothing reads these parameters; remove or connect them."
        )
        raise typer.Exit(1)
    console.print(f"All {len(rows)} terms move the robot.")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or a bundle.")],
    bundle: Annotated[Path | None, typer.Option(help="Write the bundle here.")] = None,
    ros_package: Annotated[Path | None, typer.Option(help="Write a buildable ROS 2 package into this folder.")] = None,
    name: Annotated[str, typer.Option(help="Name of the ROS 2 package.")] = "sim2real_policy",
) -> None:
    """Export a trained run as a policy bundle and as a ROS 2 package."""
    from sim2real.runtime.bundle import PolicyBundle

    is_bundle = (run / "manifest.json").is_file()
    source = run if is_bundle else (bundle or run / "bundle")
    if not is_bundle and (bundle is not None or not (source / "manifest.json").is_file()):
        from sim2real.learn.train import export_run

        with progress_bars() as progress:
            source = export_run(run, source, stage_reporter(progress))
    PolicyBundle.load(source)
    console.print(f"Bundle: {source}")
    if ros_package is not None:
        from sim2real.deploy.ros_package import export_ros_package

        package = export_ros_package(source, ros_package, name)
        console.print(f"ROS 2 package: {package}\nBuild it with: colcon build --packages-select {name}")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Policy or perception bundle.")],
    json_file: JsonFile = None,
) -> None:
    """Check a bundle's files and replay its golden trace stage by stage."""
    from sim2real.runtime.bundle import PolicyBundle, kind_of
    from sim2real.runtime.bundle import verify as replay
    from sim2real.runtime.perception import KIND, PerceptionBundle, verify_perception

    sees = kind_of(bundle) == KIND
    report = verify_perception(PerceptionBundle.load(bundle)) if sees else replay(PolicyBundle.load(bundle))
    table = Table("stage", "largest difference", "allowed", "")
    for stage in report.stages:
        table.add_row(
            stage.name, f"{stage.max_difference:.2e}", f"{stage.tolerance:.0e}", "ok" if stage.ok else "DIFFERS"
        )
    console.print(table)
    save_json(json_file, report.summary())
    if not report.ok:
        console.print(f"[bold red]{report.message}")
        raise typer.Exit(1)
    console.print("The bundle is whole and does here what it did where it was exported.")


@app.command()
def evaluate(
    bundles: Annotated[list[Path], typer.Argument(help="Policy bundles.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes a cell.")] = 200,
    ros2: Annotated[bool, typer.Option("--ros2", help="Fly over real ROS 2 topics, in real time.")] = False,
    perception: Annotated[
        Path | None, typer.Option(help="Perception bundle that finds the object in the target's images.")
    ] = None,
    condition: Annotated[list[str] | None, typer.Option(help="Only this condition of the target; repeatable.")] = None,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Fly bundles on airframes that no training saw, under four conditions each."""
    from sim2real.evaluate.table import evaluate_in_process, evaluate_over_ros2, print_table

    named = {bundle.parent.name if bundle.name == "bundle" else bundle.name: bundle for bundle in bundles}
    if len(named) < len(bundles):
        raise ConfigError(f"two bundles would have the same name in the table, of {sorted(named)}; rename a folder")
    if ros2 and (perception or condition):
        raise ConfigError("--perception and --condition are for episodes in process; leave them or --ros2 out")
    with progress_bars() as progress:
        report = stage_reporter(progress)
        if ros2:
            results = evaluate_over_ros2(named, episodes, seed, report)
        else:
            results = evaluate_in_process(
                named, episodes, seed, report, perception=perception, conditions=condition or ()
            )
    print_table(console, results, "over ROS 2" if ros2 else "in process, from pixels" if perception else "in process")
    save_json(json_file, {"ros2" if ros2 else "in_process": results})


@app.command()
def demo(
    arm: Annotated[bool, typer.Option("--arm", help="An SO-101 that pushes, in place of a drone that flies.")] = False,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/demo or runs/demo_arm by default.")] = None,
    ros2: Annotated[bool, typer.Option(help="Also run over ROS 2.")] = True,
    episodes: Annotated[int | None, typer.Option(min=1, help="In-process episodes a cell.")] = None,
    overrides: Overrides = None,
) -> None:
    """The whole road: train policies, export them, try them on robots never seen, write a report."""
    from sim2real.cli.demo import ARM, DRONE, run_demo

    folder = run or Path("runs") / ("demo_arm" if arm else "demo")
    run_demo(console, ARM if arm else DRONE, folder, episodes or (50 if arm else 200), ros2, overrides or ())


@app.command()
def doctor(json_file: JsonFile = None) -> None:
    """Say what this machine lacks for training and for flying, and how to get it."""
    from dataclasses import asdict

    from sim2real.cli.doctor import run_checks

    with console.status("looking around"):
        checks = run_checks()
    table = Table("", "check", "found", "what to do")
    for check in checks:
        table.add_row("[green]ok" if check.ok else "[red]no", check.name, escape(check.detail), escape(check.fix))
    console.print(table)
    save_json(json_file, [asdict(check) for check in checks])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command, and turn our errors into one clear message."""
    try:
        app(args=list(arguments) if arguments is not None else None)
    except (Sim2RealError, DriverError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
