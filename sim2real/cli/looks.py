"""What a policy's eyes are trained on: a contact sheet of visual randomization, and its audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from sim2real.cli.console import JsonFile, console, save_json
from sim2real.errors import ConfigError

app = typer.Typer()

EYE_M, TARGET_M = (0.75, 0.0, 0.55), (0.25, 0.0, 0.03)  # where a camera without a calibration stands and looks
FOCAL = 0.9  # of the image's width


@app.command()
def looks(
    robot: Annotated[str, typer.Argument(help="so101, fr3, or a folder with robot.yaml and URDF.")] = "so101",
    out: Annotated[Path, typer.Option(help="Contact sheet to write (.png).")] = Path("looks.png"),
    count: Annotated[int, typer.Option(min=1, help="Images on it.")] = 40,
    size: Annotated[int, typer.Option(min=16, help="Side of an image without --camera, px.")] = 128,
    camera: Annotated[Path | None, typer.Option(help="Calibration, with T_base_camera, to look through.")] = None,
    photographs: Annotated[Path | None, typer.Option(help="Folder of photographs to cut textures from.")] = None,
    egl: Annotated[bool, typer.Option("--egl", help="Draw with OpenGL, where a GPU is.")] = False,
    seed: int = 0,
    json_file: JsonFile = None,
) -> None:
    """Show what visual randomization makes of a robot at its table, and whether every term shows."""
    try:
        import cv2

        from sim2real.images.pictures import contact_sheet
        from sim2real.sim.render.drawing import add_thing, place_thing
        from sim2real.sim.render.scenery import Scenery, audit_looks
    except ImportError as error:
        raise ConfigError(f"images need OpenCV ({error}): pip install 'sim2real[vision]'") from error
    from sim2real.robots import robot_folder
    from sim2real.robots.arm import Arm
    from sim2real.runtime.camera import CameraCalibration, load_camera
    from sim2real.sim.world import World

    arm = Arm(robot_folder(robot))
    if camera is None:
        matrix = np.array([[FOCAL * size, 0, 0.5 * (size - 1)], [0, FOCAL * size, 0.5 * (size - 1)], [0, 0, 1.0]])
        eye, pose = CameraCalibration(size, size, matrix), _looking(np.array(EYE_M), np.array(TARGET_M))
    else:
        eye = load_camera(camera)
        if eye.T_base_camera is None:
            raise ConfigError(f"{camera} does not say where the camera is; run 'sim2real calibrate hand-eye'")
        pose = eye.T_base_camera
    world = World(1, 0.01, egl=egl)
    world.load_robots(arm.urdf, fixed_base=True)
    world.write_joints(np.array([0]), arm.rest[None], np.zeros((1, len(arm.rest))))
    thing = add_thing(world, "cylinder", 0.028, 0.04)
    place_thing(world, thing, np.array([0.3, 0.08, 0.02]))
    scenery = Scenery(world, eye, pose, objects=[thing], photographs=photographs, seed=seed)
    images = []
    for _ in range(count):
        scenery.look()
        images.append(scenery.render().rgb)
    cv2.imwrite(str(out), contact_sheet(images)[..., ::-1])
    effects = audit_looks(scenery)
    table = Table("term", "mean change of a pixel, of 255", title="What each term alone does")
    for name, effect in sorted(effects.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{effect:.2f}", style="red" if effect == 0.0 else "")
    console.print(table)
    console.print(f"Contact sheet: {out}")
    save_json(json_file, {"effects": effects})
    world.close()
    dead = [name for name, effect in effects.items() if effect == 0.0]
    if dead:
        console.print(f"[red]No effect: {', '.join(dead)}. They are hidden from this camera, or not connected.")
        raise typer.Exit(1)


def _looking(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """T_base_camera of a camera at ``eye`` that looks at ``target``, upright."""
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack((x, np.cross(z, x), z), axis=1), eye
    return pose
