"""A robot's topics under watch: what was refused and why, who else publishes, and whether states are in time."""

# rclpy's own functions are only partly annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from sim2real.deploy.messages import NEWEST, Channel, StateTime
from sim2real.runtime.live_check import FROZEN_S, Stream

_BEST_EFFORT = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
FLOOD_HZ = 2000.0  # from where messages keep the node from everything else
_KILLED = " (a node that was killed counts for some 20 s)"
_FLOOD_S, _DEAF_S = 0.1, 1.0


class Watch:
    """Keeps what a node has noticed about the topics of its robot.

    Parameter ``frame``: the name that the robot's messages give to the contract's frame, where it is another one.

    Args:
        node: Whose topics they are.
        frame: The contract's frame.
        lively: An estimate that never repeats itself, as a flying robot's.

    Attributes:
        channels: Topics of states, with their times.
        refused: How often a message was refused, by topic and reason.
        newest: Why the newest message of a topic was refused; without those that were believed since.
    """

    def __init__(self, node: Node, frame: str, lively: bool) -> None:
        self._node, self._lively = node, lively
        self.time = StateTime(node)
        self.channels: list[Channel] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        self.newest: dict[str, str] = {}
        self.shared: set[str] = set()  # topics on which others publish what is not ours
        self._heard: dict[str, Subscription] = {}
        self._command: Any = None
        if not node.has_parameter("frame"):
            node.declare_parameter("frame", "", ParameterDescriptor(description="name of the contract's frame"))
        self.frame = str(node.get_parameter("frame").value) or frame

    def channel(self, topic: str, rate_hz: float, **settings: float) -> Channel:
        """A new channel of states, watched from now on."""
        self.channels.append(Channel(Stream(topic, rate_hz, **settings)))
        return self.channels[-1]

    def commands(self, publisher: Any) -> Any:
        """Keep in mind the publisher of commands, which must be the only one."""
        self._command = publisher
        return publisher

    def refuse(self, topic: str, why: str) -> None:
        """Count a message that was not believed, and say so."""
        self.refused[topic, why.partition(":")[0]] += 1
        self.newest[topic] = why
        self._node.get_logger().warning(f"{topic} refused: {why}", throttle_duration_sec=5.0)

    def believes(self, topic: str, message: Any, fault: str = "") -> bool:
        """Tell whether a message can be used: no ``fault``, and in the contract's frame."""
        named = message.header.frame_id if topic != "joint_states" and hasattr(message, "header") else ""
        if not fault and named and named.strip("/") != self.frame:
            fault = (
                f"it is in frame '{named}', the policy's is '{self.frame}'; transform it, or set the parameter "
                "frame if that is only another name"
            )
        if fault:
            self.refuse(topic, fault)
        else:
            self.newest.pop(topic, None)
        return not fault

    def listen(self, kind: Any, topic: str, callback: Callable[[Any], None], into: list[Subscription]) -> None:
        """Subscribe to the newest message of a topic, whether its publishers are reliable or best effort.

        A topic on which more than FLOOD_HZ arrive is not listened to for a second: Python would do nothing else.

        Args:
            kind: Type of message.
            topic: Its name.
            callback: Takes each message; where publishers of both kinds are there, it may get one twice.
            into: Subscriptions are appended to this; a second one where a best effort publisher is found.
        """
        node, mine, since, count = self._node, list[Subscription](), time.monotonic(), 0

        def counted(message: Any) -> None:
            nonlocal since, count
            now, count = time.monotonic(), count + 1
            if now - since > _FLOOD_S:
                since, count = now, 0
            if count == round(_FLOOD_S * FLOOD_HZ):
                self.refuse(topic, f"more than {FLOOD_HZ:g} come in a second: stop that publisher")
                later(0.0, mute)
            callback(message)

        def later(seconds: float, action: Callable[[], None]) -> None:
            def once() -> None:
                node.destroy_timer(timer)
                action()

            timer = node.create_timer(max(seconds, 1e-3), once)

        def mute() -> None:
            for subscription in mine:
                into.remove(subscription)
                node.destroy_subscription(subscription)
            mine.clear()
            later(_DEAF_S, hear)

        def also_best_effort(event: Any) -> None:
            if len(mine) == 1:
                node.get_logger().info(f"a publisher of '{topic}' is best effort: listening that way too")
                mine.append(node.create_subscription(kind, topic, counted, _BEST_EFFORT))
                into.append(mine[-1])

        def hear() -> None:
            events = SubscriptionEventCallbacks(incompatible_qos=also_best_effort)
            mine.append(node.create_subscription(kind, topic, counted, NEWEST, event_callbacks=events))
            into.append(mine[-1])
            self._heard[topic] = mine[-1]

        hear()

    def conflict(self) -> str:
        """Name a second publisher of states or commands, or nothing."""
        watched = [(channel.stream.topic, self._heard.get(channel.stream.topic)) for channel in self.channels]
        for topic, end in [*watched, ("the command", self._command)]:
            if end is None or topic in self.shared or self._node.count_publishers(end.topic_name) < 2:
                continue
            names = sorted(
                f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                for info in self._node.get_publishers_info_by_topic(end.topic_name)
            )
            return f"{len(names)} nodes publish {end.topic_name}: {', '.join(names)}; stop all but one{_KILLED}"
        return ""

    def begin(self) -> None:
        """Values may stand still up to now: a robot that waits does not move."""
        for channel in self.channels:
            channel.stream.changed_s = channel.arrival_s

    def problems(self) -> list[str]:
        """Name what speaks against activation: publishers, then times."""
        found = [conflict] if (conflict := self.conflict()) else []
        for stream in (channel.stream for channel in self.channels):
            if (
                self.time.simulated
            ):  # time waits there: it says nothing about rates, and a robot that waits stands still
                found += [old] if (old := stream.old()) else []
                continue
            found += stream.problems()
            if self._lively and stream.frozen_s > FROZEN_S:
                found.append(f"{stream.topic}: {self._frozen(stream)}; start the estimator again")
        return found

    def frozen(self) -> str:
        """Name a topic whose values stand still under running stamps, or nothing."""
        streams = [channel.stream for channel in self.channels if channel.stream.frozen_s > FROZEN_S]
        return f"{streams[0].topic}: {self._frozen(streams[0])}" if streams else ""

    def _frozen(self, stream: Stream) -> str:
        return f"its stamps go on, and its values have stood still for {stream.frozen_s:.1f} s"
