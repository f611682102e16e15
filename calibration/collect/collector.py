"""Collecting real images: which frames are kept, and a dataset that is whole at every moment.

While a recording runs, candidates are appended to ``OUT.partial``, itself a readable dataset, so that a killed
recording loses nothing and can go on. When it ends, the views that cover all others best are brought into ``OUT``,
which appears at once, complete, with its card; then ``OUT.partial`` is removed.
"""

from __future__ import annotations

import datetime
import json
import math
import shutil
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibration.collect.partial import partial_folder, refuse_existing
from calibration.collect.publish import CAMERA, publish
from calibration.collect.sync import Frame
from calibration.collect.views import (
    Gates,
    Look,
    Vector,
    candidate_vectors,
    distances,
    farthest_points,
    look_at,
    view_vector,
)
from sim2real.errors import CollectionError
from sim2real.files import lock_output, write_text
from sim2real.images.dataset import HEADER, DatasetWriter, ImageDataset, read_dataset
from sim2real.provenance import commit
from sim2real.runtime.camera import CameraCalibration, load_camera
from sim2real.runtime.geometry import pose_matrix

BLURRED, BRIGHT, DARK = "blurred", "over-exposed", "under-exposed"
DUPLICATE, COVERED, RESOLUTION = "near-duplicate", "view covered by others", "resolution changed"
STATE = "state.json"
_SHARP_QUANTILE = 0.8
_JUDGED_FROM = 15  # frames; fewer say nothing about how sharp this camera gets
_REMEMBERED = 300
_STATE_EVERY_S = 1.0
_CANDIDATES_PER_VIEW = 8  # from so many on, only what lies in gaps is worth its disk space


@dataclass(frozen=True)
class Wanted:
    """A recording as it is asked for.

    Attributes:
        out: Folder of the dataset.
        count: Views to keep; 0 keeps every frame that passes.
        gates: What a frame must pass; None for no gates at all.
        what: What the images show, for people.
        source: Where they come from: topics, a bag.
        joint_names: Of the recorded joint positions; empty where they are not recorded.
    """

    out: Path
    count: int = 200
    gates: Gates | None = field(default_factory=Gates)
    what: str = ""
    source: str = ""
    joint_names: tuple[str, ...] = ()


