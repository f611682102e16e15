"""Surroundings and appearance of a robot in images: visual randomization (Tobin et al. 2017).

Nothing here is physics: table, walls, distractors and light exist to be seen. Parameters and terms are those of
``appearance.yaml``, drawn by the same classes as the physics.
"""

from __future__ import annotations

import colorsys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.runtime.camera import CameraCalibration
from sim2real.sim.randomization import Randomization
from sim2real.sim.render.camera import Frame, SimCamera
from sim2real.sim.render.drawing import (
    KINDS,
    Light,
    add_object,
    add_quad,
    load_texture,
    move_object,
    paint,
    paint_robot,
    position_of,
)
from sim2real.sim.render.textures import from_photographs, procedural
from sim2real.sim.world import World
from sim2real.types import Array

_FILE = yaml.safe_load((Path(__file__).parent / "appearance.yaml").read_text())
PARAMETERS = {name: PhysicsParameter.model_validate(entry) for name, entry in _FILE["parameters"].items()}
TERMS = {name: RandomizationTerm.model_validate(entry) for name, entry in _FILE["randomization"].items()}
MOST_DISTRACTORS = 10
ZOOMS = 9  # lenses are prepared for this many focal lengths
TABLE_M, WALL_M = 1.2, 3.0  # side of the table; distance of the wall behind it
WALL_FRACTION = 2.5  # of the view's width: the lens and the randomized camera see more than the nominal one
UNDER_TABLE_M = 0.003  # below the base plane, so that what lies on it is rendered in front
_RADII_M = (0.013, 0.024, 0.04)  # of distractors
_TALLEST_M = 0.16  # a distractor above the table; what it is too long by is sunk into the table
_FAR_AWAY = (0.0, 0.0, -50.0)
_WHITE = (1.0, 1.0, 1.0, 1.0)
_NEAR_HUE = 0.04  # turns: of a distractor that is like the object
_MOST_LINKS, _DARK_FRACTION = 32, 0.4  # of a robot, and how many of them are darker


