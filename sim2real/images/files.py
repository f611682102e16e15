"""Images and poses from files: folders, collected datasets, CSV, YAML, JSON and bags."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from sim2real.errors import ConfigError
from sim2real.images.dataset import HEADER, ImageDataset, read_dataset
from sim2real.images.dataset import SUFFIXES as DATASET_SUFFIXES
from sim2real.images.messages import IMAGE_TYPES, decode_image
from sim2real.recordings.bags import open_bag
from sim2real.runtime.camera import load_camera
from sim2real.runtime.geometry import pose_matrix
from sim2real.types import Array, Image

SUFFIXES = (*DATASET_SUFFIXES, ".tif", ".tiff")
POSE_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")


def read_images(source: Path, topic: str | None = None) -> Iterator[tuple[str, float, Image]]:
    """Name, stamp (s; of a file 0) and image of everything in a folder or a bag, in order.

    Args:
        source: A folder of images, a collected dataset, one image, a rosbag2 folder, or an ``.mcap`` file.
        topic: Of the images in a bag; may be left out where there is one.

    Raises:
        ConfigError: Nothing there, an unreadable image, images of different sizes, or an ambiguous bag.
    """
    bag = source.suffix == ".mcap" or (source / "metadata.yaml").is_file()
    size: tuple[int, ...] | None = None
    count = 0
    for name, stamp, image in _bag_images(source, topic) if bag else _file_images(source):
        if size is not None and image.shape[:2] != size:
            raise ConfigError(
                f"{name} is {image.shape[1]} x {image.shape[0]}, the images before are {size[1]} x {size[0]}; "
                "calibrate one resolution at a time"
            )
        size, count = image.shape[:2], count + 1
        yield name, stamp, image
    if not count:
        raise ConfigError(f"{source} holds no images ({', '.join(SUFFIXES)})")


def _file_images(source: Path) -> Iterator[tuple[str, float, Image]]:
    if not source.exists():
        raise ConfigError(f"{source} does not exist; give a folder of images or a bag")
    if is_dataset(source):
        named = [(frame["image"], float(frame.get("stamp_s", 0.0))) for frame in read_dataset(source).frames]
    elif source.is_file():
        source, named = source.parent, [(source.name, 0.0)]
    else:
        named = [(p.name, 0.0) for p in sorted(source.iterdir()) if p.suffix.lower() in SUFFIXES]
    for name, stamp in named:
        image = cv2.imread(str(source / name), cv2.IMREAD_COLOR)
        if image is None:
            raise ConfigError(f"{source / name} cannot be read as an image; remove it or save it again")
        yield name, stamp, np.asarray(image, dtype=np.uint8)


def is_dataset(source: Path) -> bool:
    """True for a folder that is a dataset, as ``sim2real collect`` makes them."""
    return (source / HEADER).is_file()


def _bag_images(source: Path, topic: str | None) -> Iterator[tuple[str, float, Image]]:
    with open_bag(source) as bag:
        topics = [name for name, kind in sorted(bag.types.items()) if kind in IMAGE_TYPES and topic in (None, name)]
        if len(topics) != 1:
            found = ", ".join(topics) or "none"
            raise ConfigError(f"{source}: images of one topic are wanted, it has {found}; choose one with --topic")
        for message in bag.messages(topics):
            yield f"{topics[0]}[{message.number}]", message.sent_s, decode_image(message.content, source)


def read_poses(path: Path) -> dict[str, Array]:
    """Poses T_base_ee [4, 4] by the name of the image taken there.

    A dataset that ``sim2real collect --robot`` made; CSV with a header ``image, x, y, z, qx, qy, qz, qw`` (m,
    quaternion); or YAML or JSON that maps a name to such a list of seven numbers or to a 4x4 matrix.

    Raises:
        ConfigError: The file cannot be read as poses; file, entry and reason are named.
    """
    if is_dataset(path):
        dataset = read_dataset(path)
        return {f["image"]: pose for f, pose in zip(dataset.frames, _poses_of(dataset), strict=True)}
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a byte order mark
                reader = csv.DictReader(file, skipinitialspace=True)
                missing = [c for c in ("image", *POSE_COLUMNS) if c not in (reader.fieldnames or ())]
                if missing:
                    raise ConfigError(f"{path} lacks the columns {missing}; it needs image, {', '.join(POSE_COLUMNS)}")
                entries: dict[str, Any] = {row["image"]: [row[c] for c in POSE_COLUMNS] for row in reader}
        else:
            entries = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{path} maps no image names to poses")
    return {str(name): _as_pose(value, f"{path}, '{name}'") for name, value in entries.items()}


def _poses_of(dataset: ImageDataset) -> Array:
    if "T_base_ee" not in dataset.frames[0]:
        raise ConfigError(f"{dataset.folder} has no poses of the arm; collect it with --robot, or give --poses")
    return dataset.column("T_base_ee")


def joint_track(dataset: Path, joint: str) -> tuple[Array, Array]:
    """Times [T] s and positions [T] rad of one joint, as they were collected with the images.

    A collection whose camera was known to be late took the joints so much before each image's stamp.

    Raises:
        ConfigError: The dataset has no joints, or none of that name, or stamps that stand still.
    """
    data = read_dataset(dataset)
    names = [str(name) for name in data.about.get("joint_names", ())]
    if joint not in names:
        known = ", ".join(names) or "none: collect it with --robot"
        raise ConfigError(f"{dataset} has no joint '{joint}'; it has {known}")
    time, position = data.column("stamp_s"), data.column("joint_pos")[:, names.index(joint)]
    if (np.diff(time) <= 0).any():
        raise ConfigError(f"{dataset}: the images' stamps do not ascend; take one recording at a time")
    camera = dataset / "camera.yaml"
    latency_s = (load_camera(camera).latency_s or 0.0) if camera.is_file() else 0.0
    return time - latency_s, position


def read_joint_track(path: Path, joint: str) -> tuple[Array, Array]:
    """Times [T] s and positions [T] rad of one joint in a CSV with a column ``time`` and one of the joint's name.

    Raises:
        ConfigError: It cannot be read, or times do not ascend.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        track = np.array([[float(row["time"]), float(row[joint])] for row in rows])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: a column 'time' and a column '{joint}' of numbers are needed ({error})") from error
    if len(track) < 2 or not np.isfinite(track).all() or (np.diff(track[:, 0]) <= 0).any():
        raise ConfigError(f"{path}: times must ascend and every value be finite")
    return track[:, 0], track[:, 1]


def read_pose_pairs(path: Path) -> tuple[Array, Array]:
    """T_base_ee and T_camera_board [N, 4, 4] of a JSON or YAML list of pairs, as MoveIt's calibration saves them.

    Raises:
        ConfigError: It is no such list.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(data, list) or not data or not all(isinstance(p, list) and len(p) == 2 for p in data):
        raise ConfigError(f"{path} is no list of pairs [T_base_ee, T_camera_board]")
    pairs = [[_as_pose(value, f"{path}, pair {index}") for value in pair] for index, pair in enumerate(data)]
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def _as_pose(value: Any, where: str) -> Array:
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: not numbers ({error})") from error
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{where}: a number is missing or not finite")
    if numbers.shape == (4, 4):
        return numbers
    if numbers.shape != (7,):
        raise ConfigError(f"{where}: neither x, y, z, qx, qy, qz, qw nor a 4x4 matrix")
    length = float(np.linalg.norm(numbers[3:]))
    if abs(length - 1.0) > 0.01:
        raise ConfigError(f"{where}: the quaternion's length is {length:.3f}, not 1; the order is qx, qy, qz, qw")
    return pose_matrix(numbers[:3], numbers[3:] / length)
