"""Options and tables of ``sim2real identify`` for recordings of torques or motor currents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sim2real.cli.console import console, save_json
from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.recordings.logs import Topics
    from sim2real.robots.arm import Arm
    from sim2real.types import Array


@dataclass(frozen=True)
class Torques:
    """Options as they were given."""

    unit: str | None
    constants: tuple[str, ...]
    loaded: tuple[Path, ...]
    payload_kg: float | None
    within: float


def torques_of(
    effort_unit: Annotated[
        str | None,
        typer.Option(help="Fit measured torques or currents, without commands: N·m (or Nm), A or mA; arms only."),
    ] = None,
    torque_constant: Annotated[
        list[str] | None,
        typer.Option(help="N·m/A at the joint, of all or JOINT=VALUE; negative where the sign is turned. Repeatable."),
    ] = None,
    loaded: Annotated[
        list[Path] | None,
        typer.Option(help="Recordings that carried a payload, among LOGS or besides. Repeatable."),
    ] = None,
    payload_kg: Annotated[float | None, typer.Option(min=0.001, help="Its mass, if weighed.")] = None,
    urdf_within: Annotated[
        float, typer.Option(min=0.001, max=3.0, help="How right the URDF's masses are: relative standard deviation.")
    ] = 0.3,
) -> Torques:
    """Make one value of the options."""
    found = Torques(effort_unit, tuple(torque_constant or ()), tuple(loaded or ()), payload_kg, urdf_within)
    if effort_unit is None and (found.constants or found.loaded or payload_kg or urdf_within != 0.3):
        raise ConfigError(
            "--torque-constant, --loaded, --payload-kg and --urdf-within are of recordings with torques or currents; "
            "give --effort-unit N·m, A or mA"
        )
    if payload_kg and not found.loaded:
        raise ConfigError("--payload-kg is the mass in some recordings: name them with --loaded")
    return found


def identify_by_torques(
    arm: Arm, logs: list[Path], out: Path, folds: int, asked: Torques, topics: Topics, json_file: Path | None
) -> None:
    """Fit torques or currents and print what was found."""
    from sim2real.evaluate.torque_identification import identify_torques
    from sim2real.identify.arm.limits import remarks
    from sim2real.identify.arm.torque_fit import Known
    from sim2real.recordings.logs import EFFORTS, list_recordings, read_logs

    unit = {"Nm": "N·m", "N*m": "N·m", "N.m": "N·m"}.get(asked.unit or "", asked.unit)
    if unit not in EFFORTS:
        raise ConfigError(f"--effort-unit is '{asked.unit}'; {', '.join(EFFORTS)} are known")
    effort = EFFORTS[unit]
    constants = _constants(arm, asked.constants, effort.of_current)
    carried = {file.resolve() for file in list_recordings(asked.loaded)}
    files = list_recordings(logs)
    files += [f for f in list_recordings(asked.loaded) if f.resolve() not in {known.resolve() for known in files}]
    recordings = read_logs(files, arm.joints, arm.aliases, topics=topics, effort=effort)
    for remark in remarks(arm, recordings):
        console.print(f"[yellow]{escape(remark)}")
    known = Known(constants, asked.payload_kg, asked.within)
    with console.status(f"fitting the torques of {len(recordings)} recordings"):
        loaded = [file.resolve() in carried for file in files]
        figures = identify_torques(arm, recordings, loaded, out, folds, known, effort)
    _show(figures)
    save_json(json_file, figures)
    console.print(f"Parameters: {out}")


def _constants(arm: Arm, given: tuple[str, ...], of_current: bool) -> Array | None:
    """Torque constants [J] N·m/A, NaN where they are not given; None of torques whose signs are right."""
    import numpy as np

    values = np.full(len(arm.joints), np.nan)
    for text in given:
        joint, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if value == 0.0 or not math.isfinite(value) or (joint and joint not in arm.joints):
            raise ConfigError(
                f"--torque-constant {text}: give a number, or JOINT=NUMBER with one of {', '.join(arm.joints)}"
            )
        values[arm.joints.index(joint) if joint else slice(None)] = value
    if of_current:
        return values
    if given:
        raise ConfigError("--torque-constant is of currents; torques in N·m need none: change the sign of columns")
    return None


def _show(figures: dict[str, Any]) -> None:
    held = figures["held_out"]
    title = f"Efforts of kinds of motion that the fit had not seen, {held['unit']}"
    table = Table("joint", "error (RMS)", "of the URDF alone", "effort (RMS)", title=title)
    for joint, row in held["per_joint"].items():
        table.add_row(joint, *(f"{value:.3g}" for value in row.values()))
    console.print(table)
    rows: dict[str, dict[str, Any]] = {}
    for name, entry in figures["quantities"].items():
        owner, _, what = name.rpartition(".")
        rows.setdefault(owner or name, {})[what if owner else "value"] = entry
    for columns in dict.fromkeys(tuple(row) for row in rows.values()):
        units = [f"{what} [{next(r[what]['unit'] for r in rows.values() if what in r)}]" for what in columns]
        table = Table("", *units, title="Value ± half the 95 % interval; dim: not identified")
        for owner, row in rows.items():
            if tuple(row) == columns:
                table.add_row(owner, *(_cell(entry) for entry in row.values()))
        console.print(table)
    reasons: dict[str, list[str]] = {}
    for name, entry in figures["quantities"].items():
        if not entry["identified"]:
            reasons.setdefault(entry["why"], []).append(name)
    for why, names in reasons.items():
        console.print(f"Not identified, {why}: {', '.join(names)}", style="dim")
    known = figures["determined"]
    console.print(
        f"Of {known['inertial']} inertial parameters {known['acting']} sums act on these motions (condition number "
        f"{known['condition']:.0f}); {known['known']} are known better than from the URDF."
    )
    for remark in figures["remarks"]:
        console.print(f"[yellow]{escape(remark)}")
    console.print(f"For training: {', '.join(figures['for_training']) or 'nothing'}")


def _cell(entry: dict[str, Any]) -> str:
    text = f"{entry['value']:.3g} ± {2.0 * entry['std']:.2g}"
    return text if entry["identified"] else f"[dim]{text}"
