"""The contract of a robot driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _empty() -> Array:
    return np.zeros(0)


@dataclass(frozen=True)
class DriverState:
    """One state estimate of one robot.

    Attributes:
        stamp_s: Monotonic time of the reading, s.
        pos: [3] m, world frame.
        quat: [4] xyzw, body to world.
        lin_vel: [3] m/s, world frame.
        ang_vel: [3] rad/s, body frame.
        joint_names: Joints in the order of the arrays below; empty for a robot without joints.
        joint_pos, joint_vel, joint_effort: [J] rad, rad/s, N·m; empty where not measured.
    """

    stamp_s: float
    pos: Array
    quat: Array
    lin_vel: Array
    ang_vel: Array
    joint_names: tuple[str, ...] = ()
    joint_pos: Array = field(default_factory=_empty)
    joint_vel: Array = field(default_factory=_empty)
    joint_effort: Array = field(default_factory=_empty)


class RobotDriver(Protocol):
    """The link between the driver node and one robot. Every method may be called from any thread.

    A driver clamps what it is told to its own hard limits, whoever commands it.
    """

    @property
    def is_connected(self) -> bool:
        """Tell whether :meth:`connect` has succeeded and :meth:`disconnect` has not been called since."""

    def connect(self) -> None:
        """Open the link. Nothing moves.

        Raises:
            DriverError: The robot or its library cannot be reached.
        """

    def disconnect(self) -> None:
        """Disarm and close the link; harmless when not connected."""

    def read(self) -> DriverState:
        """The newest state estimate.

        Raises:
            DriverError: Not connected.
        """

    def arm(self, armed: bool) -> None:
        """Allow motion, or forbid it and cut the actuators.

        Raises:
            DriverError: Not connected, or the robot refuses.
        """

    def command(self, command: Mapping[str, float]) -> dict[str, float]:
        """Act on a command.

        Args:
            command: Every command component by name, SI units.

        Returns:
            What was really sent, after limits.

        Raises:
            DriverError: Not armed, a component is missing, unknown or not finite. Nothing is sent then.
        """

    def hold(self) -> None:
        """Stay about where it is, without anybody's command; does nothing when not armed."""

    def land(self) -> None:
        """Come to rest slowly, without anybody's command; does nothing when not armed."""

    def stop(self) -> None:
        """Cut the actuators now and disarm."""


@runtime_checkable
class SimulatedRobot(Protocol):
    """Additions of a simulated target's driver to :class:`RobotDriver`."""

    @property
    def failed(self) -> bool:
        """Tell whether the robot has crashed since the last reset."""

    def advance(self, seconds: float) -> None:
        """Let simulated time pass, where the driver was made with ``stepped``; otherwise it follows the wall clock."""

    def reset(self, seed: int, condition: str | None = None) -> None:
        """Disarm and wait at a start state drawn from ``seed``, under another ``condition`` if one is given."""

    def truth(self) -> DriverState:
        """The true state, for scoring only."""


@runtime_checkable
class CountsLost(Protocol):
    """A driver that knows for how long its simulated robot stood still because the computer was busy.

    Attributes:
        lost_s: In all, s.
    """

    lost_s: float
