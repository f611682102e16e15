"""Shapes that are only seen, and the renderer behind one door.

Another renderer takes Bullet's place by drawing :func:`see` and the shapes here.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import SimulationError
from sim2real.sim.quiet import quiet
from sim2real.sim.world import World
from sim2real.types import Array

with quiet():
    import pybullet

Colour = tuple[float, float, float, float]  # red, green, blue, opacity, 0 to 1

KINDS = ("box", "cylinder", "ball")
SIDES = 10  # of what is round: the renderer's time goes with the number of triangles
NO_TEXTURE = -1
EGL_MOST_PX = 1024  # larger pictures it enlarges by repeating pixels
_UPRIGHT = (0.0, 0.0, 0.0, 1.0)
_TWO_TRIANGLES = (0, 1, 2, 0, 2, 3)
_FOLDER = tempfile.TemporaryDirectory(prefix="sim2real-shapes-")  # removed when the process ends


@dataclass(frozen=True)
class Light:
    """One lamp, and what is bright without it.

    Attributes:
        direction: Towards the lamp, world frame.
        colour: Red, green, blue, 0 to 1.
        distance_m: Of the lamp.
        ambient, diffuse, specular: Fraction of light from everywhere, of the lamp's, and of its reflexes.
        shadows: Whether it casts them.
    """

    direction: tuple[float, float, float] = (0.5, -0.4, 1.0)
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    distance_m: float = 2.0
    ambient: float = 0.6
    diffuse: float = 0.35
    specular: float = 0.05
    shadows: bool = False


DAYLIGHT = Light()


def see(
    world: World,
    env_id: int,
    view: Array,
    projection: Sequence[float],
    width: int,
    height: int,
    light: Light = DAYLIGHT,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
    """Raw image of one environment: RGB [height, width, 3], OpenGL's depth buffer and body numbers [height, width].

    Args:
        world: What is rendered.
        env_id: The robot's environment.
        view: OpenGL's view matrix [4, 4] in the environment's frame.
        projection: OpenGL's projection matrix, by columns.
        width: px.
        height: px.
        light: On everything.

    Raises:
        SimulationError: Larger than EGL can draw.
    """
    away = np.eye(4)
    away[:3, 3] = -world.cell_origin(env_id)
    looks = list(projection)
    if world.renderer == pybullet.ER_TINY_RENDERER:
        # It draws half a pixel too far to the right and too high: measured with boards; OpenGL does not.
        looks[8] += 1.0 / width
        looks[9] += 1.0 / height
    elif max(width, height) > EGL_MOST_PX:
        raise SimulationError(
            f"Bullet's EGL renderer draws at most {EGL_MOST_PX} px a side, not {width} x {height}; take fewer samples "
            "a pixel, or leave egl out"
        )
    image: Any = pybullet.getCameraImage(
        width, height, (view @ away).T.ravel().tolist(), looks, lightDirection=light.direction,
        lightColor=light.colour, lightDistance=light.distance_m, shadow=int(light.shadows),
        lightAmbientCoeff=light.ambient, lightDiffuseCoeff=light.diffuse, lightSpecularCoeff=light.specular,
        renderer=world.renderer, physicsClientId=world.client,
    )  # fmt: skip
    rgb = np.asarray(image[2], dtype=np.uint8).reshape(height, width, 4)[..., :3]
    depth = np.asarray(image[3], dtype=np.float32).reshape(height, width)
    return np.ascontiguousarray(rgb), depth, np.asarray(image[4], dtype=np.int32).reshape(height, width)


def add_quad(
    world: World, corners: Sequence[Sequence[float]], position: Array, quat: Sequence[float] = _UPRIGHT, env_id: int = 0
) -> int:
    """A flat face, seen from where its corners run counter-clockwise; its number.

    Args:
        world: Where.
        corners: Four, m, around the texture from its lower left in this order: left, right, upper right, upper left.
        position: Of the corners' frame [3] m in the environment's frame.
        quat: xyzw.
        env_id: The robot's environment.
    """
    uvs = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    shape = _mesh(world, corners, ((0.0, 0.0, 1.0),) * 4, uvs, _TWO_TRIANGLES)
    return _body(world, shape, position, quat, env_id)


def _mesh(
    world: World,
    vertices: Sequence[Sequence[float]],
    normals: Sequence[Sequence[float]],
    uvs: Sequence[Sequence[float]],
    indices: Sequence[int],
) -> int:
    """A white visual shape of triangles, from a file: Bullet's EGL renderer does not draw meshes given as arrays."""
    lines = [
        f"{key} {' '.join(f'{x:.9g}' for x in row)}"
        for key, rows in (("v", vertices), ("vn", normals), ("vt", uvs))
        for row in rows
    ]
    corner = [f"{i + 1}/{i + 1}/{i + 1}" for i in indices]
    lines += [f"f {' '.join(corner[i : i + 3])}" for i in range(0, len(corner), 3)]
    text = "\n".join(lines) + "\n"
    file = Path(_FOLDER.name) / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.obj"
    file.write_text(text)  # Bullet reads it when a body gets the shape
    return int(
        pybullet.createVisualShape(
            pybullet.GEOM_MESH, fileName=str(file), rgbaColor=(1.0, 1.0, 1.0, 1.0),
            specularColor=(0.0, 0.0, 0.0), physicsClientId=world.client,
        )
    )  # fmt: skip


