"""The ``sim2real`` command: thin wrappers around the library, one function a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robot_drivers.limits import DriverError
from sim2real.cli.adapt import app as adapt
from sim2real.cli.appearance import app as appearance
from sim2real.cli.benchmark import app as benchmark
from sim2real.cli.calibrate import app as calibrate
from sim2real.cli.collect import app as collect
from sim2real.cli.console import JsonFile, console, save_json
from sim2real.cli.listing import app as listing
from sim2real.cli.motion import app as motion
from sim2real.cli.perceive import app as perceive
from sim2real.cli.play import app as play
from sim2real.cli.policies import Overrides
from sim2real.cli.policies import app as policies
from sim2real.cli.recordings import app as recordings
from sim2real.cli.robot import app as robot
from sim2real.errors import Sim2RealError
from sim2real.files import storage_fault

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train robot policies in simulation, identify the robot online, deploy over ROS 2.",
)
app.add_typer(policies)
app.add_typer(listing)
app.add_typer(play)
app.add_typer(recordings)
app.add_typer(motion)
app.add_typer(appearance)
app.add_typer(perceive)
app.add_typer(benchmark, name="benchmark")
app.add_typer(calibrate, name="calibrate")
app.add_typer(collect, name="collect")
app.add_typer(adapt, name="adapt")
app.add_typer(robot, name="robot")


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
        _fail(str(error))
    except OSError as error:
        if (cause := storage_fault(error)) is None:
            raise
        _fail(cause)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()
