"""Datasets of target images of the SO-101: a perception network is measured on them, and adapted to them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import ConfigError
from sim2real.images.dataset import HEADER, DatasetWriter, read_header
from sim2real.robots import robot_folder
from sim2real.runtime.camera import CameraCalibration, load_camera
from sim2real.runtime.kinematics import Chain
from sim2real.targets.so101_arm import START_ABOVE_RAD, START_ABOVE_SPREAD_RAD, START_RAD, START_SPREAD_RAD, Puck
from sim2real.targets.so101_camera import CLASSES, So101Camera
from sim2real.types import Progress

Split = Literal["unlabelled", "labelled", "development", "test"]

# Seeds that no other split has; 103 was looked at while the shipped localizer was designed.
SPLITS: dict[Split, int] = {"unlabelled": 101, "labelled": 102, "development": 105, "test": 104}
LEAST_VISIBLE = 0.35  # of the object: what is hidden further is not asked for
OBSTRUCTED = 0.5  # of the images have something before the object
DISTANCE_M, AZIMUTH_RAD, RADIUS_M = (0.2, 0.39), 0.85, (0.024, 0.036)
_LOWEST_M = 0.015  # of the gripper's tip above the table


def target_camera(path: Path | None) -> CameraCalibration:
    """The camera that looks at the target; the SO-101's own by default.

    Raises:
        ConfigError: It has lens distortion, or does not say where it stands.
    """
    path = path or robot_folder("so101") / "camera.yaml"
    camera = load_camera(path)
    if camera.T_base_camera is None or camera.distortion.any():
        raise ConfigError(f"{path}: a camera without lens distortion and with T_base_camera is wanted")
    return camera


def write_target_dataset(
    folder: Path,
    camera: CameraCalibration,
    chain: Chain,
    ee: str,
    count: int,
    split: Split,
    on_progress: Progress,
    resume: bool = True,
    clutter: bool = True,
    scene_set: int = 0,
) -> int:
    """Render images of the target.

    Args:
        folder: Of the dataset.
        camera: As calibrated, without lens and with ``T_base_camera``; each image's true pose differs a little.
        chain: The arm's kinematics; keeps its tip above the table.
        ee: The tip's link.
        count: Images in it at the end.
        split: Which one; ``unlabelled`` keeps neither masks nor positions.
        on_progress: Called now and then.
        resume: Go on with what is there.
        clutter: Distractors, and objects that hide part of the object.
        scene_set: Another one has other scenes, and other textures: there are only 30 in each.

    Returns:
        Images in the dataset; fewer than ``count`` when Ctrl-C came.

    Raises:
        ConfigError: The folder holds something else.
        DriverError: MuJoCo cannot render here.
    """
    assert camera.T_base_camera is not None
    about = {
        "what": "images rendered by the MuJoCo target",
        "split": split,
        "clutter": clutter,
        "room": scene_set,
    }  # the key's old name
    seed = SPLITS[split] + 1000 * scene_set
    if (folder / HEADER).is_file() and {"room": 0, **read_header(folder)["about"]} != about:
        raise ConfigError(
            f"{folder} holds target images of another split or scene set (see its {HEADER}); choose another folder"
        )
    secret = split == "unlabelled"
    eye = So101Camera(camera.width, camera.height, camera.matrix, camera.T_base_camera, seed=seed, clutter=clutter)
    with (
        contextlib.closing(eye),
        DatasetWriter(folder, camera.width, camera.height, {} if secret else CLASSES, about, resume) as writer,
        contextlib.suppress(KeyboardInterrupt),
    ):
        while writer.count < count:
            number, tries, rendered = writer.count, 0, None
            while rendered is None:
                rendered = _photograph(eye, chain, ee, (seed, number, tries), clutter)
                tries += 1
            rgb, mask, fields = rendered
            if secret:
                writer.add(rgb)
            else:
                writer.add(rgb, mask, **fields)
            if writer.count % 20 == 0 or writer.count == count:
                on_progress(f"target images, {split}", writer.count, count, {})
        return writer.count
    return writer.count


def _photograph(
    eye: So101Camera, chain: Chain, ee: str, seed: tuple[int, int, int], clutter: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, dict[str, object]] | None:
    """One target image, its mask and fields; None where the arm would be in the table or too little is visible."""
    rng = np.random.default_rng(seed)
    start, half_range = (
        (START_ABOVE_RAD, 1.3 * START_ABOVE_SPREAD_RAD + 0.1) if rng.uniform() < 0.6 else (START_RAD, START_SPREAD_RAD)
    )
    joints = start + half_range * rng.uniform(-1.0, 1.0, 6)
    tip = chain.frames(joints[None])[ee][0][0]
    if tip[2] < _LOWEST_M:
        return None
    radius = float(rng.uniform(*RADIUS_M))
    distance, angle = float(np.sqrt(rng.uniform(*np.square(DISTANCE_M)))), rng.uniform(-AZIMUTH_RAD, AZIMUTH_RAD)
    position = np.array([distance * np.cos(angle), distance * np.sin(angle), 0.5 * Puck().height_m])
    if tip[2] < Puck().height_m and np.linalg.norm(tip[:2] - position[:2]) < radius + 0.01:
        return None
    eye.look(seed)
    eye.resize_puck(radius)
    eye.clear(np.array([[*position[:2], radius]]))
    if clutter and rng.uniform() < OBSTRUCTED:
        eye.obstruct(position[:2], seed)
    photo = eye.photograph(joints, position, truth=True)
    if not photo.visible >= LEAST_VISIBLE:
        return None
    fields: dict[str, object] = {
        "object_pos": position, "object_radius": radius, "visible": photo.visible, "joint_pos": joints,
        "T_base_camera": eye.T_base_camera,
    }  # fmt: skip
    return photo.rgb, photo.mask, fields
