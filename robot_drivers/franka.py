"""A Franka Research 3 (or Panda) over its network interface, through franky (``pip install franky-control``).

Position commands at 20 to 50 Hz become joint velocities towards them, each with an end: a client that stops
commanding, or dies, leaves an arm that comes to rest before or on the last command. The same code drives the real arm
and the simulator ``franky-sim``, which serves the same protocol on 127.0.0.1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_drivers.driver import DriverState
from robot_drivers.limits import CommandLimits, DriverError, Limit

Array = NDArray[np.float64]
Result = TypeVar("Result")

JOINTS = tuple(f"fr3_joint{i}" for i in range(1, 8))
# Joint ranges, a little inside the arms' own [rad]: Franka Control Interface documentation.
RANGES = {
    "fr3": ((-2.74, 2.74), (-1.78, 1.78), (-2.9, 2.9), (-3.04, -0.16), (-2.8, 2.8), (0.55, 4.51), (-3.01, 3.01)),
    "panda": ((-2.89, 2.89), (-1.76, 1.76), (-2.89, 2.89), (-3.07, -0.07), (-2.89, 2.89), (-0.01, 3.75), (-2.89, 2.89)),
}
SLEW_RAD_S = 2.0
HOLD_MS = 125  # a velocity ends after this without a newer one: two and a half commands at 20 Hz
# The least acceleration limit of any joint [rad/s²]: Franka Control Interface documentation.
BRAKE_RAD_S2 = {"fr3": 10.0, "panda": 7.5}
TORQUE_LIMIT_NM, FORCE_LIMIT_N = 20.0, 30.0  # of contact, at which the arm stops by itself


class FrankaDriver:
    """Drives one arm with joint positions.

    Args:
        host: Of its control interface; the simulator's by default.
        model: ``fr3`` or ``panda``, for its joint ranges.
        dynamics: Share of the arm's own limits of speed, acceleration and jerk that motions use.
        realtime: Insist on a real-time kernel, as Franka demands for its real arms' best behaviour.
        clock: Monotonic time, s.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        model: str = "fr3",
        dynamics: float = 0.5,
        realtime: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0.0 < dynamics <= 1.0:
            raise DriverError(f"dynamics is {dynamics}; it is a share of the arm's limits, above 0 and at most 1")
        if model not in RANGES:
            raise DriverError(f"unknown Franka '{model}'; known: {', '.join(RANGES)}")
        self._ranges, self._brake = RANGES[model], BRAKE_RAD_S2[model] * dynamics
        self._host, self._dynamics, self._realtime, self._clock = host, dynamics, realtime, clock
        self._franky: Any = None
        self._robot: Any = None
        self._armed = False

    @property
    def is_connected(self) -> bool:
        """Tell whether the control interface answers."""
        return self._robot is not None

    def connect(self) -> None:
        """Open the control interface. Nothing moves; the arm keeps its brakes and its mode.

        Raises:
            DriverError: franky is missing, or the arm cannot be reached.
        """
        if self._robot is not None:
            return
        try:
            import franky
        except ImportError as error:
            raise DriverError("a Franka needs franky: pip install franky-control") from error
        self._franky = franky
        config = franky.RealtimeConfig.Enforce if self._realtime else franky.RealtimeConfig.Ignore
        try:
            self._robot = franky.Robot(
                self._host,
                relative_dynamics_factor=self._dynamics,
                default_torque_threshold=TORQUE_LIMIT_NM,
                default_force_threshold=FORCE_LIMIT_N,
                realtime_config=config,
            )
            self._age_s, self._robot_s = self._clock(), self._robot.state.time.to_sec()
            self._limits = _limits(self._ranges, np.array(self._robot.state.q))
        except franky.Exception as error:
            self._robot = None
            raise DriverError(
                f"no Franka at {self._host}: {error}; activate FCI in Desk, or start 'franky-sim -s mujoco'"
            ) from error

    def disconnect(self) -> None:
        """Stop and close the link; harmless when not connected."""
        if self._robot is not None:
            try:
                self.stop()
            except DriverError:
                pass  # a link that is broken already
            self._robot = None

    def read(self) -> DriverState:
        """Joint positions, velocities and torques; the stamp stands still while the arm's own clock does.

        Raises:
            DriverError: Not connected, or the link is broken.
        """
        state = self._ask(lambda robot: robot.state)
        if state.time.to_sec() != self._robot_s:
            self._robot_s, self._age_s = state.time.to_sec(), self._clock()
        pose = state.O_T_EE
        place = np.array(pose.translation).ravel()
        quat = np.array(pose.quaternion).ravel()
        nothing = np.zeros(3)
        return DriverState(
            self._age_s, place, quat, nothing, nothing, JOINTS, np.array(state.q), np.array(state.dq),
            np.array(state.tau_J),
        )  # fmt: skip

    @property
    def robot_time_s(self) -> float:
        """The arm's own clock at the last :meth:`read`, s; a simulator's may be slower than the wall's."""
        return float(self._robot_s)

    def arm(self, armed: bool) -> None:
        """Allow motion, after clearing errors that stopped the arm; or forbid it and stop.

        Raises:
            DriverError: Not connected, or the errors cannot be cleared.
        """
        if not armed:
            self.stop()
            return

        def clear(robot: Any) -> None:
            if robot.has_errors:
                robot.recover_from_errors()

        self._ask(clear)
        # Slews begin where the arm is, so that no command can make it jump.
        self._limits = _limits(self._ranges, self.read().joint_pos)
        self._armed = True

    def command(self, command: Mapping[str, float]) -> dict[str, float]:
        """Move towards joint positions (rad).

        Returns:
            What was sent after limits.

        Raises:
            DriverError: Not connected, not armed, an invalid command, or the arm has stopped itself.
        """
        if not self._armed:
            raise DriverError("the arm is not armed; call the arm service first")
        sent = self._limits.apply(command, self._clock())
        target = np.array([sent[joint] for joint in JOINTS])

        def follow(robot: Any) -> None:
            if robot.has_errors:
                raise DriverError(
                    "the arm has stopped itself (collision, limit or lost packets); arm it again to go on"
                )
            self._move(robot, _velocity(target - np.array(robot.state.q), self._brake))

        try:
            self._ask(follow)
        except DriverError:
            self._armed = False
            raise
        return sent

    def hold(self) -> None:
        """Come to rest where it is; does nothing when not armed."""
        if self._armed:
            self._ask(lambda robot: self._move(robot, np.zeros(len(JOINTS))))

    def land(self) -> None:
        """As :meth:`hold`."""
        self.hold()

    def stop(self) -> None:
        """Come to rest within the arm's limits and take no more commands."""
        self._armed = False
        self._ask(lambda robot: robot.stop())

    def _move(self, robot: Any, velocity: Array) -> None:
        franky = self._franky
        robot.move(franky.JointVelocityMotion(velocity, franky.Duration(HOLD_MS)), asynchronous=True)

    def _ask(self, what: Callable[[Any], Result]) -> Result:
        if self._robot is None:
            raise DriverError("the driver is not connected; call connect() first")
        try:
            return what(self._robot)
        except self._franky.Exception as error:
            if isinstance(error, self._franky.NetworkException):
                self._robot, self._armed = None, False
            raise DriverError(f"Franka at {self._host}: {error}") from error


def _velocity(gap: Array, brake: float) -> Array:
    """Velocities [7] rad/s with which joints that hear nothing more come to rest on their target, never beyond it.

    For every joint the positive root of ``v * HOLD + v² / (2 * brake) = |gap|``.

    Args:
        gap: Target minus position [7] rad.
        brake: Deceleration, rad/s².
    """
    hold_s = HOLD_MS / 1000.0
    speed = brake * (np.sqrt(hold_s**2 + 2.0 * np.abs(gap) / brake) - hold_s)
    return np.sign(gap) * np.minimum(speed, SLEW_RAD_S)


def _limits(ranges: tuple[tuple[float, float], ...], start: Array) -> CommandLimits:
    limits = {joint: Limit(low, high, SLEW_RAD_S) for joint, (low, high) in zip(JOINTS, ranges, strict=True)}
    return CommandLimits(limits, dict(zip(JOINTS, start.tolist(), strict=True)))
