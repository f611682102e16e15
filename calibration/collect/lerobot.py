"""Export of a collected dataset as a LeRobot dataset, format v3.0, with images inside the parquet files.

Written after ``src/lerobot/datasets`` of huggingface/lerobot 0.4 (``lerobot_dataset.py``, ``utils.py``,
``compute_stats.py``); ``lerobot`` itself is not needed. Every session of a recording is an episode.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from calibration.collect.lerobot_stats import ImageStats, own_columns, statistics_of
from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.images.dataset import ImageDataset
from sim2real.types import Array

if TYPE_CHECKING:
    import pyarrow as pa


CODEBASE = "v3.0"
CHUNKS_SIZE, DATA_FILE_MB = 1000, 100
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
POSE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw")
_ROWS_AT_ONCE = 64


def export_lerobot(
    dataset: ImageDataset,
    out: Path,
    fps: int | None = None,
    camera: str = "camera",
    robot_type: str | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Write ``out`` at once: under a temporary name that is then renamed.

    LeRobot's frames follow each other at ``fps``; ``timestamp`` counts them. The true time since the first frame is in
    ``time_s``: LeRobot hands numbers on as float32, which a stamp does not fit into. ``meta/sim2real.json`` has the
    first stamp, and all that the dataset says about itself.

    Args:
        dataset: What was collected.
        out: Folder to make.
        fps: Nominal rate; by default the frames' median rate, at least 1.
        camera: Images are ``observation.images.CAMERA``.
        robot_type: For ``info.json``.
        on_progress: Called with frames done and in all.

    Returns:
        The content of ``info.json``.

    Raises:
        ConfigError: ``out`` exists, a file is missing, fields are missing in some frames, or pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(f"LeRobot's format needs pyarrow ({error}): pip install pyarrow") from error
    if out.exists():
        raise ConfigError(f"{out} exists; choose another folder")
    key = f"observation.images.{camera}"
    columns = _columns(dataset)
    episodes = _episodes(dataset)
    if fps is None:
        fps = _nominal_rate(dataset, episodes)
    first = _image(dataset, 0)[1]
    features = _features(key, first.shape, columns, list(dataset.about.get("joint_names", [])))
    new = out.with_name(out.name + ".tmp")
    if new.exists():
        shutil.rmtree(new)
    info, rows, whole = _info(dataset, features, len(episodes), fps, robot_type), [], ImageStats()
    task = str(dataset.about.get("what") or "collected images")
    with _DataFiles(new, features) as files:
        for number, indices in enumerate(episodes):
            seen = ImageStats()
            location = files.start_episode()
            for start in range(0, len(indices), _ROWS_AT_ONCE):
                part = indices[start : start + _ROWS_AT_ONCE]
                files.write(
                    _table(dataset, features, key, columns, part, number, start, indices[0], fps, seen, first.shape)
                )
                on_progress(int(part[-1]) + 1, len(dataset))
            whole.counts += seen.counts
            whole.images += seen.images
            stats = statistics_of(features, key, columns, indices, number, fps, seen)
            rows.append(
                {
                    "episode_index": number, "tasks": [task], "length": len(indices),
                    "data/chunk_index": location[0], "data/file_index": location[1],
                    "dataset_from_index": int(indices[0]), "dataset_to_index": int(indices[-1]) + 1,
                    "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
                }
                | {f"stats/{name}/{what}": value for name, each in stats.items() for what, value in each.items()}
            )  # fmt: skip
    _write_meta(new, info, rows, task)
    about = {"first_stamp_s": dataset.frames[0].get("stamp_s"), **dataset.about}
    write_text(new / "meta" / "sim2real.json", json.dumps(about, indent=4) + "\n")
    if (dataset.folder / "camera.yaml").is_file():
        shutil.copy(dataset.folder / "camera.yaml", new / "meta" / "camera.yaml")
    every = np.arange(len(dataset))
    total = statistics_of(features, key, columns, every, None, fps, whole, episodes)
    write_text(new / "meta" / "stats.json", json.dumps(total, indent=4) + "\n")
    new.replace(out)
    return info


def _columns(dataset: ImageDataset) -> dict[str, Array]:
    """Numbers of every frame [N, ...] by the feature's name."""
    known = dataset.frames[0]
    columns = {}
    if "joint_pos" in known:
        columns["observation.state"] = dataset.column("joint_pos")
    if "T_base_ee" in known:
        poses = dataset.column("T_base_ee")
        columns["observation.ee_pose"] = np.concatenate(
            (poses[:, :3, 3], Rotation.from_matrix(poses[:, :3, :3]).as_quat()), axis=1
        )
    if "object_pos" in known:
        columns["observation.object_pos"] = dataset.column("object_pos")
    if "stamp_s" in known:
        columns["time_s"] = dataset.column("stamp_s") - float(known["stamp_s"])
    return columns


def _episodes(dataset: ImageDataset) -> list[NDArray[np.int64]]:
    """Frame numbers of every session, in order."""
    sessions = np.array([int(frame.get("session", 0)) for frame in dataset.frames])
    cuts = np.flatnonzero(np.diff(sessions)) + 1
    return [np.asarray(part, dtype=np.int64) for part in np.split(np.arange(len(sessions)), cuts)]


