"""Brings together, by their stamps, images and what the robot measured at the same moment."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim2real.types import Array, Image

NEW_CLOCK_S = 1.0  # a stamp that goes back further than this is of a clock that was set, not out of order
LONGEST_GAP_S = 0.15  # states further apart are not interpolated between
PATIENCE_S = 1.0  # an image waits so long, by its own clock, for the state after it
MOST_WAITING = 90  # images
REMEMBERED_S = 5.0  # of states

NO_JOINTS, NO_POSE = "no joint state at its time", "no end-effector pose at its time"


@dataclass(frozen=True)
class Frame:
    """An image and the robot at its stamp.

    Attributes:
        stamp_s: Of the image.
        image: [H, W, 3] RGB.
        joint_pos: [J] rad, interpolated; None where joints are not recorded.
        ee_pos, ee_quat: End effector in the base frame, [3] m and [4] xyzw; None where not recorded.
        state_gap_s: How far the nearest joint state's stamp was from the image's; 0 without joints.
    """

    stamp_s: float
    image: Image
    joint_pos: Array | None = None
    ee_pos: Array | None = None
    ee_quat: Array | None = None
    state_gap_s: float = 0.0


class StampCheck:
    """Tells new stamps from repeated ones, from those out of order, and from a clock that was set back."""

    def __init__(self) -> None:
        self.newest_s = -math.inf

    def problem(self, stamp_s: float) -> str | None:
        """Problem of a stamp, in words; None for a new one, which then is the newest.

        After "clock set back" stamps count from there.
        """
        if stamp_s > self.newest_s:
            self.newest_s = stamp_s
            return None
        if stamp_s == self.newest_s:
            return "stamp repeated"
        if stamp_s > self.newest_s - NEW_CLOCK_S:
            return "stamp out of order"
        self.newest_s = stamp_s
        return "clock set back"


class Track:
    """Values over time, asked for at moments between them.

    Args:
        what: For the count of problems.
        ignored: Counts values whose stamps make no sense.
        blend: Value between two at a fraction of the way; linear by default.
    """

    def __init__(
        self, what: str, ignored: Counter[str], blend: Callable[[Array, Array, float], Array] | None = None
    ) -> None:
        self._what, self._ignored, self._blend = what, ignored, blend or _linear
        self._check = StampCheck()
        self._values: deque[tuple[float, Array]] = deque()

    @property
    def newest_s(self) -> float:
        """Stamp of the newest value."""
        return self._check.newest_s

    def add(self, stamp_s: float, value: Array) -> None:
        """Take a value; one whose stamp is not new is counted and left out."""
        problem = self._check.problem(stamp_s)
        if problem is not None:
            self._ignored[f"{self._what}: {problem}"] += 1
            if problem != "clock set back":
                return
            self._values.clear()
        self._values.append((stamp_s, value))
        while self._values[0][0] < stamp_s - REMEMBERED_S:
            self._values.popleft()

    def at(self, stamp_s: float) -> tuple[Array, float] | None:
        """Value at a moment and distance of the nearest stamp, s; None if there are none close around it."""
        after = next((i for i, (known, _) in enumerate(self._values) if known >= stamp_s), None)
        if after is None:
            return None
        t1, v1 = self._values[after]
        if t1 == stamp_s:
            return v1, 0.0
        if after == 0:
            return None
        t0, v0 = self._values[after - 1]
        if t1 - t0 > LONGEST_GAP_S:
            return None
        return self._blend(v0, v1, (stamp_s - t0) / (t1 - t0)), min(stamp_s - t0, t1 - stamp_s)


class Synchroniser:
    """Holds images back until the states around them are known.

    Args:
        drops: Counts, in words, images that were left out.
        ignored: The same for states.
        joints: Frames need joint positions.
        pose: Frames need an end-effector pose.
        latency_s: How much later than the states images are stamped (``CameraCalibration.latency_s``).

    Attributes:
        images: How many were offered.
        missing: How many more there should have been, by the images' stamps.
    """

    def __init__(
        self,
        drops: Counter[str],
        ignored: Counter[str],
        joints: bool = True,
        pose: bool = False,
        latency_s: float = 0.0,
    ) -> None:
        self._drops, self._latency_s = drops, latency_s
        self._check = StampCheck()
        self._joints = Track("joint states", ignored) if joints else None
        self._pose = Track("end-effector poses", ignored, _between_poses) if pose else None
        self._waiting: deque[tuple[float, Image]] = deque()
        self._periods: deque[float] = deque(maxlen=30)
        self.images = self.missing = 0

    @property
    def waiting(self) -> int:
        """Images that wait for a state."""
        return len(self._waiting)

    @property
    def newest(self) -> dict[str, float]:
        """Newest stamp of every stream, s; minus infinity where nothing came."""
        tracks = {"images": self._check, "joint states": self._joints, "end-effector poses": self._pose}
        return {name: track.newest_s for name, track in tracks.items() if track is not None}

    def add_joints(self, stamp_s: float, position: Array) -> None:
        """Take joint positions [J] rad."""
        if self._joints is not None:
            self._joints.add(stamp_s, position)

    def add_pose(self, stamp_s: float, pose: Array) -> None:
        """Take a pose of the end effector: x, y, z, qx, qy, qz, qw."""
        if self._pose is not None:
            self._pose.add(stamp_s, pose)

    def add_image(self, stamp_s: float, image: Image) -> None:
        """Take an image; it comes out of :meth:`ready`, or is counted as dropped."""
        self.images += 1
        newest = self._check.newest_s
        problem = self._check.problem(stamp_s)
        if problem is not None:
            self._drops[problem] += 1
            if problem == "clock set back":  # what waits is of the old clock
                self._drops[problem] += len(self._waiting)
                self._waiting.clear()
                self._periods.clear()
            return
        if math.isfinite(newest):
            self._count_missing(stamp_s - newest)
        self._waiting.append((stamp_s, image))

    def ready(self, end: bool = False) -> list[Frame]:
        """Frames whose states are known by now, in order.

        Args:
            end: Nothing more comes: what still waits is counted as dropped.
        """
        frames = []
        while self._waiting:
            stamp_s, image = self._waiting[0]
            moment = stamp_s - self._latency_s
            behind = [t for t in (self._joints, self._pose) if t is not None and t.newest_s < moment]
            patient = self._check.newest_s - stamp_s < PATIENCE_S and len(self._waiting) <= MOST_WAITING
            if behind and patient and not end:
                break
            self._waiting.popleft()
            frame = self._match(stamp_s, moment, image)
            if frame is not None:
                frames.append(frame)
        return frames

    def _match(self, stamp_s: float, moment: float, image: Image) -> Frame | None:
        joints = self._joints.at(moment) if self._joints is not None else None
        pose = self._pose.at(moment) if self._pose is not None else None
        if self._joints is not None and joints is None:
            self._drops[NO_JOINTS] += 1
            return None
        if self._pose is not None and pose is None:
            self._drops[NO_POSE] += 1
            return None
        return Frame(
            stamp_s,
            image,
            None if joints is None else joints[0],
            None if pose is None else pose[0][:3],
            None if pose is None else pose[0][3:],
            0.0 if joints is None else joints[1],
        )

    def _count_missing(self, period: float) -> None:
        """A gap of several periods is so many images that did not arrive; a pause of over a second is a pause."""
        if len(self._periods) >= 10 and period < 1.0:
            usual = float(np.median(self._periods))
            if period > 1.5 * usual:
                self.missing += round(period / usual) - 1
                return
        self._periods.append(period)


def _linear(a: Array, b: Array, fraction: float) -> Array:
    return a + fraction * (b - a)


def _between_poses(a: Array, b: Array, fraction: float) -> Array:
    """Linear in place and, normalised, in rotation: exact enough between states that follow closely."""
    sign = 1.0 if a[3:] @ b[3:] >= 0.0 else -1.0
    mixed = np.concatenate((a[:3] + fraction * (b[:3] - a[:3]), a[3:] + fraction * (sign * b[3:] - a[3:])))
    mixed[3:] /= np.linalg.norm(mixed[3:])
    return mixed
