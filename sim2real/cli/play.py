"""Commands that show a policy at work: play."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim2real.cli.console import console
from sim2real.errors import ConfigError

app = typer.Typer()


@app.command()
def play(
    what: Annotated[str, typer.Argument(help="A run's folder, a bundle, or with --expert a configuration.")],
    expert: Annotated[bool, typer.Option("--expert", help="The task's scripted expert, without any training.")] = False,
    target: Annotated[bool, typer.Option("--target", help="On the simulated target, not in the simulator.")] = False,
    variant: Annotated[str, typer.Option(help="With --target: one of its variants.")] = "",
    condition: Annotated[str, typer.Option(help="With --target: one of its conditions.")] = "",
    video: Annotated[
        Path | None, typer.Option(help="Write a video (.mp4 or .gif) in place of opening a window.")
    ] = None,
    seed: int = 0,
) -> None:
    """Show a policy, or a task's expert, in PyBullet's window or as a video."""
    from sim2real.evaluate.playing import Stage, show, write_video

    stage = Stage.of(what, expert, seed)
    if target:
        stage = stage.on_target(variant, condition)
    elif variant or condition:
        raise ConfigError("--variant and --condition are of a target; add --target, or leave them out")
    if video is None:
        show(stage)
        return
    result = write_video(stage, video)
    console.print(f"{video}: {result}")