def _nominal_rate(dataset: ImageDataset, episodes: list[NDArray[np.int64]]) -> int:
    if "stamp_s" not in dataset.frames[0]:
        return 1
    stamps = dataset.column("stamp_s")
    gaps = np.concatenate([np.diff(stamps[indices]) for indices in episodes])
    gaps = gaps[gaps > 0.0]
    return max(1, round(1.0 / float(np.median(gaps)))) if len(gaps) else 1


def _features(key: str, shape: tuple[int, ...], columns: dict[str, Array], joints: list[str]) -> dict[str, Any]:
    features: dict[str, Any] = {key: {"dtype": "image", "shape": list(shape), "names": ["height", "width", "channels"]}}
    names = {
        "observation.state": joints or None,
        "observation.ee_pose": list(POSE_NAMES),
        "observation.object_pos": list("xyz"),
    }
    for name, values in columns.items():
        kind = "float64" if name == "time_s" else "float32"
        features[name] = {
            "dtype": kind,
            "shape": [1] if values.ndim == 1 else list(values.shape[1:]),
            "names": names.get(name),
        }
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    return features


def _info(
    dataset: ImageDataset, features: dict[str, Any], episodes: int, fps: int, robot: str | None
) -> dict[str, Any]:
    return {
        "codebase_version": CODEBASE,
        "robot_type": robot,
        "total_episodes": episodes,
        "total_frames": len(dataset),
        "total_tasks": 1,
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": features,
    }


def _image(dataset: ImageDataset, index: int) -> tuple[bytes, NDArray[np.uint8]]:
    """The file of a frame's image as PNG, and its pixels [H, W, 3] RGB."""
    path = dataset.folder / dataset.frames[index]["image"]
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"{path} cannot be read as an image; restore it or collect again")
    rgb = np.asarray(image[..., ::-1], dtype=np.uint8)
    if path.suffix.lower() == ".png":
        return path.read_bytes(), rgb
    return cv2.imencode(".png", image)[1].tobytes(), rgb


def _table(
    dataset: ImageDataset,
    features: dict[str, Any],
    key: str,
    columns: dict[str, Array],
    indices: NDArray[np.int64],
    episode: int,
    start: int,
    first: int,
    fps: int,
    seen: ImageStats,
    shape: tuple[int, ...],
) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    images = []
    for index in indices:
        data, image = _image(dataset, int(index))
        if image.shape != shape:
            raise ConfigError(f"{dataset.frames[int(index)]['image']} is of another size than the first image")
        seen.add(image)
        images.append({"bytes": data, "path": f"{key}-{int(index):06d}.png"})
    own = own_columns(indices, episode, first, fps)
    schema = _schema(features)
    values = []
    for name in features:
        kind = schema.field(name).type
        if name == key:
            values.append(pa.array(images, type=kind))
        else:
            column = own[name] if name in own else columns[name][indices]
            values.append(pa.array(column.tolist(), type=kind))
    return pa.Table.from_arrays(values, schema=schema)


def _schema(features: dict[str, Any]) -> pa.Schema:
    """Arrow types, and what Hugging Face's ``datasets`` wants to know to decode images."""
    import pyarrow as pa  # noqa: PLC0415

    scalars = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64()}
    fields, described = [], dict[str, Any]()
    for name, feature in features.items():
        kind, shape = feature["dtype"], feature["shape"]
        if kind == "image":
            fields.append(pa.field(name, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
            described[name] = {"_type": "Image"}
            continue
        value = {"dtype": kind, "_type": "Value"}
        if shape == [1]:
            fields.append(pa.field(name, scalars[kind]))
            described[name] = value
        else:
            fields.append(pa.field(name, pa.list_(scalars[kind], shape[0])))
            described[name] = {"feature": value, "length": shape[0], "_type": "Sequence"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": described}})})


class _DataFiles:
    """Data files, a new one where the last has grown large enough; an episode is in one file."""

    def __init__(self, root: Path, features: dict[str, Any]) -> None:
        self._root, self._schema = root, _schema(features)
        self._writer: Any = None
        self._number = -1
        self._path = root

    def __enter__(self) -> _DataFiles:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def start_episode(self) -> tuple[int, int]:
        """Chunk and file number that the next episode goes to."""
        import pyarrow.parquet as pq  # noqa: PLC0415

        if self._writer is None or self._path.stat().st_size > DATA_FILE_MB * 2**20:
            if self._writer is not None:
                self._writer.close()
            self._number += 1
            chunk, file = divmod(self._number, CHUNKS_SIZE)
            self._path = self._root / DATA_PATH.format(chunk_index=chunk, file_index=file)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="snappy", use_dictionary=False)
        chunk, file = divmod(self._number, CHUNKS_SIZE)
        return chunk, file

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)


def _write_meta(root: Path, info: dict[str, Any], episodes: list[dict[str, Any]], task: str) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    write_text(root / "meta" / "info.json", json.dumps(info, indent=4) + "\n")
    path = root / EPISODES_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(episodes), path)
    # LeRobot reads tasks with pandas and wants them as the index; this is how pandas says so.
    index = "__index_level_0__"
    described = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": stored, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}
            for name, stored, kind, numpy_kind in (
                ("task_index", "task_index", "int64", "int64"),
                (None, index, "unicode", "object"),
            )
        ],
        "pandas_version": "2.0.0",
    }  # fmt: skip
    table = pa.table({"task_index": pa.array([0], pa.int64()), index: pa.array([task])})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), root / "meta" / "tasks.parquet")
