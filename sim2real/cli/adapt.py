"""``sim2real adapt``: rendered images made to look like a camera's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sim2real.cli.console import JsonFile, console, progress_bars, save_json
from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.adapt.config import AdaptConfig
    from sim2real.adapt.data import Data
    from sim2real.adapt.finish import Finished
    from sim2real.adapt.gate import Verdict

app = typer.Typer(
    invoke_without_command=True,
    help="Make rendered images look like a camera's, without moving anything in them.",
)

Sim = Annotated[Path | None, typer.Option(help="Dataset of rendered images, with masks.")]
Real = Annotated[Path | None, typer.Option(help="Dataset or folder of camera images; no labels needed.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; the same again goes on.")]
Preset = Annotated[str, typer.Option(help="pixelda, graspgan, cut, cyclegan, rcan, or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, for example steps=2000. Repeatable."),
]


@app.callback()
def adapt(
    context: typer.Context,
    sim: Sim = None,
    real: Real = None,
    out: Out = None,
    preset: Preset = "graspgan",
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Train a generator from --sim to the look of --real; the same as 'adapt train'."""
    if context.invoked_subcommand is None:
        train(sim, real, out, preset, overrides, json_file)


@app.command()
def train(
    sim: Sim = None,
    real: Real = None,
    out: Out = None,
    preset: Preset = "graspgan",
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Train a generator from --sim to the look of --real; run it again to go on."""
    if sim is None or real is None or out is None:
        raise ConfigError("give --sim DATASET, --real FOLDER and --out RUN; see 'sim2real adapt train --help'")
    from sim2real.adapt.config import load_preset
    from sim2real.evaluate.adaptation import write_adaptation_report

    config = load_preset(preset, overrides or ())
    finished = _train(config, sim, real, out)
    if finished is None:
        console.print(f"Stopped early; the checkpoint is in {out}. Run the same command again to go on.")
        raise typer.Exit(130)
    page = write_adaptation_report(out, config.name, finished)
    console.print(f"Report: {page}\nCurves and samples: tensorboard --logdir {out}")
    _show(finished.verdict, out, json_file)


def _train(config: AdaptConfig, sim: Path, real: Path, out: Path) -> Finished | None:
    from sim2real.adapt.data import load_data
    from sim2real.adapt.run import adapt as run_adaptation

    with console.status("reading images"):
        data = load_data(config, sim, real)
    console.print(_description(data))
    with progress_bars() as progress:
        bar = progress.add_task("adapt", total=config.steps, figures="")

        def report(step: int, steps: int, figures: dict[str, float]) -> None:
            text = f"KID {figures['kid']:.2f}  gate {'passes' if figures['passed'] else 'refuses'}"
            text += f"  {figures['images_per_s']:.0f} images/s"
            progress.update(bar, completed=step, figures=text)
            if not console.is_terminal:
                console.print(f"adapt {step}/{steps}  {text}")

        return run_adaptation(config, data, out, report)


@app.command()
def check(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    sim: Annotated[Path, typer.Option(help="Rendered images, with masks; those the run was trained on are left out.")],
    localizer: Annotated[
        Path | None, typer.Option(help="Perception bundle: also measure how far its answers move.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Bundle of a pushing policy: also how far its commands move, with --localizer.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Judge a generator: does it move, remove, smear or invent objects, or worsen the task?"""
    from sim2real.adapt.check import check as judge_run

    with console.status("translating and comparing"):
        verdict = judge_run(run, sim, localizer, policy)
    _show(verdict, run, json_file)


@app.command()
def apply(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    dataset: Annotated[Path, typer.Argument(help="Dataset to translate.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new dataset; masks and fields are carried over.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where the gate refused the run.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted call.")] = False,
) -> None:
    """Translate a dataset."""
    from sim2real.adapt.apply import apply as translate_dataset

    with progress_bars() as progress:
        bar = progress.add_task("translate", total=None, figures="")
        count = translate_dataset(
            run, dataset, out, anyway, resume, lambda done, all_: progress.update(bar, completed=done, total=all_)
        )
    console.print(f"{count} frames: {out}")


def _description(data: Data) -> str:
    """Number of images, and what was done to them, in words."""
    height, width = data.source.size
    said = f"{len(data.source)} rendered and {len(data.target)} real images of {width} x {height} to train on"
    said += f", {len(data.source_held)} and {len(data.target_held)} held out"
    resized = (data.source.resized, data.target.resized)
    if data.source.masks is None and data.source.labels is None:
        said += (
            "\n[yellow]The rendered images have no masks and no labels: nothing can be judged, the gate will refuse, "
            "and 'sim2real adapt apply' will need --anyway."
        )
    if any(resized):
        said += f"\n{resized[0]} rendered and {resized[1]} real ones were resized: the networks take multiples of 32 px"
    return said


def _show(verdict: Verdict, run: Path, json_file: Path | None) -> None:
    from sim2real.runtime.translation import GATE

    judged = json.loads((run / GATE).read_text())["judged_on"]
    new = "" if judged["left_out_as_trained_on"] is None else " that training has not seen"
    table = Table("figure", "value", title=f"Gate, on {judged['images']} images{new}")
    for name, value in verdict.figures.items():
        table.add_row(name, f"{value:.3g}")
    console.print(table)
    if judged["left_out_as_trained_on"]:
        console.print(f"{judged['left_out_as_trained_on']} images that the run was trained on were left out.")
    for note in verdict.not_judged:
        console.print(f"Not judged: {note}.", markup=False)
    save_json(json_file, verdict.summary())
    if not verdict.passed:
        console.print("[bold red]Refused:")
        for reason in verdict.reasons:
            console.print(f"  {reason}", markup=False)
        raise typer.Exit(1)
    console.print(f"[green]Passes.[/] Translate with: sim2real adapt apply {run} DATASET OUT")
