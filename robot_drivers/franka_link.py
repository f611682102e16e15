"""The process that holds a Franka's control interface for :class:`robot_drivers.franka.FrankaDriver`.

franky computes motions in the process that has the connection. Were that the client's, an arm whose client is stopped
(Ctrl-Z, a debugger, a machine out of memory) would keep its last velocity. This process is in a session of its own and
goes on: a velocity ends by itself, and the arm stops when the client's end of the pipe closes.
"""

from __future__ import annotations

import contextlib
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SLEW_RAD_S = 2.0
HOLD_MS = 125  # a velocity ends after this without a newer one: two and a half commands at 20 Hz
TORQUE_LIMIT_NM, FORCE_LIMIT_N = 20.0, 30.0  # of contact, at which the arm stops by itself


def velocity(gap: Array, brake: float) -> Array:
    """Velocities [7] rad/s with which joints that hear nothing more come to rest on their target, never beyond it.

    For every joint the positive root of ``v * HOLD + v² / (2 * brake) = |gap|``.

    Args:
        gap: Target minus position [7] rad.
        brake: Deceleration, rad/s².
    """
    hold_s = HOLD_MS / 1000.0
    speed = brake * (np.sqrt(hold_s**2 + 2.0 * np.abs(gap) / brake) - hold_s)
    return np.sign(gap) * np.minimum(speed, SLEW_RAD_S)


class Link:
    """One arm; every public method is a request of the client.

    Args:
        franky: The module.
        host: Of the control interface.
        dynamics: Share of the arm's own limits that motions use.
        realtime: Insist on a real-time kernel.
    """

    def __init__(self, franky: Any, host: str, dynamics: float, realtime: bool) -> None:
        self._franky = franky
        config = franky.RealtimeConfig.Enforce if realtime else franky.RealtimeConfig.Ignore
        self._robot = franky.Robot(
            host,
            relative_dynamics_factor=dynamics,
            default_torque_threshold=TORQUE_LIMIT_NM,
            default_force_threshold=FORCE_LIMIT_N,
            realtime_config=config,
        )

    def state(self) -> dict[str, Any]:
        """The newest state: ``time`` s of the arm's clock, ``pos``, ``quat``, ``q``, ``dq``, ``tau``."""
        state = self._robot.state
        return {
            "time": state.time.to_sec(),
            "pos": np.array(state.O_T_EE.translation).ravel(),
            "quat": np.array(state.O_T_EE.quaternion).ravel(),
            "q": np.array(state.q),
            "dq": np.array(state.dq),
            "tau": np.array(state.tau_J),
        }

    def clear(self) -> None:
        """Clear the errors that stopped the arm."""
        if self._robot.has_errors:
            self._robot.recover_from_errors()

    def follow(self, target: Array, brake: float) -> bool:
        """Move towards joint positions [7] rad; False where the arm has stopped itself."""
        if self._robot.has_errors:
            return False
        self._move(velocity(target - np.array(self._robot.state.q), brake))
        return True

    def rest(self) -> None:
        """Come to rest where it is."""
        self._move(np.zeros(7))

    def stop(self) -> None:
        """End all motion within the arm's limits."""
        self._robot.stop()

    def _move(self, velocity: Array) -> None:
        motion = self._franky.JointVelocityMotion(velocity, self._franky.Duration(HOLD_MS))
        self._robot.move(motion, asynchronous=True)


def serve(pipe: Connection, host: str, dynamics: float, realtime: bool) -> None:
    """Answer requests until the client is gone: ``(None, result)``, or ``(kind of error, its text)``."""
    import franky

    try:
        link = Link(franky, host, dynamics, realtime)
    except franky.Exception as error:
        pipe.send(("refused", str(error)))
        return
    pipe.send((None, None))
    try:
        while True:
            answer: tuple[str | None, Any]
            name, *arguments = pipe.recv()
            try:
                answer = (None, getattr(link, name)(*arguments))
            except franky.Exception as error:
                answer = ("lost" if isinstance(error, franky.NetworkException) else "refused", str(error))
            pipe.send(answer)
    except (EOFError, OSError):  # the client has ended, whichever way
        with contextlib.suppress(franky.Exception):
            link.stop()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), sys.argv[2], float(sys.argv[3]), sys.argv[4] == "True")