def add_object(world: World, kind: str, radius: float, height: float, env_id: int = 0) -> int:
    """A box, cylinder or ball that is only seen, of few triangles, m; its number."""
    if kind == "box":
        shape = pybullet.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=(radius, 0.8 * radius, 0.5 * height), physicsClientId=world.client
        )
        return _body(world, shape, np.zeros(3), _UPRIGHT, env_id)
    if kind not in KINDS:
        raise SimulationError(f"unknown kind of object '{kind}'; known: {', '.join(KINDS)}")
    # Rings of points from the top to the bottom: height above the middle and radius.
    if kind == "cylinder":
        rings = [(0.5, 0.0), (0.5, 1.0), (-0.5, 1.0), (-0.5, 0.0)]
        profile = [(height * z, radius * r) for z, r in rings]
    else:
        angles = np.linspace(0.0, np.pi, SIDES // 2 + 1)
        profile = [(radius * float(np.cos(t)), radius * float(np.sin(t))) for t in angles]
    shape = _revolved(world, profile, smooth=kind == "ball")
    return _body(world, shape, np.zeros(3), _UPRIGHT, env_id)


def _revolved(world: World, profile: Sequence[tuple[float, float]], smooth: bool) -> int:
    """A shape revolved about z, from (height, radius) from its top to its bottom."""
    around = np.linspace(0.0, 2.0 * np.pi, SIDES + 1)
    vertices: list[list[float]] = []
    normals: list[list[float]] = []
    uvs: list[tuple[float, float]] = []
    indices: list[int] = []
    for (upper, wide), (lower, narrow) in pairwise(profile):
        for left, right in pairwise(around.tolist()):
            first = len(vertices)
            corners = [(z, r, a) for (z, r), a in (((upper, wide), left), ((lower, narrow), left),
                                                   ((lower, narrow), right), ((upper, wide), right))]  # fmt: skip
            middle = 0.5 * (left + right)
            slope = np.array([upper - lower, narrow - wide])  # outwards and up
            slope /= max(float(np.linalg.norm(slope)), 1e-9)
            for z, r, a in corners:
                point = np.array([r * np.cos(a), r * np.sin(a), z])
                flat = np.array([slope[0] * np.cos(middle), slope[0] * np.sin(middle), slope[1]])
                vertices.append(point.tolist())
                normals.append((point / max(float(np.linalg.norm(point)), 1e-9) if smooth else flat).tolist())
                uvs.append((float(a / (2 * np.pi)), 0.5 + 2.0 * z))
            indices += [first, first + 1, first + 2, first, first + 2, first + 3]
    return _mesh(world, vertices, normals, uvs, indices)


def move_object(world: World, body: int, position: Array, quat: Sequence[float] = _UPRIGHT, env_id: int = 0) -> None:
    """Put an object's centre at ``position`` [3] m in the environment's frame."""
    at = (world.cell_origin(env_id) + position).tolist()
    pybullet.resetBasePositionAndOrientation(body, at, list(quat), physicsClientId=world.client)


def position_of(world: World, body: int, env_id: int = 0) -> Array:
    """Position [3] m of an object's centre in the environment's frame."""
    at = pybullet.getBasePositionAndOrientation(body, physicsClientId=world.client)[0]
    return np.array(at) - world.cell_origin(env_id)


def load_texture(world: World, image: Path) -> int:
    """Number of a texture; it stays in memory until the world is closed.

    Raises:
        SimulationError: The image cannot be read.
    """
    try:
        return int(pybullet.loadTexture(str(image), physicsClientId=world.client))
    except pybullet.error as error:
        raise SimulationError(f"{image} cannot be read as a picture: {error}") from error


def paint(world: World, body: int, colour: Colour, texture: int = NO_TEXTURE) -> None:
    """Give an object a colour, which multiplies its texture."""
    pybullet.changeVisualShape(body, -1, textureUniqueId=texture, rgbaColor=colour, physicsClientId=world.client)


def paint_robot(world: World, env_id: int, colour: Colour, dark: Sequence[float] = (1.0,)) -> None:
    """Give all links of a robot one colour, each times one of ``dark``, over and over."""
    body, (*rgb, opacity) = world.bodies[env_id], colour
    for link in range(-1, pybullet.getNumJoints(body, world.client)):
        factor = dark[(link + 1) % len(dark)]
        shade = [factor * part for part in rgb] + [opacity]
        pybullet.changeVisualShape(body, link, rgbaColor=shade, physicsClientId=world.client)


def _body(world: World, shape: int, position: Array, quat: Sequence[float], env_id: int) -> int:
    return int(
        pybullet.createMultiBody(
            baseMass=0, baseVisualShapeIndex=shape, basePosition=(world.cell_origin(env_id) + position).tolist(),
            baseOrientation=list(quat), physicsClientId=world.client,
        )
    )  # fmt: skip
