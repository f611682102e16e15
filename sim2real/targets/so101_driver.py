"""An SO-101 in real time on the arm target, behind the driver contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from robot_drivers.driver import DriverState
from robot_drivers.limits import CommandLimits, DriverError, Limit
from sim2real.targets.so101 import ArmTarget
from sim2real.targets.so101_arm import JOINTS
from sim2real.types import Array

# Joint limits of the arm [rad]; speeds below what the servos reach without load [rad/s].
RANGES = {
    "shoulder_pan": (-1.91986, 1.91986),
    "shoulder_lift": (-1.74533, 1.74533),
    "elbow_flex": (-1.69, 1.69),
    "wrist_flex": (-1.65806, 1.65806),
    "wrist_roll": (-2.79253, 2.79253),
    "gripper": (-0.174533, 1.74533),
}
LIMITS = {name: Limit(low, high, 4.0) for name, (low, high) in RANGES.items()}
# Before a free space, and above the table with the gripper pointing down.
START_RAD = np.array([0.0, -0.3, 0.3, 0.6, 0.0, 0.0])
START_ABOVE_RAD = np.array([0.0, 0.15, -0.25, 1.6, 0.0, 0.0])
START_SPREAD_RAD = np.array([0.8, 0.25, 0.25, 0.15, 0.1, 0.0])
START_ABOVE_SPREAD_RAD = np.array([0.6, 0.05, 0.05, 0.0, 0.1, 0.0])
PUCK_DISTANCE_M = (0.23, 0.36)
PUCK_ANGLE_RAD = 0.75
_CYCLE_S = 0.01
_LONGEST_CATCH_UP_S = 0.1  # a computer that is busier than that slows the simulated arm down


class So101TwinDriver:
    """Drives one simulated SO-101; it stays frozen at its start until armed and commanded.

    Args:
        condition: One of ``sim2real.targets.so101.CONDITIONS``, with ``puck`` of ``PUCK_CONDITIONS``.
        seed: Of the start state and of all noise.
        puck: Put an object to push on the table.
        clock: Monotonic time, s.

    Raises:
        DriverError: Unknown condition, or MuJoCo is missing.
    """

    def __init__(
        self, condition: str = "fresh", seed: int = 0, puck: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._condition, self._puck, self._clock = condition, puck, clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._armed = self._moving = False
        self._moved_until_s = 0.0
        self.reset(seed)

    @property
    def is_connected(self) -> bool:
        """Whether the simulated robot runs."""
        return self._thread is not None

    def connect(self) -> None:
        """Start the thread that moves the robot; harmless when connected."""
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._run, name="so101_twin", daemon=True)
            self._thread.start()

    def disconnect(self) -> None:
        """Disarm and stop the thread; harmless when not connected."""
        if self._thread is not None:
            self.stop()
            self._closing.set()
            self._thread.join()
            self._thread = None

    def reset(self, seed: int, condition: str | None = None) -> None:
        """Disarm and wait at a start pose drawn from ``seed``, the object somewhere in reach.

        Raises:
            DriverError: Unknown condition.
        """
        condition = condition or self._condition
        target = ArmTarget(condition, seed, self._puck)
        rng = np.random.default_rng([seed, 1])
        middle, spread = (START_ABOVE_RAD, START_ABOVE_SPREAD_RAD) if self._puck else (START_RAD, START_SPREAD_RAD)
        start = middle + spread * rng.uniform(-1.0, 1.0, len(JOINTS))
        distance, angle = rng.uniform(*PUCK_DISTANCE_M), rng.uniform(-PUCK_ANGLE_RAD, PUCK_ANGLE_RAD)
        target.reset(start, distance * np.array([np.cos(angle), np.sin(angle)]))
        with self._lock:
            self._target, self._condition = target, condition
            self._armed = self._moving = False
            # Slews begin where the arm is, so that no command can make it jump.
            self._limits = CommandLimits(LIMITS, dict(zip(JOINTS, start.tolist(), strict=True)))

    def read(self) -> DriverState:
        """The newest joint readings; ``pos`` is the object's position as the camera saw it.

        Raises:
            DriverError: Not connected.
        """
        self._need_connection()
        with self._lock:
            now = self._catch_up()
            position, velocity, seen = self._target.estimate()
            return _state(now, position, velocity, seen)

    def truth(self) -> DriverState:
        """True joint state; ``pos`` is the object's position, or the end effector's without one. For scoring only."""
        with self._lock:
            now = self._catch_up()
            arm = self._target.arm
            place = self._target.puck_pos if self._puck else arm.ee_pos
            return _state(now, arm.position, arm.velocity, place)

    def arm(self, armed: bool) -> None:
        """Allow motion, or forbid it; disarmed, the servos keep their last position.

        Raises:
            DriverError: Not connected.
        """
        self._need_connection()
        with self._lock:
            self._armed = armed

    def command(self, command: Mapping[str, float]) -> dict[str, float]:
        """Move towards joint positions (rad).

        Returns:
            What was sent after limits.

        Raises:
            DriverError: Not connected, not armed, or an invalid command; nothing is sent then.
        """
        self._need_connection()
        with self._lock:
            if not self._armed:
                raise DriverError("the arm is not armed; call the arm service first")
            sent = self._limits.apply(command, self._clock())
            now = self._catch_up()
            if not self._moving:
                self._moving, self._moved_until_s = True, now
            self._target.command(np.array([sent[joint] for joint in JOINTS]))
            return sent

    def hold(self) -> None:
        """Stay at the last command: position servos do by themselves."""

    def land(self) -> None:
        """As :meth:`hold`; an arm that lets go would fall."""

    def stop(self) -> None:
        """Take no more commands. The servos keep their position, so that the arm does not drop what it holds."""
        with self._lock:
            self._armed = False

    def _need_connection(self) -> None:
        if self._thread is None:
            raise DriverError("the driver is not connected; call connect() first")

    def _catch_up(self) -> float:
        """Move up to now; the caller holds the lock."""
        now = self._clock()
        if self._moving:
            cycles = int((now - self._moved_until_s) / _CYCLE_S)
            for _ in range(min(cycles, round(_LONGEST_CATCH_UP_S / _CYCLE_S))):
                self._target.advance(_CYCLE_S)
            self._moved_until_s += cycles * _CYCLE_S
        return now

    def _run(self) -> None:
        while not self._closing.wait(_CYCLE_S):
            with self._lock:
                self._catch_up()


def _state(stamp_s: float, position: Array, velocity: Array, place: Array) -> DriverState:
    level, still = np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(3)
    return DriverState(stamp_s, place, level, still, still, JOINTS, position, velocity)