class Collector:
    """Judges frames and keeps candidates.

    Args:
        wanted: The recording.
        resume: Go on with a recording that was broken off.

    Attributes:
        drops: Images that were left out, by reason.
        kept: Candidates so far.
        last: Why the newest frame was left out; empty if it was kept.
        hurried: Images are coming faster than they are written: write them larger, and faster.

    Raises:
        CollectionError: The dataset exists, or an unfinished recording does and ``resume`` is not given, or the other
            way round.
        ConfigError: Another process is recording it.
    """

    def __init__(self, wanted: Wanted, resume: bool = False) -> None:
        self.wanted, self.drops, self.ignored = wanted, Counter[str](), Counter[str]()
        self.partial = partial_folder(wanted.out)
        self.camera: CameraCalibration | None = None
        self._camera_before: CameraCalibration | None = None
        self.seen = self.missing = self.kept = 0
        self.last = ""
        self.hurried = False
        self._writer: DatasetWriter | None = None
        self._views = np.empty((0, 0), dtype=np.float32)
        self._sharpness: deque[float] = deque(maxlen=_REMEMBERED)
        self._radius, self._next_radius_at = 1.0, _CANDIDATES_PER_VIEW * max(wanted.count, 1)
        self._saved_s = -math.inf
        self._session, self._size = 0, (0, 0)
        self.started = _now()
        refuse_existing(wanted.out, resume)
        self._lock = lock_output(wanted.out)
        if resume:
            self._resume()

    def offer(self, frame: Frame) -> bool:
        """Judge a frame and keep it, or count why not.

        Returns:
            Whether it is a candidate now.

        Raises:
            CollectionError: The camera is not the one that a resumed recording was begun with.
        """
        self._check_camera()
        self.last = self._judge(frame)
        if self.last:
            self.drops[self.last] += 1
        if time.monotonic() - self._saved_s > _STATE_EVERY_S:
            self._save_state()
        return not self.last

    def finish(self) -> Path:
        """Choose the views, write the dataset and its card, and remove the candidates.

        Returns:
            Folder of the dataset.

        Raises:
            CollectionError: Not one frame was kept.
        """
        self.close()
        if not self.kept:
            raise CollectionError(f"not one usable image was collected; {self.report()}")
        with lock_output(self.wanted.out):
            dataset = read_dataset(self.partial)
            chosen, radius = self._choose(dataset)
            publish(dataset, chosen, self.wanted.out, self._finished_about(radius), self.camera)
        return self.wanted.out

    def close(self) -> None:
        """Close, so that the recording can go on later; harmless when closed or finished."""
        if self._writer is not None:
            self._save_state()
            self._writer.close()
            self._writer = None
        if not self.kept:
            self.discard()
        self._lock.release()

    def discard(self) -> None:
        """Remove the candidates."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.partial.exists():
            shutil.rmtree(self.partial)
        self._lock.release()

    def report(self) -> str:
        """Images that came and that were left out, in words."""
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.drops.most_common()) or "none"
        other = ", ".join(f"{number} {reason}" for reason, number in self.ignored.most_common())
        return f"{self.seen} images came; left out: {reasons}" + (f"; besides: {other}" if other else "")

    def _check_camera(self) -> None:
        before, now = self._camera_before, self.camera
        self._camera_before = None
        if before is not None and (now is None or not np.allclose(before.matrix, now.matrix)):
            raise CollectionError(f"{self.partial} was begun with another camera calibration; use {CAMERA} in it")

    def _judge(self, frame: Frame) -> str:
        height, width = frame.image.shape[:2]
        if self._size == (0, 0):
            self._size = (width, height)
        if (width, height) != self._size:
            return RESOLUTION
        gates = self.wanted.gates
        fields: dict[str, Any] = {}
        if gates is not None:
            look = look_at(frame.image)
            view = view_vector(gates, look.cells, frame.joint_pos, frame.ee_pos)
            flaw = self._flaw(gates, look) or self._known(view)
            if flaw:
                return flaw
            fields["sharpness"] = look.sharpness
            self._remember(view)
        self._write(frame, fields)
        return ""

    def _flaw(self, gates: Gates, look: Look) -> str:
        """Flaw of an image by itself; empty if there is none."""
        if look.bright_share > gates.bright_share:
            return BRIGHT
        if look.dark_share > gates.dark_share:
            return DARK
        self._sharpness.append(look.sharpness)
        judged = len(self._sharpness) >= _JUDGED_FROM
        return BLURRED if judged and look.sharpness < gates.blur * _sharp(self._sharpness) else ""

    def _known(self, view: Vector) -> str:
        """Reason for which a view adds nothing to the candidates; empty if it does."""
        if not self.kept:
            return ""
        nearest = float(distances(self._views[: self.kept], view).min())
        return DUPLICATE if nearest < 1.0 else COVERED if nearest < self._radius else ""

    def _remember(self, view: Vector) -> None:
        if self.kept >= len(self._views):
            grown = np.empty((max(64, 2 * len(self._views)), len(view)), dtype=np.float32)
            if self.kept:
                grown[: self.kept] = self._views[: self.kept]
            self._views = grown
        self._views[self.kept] = view
        count = self.wanted.count
        if count and self.kept + 1 >= self._next_radius_at:
            # Half of what the best views so far leave open: what is nearer to a candidate adds next to nothing.
            self._radius = max(1.0, 0.5 * farthest_points(self._views[: self.kept + 1], count)[1])
            self._next_radius_at = 2 * (self.kept + 1)

    def _write(self, frame: Frame, fields: dict[str, Any]) -> None:
        fields |= {"stamp_s": frame.stamp_s, "session": self._session}
        if frame.joint_pos is not None:
            fields |= {"joint_pos": frame.joint_pos, "state_gap_s": frame.state_gap_s}
        if frame.ee_pos is not None and frame.ee_quat is not None:
            fields["T_base_ee"] = pose_matrix(frame.ee_pos, frame.ee_quat)
        camera = self.camera
        if camera is not None and camera.T_base_camera is not None:
            fields["T_base_camera"] = camera.T_base_camera
        elif camera is not None and camera.T_ee_camera is not None and "T_base_ee" in fields:
            fields["T_base_camera"] = fields["T_base_ee"] @ camera.T_ee_camera
        if self._writer is None:
            height, width = frame.image.shape[:2]
            self._writer = DatasetWriter(self.partial, width, height, about=self._about())
            if self.camera is not None:
                self.camera.save(self.partial / CAMERA)
        self._writer.fast = self.hurried
        self._writer.add(frame.image, **fields)
        self.kept = self._writer.count

    def _about(self) -> dict[str, Any]:
        wanted = self.wanted
        return {
            "what": wanted.what,
            "source": wanted.source,
            "started": self.started,
            "joint_names": list(wanted.joint_names),
            "gates": None if wanted.gates is None else wanted.gates.model_dump(),
            "commit": commit(),
        }

    def _save_state(self) -> None:
        if self._writer is not None:
            state = {
                "seen": self.seen, "missing": self.missing, "drops": dict(self.drops), "ignored": dict(self.ignored),
                "started": self.started, "session": self._session,
            }  # fmt: skip
            write_text(self.partial / STATE, json.dumps(state) + "\n")
            self._saved_s = time.monotonic()

    def _resume(self) -> None:
        header = json.loads((self.partial / HEADER).read_text())
        self._size = (int(header["width"]), int(header["height"]))
        self._writer = DatasetWriter(self.partial, *self._size, resume=True)
        self.kept = self._writer.count
        if (header["about"].get("gates") is None) != (self.wanted.gates is None):
            raise CollectionError(
                f"{self.partial} was begun {'without' if self.wanted.gates else 'with'} gates; so go on"
            )
        before = tuple(header["about"].get("joint_names", ()))
        if before != self.wanted.joint_names:
            raise CollectionError(
                f"{self.partial} was recorded with the joints {list(before)}, now they are "
                f"{list(self.wanted.joint_names)}; go on as it was begun, or record into another folder"
            )
        if (self.partial / CAMERA).is_file():
            self._camera_before = load_camera(self.partial / CAMERA)
        if not self.kept:
            return
        dataset = read_dataset(self.partial)
        self._read_state(dataset)
        if self.wanted.gates is not None:
            kept, self.kept = self.kept, 0
            for vector in candidate_vectors(dataset, self.wanted.gates):
                self._remember(vector)
                self.kept += 1
            assert self.kept == kept
            self._sharpness.extend(f["sharpness"] for f in dataset.frames if "sharpness" in f)

    def _read_state(self, dataset: ImageDataset) -> None:
        self._session = 1 + max(int(frame.get("session", 0)) for frame in dataset.frames)
        try:
            state = json.loads((self.partial / STATE).read_text())
        except (OSError, ValueError):
            state = {}
        self.drops.update(state.get("drops", {}))
        self.ignored.update(state.get("ignored", {}))
        self.missing = int(state.get("missing", 0))
        # What was counted in the last second before it was killed is not in the state; the candidates are.
        self.seen = max(int(state.get("seen", 0)), self.kept + sum(self.drops.values()))
        self.started = str(state.get("started", self.started))

    def _choose(self, dataset: ImageDataset) -> tuple[list[int], float | None]:
        """Frames to keep, and how far the farthest candidate is from them."""
        gates, count = self.wanted.gates, self.wanted.count
        every = np.arange(len(dataset))
        if gates is None:
            return every.tolist(), None
        # Again, now that it is known how sharp this camera gets: the first frames were not judged.
        sharpness = dataset.column("sharpness")
        sharp = sharpness >= gates.blur * _sharp(sharpness) if len(sharpness) >= _JUDGED_FROM else every >= 0
        self.drops.update({BLURRED: int((~sharp).sum())} if not sharp.all() else {})
        every = every[sharp]
        if not count:
            return every.tolist(), None
        chosen, radius = farthest_points(self._views[every], count)
        self.drops.update({COVERED: len(every) - len(chosen)} if len(chosen) < len(every) else {})
        return every[chosen].tolist(), radius

    def _finished_about(self, radius: float | None) -> dict[str, Any]:
        about = self._about() | {
            "finished": _now(),
            "images_seen": self.seen,
            "images_missing": self.missing,
            "drops": dict(self.drops.most_common()),
            "ignored": dict(self.ignored.most_common()),
        }
        return about if radius is None else about | {"cover_radius": round(radius, 2)}


def _sharp(values: Any) -> float:
    return float(np.quantile(np.asarray(values, dtype=np.float64), _SHARP_QUANTILE))


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
