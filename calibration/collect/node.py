"""Live collection: a ROS 2 node that listens, and a thread that judges and writes."""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.wait_for_message import wait_for_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from calibration.collect.feed import Feed
from calibration.collect.topics import Topics, find_topics
from sim2real.errors import CollectionError

TOO_SLOW = "this computer is too slow"
IMAGE_DEPTH, STATE_DEPTH = 60, 500  # two seconds of images; more than a second of states
QUEUE_MB, BEHIND = 256, 8
_LAST_STATES_S = 0.15
_CLASSES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}


class CollectNode(Node):
    """Finds its topics and queues what comes on them.

    Callbacks only queue, so that DDS is emptied at once whatever the disk does. Reliability follows the publishers:
    a reliable subscription would hear nothing of a camera that publishes with best effort.

    Args:
        name: Of the node.

    Attributes:
        best_effort: Topics whose publishers do not resend what is lost.
        closed_to_images, closed: Set to queue no more.
    """

    def __init__(self, name: str = "collect", **settings: Any) -> None:
        super().__init__(name, **settings)
        self.inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.best_effort: list[str] = []
        self.closed_to_images = self.closed = False
        self._too_slow = self._waiting = self._bytes = 0
        self._lock = threading.Lock()

    def find(self, wanted: Topics, wait_s: float) -> Topics:
        """Topics to listen to, once they are published.

        Raises:
            CollectionError: They are not, after ``wait_s``.
        """
        deadline = time.monotonic() + wait_s
        while True:
            types = {name: kinds[0] for name, kinds in self.get_topic_names_and_types() if self._published(name)}
            try:
                return find_topics(wanted, types, "ROS 2")
            except CollectionError as error:
                if time.monotonic() > deadline:
                    domain = os.environ.get("ROS_DOMAIN_ID", "0")
                    raise CollectionError(
                        f"{error} (looked for {wait_s:g} s in ROS_DOMAIN_ID {domain}; is the camera's driver running?)"
                    ) from error
            time.sleep(0.1)

    def first_joint_names(self, topic: str, wait_s: float) -> list[str]:
        """Names in the first JointState that comes.

        Raises:
            CollectionError: None comes.
        """
        came, message = wait_for_message(
            JointState, self, topic, qos_profile=self._qos(topic, STATE_DEPTH), time_to_wait=wait_s
        )
        if not came:
            raise CollectionError(f"{topic} is there, but no message came in {wait_s:g} s")
        return list(message.name)

    def listen(self, topics: Topics) -> None:
        """Subscribe; states first, so that the first image finds them."""
        if topics.joints:
            self._listen("joints", JointState, topics.joints, STATE_DEPTH)
        if topics.pose:
            self._listen("pose", PoseStamped, topics.pose, STATE_DEPTH)
        if topics.info:
            self._listen("info", CameraInfo, topics.info, IMAGE_DEPTH)
        kind = dict(self.get_topic_names_and_types())[topics.image][0]
        self.create_subscription(_CLASSES[kind], topics.image, self._on_image, self._qos(topics.image, IMAGE_DEPTH))

    @property
    def behind(self) -> bool:
        """True while images wait in the queue."""
        return self._waiting >= BEHIND

    def take(self, timeout_s: float) -> tuple[str, Any] | None:
        """The next message and what it is; None after ``timeout_s``."""
        try:
            what, message = self.inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if what == "image":
            with self._lock:
                self._waiting -= 1
                self._bytes -= len(message.data)
        return what, message

    def take_too_slow(self) -> int:
        """Number of images thrown away since the last call, because the queue was full."""
        with self._lock:
            count, self._too_slow = self._too_slow, 0
        return count

    def put_joints(self, stamp_s: float, position: Any) -> None:
        """Queue joint positions that do not come over ROS 2."""
        self._put("joint_positions", (stamp_s, position))

    def _listen(self, what: str, kind: type, topic: str, depth: int) -> None:
        self.create_subscription(kind, topic, lambda message: self._put(what, message), self._qos(topic, depth))

    def _put(self, what: str, message: Any) -> None:
        if not self.closed:
            self.inbox.put((what, message))

    def _on_image(self, message: Any) -> None:
        if self.closed_to_images or self.closed:
            return
        with self._lock:
            full = self._bytes > QUEUE_MB * 1e6
            self._too_slow += full
            self._waiting += not full
            self._bytes += 0 if full else len(message.data)
        if not full:
            self.inbox.put(("image", message))

    def _published(self, topic: str) -> bool:
        return bool(self.count_publishers(topic))

    def _qos(self, topic: str, depth: int) -> QoSProfile:
        offered = [info.qos_profile.reliability for info in self.get_publishers_info_by_topic(topic)]
        reliable = all(value == ReliabilityPolicy.RELIABLE for value in offered)
        if not reliable and topic not in self.best_effort:
            self.best_effort.append(topic)
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=policy)


class Listening:
    """ROS 2 and a spinning node for as long as it lasts; a context manager.

    Args:
        domain: ROS domain; the environment's by default.
    """

    def __init__(self, domain: int | None = None) -> None:
        self._context = rclpy.Context()
        self._domain = domain
        self._executor: Executor | None = None
        self._spinning: threading.Thread | None = None
        self._feeding: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="collect_feed")
        self._stop = threading.Event()

    def __enter__(self) -> Listening:
        rclpy.init(context=self._context, domain_id=self._domain)
        self.node = CollectNode(context=self._context)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.node.closed = True
        self._pool.shutdown()
        if self._executor is not None and self._spinning is not None:
            self._executor.shutdown()
            self._spinning.join()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def start_feeding(self, feed: Feed, topics: Topics) -> None:
        """Listen, and hand every message on to ``feed`` in a thread."""
        takers: dict[str, Callable[[Any], None]] = {
            "image": feed.image,
            "info": feed.info,
            "joints": feed.joints,
            "pose": feed.pose,
            "joint_positions": lambda pair: feed.joint_positions(*pair),
        }
        self.node.listen(topics)
        self._feeding = self._pool.submit(self._feed, takers, feed)
        # The classic executor: rclpy's event-driven one (7.1.5) starves the main thread when it spins in another.
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._spinning = threading.Thread(target=self._spin, args=(self._executor,), name="collect_spin", daemon=True)
        self._spinning.start()

    def check(self) -> None:
        """Raise what went wrong in the feeding thread, if anything did."""
        if self._feeding is not None and self._feeding.done():
            self._feeding.result()

    def stop_feeding(self) -> None:
        """Judge everything that has come, and end; harmless when not feeding.

        Raises:
            Sim2RealError: What went wrong in the feeding thread.
        """
        if self._feeding is None:
            return
        feeding, self._feeding = self._feeding, None
        self.node.closed_to_images = True
        time.sleep(_LAST_STATES_S)  # the states after the last image
        self.node.closed = True
        self._stop.set()
        self._pool.shutdown()
        feeding.result()

    def _feed(self, takers: dict[str, Callable[[Any], None]], feed: Feed) -> None:
        while True:
            came = self.node.take(0.1)
            feed.lost(TOO_SLOW, self.node.take_too_slow())
            feed.hurry(self.node.behind)
            if came is not None:
                takers[came[0]](came[1])
            elif self._stop.is_set():
                break
        feed.end()

    @staticmethod
    def _spin(executor: Executor) -> None:
        with suppress(ExternalShutdownException):
            executor.spin()
