"""Signals: what a policy may read of a robot, as specifications and one function, named in the policy's contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, cast, runtime_checkable

from sim2real.errors import SpecError
from sim2real.registry import resolve
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.spec import RobotSpec, SignalSpec
from sim2real.types import Array, State

SIGNALS = {
    "arm": "sim2real.runtime.arm_signals:ArmSignals",
    "arm_push": "sim2real.runtime.push_signals:PushSignals",
    "flight": "sim2real.runtime.flight_signals:FlightSignals",
}


class Signals(Protocol):
    """One function from a state and a goal to named signals; simulator, target and robot all call it.

    A class of this protocol is made with a :class:`RobotSpec` and, for an arm, its :class:`Chain`.

    Attributes:
        specs: Signals by name, without the policy's own.
        needs: Entries of the state that it reads (``joint_pos``, ``object_pos``, …); the robot's node subscribes to
            what they come from.
    """

    @property
    def specs(self) -> Mapping[str, SignalSpec]:
        """Signals by name."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Entries of the state that it reads."""

    def measure(self, state: State, goal: Array) -> dict[str, Array]:
        """Signals [N, d] of ``state`` relative to ``goal`` [N, G]."""


@runtime_checkable
class KnowsGoals(Protocol):
    """Additions of signals that know which goals make sense; those of one's own may leave them out."""

    def goal(self, signals: Mapping[str, Array]) -> Array:
        """The goal [N, G] that ``signals`` were measured relative to."""

    def nearest_goal(self, goal: Array) -> tuple[Array, str]:
        """The goal [G] nearest to ``goal`` [G] that a policy can go to, and why it is another one, or nothing."""


def load_signals(name: str, robot: RobotSpec, chain: Chain | None, trusted: Collection[str] | None = None) -> Signals:
    """Make the signals that a contract names.

    Args:
        name: A key of ``SIGNALS``, or ``module:Class``.
        robot: Whose signals.
        chain: Its kinematics, for an arm.
        trusted: Modules that may be imported besides ours; any by default. A robot's node gives those that its
            operator named: a bundle alone must not choose what runs.

    Raises:
        SpecError: The module is not among the trusted ones.
        ConfigError: There is no such name, module or class.
    """
    module = name.partition(":")[0]
    if trusted is not None and name not in SIGNALS and module not in trusted:
        raise SpecError(
            f"the bundle computes its signals with '{name}', which is not this program's; if you trust that module, "
            f"start the node with the parameter trusted_modules:=\"['{module}']\""
        )
    return cast(Signals, resolve(name, SIGNALS, "signals")(robot, chain))