class Scenery:
    """Table, walls, distractors and light in one environment of a world, and the camera that sees them.

    Args:
        world: The world that is furnished.
        camera: As calibrated; its zoom and pose are varied around that.
        T_base_camera: Where it stands [4, 4].
        terms: Terms of ``appearance.yaml`` by name; empty for the nominal look.
        objects: Bodies whose colour and texture are those of objects; its robot is painted apart.
        area: Where distractors may lie: x from and to, y from and to, m.
        photographs: A folder of the user's own images, from which half of the textures are then cut.
        textures: How many there are; they are made once, so that memory stays flat.
        samples: As of :class:`~sim2real.sim.render.camera.SimCamera`.
        env_id: The robot's environment.
        seed: Of everything random.
        unlike: Kind of shape, and hues from and to (in turns, may begin below 0), of which no distractor is both:
            what an object is told by. A whole turn leaves out the kind.

    Attributes:
        params: The look of the newest image; a table of one row.
        T_base_camera: Where the camera of the newest look stands.
        table: Number of its body.
        distractors: Numbers of their bodies.
    """

    def __init__(
        self,
        world: World,
        camera: CameraCalibration,
        T_base_camera: Array,  # noqa: N803 (the transform's name says its direction)
        terms: Mapping[str, RandomizationTerm] = TERMS,
        objects: Sequence[int] = (),
        area: tuple[float, float, float, float] = (0.1, 0.45, -0.3, 0.3),
        photographs: Path | None = None,
        textures: int = 200,
        samples: int = 1,
        env_id: int = 0,
        seed: int = 0,
        unlike: tuple[str, float, float] | None = None,
    ) -> None:
        self.world, self._pose, self._area, self._env_id = world, T_base_camera, area, env_id
        self._unlike = unlike
        self.params = PhysicsParams(PARAMETERS, 1)
        rng, self._layout, texture_rng = (np.random.default_rng([seed, stream]) for stream in range(3))
        self._randomization = Randomization(terms, self.params, rng)
        self._objects = tuple(objects)
        self._zooms = np.linspace(PARAMETERS["zoom"].low, PARAMETERS["zoom"].high, 1 + 10 * (ZOOMS - 1))
        self._cameras: dict[int, SimCamera] = {}
        self._camera, self._samples = camera, samples
        self._textures = self._make_textures(texture_rng, textures, photographs)
        self.table = self._quad(TABLE_M, np.array([0.35, 0.0, -UNDER_TABLE_M]), np.eye(3))
        # One wall across the whole view: everything behind the table is this picture.
        widest = max(camera.width / camera.matrix[0, 0], camera.height / camera.matrix[1, 1])
        behind = T_base_camera @ [0.0, 0.0, WALL_M, 1.0]
        self._wall = self._quad(
            WALL_FRACTION * WALL_M * widest, behind[:3], T_base_camera[:3, :3] @ np.diag([1.0, -1.0, -1.0])
        )
        self.distractors = [self._shape(index) for index in range(MOST_DISTRACTORS)]

    def look(
        self, params: Array | None = None, layout: int | Sequence[int] | None = None, clear: Array | None = None
    ) -> None:
        """Randomize the appearance of everything.

        Args:
            params: Parameters [P]; drawn by default.
            layout: Seed of where distractors lie, and of their colours; somewhere else every time by default.
            clear: Discs (x, y, radius) [K, 3] m in which none stands.
        """
        self._randomization.reset(np.array([0]), None if params is None else params[None])
        rng = self._layout if layout is None else np.random.default_rng(layout)
        p = {name: float(self.params[name][0]) for name in self.params.names}
        self._paint(self.table, "table", p)
        self._paint(self._wall, "background", p)
        for body in self._objects:
            self._paint(body, "object", p)
        if self.world.bodies:
            dark = 1.0 - p["robot_contrast"] * (rng.uniform(0.0, 1.0, _MOST_LINKS) < _DARK_FRACTION)
            colour = _colour(p["robot_hue"], p["robot_brightness"], p["robot_saturation"])
            paint_robot(self.world, self._env_id, colour, dark.tolist())
        self._light = Light(
            _direction(p["light_azimuth"], p["light_elevation"]),
            (p["light_red"], p["light_green"], p["light_blue"]),
            p["light_distance"], p["ambient"], p["diffuse"], p["specular"], p["shadows"] >= 0.5,
        )  # fmt: skip
        rotation = cv2.Rodrigues(np.array([p["camera_pitch"], p["camera_yaw"], p["camera_roll"]]))[0]
        moved = np.eye(4)
        moved[:3, :3], moved[:3, 3] = rotation, (p["camera_x"], p["camera_y"], p["camera_z"])
        self.T_base_camera: Array = self._pose @ moved
        self._scatter(rng, p, np.empty((0, 3)) if clear is None else clear)
        self._zoom = int(np.abs(self._zooms - p["zoom"]).argmin())

    def pixels(self, points: Array) -> Array:
        """Project points [K, 3] m of the base frame into the image of this look [K, 2], (column, row)."""
        camera = self._eye().camera
        seen = (np.concatenate((points, np.ones((len(points), 1))), axis=1) @ np.linalg.inv(self.T_base_camera).T)[
            :, :3
        ]
        still = np.zeros(3)
        through = cv2.fisheye.projectPoints if camera.lens == "fisheye" else cv2.projectPoints
        at = through(seen[:, None], still, still, camera.matrix, camera.distortion)[0]
        return np.asarray(at, dtype=np.float64).reshape(-1, 2)

    def render(self) -> Frame:
        """Render the world as it stands."""
        return self._eye().render(self.world, self.T_base_camera, self._env_id, self._light)

    def _eye(self) -> SimCamera:
        """The camera at this look's zoom."""
        if self._zoom not in self._cameras:
            matrix = self._camera.matrix.copy()
            matrix[0, 0] *= self._zooms[self._zoom]
            matrix[1, 1] *= self._zooms[self._zoom]
            c = self._camera
            zoomed = CameraCalibration(c.width, c.height, matrix, c.lens, c.distortion)
            self._cameras[self._zoom] = SimCamera(zoomed, self._samples)
        return self._cameras[self._zoom]

    def _make_textures(self, rng: np.random.Generator, count: int, photographs: Path | None) -> list[int]:
        images = [procedural(rng) for _ in range(count)]
        if photographs is not None:
            images[: count // 2] = from_photographs(photographs, rng, count // 2)
        numbers = []
        with tempfile.TemporaryDirectory() as folder:
            for index, image in enumerate(images):
                file = Path(folder) / f"{index}.png"
                cv2.imwrite(str(file), image[..., ::-1])
                numbers.append(load_texture(self.world, file))
        return numbers

    def _quad(self, side: float, position: Array, rotation: Array) -> int:
        half = 0.5 * side
        corners = ((-half, -half, 0.0), (half, -half, 0.0), (half, half, 0.0), (-half, half, 0.0))
        return add_quad(self.world, corners, position, Rotation.from_matrix(rotation).as_quat().tolist(), self._env_id)

    def _shape(self, index: int) -> int:
        """A distractor of each kind, in three sizes; a shape's size cannot be changed later, only how deep it sits."""
        return add_object(self.world, KINDS[index % len(KINDS)], _radius(index), _TALLEST_M, self._env_id)

    def _scatter(self, rng: np.random.Generator, p: Mapping[str, float], clear: Array) -> None:
        count, hide = int(p["distractors"]), p["obstruction"] >= 0.5
        # Always the same number of draws, so that one more distractor leaves the others where they were.
        samples = rng.uniform(0.0, 1.0, (MOST_DISTRACTORS, 8))
        which, *aside = rng.uniform(0.0, 1.0, 4)
        hidden = self._objects_on_table() if hide else np.empty((0, 2))
        kind, low, high = self._unlike or ("", 0.0, 0.0)
        allowed = [i for i in range(MOST_DISTRACTORS) if KINDS[i % len(KINDS)] != kind or high - low < 1.0]
        before = allowed[int(which * len(allowed))] if len(hidden) else -1
        for index, (body, u) in enumerate(zip(self.distractors, samples, strict=True)):
            position, radius = _FAR_AWAY, _radius(index)
            x, y = self._in_area(u[0], u[1])
            if index == before:
                x, y = _before(hidden[0], self.T_base_camera[:2, 3], radius, aside)
                position = (x, y, _middle(index, 0.05 + 0.08 * u[5]))
            elif (
                index < count
                and index in allowed
                and (np.hypot(clear[:, 0] - x, clear[:, 1] - y) > clear[:, 2] + radius).all()
            ):
                position = (x, y, _middle(index, p["distractor_size"] * (0.5 + u[5])))
            texture, hue = self._texture(u[4]), float(u[2])
            if KINDS[index % len(KINDS)] == kind:
                texture, hue = -1, high + hue * (1.0 + low - high)  # around the circle from high to low
            elif u[7] < p["distractor_alike"]:
                texture, hue = -1, p["object_hue"] + _NEAR_HUE * (2.0 * hue - 1.0)
            paint(self.world, body, _colour(hue, 0.1 + 0.9 * u[3], u[6]) if texture < 0 else _WHITE, texture)
            quat = (0.0, 0.0, np.sin(np.pi * u[2]), np.cos(np.pi * u[2]))
            move_object(self.world, body, np.array(position), quat, self._env_id)

    def _in_area(self, across: float, along: float) -> tuple[float, float]:
        x0, x1, y0, y1 = self._area
        return x0 + across * (x1 - x0), y0 + along * (y1 - y0)

    def _objects_on_table(self) -> Array:
        """Positions [K, 2] m of the objects, without those that were put away."""
        layout = [position_of(self.world, body, self._env_id) for body in self._objects]
        return np.array([position[:2] for position in layout if position[2] > -1.0]).reshape(-1, 2)

    def _paint(self, body: int, name: str, p: Mapping[str, float]) -> None:
        texture, brightness = self._texture(p[f"{name}_texture"]), p[f"{name}_brightness"]
        # A texture has colours of its own; another one on top would only make it dark.
        grey = 0.5 + 0.5 * brightness
        colour = (
            _colour(p[f"{name}_hue"], brightness, p[f"{name}_saturation"]) if texture < 0 else (grey, grey, grey, 1.0)
        )
        paint(self.world, body, colour, texture)

    def _texture(self, fraction: float) -> int:
        """Number of the texture at a position in the list; the first of 0 is none."""
        index = int(fraction * len(self._textures)) - 1
        return -1 if index < 0 else self._textures[index]


def audit_appearance(
    scenery: Scenery, terms: Mapping[str, RandomizationTerm] = TERMS, seed: int = 0
) -> dict[str, float]:
    """Mean change of a pixel, 0 to 255, when each term alone moves from one end of its range.

    To the middle or to the other end, whichever shows more: hues and angles come round. A term that changes nothing
    gives 0: it is misspelt, not connected, or hidden.
    """
    effects = {}
    for name, term in terms.items():
        images = []
        for fraction in (0.0, 0.5, 1.0):
            params = scenery.params.nominal.copy()
            params[scenery.params.column("distractors")] = 5.0
            params[scenery.params.column(name)] = term.range[0] + fraction * (term.range[1] - term.range[0])
            scenery.look(params, seed)
            images.append(scenery.render().rgb.astype(np.float64))
        effects[name] = max(float(np.abs(image - images[0]).mean()) for image in images[1:])
    return effects


def _radius(index: int) -> float:
    """Radius of a distractor, m."""
    return _RADII_M[(index // len(KINDS)) % len(_RADII_M)]


def _middle(index: int, top: float) -> float:
    """Height of a distractor's middle, m, so that it reaches ``top`` above the table; no ball floats."""
    half = _radius(index) if KINDS[index % len(KINDS)] == "ball" else 0.5 * _TALLEST_M
    return min(top, 2.0 * half) - half


def _before(position: Array, eye: Array, radius: float, aside: Sequence[float]) -> tuple[float, float]:
    """Position from which an object of ``radius`` m hides part of what lies at ``position`` [2] m."""
    toward = (eye - position) / max(float(np.linalg.norm(eye - position)), 1e-9)
    side = np.array([-toward[1], toward[0]]) * (2.0 * aside[0] - 1.0)
    x, y = position + (radius + 0.03 + 0.06 * aside[1]) * toward + (radius + 0.02 * aside[2]) * side
    return float(x), float(y)


def _colour(hue: float, brightness: float, saturation: float) -> tuple[float, float, float, float]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, brightness)
    return red, green, blue, 1.0


def _direction(azimuth: float, elevation: float) -> tuple[float, float, float]:
    flat = np.cos(elevation)
    return float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), float(np.sin(elevation))
