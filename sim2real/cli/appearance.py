"""Visual randomization to look at: a contact sheet, and its audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sim2real.cli.console import JsonFile, console, save_json, warn_renamed
from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.runtime.camera import CameraCalibration

app = typer.Typer()

Robot = Annotated[str, typer.Argument(help="so101, fr3, or a folder with robot.yaml and URDF.")]
Out = Annotated[Path, typer.Option(help="Contact sheet to write (.png).")]
Count = Annotated[int, typer.Option(min=1, help="Images on it.")]
Size = Annotated[int, typer.Option(min=16, help="Side of an image without --camera, px.")]
Camera = Annotated[Path | None, typer.Option(help="Calibration, with T_base_camera, to look through.")]
SHEET_COLUMNS, SHEET_PX = 5, 192  # images in a row, and their height at least
RING_FRACTION = 0.11  # of an image's height, around the object
Photographs = Annotated[Path | None, typer.Option(help="Folder of photographs to cut textures from.")]
Egl = Annotated[bool, typer.Option("--egl", help="Render with OpenGL, where a GPU is.")]


@app.command()
def appearance(
    robot: Robot = "so101",
    out: Out = Path("appearance.png"),
    count: Count = 40,
    size: Size = 128,
    camera: Camera = None,
    photographs: Photographs = None,
    egl: Egl = False,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Show a robot at its table under visual randomization, and check that every term changes the images."""
    effects = _write_sheet(robot, out, count, size, camera, photographs, egl, seed)
    table = Table("term", "mean change of a pixel, of 255", title="Effect of each term alone")
    for name, effect in sorted(effects.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{effect:.2f}", style="red" if effect == 0.0 else "")
    console.print(table)
    console.print(f"Contact sheet: {out}")
    save_json(json_file, {"effects": effects})
    dead = [name for name, effect in effects.items() if effect == 0.0]
    if dead:
        console.print(f"[red]No effect: {', '.join(dead)}. They are hidden from this camera, or not connected.")
        raise typer.Exit(1)


@app.command("looks", hidden=True)
def looks(
    robot: Robot = "so101",
    out: Out = Path("looks.png"),
    count: Count = 40,
    size: Size = 128,
    camera: Camera = None,
    photographs: Photographs = None,
    egl: Egl = False,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Old name of ``appearance``."""
    warn_renamed("sim2real looks", "sim2real appearance")
    appearance(robot, out, count, size, camera, photographs, egl, seed, json_file)


def _write_sheet(
    robot: str, out: Path, count: int, size: int, camera: Path | None, photographs: Path | None, egl: bool, seed: int
) -> dict[str, float]:
    """Write the contact sheet; the effect of every term."""
    try:
        import cv2

        from sim2real.images.pictures import contact_sheet, enlarged, marked
        from sim2real.sim.render.preview import preview, preview_camera
    except ImportError as error:
        raise ConfigError(f"images need OpenCV ({error}): pip install 'sim2real[vision]'") from error
    from sim2real.robots import robot_folder
    from sim2real.robots.arm import Arm

    eye = preview_camera(size) if camera is None else _with_pose(camera)
    images, places, effects = preview(Arm(robot_folder(robot)), eye, count, photographs, egl, seed)
    large = max(1, -(-SHEET_PX // images[0].shape[0]))
    ring = RING_FRACTION * large * images[0].shape[0]
    images = [
        marked(enlarged(image, SHEET_PX), large * (place + 0.5), ring)
        for image, place in zip(images, places, strict=True)
    ]
    captions = [f"{number}: object in the ring" for number in range(1, count + 1)]
    cv2.imwrite(str(out), contact_sheet(images, SHEET_COLUMNS, 4, captions)[..., ::-1])
    return effects


def _with_pose(path: Path) -> CameraCalibration:
    from sim2real.runtime.camera import load_camera

    camera = load_camera(path)
    if camera.T_base_camera is None:
        raise ConfigError(f"{path} does not say where the camera is; run 'sim2real calibrate hand-eye'")
    return camera
