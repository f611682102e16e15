"""Any target in real time, or step by step, behind the driver contract."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml

from robot_drivers.driver import DriverState
from robot_drivers.limits import CommandLimits, DriverError, Limit
from sim2real.errors import Sim2RealError
from sim2real.robots import load_robot
from sim2real.runtime.geometry import quat_to_matrix, rotate_inverse
from sim2real.targets.base import Overridable, Paced, TargetSim, begin, target_for
from sim2real.tasks import load_task
from sim2real.types import Array

_PERIOD_S = 0.01  # the simulation catches up at least this often
_STEP_S = 0.01  # where a target names no grid of its own
# The longest that catching up may keep others waiting: a simulator slower than real time would never be done.
_PATIENCE_S = 0.05


class TargetDriver:
    """Drives one simulated robot; it stays frozen at its start until armed and commanded.

    It follows the wall clock. With ``stepped`` it moves in :meth:`advance` only, and a state is read once: asking
    again gives the same reading.

    Args:
        robot: A robot's name or folder.
        task: The task whose starts and scene it has.
        task_settings: Of the task, as YAML, for example ``{tolerance_m: 0.02}``.
        target: A key of ``sim2real.targets.base.TARGETS`` or ``module:Class``; the robot's own by default.
        variant: One of the target's; the first by default.
        condition: One of the target's; the first by default.
        seed: Of the start and of all noise.
        stepped: Move in :meth:`advance` only.
        clock: Monotonic time, s.

    Attributes:
        lost_s: Time in which the robot stood still because its simulator was slower than real time, s.

    Raises:
        DriverError: Unknown robot, task, target, variant or condition, or a package is missing.
    """

    def __init__(
        self,
        robot: str = "crazyflie",
        task: str = "hover",
        task_settings: str = "",
        target: str = "",
        variant: str = "",
        condition: str = "",
        seed: int = 0,
        stepped: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            model = load_robot(robot)
            self._task = load_task({"name": task, **(yaml.safe_load(task_settings) or {})}, model)
            self._target = target_for(model, self._task, target)
        except Sim2RealError as error:
            raise DriverError(f"no simulated robot: {error}") from error
        self._spec = model.spec
        self._variant = variant or self._target.variants[0]
        self._condition = condition or self._target.conditions()[0]
        self._stepped, self._clock = stepped, clock
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._armed = self._moving = False
        self._moved_until_s = 0.0
        self._reading: dict[str, Array] | None = None
        self.lost_s = 0.0
        self._sim = self._make(self._condition, seed)
        self._place(seed)

    @property
    def is_connected(self) -> bool:
        """Tell whether the simulated robot runs."""
        return self._thread is not None

    @property
    def is_armed(self) -> bool:
        """Tell whether commands move it."""
        return self._armed

    @property
    def failed(self) -> bool:
        """Tell whether it has crashed since the last reset."""
        return bool(self._sim.failed[0])

    def connect(self) -> None:
        """Start the thread that moves the robot in real time; harmless when connected."""
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._run, name="simulated_robot", daemon=True)
            self._thread.start()

    def disconnect(self) -> None:
        """Stop the robot and the thread; harmless when not connected."""
        if self._thread is not None:
            self.stop()
            self._closing.set()
            self._thread.join()
            self._thread = None

    def reset(self, seed: int, condition: str | None = None) -> None:
        """Disarm and wait at the task's start of ``seed``, as the first episode of an evaluation with it does.

        Raises:
            DriverError: Unknown condition.
        """
        condition = condition or self._condition
        sim = self._make(condition, seed)
        with self._lock:
            self._sim.close()
            self._sim, self._condition = sim, condition
            self._armed = self._moving = False
            self._place(seed)

    def _make(self, condition: str, seed: int) -> TargetSim:
        return self._target.make(self._variant, condition, 1, seed)

    def _place(self, seed: int) -> None:
        start, _ = begin(self._task, self._target, 1, seed)
        self._sim.reset(start)
        self._reading = None
        sim, names = self._sim, self._target.commands
        # Slews begin where the robot is, so that no command can make it jump.
        here = sim.hold_command() if isinstance(sim, Overridable) else self._task.start_command(start)
        limits = {c.name: Limit(c.low, c.high, c.slew_per_s) for c in self._spec.commands}
        self._limits = CommandLimits(limits, dict(zip(names, here[0].tolist(), strict=True)))

    def read(self) -> DriverState:
        """The newest state estimate.

        Raises:
            DriverError: Not connected.
        """
        self._need_connection()
        with self._lock:
            now = self._catch_up()
            if self._reading is None or not self._stepped:
                self._reading = self._sim.measured()
            return _state(now, self._reading, self._spec.actuators, {})

    def truth(self) -> DriverState:
        """The true state, for scoring only; an arm's ``pos`` is its object's, or the end effector's without one."""
        with self._lock:
            now, truth = self._catch_up(), self._sim.truth()
            return _state(now, truth, self._spec.actuators, truth)

    def arm(self, armed: bool) -> None:
        """Allow motion, or forbid it: a drone cuts its motors, an arm keeps its last position.

        Raises:
            DriverError: Not connected, or it has crashed.
        """
        self._need_connection()
        if not armed:
            self.stop()
            return
        with self._lock:
            if self.failed:
                raise DriverError("the robot has crashed; reset it before arming")
            self._armed = True

    def command(self, command: Mapping[str, float]) -> dict[str, float]:
        """Move as commanded.

        Returns:
            What was sent after limits.

        Raises:
            DriverError: Not connected, not armed, or an invalid command; nothing is sent then.
        """
        self._need_connection()
        with self._lock:
            if not self._armed:
                raise DriverError("the robot is not armed; call the arm service first")
            sent = self._limits.apply(command, self._now())
            values = np.array([[sent[name] for name in self._target.commands]])
            self._send(values)
            if isinstance(self._sim, Overridable):
                self._sim.remember(values)
            return sent

    def advance(self, seconds: float) -> None:
        """Let simulated time pass; for a stepped robot, which does not move before its first command."""
        with self._lock:
            if self._moving:
                self._sim.advance(seconds)
                self._moved_until_s += seconds
            self._reading = None

    def hold(self) -> None:
        """Stay about where it is, where it is armed and moving; position servos do so by themselves."""
        with self._lock:
            if self._armed and self._moving and isinstance(self._sim, Overridable):
                self._send(self._sim.hold_command())

    def land(self) -> None:
        """Sink slowly, where it is armed and moving. Call it again and again, as the watchdog does."""
        with self._lock:
            self._catch_up()
            if self._armed and self._moving and isinstance(self._sim, Overridable):
                self._send(self._sim.land_command())

    def stop(self) -> None:
        """Disarm; a drone cuts its motors, an arm does not drop what it holds."""
        with self._lock:
            if isinstance(self._sim, Overridable):
                if self._moving:
                    self._send(self._sim.stop_command())
                self._limits.reset()
            self._armed = False

    def _need_connection(self) -> None:
        if self._thread is None:
            raise DriverError("the driver is not connected; call connect() first")

    def _send(self, command: Array) -> None:
        now = self._catch_up()
        if not self._moving:
            self._moving, self._moved_until_s = True, now
        self._sim.command(command)

    def _catch_up(self) -> float:
        """Move up to now; the caller holds the lock."""
        now = self._now()
        if self._stepped or not self._moving:
            return now
        step_s, longest_s = _STEP_S, math.inf
        if isinstance(self._sim, Paced):
            step_s, longest_s = self._sim.step_s, self._sim.longest_catch_up_s
        steps = int((now - self._moved_until_s) / step_s)  # odd remainders would be steps of their own
        taken = 0
        while taken < steps and taken * step_s < longest_s - 1e-9 and self._clock() - now < _PATIENCE_S:
            self._sim.advance(step_s)
            taken += 1
        self._moved_until_s += taken * step_s
        if taken < steps:  # what is left is given up, or commands, services and signals would wait ever longer
            now = self._clock()
            self.lost_s += now - self._moved_until_s
            self._moved_until_s = now
        return now

    def _now(self) -> float:
        return self._moved_until_s if self._stepped else self._clock()

    def _run(self) -> None:
        while not self._closing.wait(_PERIOD_S):
            with self._lock:
                self._catch_up()


