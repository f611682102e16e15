"""Figures about a training in words: what its success means, and what its randomization does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from sim2real.cli.console import console, save_json
from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.runtime.bundle import PolicyBundle
    from sim2real.sim.audit import AuditRow

GOOD, POOR = 0.9, 0.5


def say_success(path: Path) -> None:
    """Print what a bundle's policy, or localizer, achieved where it was trained, what that means, and what is next."""
    from sim2real.runtime.bundle_files import kind_of
    from sim2real.runtime.perception import KIND, PerceptionBundle

    if kind_of(path) == KIND:
        figures = PerceptionBundle.load(path).provenance.get("metrics", {}).get("held_out_renders", {})
        if "median_error_m" in figures:
            median, worst = (1000 * figures[f"{name}_error_m"] for name in ("median", "p95"))
            console.print(
                f"On held-out renders of the training simulator it is off by {median:.1f} mm (median), {worst:.1f} mm "
                f"(95 %). Measure it on real images: sim2real locate {path} DATASET"
            )
        return
    _say_of_policy(path)


def _say_of_policy(path: Path) -> None:
    from sim2real.runtime.bundle import PolicyBundle

    bundle = PolicyBundle.load(path)
    metrics = bundle.provenance.get("metrics")
    figures = metrics.get("training_simulator") if isinstance(metrics, dict) else None
    if not isinstance(figures, dict) or "success" not in figures:
        console.print("[yellow]The bundle does not say how often its policy succeeds; measure it: sim2real evaluate")
        return
    success, episodes = float(figures["success"]), int(figures.get("episodes", 0))
    console.print(
        f"Success in the training simulator: [bold]{success:.0%}[/] of {episodes} episodes with sampled physics, "
        f"{int(figures.get('crashes', 0))} ended in a failure. {_meaning(bundle)}"
    )
    console.print(verdict(success, path))


def _meaning(bundle: PolicyBundle) -> str:
    """Say what counts as a success, where the task can still be made here."""
    from sim2real.learn.experiment import bundle_experiment
    from sim2real.tasks.success import criterion

    try:
        return f"An episode succeeds {criterion(bundle_experiment(bundle).task)}."
    except ConfigError:
        return ""


def verdict(success: float, path: Path) -> str:
    """Say what a fraction of successful episodes in training means for what to do next; with rich's markup."""
    shown = escape(str(path))
    if success < POOR:
        return (
            "[bold red]The policy has not learned the task; do not run it on a robot.[/] Train longer, with more "
            "'ppo.iterations', or ask for less: 'task' and 'randomize'."
        )
    if success < GOOD:
        return (
            f"[yellow]The policy fails in {1 - success:.0%} of the episodes, and targets are harder.[/] Train longer, "
            f"with more 'ppo.iterations', before: sim2real evaluate {shown}"
        )
    return f"Good in its own simulator, which says nothing of a robot yet. Next: sim2real evaluate {shown}"


def print_audit(name: str, rows: Sequence[AuditRow], tolerance_m: float, json_file: Path | None) -> None:
    """Print the effect of every randomization term, and name those that do nothing or next to nothing.

    Args:
        name: Of the experiment.
        rows: Of the audit.
        tolerance_m: Of the task.
        json_file: Also for the figures.

    Raises:
        Exit: With status 1 where a term changes nothing at all.
    """
    from sim2real.sim.audit import LEAST_OF_NOISE, LEAST_OF_TOLERANCE

    if not rows:
        console.print(f"'{name}' randomizes nothing, so there is nothing to audit.")
        return
    table = Table(
        "term", "low", "high", "moves position by [m]", f"of {100 * tolerance_m:g} cm", "of sensor noise",
        "effect on signals [std]", title="Sensitivity",
    )  # fmt: skip
    for row in rows:
        style = "" if row.matters else "yellow" if row.moves else "bold red"
        figures = (f"{row.distance_m:.4f}", f"{row.of_tolerance:.0%}", f"{row.of_noise:.2g}", f"{row.effect:.5f}")
        table.add_row(row.term, f"{row.low:.4g}", f"{row.high:.4g}", *figures, style=style)
    console.print(table)
    save_json(json_file, {"config": name, "tolerance_m": tolerance_m, "terms": [asdict(row) for row in rows]})
    if bounded := [f"{row.term} {row.cut:.0%}" for row in rows if row.cut > 0.0]:
        console.print(f"Samples outside the bounds of their parameter are set to the bound: {', '.join(bounded)}.")
    if faint := [row.term for row in rows if row.moves and not row.matters]:
        console.print(
            f"[yellow]Nearly dead: {', '.join(faint)}.[/] Over its whole range such a term moves the position by less "
            f"than {LEAST_OF_TOLERANCE:.0%} of the task's tolerance, and no signal by {LEAST_OF_NOISE:g} of its noise: "
            "widen its range, or remove it."
        )
    if dead := [row.term for row in rows if not row.moves]:
        console.print(
            f"[bold red]No effect: {', '.join(dead)}.[/] Nothing reads these parameters; remove or connect them."
        )
        raise typer.Exit(1)
    console.print(f"{sum(row.matters for row in rows)} of {len(rows)} terms do what can be felt.")
