"""Training images for perception: a robot at its table with one object, under visual randomization (Tobin et al. 2017).

Every image depends on the seed and its own number only, so any number of workers draws the same dataset and a stopped
run goes on where it was.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import ConfigError
from sim2real.images.dataset import DatasetWriter
from sim2real.interrupts import shielded
from sim2real.perceive.config import LocalizeConfig
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.runtime.camera import CameraCalibration, load_camera
from sim2real.sim.randomization import Randomization
from sim2real.sim.render.drawing import add_object, move_object
from sim2real.sim.render.scenery import PARAMETERS, TERMS, Scenery, audit_appearance
from sim2real.sim.world import World
from sim2real.types import Array, Image, Progress

CLASSES = {0: "background", 1: "robot", 2: "object", 3: "distractor", 4: "table"}
CHUNK = 100  # images that a worker draws at a time
# Visual terms that move something; the others change its appearance.
POSE_TERMS = ("camera_", "zoom", "distractor", "obstruction")
SIZES = 5  # the object is made in so many sizes; a shape cannot change its own
_POSES = 1500
_CLEAR_M = 0.012  # no joint comes closer to the table
_AWAY = np.array([0.0, 0.0, -60.0])


@dataclass(frozen=True)
class Rendered:
    """One image with everything that is known about it.

    Attributes:
        rgb: [H, W, 3].
        mask: Numbers of ``CLASSES`` [H, W].
        fields: ``object_pos`` [3] m in the base frame (its centre), ``object_pixel`` [2] (column and row of where it
            would be if nothing hid it), ``visible_px``, ``object_radius`` m, ``joint_pos``
            [J] rad, ``T_base_camera`` [4, 4] of this very image, ``pair`` (its number: the frame of the canonical
            dataset of the same experiment that shows the same scene).
    """

    rgb: Image
    mask: Image
    fields: dict[str, Any]


def looking_through(config: LocalizeConfig) -> CameraCalibration:
    """The experiment's camera.

    Raises:
        ConfigError: It does not say where it stands.
    """
    path = config.render.camera or robot_folder(config.robot) / "camera.yaml"
    camera = load_camera(path)
    if camera.T_base_camera is None:
        raise ConfigError(f"{path} does not say where the camera stands; run 'sim2real calibrate hand-eye'")
    return camera


def visual_terms(config: LocalizeConfig) -> dict[str, RandomizationTerm]:
    """Terms of the experiment: those chosen, with its own in place of those of the same name.

    Raises:
        ConfigError: An unknown name.
    """
    render = config.render
    named = {*render.appearance, *render.without, *(() if render.randomize == "all" else render.randomize)}
    unknown = sorted(named - set(TERMS))
    if unknown:
        raise ConfigError(f"there are no visual terms {unknown}; known: {', '.join(TERMS)}")
    names = tuple(TERMS) if render.randomize == "all" else render.randomize
    return {
        name: RandomizationTerm.model_validate(render.appearance[name]) if name in render.appearance else TERMS[name]
        for name in names
        if name not in render.without
    }


class SceneRenderer:
    """Draws the images of one experiment in this process.

    Args:
        config: The experiment.
    """

    def __init__(self, config: LocalizeConfig) -> None:
        self._config = config
        arm = Arm(robot_folder(config.robot))
        camera = looking_through(config)
        assert camera.T_base_camera is not None
        self._camera = camera
        self.world = World(1, 0.01)
        self.world.load_robots(arm.urdf, fixed_base=True)
        self._order = [arm.joints.index(name) for name in self.world.joint_names]
        target = config.object
        self._radii = np.linspace(*target.radius_m, SIZES)
        self._objects = [add_object(self.world, target.kind, float(r), target.height_m) for r in self._radii]
        for body in self._objects:
            move_object(self.world, body, _AWAY)
        far, wide = target.distance_m[1] + 0.08, target.distance_m[1] * np.sin(min(target.azimuth_rad, np.pi / 2))
        self._scenery = Scenery(
            self.world, camera, camera.T_base_camera, {}, self._objects, (0.08, far, -wide, wide),
            config.render.photographs, config.render.textures, seed=config.seed,
            unlike=(target.kind, *(target.hue or (0.0, 1.0))),
        )  # fmt: skip
        self._params = PhysicsParams(PARAMETERS, 1)
        self._terms = visual_terms(config)
        self._appearance = np.array([not name.startswith(POSE_TERMS) for name in self._params.names])
        self._poses, self._tips = _poses(arm, config)

    def render(self, number: int, canonical: bool = False) -> Rendered:
        """Image ``number`` of the dataset; ``canonical`` shows the same scene as it looks without randomization."""
        config = self._config
        rng = np.random.default_rng([config.seed, 11, number])
        params = Randomization(self._terms, self._params, rng).sample(1)[0]
        if canonical:
            params = np.where(self._appearance, self._params.nominal, params)
        pose = int(rng.integers(len(self._poses)))
        size = int(rng.integers(SIZES))
        position = self._object_position(rng, self._tips[pose], self._radii[size])
        self.world.write_joints(np.array([0]), self._poses[pose][None, self._order], np.zeros((1, len(self._order))))
        for index, body in enumerate(self._objects):
            move_object(self.world, body, position if index == size else _AWAY)
        clear = np.array([[position[0], position[1], self._radii[size]], [0.0, 0.0, 0.07]])
        self._scenery.look(params, (config.seed, 12, number), clear)
        seen = self._scenery.render()
        mask = self._classify(seen.segmentation)
        pixel = self._scenery.pixels(position[None])[0]
        fields = {
            "object_pos": position,
            "object_pixel": pixel,
            "object_radius": float(self._radii[size]),
            "visible_px": int((mask == 2).sum()),
            "joint_pos": self._poses[pose],
            "T_base_camera": self._scenery.T_base_camera,
            "pair": number,
        }
        return Rendered(seen.rgb, mask, fields)

    def effects(self, number: int) -> dict[str, float]:
        """Mean change of a pixel, 0 to 255, by each visual term alone in the scene of image ``number``."""
        self.render(number)
        return audit_appearance(self._scenery, self._terms, self._config.seed)

    def close(self) -> None:
        """Free the world; harmless when closed."""
        self.world.close()

    def _object_position(self, rng: np.random.Generator, tip: Array, radius: float) -> Array:
        """Somewhere on the table, or beside the gripper's tip as when it is pushed."""
        target, render = self._config.object, self._config.render
        z = 0.5 * target.height_m
        if rng.uniform() < render.near_gripper:
            away, angle = rng.uniform(radius, radius + 0.06), rng.uniform(-np.pi, np.pi)
            position = tip[:2] + away * np.array([np.cos(angle), np.sin(angle)])
            distance = float(np.hypot(*position))
            if target.distance_m[0] <= distance <= target.distance_m[1]:
                return np.array([*position, z])
        distance = float(np.sqrt(rng.uniform(*np.square(target.distance_m))))
        angle = rng.uniform(-target.azimuth_rad, target.azimuth_rad)
        return np.array([distance * np.cos(angle), distance * np.sin(angle), z])

    def _classify(self, bodies: NDArray[np.int32]) -> Image:
        mask = np.zeros(bodies.shape, dtype=np.uint8)
        for number, group in ((1, self.world.bodies), (2, self._objects), (3, self._scenery.distractors),
                              (4, [self._scenery.table])):  # fmt: skip
            mask[np.isin(bodies, group)] = number
        return mask


