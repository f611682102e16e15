"""Commands of perception: render-dataset, target-dataset, locate; training of localizers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from sim2real.cli.console import JsonFile, console, progress_bars, save_json, stage_reporter, warn_renamed
from sim2real.errors import ConfigError

app = typer.Typer()

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, for example render.workers=1. Repeatable."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a dataset that is there.")]


@app.command("render-dataset")
def render_dataset(
    out: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    config: Annotated[str, typer.Option(help="Localization experiment: YAML file, or a shipped one.")] = (
        "so101_localize"
    ),
    count: Annotated[int, typer.Option(min=1, help="Images in it at the end.")] = 2000,
    canonical: Annotated[
        Path | None,
        typer.Option(help="Also the same scenes in one plain look, a dataset here: for 'adapt --preset rcan'."),
    ] = None,
    overrides: Overrides = None,
    resume: Resume = False,
) -> None:
    """Draw randomized training images with masks and labels."""
    from sim2real.config import read_settings, validate
    from sim2real.perceive.config import LocalizeConfig

    with _vision():
        from sim2real.perceive.render import render_dataset as render

    settings = validate(LocalizeConfig, *read_settings(config, overrides or ()))
    with progress_bars() as progress:
        done = render(settings, out, count, stage_reporter(progress), resume)
    _say(out, done, count)
    if canonical is not None and done == count:
        with progress_bars() as progress:
            done = render(settings, canonical, count, stage_reporter(progress), resume, canonical=True)
        _say(canonical, done, count)


@app.command("target-dataset")
def target_dataset(
    out: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    split: Annotated[
        Literal["unlabelled", "labelled", "development", "test"],
        typer.Option(help="Splits share no scene; settings are chosen on 'development', 'test' is for measuring."),
    ] = "test",
    count: Annotated[int, typer.Option(min=1, help="Images in it at the end.")] = 500,
    camera: Annotated[Path | None, typer.Option(help="Calibration without lens, with T_base_camera.")] = None,
    clutter: Annotated[bool, typer.Option(help="Distractors, and objects that hide part of the object.")] = True,
    scene_set: Annotated[int, typer.Option(min=0, help="Other scenes and textures of the same split.")] = 0,
    room: Annotated[int | None, typer.Option(min=0, hidden=True, help="Old name of --scene-set.")] = None,
    resume: Resume = False,
) -> None:
    """Render target images of the SO-101, which stand in for those of a real robot."""
    with _vision():
        from sim2real.evaluate.target_images import target_camera, write_target_dataset
    from sim2real.robots import robot_folder
    from sim2real.robots.arm import Arm

    arm, eye, scenes = Arm(robot_folder("so101")), target_camera(camera), _scene_set(scene_set, room)
    with progress_bars() as progress:
        report = stage_reporter(progress)
        done = write_target_dataset(out, eye, arm.chain, arm.ee, count, split, report, resume, clutter, scenes)
    _say(out, done, count)


def _scene_set(number: int, room: int | None) -> int:
    if room is None:
        return number
    warn_renamed("--room", "--scene-set")
    return room


@app.command()
def locate(
    bundle: Annotated[Path, typer.Argument(help="Perception bundle.")],
    dataset: Annotated[Path, typer.Argument(help="Labelled dataset of images.")],
    json_file: JsonFile = None,
) -> None:
    """Measure how far a perception network is off on labelled images."""
    with _vision():
        from sim2real.evaluate.localization import localize
        from sim2real.images.dataset import read_dataset
    from sim2real.runtime.perception import PerceptionBundle

    data, loaded = read_dataset(dataset), PerceptionBundle.load(bundle)
    with console.status("looking"):
        figures = localize(loaded, data)
    _show_localization(figures, f"{data.about.get('what', dataset)}: {len(data)} images")
    save_json(json_file, figures)


def _show_localization(figures: dict[str, Any], title: str) -> None:
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        if isinstance(value, dict):
            for group, row in value.items():
                table.add_row(f"visible {group}", f"{1000 * row['mean_error_m']:.1f} mm ({row['images']} images)")
        elif isinstance(value, list):
            table.add_row(name, ", ".join(f"{1000 * v:+.1f} mm" for v in value))
        elif name.endswith("_m"):
            table.add_row(name.removesuffix("_m"), f"{1000 * value:.1f} mm")
        else:
            table.add_row(name, f"{value:.4g}")
    console.print(table)


def train_localizer(settings: dict[str, Any], origin: str, run: Path | None) -> tuple[Path, Path | None]:
    """Train a localization experiment.

    Returns:
        The run's folder, and its bundle; None where it was stopped early.
    """
    from sim2real.config import validate
    from sim2real.perceive.config import LocalizeConfig

    with _vision():
        from sim2real.evaluate.localization import write_localization_report
        from sim2real.perceive.train import train
    from sim2real.runtime.perception import PerceptionBundle

    config = validate(LocalizeConfig, settings, origin)
    folder = run or Path("runs") / config.name
    with progress_bars() as progress:
        bundle = train(config, folder, stage_reporter(progress))
    if bundle is not None:
        made = PerceptionBundle.load(bundle).provenance
        facts = {name: str(made[name]) for name in ("created", "commit", "seed", "versions")}
        console.print(f"Report: {write_localization_report(folder, facts)}")
    return folder, bundle


def audit_localizer(settings: dict[str, Any], origin: str, json_file: Path | None) -> None:
    """Print how far every term of a localization experiment changes its training images.

    Raises:
        Exit: With status 1 where a term changes nothing.
    """
    from dataclasses import asdict

    from sim2real.config import validate
    from sim2real.perceive.config import LocalizeConfig

    with _vision():
        from sim2real.perceive.audit import audit_images
    config = validate(LocalizeConfig, settings, origin)
    with console.status("rendering every term alone"):
        effects = audit_images(config)
    table = Table("term", "kind", "low", "high", "mean change of a pixel, of 255", title="Sensitivity of images")
    for e in effects:
        style = "bold red" if e.dead else ""
        table.add_row(e.term, e.kind, f"{e.low:.4g}", f"{e.high:.4g}", f"{e.change:.2f}", style=style)
    console.print(table)
    save_json(json_file, {"config": config.name, "terms": [asdict(effect) for effect in effects]})
    dead = [effect.term for effect in effects if effect.dead]
    if dead:
        console.print(f"[bold red]No effect: {', '.join(dead)}.[/] Remove these terms, or connect their parameters.")
        raise typer.Exit(1)
    console.print(f"All {len(effects)} terms that have a range change the images.")


@contextmanager
def _vision() -> Iterator[None]:
    """Say which extra is missing."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"images need OpenCV ({error}): pip install 'sim2real[train,vision,drivers]'") from error


def _say(out: Path, done: int, count: int) -> None:
    console.print(f"{done} images: {out}")
    if done < count:
        console.print("Stopped early. Run the same command again with --resume to go on.")
        raise typer.Exit(130)
