"""Adapters between a robot's ROS 2 messages and signals and commands; one a kind of robot."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, cast, runtime_checkable

from rclpy.node import Node

from sim2real.deploy.watch import Watch
from sim2real.errors import SpecError
from sim2real.registry import resolve
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.signals import load_signals
from sim2real.runtime.spec import SignalSpec
from sim2real.types import Array

# ``interface`` of a robot's specification: the ROS 2 messages it speaks.
ADAPTERS = {
    "cmd_vel_legacy": "sim2real.deploy.crazyflie_adapter:CrazyflieAdapter",
    "joint_trajectory": "sim2real.deploy.arm_adapter:ArmAdapter",
}


class Adapter(Protocol):
    """A robot's topics.

    Attributes:
        provides: Signals this adapter makes, besides ``last_action``.
        refused: Messages not believed so far (not finite, not a rotation).

    One that has a ``remark`` says in it, in words, what is unusual about the messages that arrive.
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


@runtime_checkable
class Watchful(Protocol):
    """Additions of an adapter that proves its robot's messages; one of your own may leave them out.

    Attributes:
        watch: What it has noticed about its topics.
    """

    watch: Watch

    def begin(self) -> None:
        """The robot may move from now on."""

    def faults(self) -> list[str]:
        """Name what is wrong with the newest state of a robot that waits."""

    def doubt(self) -> str:
        """Why the state of a robot that moves is not to be believed, or nothing."""


def make_adapter(bundle: PolicyBundle, node: Node, trusted: Collection[str] = ()) -> Adapter:
    """Make the adapter of a bundle's robot; it declares its ROS parameters on ``node``.

    Args:
        bundle: Names the robot's interface and the policy's signals.
        node: Where topics and parameters live.
        trusted: Modules besides ours that the bundle may name for these.

    Raises:
        SpecError: The bundle names a module that is not trusted.
        ConfigError: There is no such interface or signals.
    """
    interface = bundle.robot.interface
    if interface not in ADAPTERS and interface.partition(":")[0] not in trusted:
        raise SpecError(
            f"robot '{bundle.robot.name}' speaks '{interface}'; there are adapters for {', '.join(sorted(ADAPTERS))}, "
            "and for module:Class where the parameter trusted_modules names the module"
        )
    signals = load_signals(bundle.spec.signals, bundle.robot, bundle.chain(), trusted)
    return cast(Adapter, resolve(interface, ADAPTERS, "interface")(node, bundle, signals))
