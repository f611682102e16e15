"""What differs between robots on the robot's side: which messages become signals, and commands which messages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from rclpy.node import Node

from sim2real.errors import SpecError
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.spec import SignalSpec
from sim2real.types import Array

ADAPTERS = {
    "arm": "sim2real.deploy.arm_adapter:ArmAdapter",
    "crazyflie": "sim2real.deploy.crazyflie_adapter:CrazyflieAdapter",
}


class Adapter(Protocol):
    """A robot's topics.

    Attributes:
        provides: Signals this adapter makes, besides ``last_action``.
        refused: Messages not believed so far (not finite, not a rotation).
    """

    provides: Mapping[str, SignalSpec]
    refused: int

    def open(self) -> None:
        """Create subscriptions and publishers."""

    def close(self) -> None:
        """Destroy them."""

    def wait_for_new(self, since_s: float, timeout_s: float) -> bool:
        """Wait until a state has arrived at ``since_s`` (monotonic) or later; False when the time is up."""

    def age_s(self) -> float:
        """Time since the last state with a new stamp, of the slowest topic; infinite before the first."""

    def arrival_s(self) -> float:
        """Monotonic time at which the newest state arrived; minus infinity before the first."""

    def interval_s(self) -> float:
        """Mean time between states; 0 while unknown."""

    def signals(self) -> dict[str, Array]:
        """The newest state as signals, each [1, d], without ``last_action``."""

    def send(self, command: Array) -> None:
        """Publish a command [A]."""


def make_adapter(bundle: PolicyBundle, node: Node) -> Adapter:
    """The adapter of a bundle's robot; declares its ROS parameters on ``node``.

    Raises:
        SpecError: No adapter for this robot.
    """
    kind = "arm" if bundle.robot.ee else bundle.robot.name
    if kind not in ADAPTERS:
        raise SpecError(f"no ROS 2 adapter for robot '{kind}'; there are: {', '.join(sorted(ADAPTERS))}")
    module, _, attribute = ADAPTERS[kind].partition(":")
    factory: Any = getattr(import_module(module), attribute)
    return cast(Adapter, factory(node, bundle))
