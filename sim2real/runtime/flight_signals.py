"""A flying robot's state estimate, as signals; numpy only, so the robot's node uses it too."""

from __future__ import annotations

from sim2real.runtime.columns import Column, array, columns, joined, larger, sqrt
from sim2real.runtime.geometry import Columns, matrix_columns, rotate_inverse_columns, wrap_angle, yaw_column
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.spec import RobotSpec, SignalSpec
from sim2real.types import Array, State

# The heading frame has its z axis up and its x axis along the body's heading: a policy in it works for any yaw.
SPECS = {
    signal.name: signal
    for signal in (
        SignalSpec(name="position_error", components=("x", "y", "z"), unit="m", frame="heading"),
        SignalSpec(name="linear_velocity", components=("x", "y", "z"), unit="m/s", frame="heading"),
        SignalSpec(name="up", components=("x", "y", "z"), unit="1", frame="body"),
        SignalSpec(name="angular_velocity", components=("x", "y", "z"), unit="rad/s", frame="body"),
        SignalSpec(name="heading_error", components=("yaw",), unit="rad", frame="world"),
    )
}


class FlightSignals:
    """Signals of a flying robot; a goal is a point [x, y, z] m in the world frame and a heading [yaw] rad.

    A goal without a heading gives no ``heading_error``: policies of earlier releases hold a point only.
    """

    specs = SPECS
    needs = ("pos", "quat", "lin_vel", "ang_vel")

    def __init__(self, robot: RobotSpec, chain: Chain | None = None) -> None:
        pass  # the same for every robot that flies

    def measure(self, state: State, goal: Array) -> dict[str, Array]:
        """Signals [N, d] of ``state`` relative to ``goal`` [N, 3] or [N, 4]; see :func:`flight_signals`."""
        signals = flight_signals(state["pos"] - goal[:, :3], state["quat"], state["lin_vel"], state["ang_vel"])
        if goal.shape[1] > 3:
            heading = yaw_column(columns(state["quat"])) - columns(goal)[3]
            signals["heading_error"] = array(wrap_angle(heading))[:, None]
        return signals


def flight_signals(position_error: Array, quat: Array, lin_vel: Array, ang_vel: Array) -> dict[str, Array]:
    """Signals of a state estimate; ``last_action`` is added by whoever sends the commands.

    Args:
        position_error: Position minus goal [N, 3] m, world frame.
        quat: Attitude [N, 4] xyzw.
        lin_vel: [N, 3] m/s, world frame.
        ang_vel: [N, 3] rad/s, world frame.

    Returns:
        ``position_error``, ``linear_velocity`` (heading frame), ``up`` (world z axis in the body
        frame) and ``angular_velocity`` (body frame), each [N, 3].
    """
    matrix = matrix_columns(columns(quat))
    length = larger(sqrt(matrix[0] * matrix[0] + matrix[3] * matrix[3]), 1e-6)
    cosine, sine = matrix[0] / length, matrix[3] / length
    parts = (
        *_to_heading(columns(position_error), cosine, sine),
        *_to_heading(columns(lin_vel), cosine, sine),
        *matrix[6:],
        *rotate_inverse_columns(matrix, columns(ang_vel)),
    )
    table = joined(parts, (len(quat),))
    names = ("position_error", "linear_velocity", "up", "angular_velocity")
    return {name: table[:, 3 * i : 3 * i + 3] for i, name in enumerate(names)}


def _to_heading(vector: Columns, cosine: Column, sine: Column) -> Columns:
    x, y, z = vector
    return cosine * x + sine * y, cosine * y - sine * x, z
