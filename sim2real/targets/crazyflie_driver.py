"""A Crazyflie in real time on the drone target's dynamics, behind the driver contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from robot_drivers.driver import DriverState
from robot_drivers.limits import CommandLimits, DriverError, Limit
from sim2real.targets.drone import COMMAND_NAMES, STEP_S, SimulatedDrones, quat_multiply, rotation_quat
from sim2real.types import Array

# What the firmware's commander takes, and slews well above what an attitude loop of 3 Hz can follow.
LIMITS = {
    "thrust": Limit(0.0, 0.73, 36.0),
    "roll": Limit(-0.52, 0.52, 40.0),
    "pitch": Limit(-0.52, 0.52, 40.0),
    "yaw_rate": Limit(-3.0, 3.0, 120.0),
}
HOLD_AVERAGE_S = 2.0  # memory of what holding takes: a low battery needs more thrust than a full one
HOLD_SHARE = (0.75, 2.0)  # of the nominal: a strong battery; a full payload on a low one
# Landing, as a flight controller does it: a sink speed is held, with a share of the holding thrust.
LAND_SPEED = 0.5
LAND_GAIN = 0.4  # share of thrust per m/s
LAND_SHARE = (0.8, 1.25)
_COMMAND_PERIOD_S = 0.02
GOAL_M = (0.0, 0.0, 1.5)
START_M = 1.0
START_TILT_RAD = float(np.deg2rad(30.0))
START_SPEED = 0.5
START_YAW_RAD = 0.3
_PERIOD_S = 0.02  # reading and commanding catch up too


class CrazyflieTwinDriver:
    """Drives one simulated Crazyflie; it stays frozen at its start until armed and commanded.

    Args:
        airframe: One of ``sim2real.targets.drone.AIRFRAMES``.
        condition: One of ``sim2real.targets.drone.CONDITIONS``.
        seed: Of the start state and of all noise.
        clock: Monotonic time, s.

    Raises:
        DriverError: Unknown airframe or condition.
    """

    def __init__(
        self,
        airframe: str = "cf2x_L250",
        condition: str = "fresh",
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._airframe, self._condition, self._clock = airframe, condition, clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._twin = SimulatedDrones(airframe, condition, 1, seed)
        hover = self._twin.nominal_hover_command  # what a pilot would enter for this airframe
        self._hold_command = dict(zip(COMMAND_NAMES, (hover, 0.0, 0.0, 0.0), strict=True))
        self._limits = CommandLimits(LIMITS, self._hold_command)
        self._armed = self._flying = False
        self._flown_until_s = 0.0
        self.reset(seed)

    @property
    def is_connected(self) -> bool:
        """Whether the simulated robot runs."""
        return self._thread is not None

    @property
    def is_armed(self) -> bool:
        """Whether commands move it."""
        return self._armed

    @property
    def has_crashed(self) -> bool:
        """Whether it has hit the floor or turned over since the last reset."""
        return bool(self._twin.crashed[0])

    def connect(self) -> None:
        """Start the thread that flies the robot; harmless when connected."""
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._run, name="crazyflie_twin", daemon=True)
            self._thread.start()

    def disconnect(self) -> None:
        """Cut the motors and stop the thread; harmless when not connected."""
        if self._thread is not None:
            self.stop()
            self._closing.set()
            self._thread.join()
            self._thread = None

    def reset(self, seed: int, condition: str | None = None) -> None:
        """Disarm and wait at a start state near the goal, drawn from ``seed`` with all noise.

        Args:
            seed: Of start and noise.
            condition: Change to this condition; as before by default.

        Raises:
            DriverError: Unknown condition.
        """
        condition = condition or self._condition
        twin = SimulatedDrones(self._airframe, condition, 1, seed)
        # A stream of its own, so that the start does not depend on how many draws the twin takes.
        twin.reset(*_draw_start(np.random.default_rng([seed, 1])))
        with self._lock:
            self._twin, self._condition = twin, condition
            self._armed = self._flying = False
            self._limits.reset()
            self._hold_command["thrust"] = twin.nominal_hover_command

    def read(self) -> DriverState:
        """The newest state estimate.

        Raises:
            DriverError: Not connected.
        """
        self._need_connection()
        with self._lock:
            now = self._catch_up()
            return _state(now, self._twin.estimate())

    def truth(self) -> DriverState:
        """The true state, for scoring only."""
        with self._lock:
            return _state(self._catch_up(), self._twin.truth())

    def arm(self, armed: bool) -> None:
        """Allow motion, or forbid it and cut the motors.

        Raises:
            DriverError: Not connected, or it has crashed.
        """
        self._need_connection()
        if not armed:
            self.stop()
            return
        with self._lock:
            if self.has_crashed:
                raise DriverError("the drone has crashed; reset it before arming")
            self._armed = True

    def command(self, command: Mapping[str, float]) -> dict[str, float]:
        """Fly a command of thrust (N), roll, pitch (rad) and yaw_rate (rad/s).

        Returns:
            What was sent after limits.

        Raises:
            DriverError: Not connected, not armed, or an invalid command; nothing is sent then.
        """
        self._need_connection()
        with self._lock:
            if not self._armed:
                raise DriverError("the drone is not armed; call the arm service first")
            sent = self._limits.apply(command, self._clock())
            self._send(sent)
            hold, nominal = self._hold_command["thrust"], self._twin.nominal_hover_command
            hold += _COMMAND_PERIOD_S / HOLD_AVERAGE_S * (sent["thrust"] - hold)
            self._hold_command["thrust"] = min(max(hold, HOLD_SHARE[0] * nominal), HOLD_SHARE[1] * nominal)
            return sent

    def hold(self) -> None:
        """Level, with the thrust that flying has taken lately, where it is armed and flying."""
        with self._lock:
            self._override(1.0)

    def land(self) -> None:
        """Level and sinking slowly, where it is armed and flying. Call it again and again, as the watchdog does."""
        with self._lock:
            self._catch_up()
            climb = self._twin.estimate()[2][0, 2]
            low, high = LAND_SHARE
            self._override(min(max(1.0 - LAND_GAIN * (LAND_SPEED + climb), low), high))

    def stop(self) -> None:
        """Cut the motors and disarm."""
        with self._lock:
            if self._flying:
                self._send(dict.fromkeys(COMMAND_NAMES, 0.0))
            self._armed = False
            self._limits.reset()

    def _override(self, share: float) -> None:
        """Send ``share`` of the holding thrust; the caller holds the lock."""
        if self._armed and self._flying:
            self._send({**self._hold_command, "thrust": share * self._hold_command["thrust"]})

    def _need_connection(self) -> None:
        if self._thread is None:
            raise DriverError("the driver is not connected; call connect() first")

    def _send(self, command: Mapping[str, float]) -> None:
        now = self._catch_up()
        if not self._flying:
            self._flying, self._flown_until_s = True, now
        self._twin.command(np.array([[command[name] for name in COMMAND_NAMES]]))

    def _catch_up(self) -> float:
        """Fly up to now; the caller holds the lock."""
        now = self._clock()
        steps = int((now - self._flown_until_s) / STEP_S) if self._flying else 0
        if steps > 0:  # whole steps only: odd remainders would be integrated as steps of their own
            self._twin.advance(steps * STEP_S)
            self._flown_until_s += steps * STEP_S
        return now

    def _run(self) -> None:
        while not self._closing.wait(_PERIOD_S):
            with self._lock:
                self._catch_up()


def _draw_start(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    pos = np.array(GOAL_M) + rng.uniform(-START_M, START_M, (1, 3))
    direction, tilt = rng.uniform(-np.pi, np.pi), rng.uniform(0.0, START_TILT_RAD)
    yaw = rng.uniform(-START_YAW_RAD, START_YAW_RAD)
    quat = quat_multiply(
        rotation_quat(np.array([[0.0, 0.0, yaw]])),
        rotation_quat(tilt * np.array([[np.cos(direction), np.sin(direction), 0.0]])),
    )
    velocity = rng.standard_normal((1, 3))
    velocity *= rng.uniform(0.0, START_SPEED) / np.linalg.norm(velocity)
    return pos, quat, velocity


def _state(stamp_s: float, values: tuple[Array, Array, Array, Array]) -> DriverState:
    pos, quat, lin_vel, ang_vel = values
    return DriverState(stamp_s, pos[0], quat[0], lin_vel[0], ang_vel[0])
