"""A Franka Research 3 (or Panda) over its network interface, through franky (``pip install franky-control``).

Position commands at 20 to 50 Hz become joint velocities towards them, each with an end: a client that stops
commanding, is stopped, or dies, leaves an arm that comes to rest before or on the last command. The connection is held
by a process of its own for that, see :mod:`robot_drivers.franka_link`. The same code drives the real arm and the
simulator ``franky-sim``, which serves the same protocol on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from robot_drivers.driver import DriverState
from robot_drivers.franka_link import SLEW_RAD_S, Array
from robot_drivers.limits import CommandLimits, DriverError, Limit

JOINTS = tuple(f"fr3_joint{i}" for i in range(1, 8))
# Joint ranges, a little inside the arms' own [rad]: Franka Control Interface documentation.
RANGES = {
    "fr3": ((-2.74, 2.74), (-1.78, 1.78), (-2.9, 2.9), (-3.04, -0.16), (-2.8, 2.8), (0.55, 4.51), (-3.01, 3.01)),
    "panda": ((-2.89, 2.89), (-1.76, 1.76), (-2.89, 2.89), (-3.07, -0.07), (-2.89, 2.89), (-0.01, 3.75), (-2.89, 2.89)),
}
# The least acceleration limit of any joint [rad/s²]: Franka Control Interface documentation.
BRAKE_RAD_S2 = {"fr3": 10.0, "panda": 7.5}
_ANSWER_S = 10.0  # connecting and coming to rest take longest


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
        self._link: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._lock = threading.Lock()  # one request at a time
        self._armed = False

    @property
    def is_connected(self) -> bool:
        """Tell whether the control interface answers."""
        return self._link is not None

    def connect(self) -> None:
        """Open the control interface. Nothing moves; the arm keeps its brakes and its mode.

        Raises:
            DriverError: franky is missing, or the arm cannot be reached.
        """
        if self._link is not None:
            return
        if find_spec("franky") is None:
            raise DriverError("a Franka needs franky: pip install franky-control")
        ours, theirs = Pipe()
        arguments = (str(theirs.fileno()), self._host, str(self._dynamics), str(self._realtime))
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("franka_link.py")), *arguments],
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # neither Ctrl-Z nor Ctrl-C reaches it
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._link = process, ours
        try:
            self._receive()
            state = self._request("state")
        except DriverError as error:
            self._close()
            raise DriverError(
                f"no Franka at {self._host}: {error}; activate FCI in Desk, or start 'franky-sim -s mujoco'"
            ) from error
        self._age_s, self._robot_s = self._clock(), state["time"]
        self._limits = _limits(self._ranges, state["q"])

    def disconnect(self) -> None:
        """Stop and close the link; harmless when not connected."""
        if self._link is not None:
            with contextlib.suppress(DriverError):  # a link that is broken already
                self.stop()
            self._close()

    def _close(self) -> None:
        """End the link's process; it stops the arm before it ends."""
        if self._link is None:
            return
        process, pipe = self._link
        self._link, self._armed = None, False
        pipe.close()
        try:
            process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def read(self) -> DriverState:
        """Joint positions, velocities and torques; the stamp stands still while the arm's own clock does.

        Raises:
            DriverError: Not connected, or the link is broken.
        """
        state = self._ask("state")
        if state["time"] != self._robot_s:
            self._robot_s, self._age_s = state["time"], self._clock()
        still = np.zeros(3)
        return DriverState(
            self._age_s, state["pos"], state["quat"], still, still, JOINTS, state["q"], state["dq"], state["tau"]
        )

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
        self._ask("clear")
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
        try:
            if not self._ask("follow", target, self._brake):
                raise DriverError(
                    "the arm has stopped itself (collision, limit or lost packets); arm it again to go on"
                )
        except DriverError:
            self._armed = False
            raise
        return sent

    def hold(self) -> None:
        """Come to rest where it is; does nothing when not armed."""
        if self._armed:
            self._ask("rest")

    def land(self) -> None:
        """As :meth:`hold`."""
        self.hold()

    def stop(self) -> None:
        """Come to rest within the arm's limits and take no more commands."""
        self._armed = False
        self._ask("stop")

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            return self._request(name, *arguments)
        except DriverError as error:
            raise DriverError(f"Franka at {self._host}: {error}") from error

    def _request(self, name: str, *arguments: Any) -> Any:
        """Call a method of :class:`robot_drivers.franka_link.Link`."""
        with self._lock:
            if self._link is None:
                raise DriverError("the driver is not connected; call connect() first")
            with contextlib.suppress(OSError):  # the process has ended; receiving says so
                self._link[1].send((name, *arguments))
            return self._receive()

    def _receive(self) -> Any:
        assert self._link is not None
        pipe = self._link[1]
        try:
            kind, value = pipe.recv() if pipe.poll(_ANSWER_S) else ("lost", f"no answer in {_ANSWER_S:.0f} s")
        except (EOFError, OSError):
            kind, value = "lost", "the process that holds the link has ended"
        if kind == "lost":
            self._close()
        if kind is not None:
            raise DriverError(value)
        return value


def _limits(ranges: tuple[tuple[float, float], ...], start: Array) -> CommandLimits:
    limits = {joint: Limit(low, high, SLEW_RAD_S) for joint, (low, high) in zip(JOINTS, ranges, strict=True)}
    return CommandLimits(limits, dict(zip(JOINTS, start.tolist(), strict=True)))
