"""Commands that look at a real robot: robot check."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sim2real.cli.console import JsonFile, console, save_json
from sim2real.cli.motion import DriverSettings, driver_values

app = typer.Typer(no_args_is_help=True, help="Look at a real robot without moving it.")


@app.callback()
def _group() -> None:
    """Look at a real robot without moving it."""


@app.command()
def check(
    robot: Annotated[str, typer.Argument(help="A robot's name, or its folder.")],
    driver: Annotated[str | None, typer.Option(help="Read this driver; ROS 2 topics without it.")] = None,
    driver_set: DriverSettings = None,
    remap: Annotated[list[str] | None, typer.Option(help="Name of a topic, from:=to; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=1.5, help="How long it is watched, s.")] = 10.0,
    json_file: JsonFile = None,
) -> None:
    """Watch a robot over its driver or its topics, and say what must be mended before it is switched on."""
    from robot_drivers import load_driver
    from sim2real.cli.robot_check import watch_driver, watch_topics
    from sim2real.robots import load_robot

    spec = load_robot(robot).spec
    if driver is None:
        seen = watch_topics(spec, seconds, remap or [])
    else:
        made = load_driver(driver, **driver_values(driver_set or []))
        made.connect()
        try:
            seen = watch_driver(spec, driver, made, seconds)
        finally:
            made.disconnect()
    table = Table("", "measured", "needed")
    for row in seen.rows():
        table.add_row(*map(escape, row))
    console.print(table)
    problems = seen.problems()
    save_json(json_file, {"problems": problems, "measured": [list(row) for row in seen.rows()]})
    for problem in problems:
        console.print(f"[red]no[/]  {escape(problem)}")
    if problems:
        raise typer.Exit(1)
    console.print("[green]ok[/]  the robot is as the contract says")
