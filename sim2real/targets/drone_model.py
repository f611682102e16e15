"""The equations of the drone target: ``drone-models``, model ``so_rpy_rotor_drag``, compiled."""

from __future__ import annotations

import os
from typing import Any

from robot_drivers.limits import DriverError
from sim2real.types import Array

AIRFRAMES = ("cf2x_L250", "cf2x_P250", "cf2x_T350", "cf21B_500")

# Columns of the state, in the order of the package's symbols: position, quaternion xyzw, velocity (world), angular
# velocity (body), thrust (its first component of four; the others do not take part), disturbance force (world).
POS, QUAT, VEL, RATE = slice(3), slice(3, 7), slice(7, 10), slice(10, 13)
THRUST, DISTURBANCE = slice(13, 14), slice(17, 20)
STATE_SIZE = 20


def airframe_parameters(airframe: str) -> dict[str, Any]:
    """The package's parameters of an airframe, and ``thrust_max`` of one motor, N.

    Raises:
        DriverError: Unknown airframe, or ``drone-models`` is not installed.
    """
    if airframe not in AIRFRAMES:
        raise DriverError(f"unknown airframe '{airframe}'; known: {', '.join(AIRFRAMES)}")
    # The package refuses to be imported after SciPy unless this is set. It is about SciPy on arrays that are not
    # NumPy's; the compiled expressions below do not use SciPy at all.
    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    try:
        from drone_models import parametrize
        from drone_models.core import load_params
        from drone_models.so_rpy_rotor_drag import dynamics
    except ImportError as error:
        raise DriverError(f"the drone target needs drone-models ({error}); pip install 'sim2real[drivers]'") from error
    params = dict(parametrize(dynamics, airframe).keywords)
    return params | {"thrust_max": load_params("so_rpy_rotor_drag", airframe)["thrust_max"]}


class DroneDynamics:
    """The package's symbolic model, compiled for fixed arrays; faster than its array version and equal to it.

    It reads ``state`` [N, 20] and ``command`` [N, 4] (roll, pitch, yaw, thrust) and writes ``slope`` [N, 7]:
    time derivatives of velocity (world), angular velocity (body) and thrust.

    Args:
        params: From :func:`airframe_parameters`, changed as needed, without ``thrust_max``.
        state, command, slope: Contiguous float64 arrays that stay in place.
    """

    def __init__(self, params: dict[str, Any], state: Array, command: Array, slope: Array) -> None:
        import casadi
        from drone_models.so_rpy_rotor_drag import symbolic_dynamics

        derivative, symbols, inputs, _ = symbolic_dynamics(True, True, False, **params)
        one = casadi.Function("twin", [symbols, inputs], [casadi.cse(derivative[7:14])]).expand()
        every = one if len(state) == 1 else one.map(len(state))
        buffer: Any
        buffer, self._run = every.buffer()
        self._alive = (every, buffer, state, command, slope)  # the buffer holds bare pointers to all of these
        buffer.set_arg(0, state.data)
        buffer.set_arg(1, command.data)
        buffer.set_res(0, slope.data)

    def evaluate(self) -> None:
        """Write ``slope`` from ``state`` and ``command``."""
        self._run()
