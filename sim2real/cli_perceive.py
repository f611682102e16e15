"""Commands of perception: render-dataset, target-dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from sim2real.console import console, progress_bars, stage_reporter
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


@app.command("target-dataset")
def target_dataset(
    out: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    split: Annotated[
        Literal["unlabelled", "labelled", "test"], typer.Option(help="Splits share no scene; 'test' is for measuring.")
    ] = "test",
    count: Annotated[int, typer.Option(min=1, help="Images in it at the end.")] = 500,
    camera: Annotated[Path | None, typer.Option(help="Calibration without lens, with T_base_camera.")] = None,
    clutter: Annotated[bool, typer.Option(help="Distractors, and things that hide part of the object.")] = True,
    resume: Resume = False,
) -> None:
    """Photograph the SO-101 target, which stands in for a real robot before a real camera."""
    with _vision():
        from sim2real.evaluate.target_images import write_target_dataset
    from sim2real.camera import load_camera
    from sim2real.robots import robot_folder
    from sim2real.sim.arm import Arm

    folder = robot_folder("so101")
    eye = load_camera(camera or folder / "camera.yaml")
    if eye.T_base_camera is None or eye.distortion.any():
        raise ConfigError(f"{camera}: a camera without lens distortion and with T_base_camera is wanted")
    arm = Arm(folder)
    with progress_bars() as progress:
        report = stage_reporter(progress)
        done = write_target_dataset(out, eye, arm.chain, arm.ee, count, split, report, resume, clutter)
    _say(out, done, count)


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
