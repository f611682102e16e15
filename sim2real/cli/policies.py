"""Commands about policies: train, audit, export, verify, evaluate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sim2real.cli.console import JsonFile, console, progress_bars, save_json, stage_reporter
from sim2real.cli.perceive import audit_localizer, train_localizer
from sim2real.cli.trained import print_audit, say_success
from sim2real.errors import ConfigError
from sim2real.interrupts import terminable

app = typer.Typer()

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, for example ppo.iterations=10. Repeatable."),
]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped one; 'sim2real list configs' names them.")],
    run: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME by default.")] = None,
    overrides: Overrides = None,
) -> None:
    """Train a policy or a localizer and export its bundle; run it again to resume."""
    from sim2real.config import read_settings, task_name

    data, origin = read_settings(config, overrides or ())
    made = train_localizer if task_name(data) == "localize" else _train_policy
    with terminable():
        folder, bundle = made(data, origin, run)
    if bundle is None:
        begun = (folder / "checkpoint.pt").is_file()
        kept = f"Stopped early; the checkpoint is in {folder}." if begun else "Stopped before the first checkpoint."
        console.print(f"{kept} Run the same command again to go on.")
        raise typer.Exit(130)
    console.print(f"Bundle: {bundle}\nLearning curves: tensorboard --logdir {folder}")
    say_success(bundle)


def _train_policy(data: dict[str, object], origin: str, run: Path | None) -> tuple[Path, Path | None]:
    from sim2real.config import validate_config
    from sim2real.methods.train import train as train_policy

    settings = validate_config(data, origin)
    folder = run or Path("runs") / settings.name
    with progress_bars() as progress:
        return folder, train_policy(settings, folder, stage_reporter(progress))


@app.command()
def audit(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped one: randomized, up_osi, so101_localize.")],
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Check that every randomization term does something, and rank them by how much."""
    from sim2real.config import read_settings, task_name, validate_config

    data, origin = read_settings(config, overrides or ())
    if task_name(data) == "localize":
        audit_localizer(data, origin, json_file)
        return
    from sim2real.learn.audit import audit_experiment
    from sim2real.learn.experiment import load_experiment

    experiment = load_experiment(validate_config(data, origin))
    with console.status("rolling out every term alone"):
        rows = audit_experiment(experiment)
    print_audit(str(data.get("name", config)), rows, experiment.task.tolerance_m, json_file)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or a bundle.")],
    bundle: Annotated[Path | None, typer.Option(help="Write the bundle here.")] = None,
    ros_package: Annotated[Path | None, typer.Option(help="Write a buildable ROS 2 package into this folder.")] = None,
    name: Annotated[str, typer.Option(help="Name of the ROS 2 package.")] = "sim2real_policy",
) -> None:
    """Export a run as a policy bundle and as a ROS 2 package; converts bundles of format 1."""
    from sim2real.runtime.bundle import PolicyBundle

    source = _exported(run, bundle)
    PolicyBundle.load(source)
    console.print(f"Bundle: {source}")
    say_success(source)
    if ros_package is not None:
        from sim2real.deploy.ros_package import export_ros_package

        package = export_ros_package(source, ros_package, name)
        console.print(f"ROS 2 package: {package}\nBuild it with: colcon build --packages-select {name}")


