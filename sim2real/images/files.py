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
from sim2real.images.messages import IMAGE_TYPES, decode_image, eight_bits
from sim2real.recordings.bags import open_bag
from sim2real.runtime.camera import load_camera
from sim2real.runtime.geometry import pose_matrix, rotation_vector_to_quat
from sim2real.types import Array, Image

SUFFIXES = (*DATASET_SUFFIXES, ".tif", ".tiff", ".pgm", ".ppm")
POSE_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")
VECTOR_COLUMNS = ("x", "y", "z", "rx", "ry", "rz")
_ARCHIVES, _VIDEOS = (".zip", ".tar", ".gz", ".tgz", ".7z"), (".mp4", ".avi", ".mov", ".mkv", ".webm")


def read_images(source: Path, topic: str | None = None) -> Iterator[tuple[str, float, Image]]:
    """Name, stamp (s; of a file 0) and image of everything in a folder or a bag, in order.

    Pixels are as the sensor has them: an orientation in EXIF turns nothing. Images of more than 8 bits are scaled to 8.

    Args:
        source: A folder of images, a collected dataset, one image, a rosbag2 folder, or an ``.mcap`` or ``.bag`` file.
        topic: Of the images in a bag; may be left out where there is one.

    Raises:
        ConfigError: Nothing there, an unreadable image, images of different sizes, or an ambiguous bag.
    """
    bag = source.suffix.lower() in (".mcap", ".bag", ".db3") or (source / "metadata.yaml").is_file()
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
        inside = [p.name for p in sorted(source.iterdir()) if p.is_dir() and any(map(_is_image, p.iterdir()))]
        if inside:
            raise ConfigError(f"{source} holds no images, its sub-folders do: give one of {', '.join(inside[:8])}")
        raise ConfigError(f"{source} holds no images ({', '.join(SUFFIXES)})")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _file_images(source: Path) -> Iterator[tuple[str, float, Image]]:
    if not source.exists():
        raise ConfigError(f"{source} does not exist; give a folder of images or a bag")
    if source.is_file() and source.suffix.lower() in _ARCHIVES:
        raise ConfigError(f"{source} is an archive: unpack it, and give the folder of images")
    if source.is_file() and source.suffix.lower() in _VIDEOS:
        raise ConfigError(
            f"{source} is a video: extract still frames (ffmpeg -i {source.name} -vf fps=2 frames/%04d.png), and give "
            "their folder"
        )
    if is_dataset(source):
        named = [(frame["image"], float(frame.get("stamp_s", 0.0))) for frame in read_dataset(source).frames]
    elif source.is_file():
        source, named = source.parent, [(source.name, 0.0)]
    else:
        named = [(p.name, 0.0) for p in sorted(source.iterdir()) if _is_image(p)]
    for name, stamp in named:
        image = cv2.imread(str(source / name), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise ConfigError(f"{source / name} cannot be read as an image; remove it or save it again")
        yield name, stamp, eight_bits(image)


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
    quaternion) or ``image, x, y, z, rx, ry, rz`` (m, rotation vector in rad, as UR's controllers show it); or YAML or
    JSON that maps a name to such a list of seven numbers, to a 4x4 matrix, or to {translation, rotation}.

    Raises:
        ConfigError: The file cannot be read as poses; file, entry and reason are named.
    """
    if is_dataset(path):
        dataset = read_dataset(path)
        return {f["image"]: pose for f, pose in zip(dataset.frames, _poses_of(dataset), strict=True)}
    entries = _read_csv(path) if path.suffix.lower() == ".csv" else _read_yaml(path)
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{path} maps no image names to poses")
    return {str(name): _as_pose(value, f"{path}, '{name}'") for name, value in entries.items()}


def _read_csv(path: Path) -> dict[str, Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a byte order mark
            reader = csv.DictReader(file, skipinitialspace=True)
            rows, names = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    vector = all(column in names for column in VECTOR_COLUMNS)
    missing = [c for c in ("image", *(VECTOR_COLUMNS if vector else POSE_COLUMNS)) if c not in names]
    if missing and {"roll", "pitch", "yaw"} & {name.lower() for name in names}:
        raise ConfigError(
            f"{path} has Euler angles, of which neither order nor unit is known; write qx, qy, qz, qw: "
            "scipy.spatial.transform.Rotation.from_euler('xyz', [roll, pitch, yaw], degrees=True).as_quat()"
        )
    if missing:
        raise ConfigError(
            f"{path} lacks the columns {missing}; it needs image, {', '.join(POSE_COLUMNS)} or a rotation vector "
            "rx, ry, rz"
        )
    entries: dict[str, Any] = {}
    for row in rows:
        try:
            numbers = [float(row[c]) for c in (VECTOR_COLUMNS if vector else POSE_COLUMNS)]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}, '{row['image']}': not numbers ({error})") from error
        entries[row["image"]] = (
            [*numbers[:3], *rotation_vector_to_quat(np.array(numbers[3:])).tolist()] if vector else numbers
        )
    return entries


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "- Translation: [" in text and "Rotation: in Quaternion" in text:
            raise ConfigError(
                f"{path} is the output of tf2_echo, which rounds and names no images; write JSON or CSV: a name, "
                f"{', '.join(POSE_COLUMNS)} for every image"
            )
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


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


# What calibration tools call the arm's and the board's pose of a sample.
_PAIRS = {
    ("effector_wrt_world", "object_wrt_sensor"): "MoveIt's 'Save samples'",
    ("robot", "tracking"): "easy_handeye2",
    ("T_base_ee", "T_camera_board"): "ours",
}


def read_pose_pairs(path: Path) -> tuple[Array, Array]:
    """T_base_ee and T_camera_board [N, 4, 4] of a JSON or YAML list of pairs.

    A pair is a list of two poses, as MoveIt's calibration has them, or a map: ``effector_wrt_world`` and
    ``object_wrt_sensor`` (MoveIt's "Save samples"), ``robot`` and ``tracking`` (easy_handeye2), or ``T_base_ee`` and
    ``T_camera_board``. A pose is 16 or 4x4 numbers, x, y, z, qx, qy, qz, qw, or {translation, rotation}.

    Raises:
        ConfigError: It is no such list.
    """
    data = _read_yaml(path)
    data = data["samples"] if isinstance(data, dict) and set(data) >= {"samples"} else data
    keys = next((keys for keys in _PAIRS if isinstance(data, list) and data and all(_has(p, keys) for p in data)), None)
    if keys is not None:
        data = [[pair[key] for key in keys] for pair in data]
    if not isinstance(data, list) or not data or not all(isinstance(p, list) and len(p) == 2 for p in data):
        names = "; ".join(f"{{{', '.join(keys)}}}" for keys in _PAIRS)
        raise ConfigError(f"{path} is no list of pairs [T_base_ee, T_camera_board], nor of maps {names}")
    pairs = [[_as_pose(value, f"{path}, pair {index}") for value in pair] for index, pair in enumerate(data)]
    return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


def _has(pair: Any, keys: tuple[str, str]) -> bool:
    return isinstance(pair, dict) and all(key in pair for key in keys)


def _as_pose(value: Any, where: str) -> Array:
    if _has(value, ("translation", "rotation")):
        try:
            value = [float(value["translation"][key]) for key in "xyz"] + [
                float(value["rotation"][key]) for key in "xyzw"
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: translation x, y, z and rotation x, y, z, w are wanted ({error})") from error
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: not numbers ({error})") from error
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{where}: a number is missing or not finite")
    if numbers.shape == (16,):
        numbers = numbers.reshape(4, 4)
    if numbers.shape == (4, 4):
        return numbers
    if numbers.shape != (7,):
        raise ConfigError(f"{where}: neither x, y, z, qx, qy, qz, qw nor a 4x4 matrix")
    length = float(np.linalg.norm(numbers[3:]))
    if abs(length - 1.0) > 0.01:
        raise ConfigError(f"{where}: the quaternion's length is {length:.3f}, not 1; the order is qx, qy, qz, qw")
    return pose_matrix(numbers[:3], numbers[3:] / length)
