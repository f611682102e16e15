"""Commands that say what there is: list."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sim2real.cli.console import console
from sim2real.errors import ConfigError

app = typer.Typer()
Rows = list[tuple[str, ...]]


def _first_line(place: str) -> str:
    """First docstring line of what ``module:Class`` stands for, or of its module where the class has none.

    It is read, not imported: a method alone would bring torch.
    """
    module, _, attribute = place.partition(":")
    found = find_spec(module)
    assert found is not None and found.origin is not None
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    named = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute]
    texts = [ast.get_docstring(node) for node in (*named, tree)]
    return next((text for text in texts if text), "").partition("\n")[0]


def _described(table: Mapping[str, str]) -> Rows:
    return [(name, place, _first_line(place)) for name, place in sorted(table.items())]


def _robots() -> Rows:
    from sim2real.robots import load_robot, model_of, robot_folder, shipped_robots

    rows: Rows = []
    for name in shipped_robots():
        robot = load_robot(name)
        facts = f"{len(robot.spec.commands)} commands at {robot.spec.control_rate_hz:g} Hz, over {robot.spec.interface}"
        rows.append((name, model_of(robot_folder(name)), facts))
    return rows


def _tasks() -> Rows:
    from sim2real.tasks import TASKS

    return _described(TASKS)


def _methods() -> Rows:
    from sim2real.methods import METHODS

    return _described(METHODS)


def _targets() -> Rows:
    from sim2real.targets.base import TARGETS

    return _described(TARGETS)


def _drivers() -> Rows:
    from robot_drivers import DRIVERS, SDKS

    def installed(name: str) -> str:
        package = SDKS.get(name, "")
        return "ready" if not package or find_spec(package) else f"needs the package {package}"

    return [(name, installed(name), _first_line(place)) for name, place in sorted(DRIVERS.items())]


def _configs() -> Rows:
    from sim2real.config import CONFIGS

    rows: Rows = []
    for file in sorted(CONFIGS.glob("*.yaml")):
        first = file.read_text().partition("\n")[0]
        rows.append((file.stem, first.lstrip("# ")))
    return rows


KINDS: dict[str, tuple[Callable[[], Rows], tuple[str, ...]]] = {
    "robots": (_robots, ("robot", "model", "")),
    "tasks": (_tasks, ("task", "class", "")),
    "methods": (_methods, ("method", "class", "")),
    "targets": (_targets, ("target", "class", "")),
    "drivers": (_drivers, ("driver", "installed", "")),
    "configs": (_configs, ("configuration", "")),
}


@app.command("list")
def list_(kind: Annotated[str, typer.Argument(help="robots, tasks, methods, targets, drivers or configs.")]) -> None:
    """List what ships with the package; your own goes by folder or as module:Class."""
    if kind not in KINDS:
        raise ConfigError(f"there is no list of '{kind}'; there are lists of {', '.join(KINDS)}")
    rows, columns = KINDS[kind]
    table = Table(*columns)
    for row in rows():
        table.add_row(*row)
    console.print(table)