def crazyflie_twin(
    airframe: str = "cf2x_L250",
    condition: str = "fresh",
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> TargetDriver:
    """Make a simulated Crazyflie; an old name of ``TargetDriver(robot="crazyflie", variant=airframe)``."""
    _warn("crazyflie_twin", "target, robot=crazyflie and variant=AIRFRAME")
    return TargetDriver("crazyflie", variant=airframe, condition=condition, seed=seed, clock=clock)


def so101_twin(
    condition: str = "fresh", seed: int = 0, puck: bool = False, clock: Callable[[], float] = time.monotonic
) -> TargetDriver:
    """Make a simulated SO-101; an old name of ``TargetDriver(robot="so101", task="reach")``, or ``"push"``."""
    _warn("so101_twin", "target, robot=so101 and task=reach or task=push")
    return TargetDriver("so101", "push" if puck else "reach", condition=condition, seed=seed, clock=clock)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"driver '{old}' is an old name; use {new}", FutureWarning, stacklevel=3)


def _state(
    stamp_s: float, state: Mapping[str, Array], joints: tuple[str, ...], place: Mapping[str, Any]
) -> DriverState:
    """The first robot of a state; ``place`` is where an arm without an object is."""
    still, level = np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])
    if "joint_pos" in state:
        pos = state["object_pos"][0] if "object_pos" in state else place["ee_pos"][0] if place else still
        return DriverState(stamp_s, pos, level, still, still, joints, state["joint_pos"][0], state["joint_vel"][0])
    body_rate = rotate_inverse(quat_to_matrix(state["quat"]), state["ang_vel"])
    return DriverState(stamp_s, state["pos"][0], state["quat"][0], state["lin_vel"][0], body_rate[0])