def _exported(run: Path, bundle: Path | None) -> Path:
    """The bundle of a run, written where there is none yet; a bundle as it is, converted where it is of format 1."""
    from sim2real.learn.format1 import convert, is_format1

    if is_format1(run):
        if bundle is None:
            raise ConfigError(f"{run} is a bundle of format 1; say where the converted one goes: --bundle FOLDER")
        return convert(run, bundle).path
    if (run / "manifest.json").is_file():
        return run
    source = bundle or run / "bundle"
    if bundle is not None or not (source / "manifest.json").is_file():
        from sim2real.methods.train import export_run

        with progress_bars() as progress, terminable():
            made = export_run(run, source, stage_reporter(progress))
        if made is None:
            console.print("Stopped before the bundle was written. Run the same command again.")
            raise typer.Exit(130)
    return source


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Policy or perception bundle.")],
    json_file: JsonFile = None,
) -> None:
    """Check a bundle's files and replay its golden trace stage by stage."""
    from sim2real.runtime.bundle import PolicyBundle
    from sim2real.runtime.bundle_files import kind_of
    from sim2real.runtime.golden import verify as replay
    from sim2real.runtime.perception import KIND, PerceptionBundle, verify_perception

    sees = kind_of(bundle) == KIND
    if sees:
        report = verify_perception(PerceptionBundle.load(bundle))
    else:
        report = replay(PolicyBundle.load(readable(bundle)))
    table = Table("stage", "largest difference", "allowed", "")
    for stage in report.stages:
        state = "ok" if stage.ok else "DIFFERS"
        table.add_row(stage.name, f"{stage.max_difference:.2e}", f"{stage.tolerance:.0e}", state)
    console.print(table)
    save_json(json_file, report.summary())
    if not report.ok:
        console.print(f"[bold red]{report.message}")
        raise typer.Exit(1)
    console.print("The bundle is whole and does here what it did where it was exported.")


def readable(bundle: Path) -> Path:
    """A bundle that this program reads: one of format 1 is converted into a temporary folder, for this release."""
    import tempfile

    from sim2real.learn.format1 import convert, is_format1

    if not is_format1(bundle):
        return bundle
    console.print(f"[yellow]{bundle} is of format 1; keep a converted one: sim2real export {bundle} --bundle NEW")
    return convert(bundle, Path(tempfile.mkdtemp(prefix="sim2real-")) / "bundle").path


@app.command()
def evaluate(
    bundles: Annotated[list[Path], typer.Argument(help="Policy bundles.")],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes a cell.")] = 200,
    ros2: Annotated[bool, typer.Option("--ros2", help="Run over real ROS 2 topics, in simulated time.")] = False,
    real_time: Annotated[bool, typer.Option("--real-time", help="With --ros2: on the wall clock.")] = False,
    perception: Annotated[
        Path | None, typer.Option(help="Perception bundle that finds the object in the target's images.")
    ] = None,
    condition: Annotated[list[str] | None, typer.Option(help="Only this condition of the target; repeatable.")] = None,
    target: Annotated[
        str, typer.Option(help="A target of the list, or module:Class; the robot's own by default.")
    ] = "",
    controller: Annotated[
        bool, typer.Option("--controller", help="Also run the task's own controller, which a policy has to beat.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=1.0, help="Length of the episodes, s; the task's by default. Try 60 and 600.")
    ] = None,
    new_goal_every: Annotated[
        float, typer.Option(min=1.0, help="Give a new goal every so many seconds; in process only.")
    ] = math.inf,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Run bundles on a simulated target that no training saw, in every variant and condition."""
    from sim2real.evaluate.table import evaluate_in_process, evaluate_over_ros2, print_table

    named = {path.parent.name if path.name == "bundle" else path.name: readable(path) for path in bundles}
    if len(named) < len(bundles):
        raise ConfigError(f"two bundles would have the same name in the table, of {sorted(named)}; rename a folder")
    if ros2 and (perception or condition or target or controller or new_goal_every < math.inf):
        raise ConfigError(
            "--perception, --condition, --target, --controller and --new-goal-every are for episodes in process; "
            "leave them or --ros2 out"
        )
    if real_time and not ros2:
        raise ConfigError("--real-time is about ROS 2; add --ros2, or leave it out")
    with progress_bars() as progress:
        report = stage_reporter(progress)
        if ros2:
            results = evaluate_over_ros2(named, episodes, seed, report, real_time, seconds)
        else:
            chosen = tuple(condition or ())
            results = evaluate_in_process(
                named,
                episodes,
                seed,
                report,
                perception=perception,
                conditions=chosen,
                target=target,
                seconds=seconds,
                goal_s=new_goal_every,
                controller=controller,
            )
    where = "over ROS 2" if ros2 else "in process, from pixels" if perception else "in process"
    print_table(console, results, f"Target simulator, {where}")
    save_json(json_file, {"ros2" if ros2 else "in_process": results})
