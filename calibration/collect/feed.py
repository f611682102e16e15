"""From ROS 2 messages, live or out of a bag, to frames that the collector judges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from calibration.collect.collector import RESOLUTION, Collector
from calibration.collect.sync import NO_JOINTS, Frame, Synchroniser
from calibration.collect.topics import Topics
from sim2real.errors import CollectionError, ConfigError
from sim2real.images.messages import camera_of, joints_of, pose_of, rgb_of, stamp_of
from sim2real.recordings.bags import Bag
from sim2real.runtime.camera import CameraCalibration
from sim2real.runtime.kinematics import Chain
from sim2real.types import Array

NO_INFO, CHANGED_INFO = "no camera info yet", "camera info changed"
UNREADABLE = "unreadable image"
HOPELESS = 60  # images with hardly a frame


class Feed:
    """Takes messages in the order they come.

    Args:
        collector: Judges the frames.
        camera: A calibration from a file; of the CameraInfo messages if not.
        info: Images need a calibration.
        joints: Frames need joint positions, of the collector's joints.
        pose: Frames need an end-effector pose message.
        reach: Joint positions [J] → end effector's position [3] m and quaternion [4], in place of pose messages.
        rectified: The images are rectified: of a CameraInfo, P counts and not K and the lens.

    Attributes:
        frames: Images that were matched so far.
    """

    def __init__(
        self,
        collector: Collector,
        camera: CameraCalibration | None = None,
        info: bool = True,
        joints: bool = True,
        pose: bool = False,
        reach: Callable[[Array], tuple[Array, Array]] | None = None,
        rectified: bool = False,
    ) -> None:
        self._collector, self._given, self._reach = collector, camera is not None, reach
        self._rectified = rectified
        self._needs_info = info and camera is None
        self._joints, self._pose = joints, pose
        collector.camera = camera
        self._info_ok = not self._needs_info
        latency_s = (camera.latency_s or 0.0) if camera is not None else 0.0
        self._sync = Synchroniser(collector.drops, collector.ignored, joints, pose, latency_s)
        self._missing_before = collector.missing
        self._images = 0
        self._why = ""
        self.frames = 0
        self.states: Counter[str] = Counter()

    def info(self, message: Any) -> None:
        """Take a CameraInfo.

        Raises:
            CollectionError: It is not calibrated.
        """
        if self._given or not self._needs_info:
            return
        known, now = self._collector.camera, camera_of(message, rectified=self._rectified)
        if known is None:
            self._collector.camera = now
        self._info_ok = known is None or (now.width == known.width and np.allclose(now.matrix, known.matrix))

    def joints(self, message: Any) -> None:
        """Take a JointState."""
        position = joints_of(message, self._collector.wanted.joint_names)
        if position is None:
            self._collector.ignored["joint states without a recorded joint"] += 1
            return
        self.joint_positions(stamp_of(message), position)

    def joint_positions(self, stamp_s: float, position: Array) -> None:
        """Take joint positions [J] rad in the order of the recorded joints."""
        self.states["joint states"] += 1
        self._sync.add_joints(stamp_s, position)
        self._pass_on()

    def pose(self, message: Any) -> None:
        """Take an end effector's PoseStamped."""
        pose = pose_of(message)
        if pose is None:
            self._collector.ignored["end-effector poses that are none"] += 1
            return
        self.states["end-effector poses"] += 1
        self._sync.add_pose(stamp_of(message), pose)
        self._pass_on()

    def image(self, message: Any) -> None:
        """Take an Image or a CompressedImage.

        Raises:
            CollectionError: After many images not one could be used.
        """
        self._images += 1
        self._collector.seen += 1
        drops = self._collector.drops
        try:
            image = rgb_of(message)
        except ConfigError as error:
            encoding = getattr(message, "encoding", "compressed")
            drops[f"{UNREADABLE} ({encoding})"] += 1
            self._give_up(str(error))
            return
        camera = self._collector.camera
        if not self._info_ok:
            drops[CHANGED_INFO if camera is not None else NO_INFO] += 1
            self._give_up("no CameraInfo came; give --camera FILE, or record without with --no-info")
            return
        if camera is not None and image.shape[:2] != (camera.height, camera.width):
            drops[RESOLUTION] += 1
            self._give_up(
                f"images are {image.shape[1]} x {image.shape[0]}, the camera was calibrated at {camera.width} x "
                f"{camera.height}; calibrate at the resolution that is recorded"
            )
            return
        self._sync.add_image(stamp_of(message), image)
        self._pass_on()
        self._give_up("")

    def hurry(self, behind: bool) -> None:
        """Say whether messages come faster than they are handled."""
        self._collector.hurried = behind

    def lost(self, reason: str, count: int) -> None:
        """Count images that came but could not be taken."""
        if count:
            self._images += count
            self._collector.seen += count
            self._collector.drops[reason] += count

    def end(self) -> None:
        """Nothing more comes: images that still wait for states are judged or counted.

        Raises:
            CollectionError: Images came, and not one could be used.
        """
        self._pass_on(end=True)
        if self._images and (not self.frames or self._stuck()):
            self._refuse()

    def _pass_on(self, end: bool = False) -> None:
        for frame in self._sync.ready(end):
            self.frames += 1
            self._collector.offer(self._reached(frame))
        self._collector.missing = self._missing_before + self._sync.missing

    def _reached(self, frame: Frame) -> Frame:
        if self._reach is None or frame.joint_pos is None:
            return frame
        pos, quat = self._reach(frame.joint_pos)
        return replace(frame, ee_pos=pos, ee_quat=quat)

    def _give_up(self, why: str) -> None:
        self._why = why
        if self._stuck():
            self._refuse()

    def _stuck(self) -> bool:
        """True where nothing comes out; one frame may, of streams that stand still."""
        return self.frames < 2 and self._images >= HOPELESS

    def _refuse(self) -> None:
        raise CollectionError(
            f"{self.frames} of {self._images} images could be used ({self._collector.report()}). "
            f"{self._why or self._guess()}"
        )

    def _guess(self) -> str:
        """Guess why nothing matches, from what came."""
        newest = self._sync.newest
        if self._joints and not self.states["joint states"]:
            return "No joint states came: name their topic with --joints, or record without them with --no-joints."
        if self._pose and not self.states["end-effector poses"]:
            return "No end-effector poses came: name another topic with --ee-pose, or use --robot for kinematics."
        if self._collector.drops["stamp repeated"] > self._images // 2:
            return f"The images' stamps stand still at {newest['images']:.3f} s; does the camera's driver set them?"
        if self._collector.drops["stamp out of order"] > self._images // 2:
            return "The images' stamps run backwards; check the camera's driver."
        still = [name for name in newest if self._collector.ignored[f"{name}: stamp repeated"] > HOPELESS // 2]
        if still:
            return f"The stamps of {still[0]} stand still at {newest[still[0]]:.3f} s; does their publisher set them?"
        stamps = ", ".join(f"{name} {stamp:.2f} s" for name, stamp in newest.items() if math.isfinite(stamp))
        return (
            f"Newest stamps: {stamps}. If they are of different clocks, set use_sim_time alike everywhere; if states "
            f"come less often than ten times a second, they are too far apart ({NO_JOINTS})."
        )


def end_effector(chain: Chain, ee: str) -> Callable[[Array], tuple[Array, Array]]:
    """Joint positions [J] rad → position [3] m and quaternion [4] (xyzw) of link ``ee`` in the base frame."""

    def reach(position: Array) -> tuple[Array, Array]:
        origin, rotation = chain.frames(position[None])[ee]
        return origin[0], Rotation.from_matrix(rotation[0]).as_quat()

    return reach


def first_joint_names(bag: Bag, topic: str) -> list[str]:
    """Names in the first JointState of a bag; empty where there is none."""
    return next((list(message.content.name) for message in bag.messages([topic])), [])


def play(bag: Bag, topics: Topics, feed: Feed, on_progress: Callable[[int, int], None] = lambda *_: None) -> None:
    """Feed a bag's messages in the order they were recorded.

    Args:
        bag: The open bag.
        topics: Complete, of :func:`~calibration.collect.topics.find_topics`.
        feed: Takes the messages.
        on_progress: Called with messages done and in all.
    """
    takers = {topics.image: feed.image, topics.info: feed.info, topics.joints: feed.joints, topics.pose: feed.pose}
    takers.pop(None, None)
    whole = bag.count(takers)
    for done, message in enumerate(bag.messages(takers), start=1):
        takers[message.topic](message.content)
        on_progress(done, whole)
    feed.end()
