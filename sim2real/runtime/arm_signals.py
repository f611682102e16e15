"""Signals of an arm whose end effector goes to a point: the one copy of this code, for simulator and robot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim2real.errors import SpecError
from sim2real.runtime.kinematics import POSTURE, STEP_DAMPING, Chain
from sim2real.runtime.spec import RobotSpec, SignalSpec
from sim2real.types import Array, State

TABLE_M = 0.01  # a goal further than this below z = 0 is under the table


class ArmSignals:
    """Signals of an arm that reaches; a goal is a point [x, y, z] m in the base frame."""

    needs = ("joint_pos", "joint_vel")

    def __init__(self, robot: RobotSpec, chain: Chain | None) -> None:
        if chain is None:
            raise SpecError(f"robot '{robot.name}' has no kinematics; these signals are an arm's")
        self._chain, self._ee = chain, robot.ee
        self.specs = {signal.name: signal for signal in signal_specs(robot)}

    def measure(self, state: State, goal: Array) -> dict[str, Array]:
        """Signals [N, d] of ``state`` relative to ``goal`` [N, 3]; see :func:`arm_signals`."""
        return arm_signals(self._chain, self._ee, state["joint_pos"], state["joint_vel"], goal)

    def goal(self, signals: Mapping[str, Array]) -> Array:
        """The goal [N, 3] of measured signals."""
        return self._chain.frames(signals["joint_pos"])[self._ee][0] - signals["goal_error"]

    def nearest_goal(self, goal: Array) -> tuple[Array, str]:
        """The nearest point above the table and within reach."""
        return reachable(self._chain, self._ee, goal)


def reach_of(chain: Chain, ee: str) -> float:
    """Distance from the base beyond which an end effector never comes, m: its links in one line."""
    joints, reach, link = {joint.child: joint for joint in chain.joints}, 0.0, ee
    while link in joints:
        joint = joints[link]
        slide = max(abs(joint.low), abs(joint.high)) if joint.kind == "prismatic" else 0.0
        reach += float(np.sqrt((joint.origin**2).sum())) + slide
        link = joint.parent
    return reach


def reachable(chain: Chain, ee: str, goal: Array) -> tuple[Array, str]:
    """The point nearest to ``goal`` [3] m that an arm on a table can go to, and why it is another one, or nothing."""
    if goal[2] < -TABLE_M:
        return goal * [1.0, 1.0, 0.0], "it lies below the table, z = 0 of the base frame"
    reach, distance = reach_of(chain, ee), float(np.sqrt((goal**2).sum()))
    if distance <= reach:
        return goal, ""
    return goal * (reach / distance), f"it is {distance:.3g} m away, the arm reaches {reach:.2f} m at most"


def signal_specs(robot: RobotSpec) -> tuple[SignalSpec, ...]:
    """Signals that a policy of an arm may read, of :func:`arm_signals`."""
    joints, (unit, speed) = robot.actuators, joint_units(robot)
    return (
        SignalSpec(name="joint_pos", components=joints, unit=unit, frame="joint"),
        SignalSpec(name="joint_vel", components=joints, unit=speed, frame="joint"),
        SignalSpec(name="goal_error", components=("x", "y", "z"), unit="m", frame="base"),
        SignalSpec(name="joint_step", components=joints, unit=unit, frame="joint"),
    )


def joint_units(robot: RobotSpec) -> tuple[str, str]:
    """Units of joint positions and velocities: both kinds are named where some joints slide."""
    units = list(dict.fromkeys(command.unit for command in robot.commands))
    return " or ".join(units), " or ".join(f"{unit}/s" for unit in units)


def arm_signals(chain: Chain, ee: str, joint_pos: Array, joint_vel: Array, goal: Array) -> dict[str, Array]:
    """Signals of N arms: the one copy of this code, for simulator and robot.

    Args:
        chain: The arm's kinematics.
        ee: Its end effector's link.
        joint_pos: Measured, [N, J] rad.
        joint_vel: Measured, [N, J] rad/s.
        goal: Where the end effector should be, [N, 3] m in the base frame.

    Returns:
        ``joint_pos`` and ``joint_vel``; ``goal_error`` [N, 3] m, end effector minus goal; ``joint_step`` [N, J] rad,
        the damped least squares step to the goal.
    """
    frames = chain.frames(joint_pos)
    error = frames[ee][0] - goal
    step = chain.joint_step(ee, joint_pos, frames, -error, STEP_DAMPING, posture=POSTURE)
    return {"joint_pos": joint_pos, "joint_vel": joint_vel, "goal_error": error, "joint_step": step}