def _poses(arm: Arm, config: LocalizeConfig) -> tuple[Array, Array]:
    """Joint positions [N, J] rad that keep every joint above the table, and where their tips are [N, 3] m.

    Half point down at the table by inverse kinematics, as when pushing; half are anything.
    """
    rng = np.random.default_rng([config.seed, 10])
    low, high = (np.array([getattr(c, end) for c in arm.spec.commands]) for end in ("low", "high"))
    target = config.object
    count = 2 * _POSES
    distance = rng.uniform(target.distance_m[0] - 0.03, target.distance_m[1], count)
    angle = rng.uniform(-target.azimuth_rad, target.azimuth_rad, count)
    goal = np.stack((distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.015, 0.12, count)), axis=1)
    down = np.tile(arm.rest, (count, 1)) + 0.05 * rng.standard_normal((count, len(arm.joints)))
    for _ in range(60):
        frames = arm.chain.frames(down)
        step = arm.chain.joint_step(arm.ee, down, frames, goal - frames[arm.ee][0], 0.05, downwards=True)
        down = np.clip(down + 0.5 * step, low + 0.02, high - 0.02)
    other = rng.uniform(low, high, (4 * count, len(arm.joints)))
    kept = []
    for poses in (down, other):
        frames = arm.chain.frames(poses)
        lowest = np.min([frame[0][:, 2] for link, frame in frames.items() if link != next(iter(frames))], axis=0)
        kept.append(poses[lowest > _CLEAR_M][:_POSES])
        if len(kept[-1]) < 50:
            raise ConfigError(f"'{arm.name}' has hardly a pose above its table; is its base on it?")
    poses = np.concatenate(kept)
    return poses, arm.chain.frames(poses)[arm.ee][0]


