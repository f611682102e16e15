"""Generated parts of the documentation: listings from tested files, reference pages of commands and configuration.

    python docs/generate.py          # write them
    python docs/generate.py --check  # say what is out of date

A page shows a file after a comment ``<!-- listing: PATH -->``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARK = re.compile(r"(<!-- listing: (\S+) -->\n)(?:\n```\w*\n.*?\n```\n)?", re.DOTALL)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".urdf": "xml"}


def with_listings(page: str) -> str:
    """The page with every listing as its file is now."""

    def fill(match: re.Match[str]) -> str:
        file = ROOT / match[2]
        return f"{match[1]}\n```{LANGUAGES[file.suffix]}\n{file.read_text().rstrip()}\n```\n"

    return MARK.sub(fill, page)


def commands() -> str:
    """Reference of the command line, from its own help."""
    from typer.main import get_command

    from sim2real.cli.main import app

    lines = ["# Command line", "", "Generated from `sim2real --help`. Every command takes `--help`.", ""]

    def walk(command: Any, name: str) -> None:
        children = getattr(command, "commands", {})
        if children:
            for child, inner in sorted(children.items()):
                walk(inner, f"{name} {child}")
        if not children or (command.params and command.callback and name != "sim2real"):
            lines.extend(_command(command, name))

    walk(get_command(app), "sim2real")
    return "\n".join(lines).rstrip() + "\n"


def _command(command: Any, name: str) -> list[str]:
    shown = [p for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
    text = " ".join((command.help or "").split())
    lines = [f"## {name}", "", text, ""]
    if shown:
        lines += ["| argument or option | default | |", "| --- | --- | --- |"]
    for p in shown:
        what = f"`{p.name.upper()}`" if p.param_type_name == "argument" else ", ".join(f"`{o}`" for o in p.opts)
        default = "required" if p.required else "" if p.default in (None, "", ()) or callable(p.default) else p.default
        about = " ".join((getattr(p, "help", None) or "").split()).replace("|", "\\|")
        lines.append(f"| {what} | {default} | {about} |")
    return [*lines, ""]


def configuration() -> str:
    """Reference of configurations, from the checked models and their docstrings."""
    from sim2real.config import ExperimentConfig
    from sim2real.methods import METHODS
    from sim2real.perceive.config import LocalizeConfig
    from sim2real.registry import resolve
    from sim2real.tasks import TASKS

    lines = ["# Configuration", "", "Generated from the models that check every configuration.", ""]
    for title, model in (("A policy", ExperimentConfig), ("A localizer (`task: localize`)", LocalizeConfig)):
        lines += _model(model, title)
    for kind, table in (("task", TASKS), ("method", METHODS)):
        for name in sorted(table):
            lines += _model(resolve(name, table, kind).Settings, f"`{kind}: {name}`")
    return "\n".join(lines).rstrip() + "\n"


def _model(model: type[BaseModel], title: str) -> list[str]:
    about = attributes(model)
    lines = [f"## {title}", "", "| setting | type | default | |", "| --- | --- | --- | --- |"]
    inner: list[type[BaseModel]] = []
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _value(field.default)
        lines.append(f"| `{field.alias or name}` | {_kind(field.annotation)} | {default} | {about.get(name, '')} |")
        inner += [k for k in _parts(field.annotation) if isinstance(k, type) and issubclass(k, BaseModel)]
    if not model.model_fields:
        lines = [*lines[:2], "No settings."]
    lines.append("")
    for part in dict.fromkeys(inner):
        lines += _model(part, f"{part.__name__}")
    return lines


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and its bases say of each attribute."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        text = (base.__doc__ or "").partition("Attributes:\n")[2]
        for match in re.finditer(r"^ {8}([\w, ]+): (.*(?:\n {12}.*)*)", text, re.MULTILINE):
            for name in match[1].split(","):
                found[name.strip()] = " ".join(match[2].split()).replace("|", "\\|")
    return found


def _parts(kind: Any) -> list[Any]:
    inner = [part for argument in get_args(kind) for part in _parts(argument)]
    return inner or [kind]


def _kind(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _kind(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_kind(part) for part in get_args(kind))
    text = getattr(kind, "__name__", str(kind)) if not get_args(kind) else str(kind)
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", text)  # bounds are not shown
    return re.sub(r"(sim2real|typing|pathlib)(\.\w+)*\.", "", text).replace("|", "\\|").replace("NoneType", "none")


def _value(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    return f"`{value}`".replace("|", "\\|") if value not in ((), None) else ""


def pages() -> dict[Path, str]:
    """Every page with generated parts, as it should be."""
    made = {page: with_listings(page.read_text()) for page in sorted(DOCS.rglob("*.md"))}
    reference = DOCS / "reference"
    return made | {reference / "cli.md": commands(), reference / "config.md": configuration()}


def main() -> int:
    """Write what is out of date, or with --check only name it."""
    old = [page for page, text in pages().items() if not page.is_file() or page.read_text() != text]
    for page in old:
        if "--check" not in sys.argv:
            page.write_text(pages()[page])
        print(page.relative_to(ROOT))
    return int("--check" in sys.argv and bool(old))


if __name__ == "__main__":
    raise SystemExit(main())