_RENDERER: SceneRenderer | None = None


def _start(config: LocalizeConfig) -> None:
    global _RENDERER  # noqa: PLW0603 (a worker process has one painter for its life)
    _RENDERER = SceneRenderer(config)


def _render_chunk(first: int, end: int, canonical: bool) -> list[Rendered]:
    assert _RENDERER is not None
    return [_RENDERER.render(number, canonical) for number in range(first, end)]


def render_all(
    config: LocalizeConfig, first: int, end: int, canonical: bool = False
) -> Generator[Rendered, None, None]:
    """Images ``first`` to ``end`` of the experiment, in order, rendered by its workers."""
    chunks = [(start, min(start + CHUNK, end), canonical) for start in range(first, end, CHUNK)]
    workers = min(config.render.workers, max(len(chunks), 1))
    with ProcessPoolExecutor(workers, get_context("spawn"), _start, (config,)) as pool:
        waiting: list[Future[list[Rendered]]] = []
        todo = iter(chunks)
        try:
            # A few chunks ahead: a fast renderer must not fill the memory of a slow writer.
            for chunk in itertools.islice(todo, 2 * workers):
                with shielded():  # this starts the workers; Ctrl-C is the parent's
                    waiting.append(pool.submit(_render_chunk, *chunk))
            while waiting:
                done = waiting.pop(0).result()
                for chunk in itertools.islice(todo, 1):
                    waiting.append(pool.submit(_render_chunk, *chunk))
                yield from done
        finally:
            for future in waiting:
                future.cancel()


def render_dataset(
    config: LocalizeConfig,
    folder: Path,
    count: int,
    on_progress: Progress,
    resume: bool = True,
    canonical: bool = False,
) -> int:
    """Draw a dataset, or the rest of one.

    Args:
        config: The experiment.
        folder: Of the dataset.
        count: Images in it at the end.
        on_progress: Called now and then.
        resume: Go on with what is there.
        canonical: The same scenes in one look: lamps, room, robot and object as they are without randomization,
            distractors in their own colours, everything where it is in the other dataset. It is what
            'sim2real adapt --preset rcan' learns to draw.

    Returns:
        Images in the dataset; fewer than ``count`` when Ctrl-C came.

    Raises:
        ConfigError: The folder holds something else, or another experiment's images.
    """
    camera = looking_through(config)
    shown = config.model_dump(mode="json", include={"robot", "object", "render", "seed"})
    shown["render"]["looks"] = shown["render"].pop("appearance")  # datasets keep the name they were begun with
    for unimportant in ("images", "held_out", "workers"):
        shown["render"].pop(unimportant)
    if canonical:
        shown["canonical"] = True
    about = {"what": f"{'canonical' if canonical else 'randomized'} renders of the training simulator", "config": shown}
    if resume and (folder / "dataset.json").is_file():
        _same_experiment(folder, shown)
    with DatasetWriter(folder, camera.width, camera.height, CLASSES, about, resume) as writer:
        with (
            contextlib.suppress(KeyboardInterrupt),
            contextlib.closing(render_all(config, writer.count, count, canonical)) as all_,
        ):
            for rendered in all_:
                writer.add(rendered.rgb, rendered.mask, **rendered.fields)
                if writer.count % CHUNK == 0 or writer.count == count:
                    on_progress("rendering", writer.count, count, {})
        return writer.count


def _same_experiment(folder: Path, shown: dict[str, Any]) -> None:
    header = json.loads((folder / "dataset.json").read_text())
    if header.get("about", {}).get("config") != shown:
        raise ConfigError(
            f"{folder} holds images of other settings (see its dataset.json); choose another folder, or remove that one"
        )
