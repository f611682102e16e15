"""Signals of an arm that pushes an object over a table: the one copy of this code, for simulator and robot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim2real.errors import SpecError
from sim2real.runtime.arm_signals import TABLE_M, joint_units, reachable
from sim2real.runtime.kinematics import STEP_DAMPING, Chain
from sim2real.runtime.spec import RobotSpec, SignalSpec
from sim2real.types import Array, State

PUSH_HEIGHT_M = 0.02  # of the finger tip above the table while it pushes
CLEAR_HEIGHT_M = 0.075  # while it walks around or over the object
STANDOFF_M = 0.065  # from the object's centre to where a push begins; any object this small will do
BESIDE_M = 0.05  # closer than this and low, the tip may touch the object
CLOSE_M = 0.035  # the same while pushing: the tip presses against the object's rim
LOW_M = 0.034  # a tip higher than this might slide over the object
LEAD_M = 0.05  # how far ahead of the tip the push aims
ALIGNED_M = 0.012  # sideways distance from the line of the push up to which it may begin


class PushSignals:
    """Signals of an arm that pushes an object; a goal is where the object should be [x, y, z] m in the base frame."""

    needs = ("joint_pos", "joint_vel", "object_pos")

    def __init__(self, robot: RobotSpec, chain: Chain | None) -> None:
        if chain is None:
            raise SpecError(f"robot '{robot.name}' has no kinematics; pushing is for arms")
        self._chain, self._ee = chain, robot.ee
        self.specs = {signal.name: signal for signal in push_signal_specs(robot)}

    def measure(self, state: State, goal: Array) -> dict[str, Array]:
        """Signals [N, d] of ``state`` relative to ``goal`` [N, 3]; see :func:`push_signals`."""
        return push_signals(self._chain, self._ee, state["joint_pos"], state["joint_vel"], state["object_pos"], goal)

    def goal(self, signals: Mapping[str, Array]) -> Array:
        """The goal [N, 3] of measured signals, on the table."""
        goal = self._chain.frames(signals["joint_pos"])[self._ee][0] + signals["ee_to_object"]
        goal[:, :2] -= signals["object_error"]
        goal[:, 2] = 0.0
        return goal

    def nearest_goal(self, goal: Array) -> tuple[Array, str]:
        """The point of the table under or over ``goal`` [3]: above it, the finger would pass over the object."""
        if abs(goal[2]) <= TABLE_M:
            return reachable(self._chain, self._ee, goal)
        return goal * [1.0, 1.0, 0.0], "an object is pushed on the table, at z = 0 of the base frame"


def push_signal_specs(robot: RobotSpec) -> tuple[SignalSpec, ...]:
    """Signals that a pushing policy may read, of :func:`push_signals`."""
    joints, (unit, speed) = robot.actuators, joint_units(robot)
    return (
        SignalSpec(name="joint_pos", components=joints, unit=unit, frame="joint"),
        SignalSpec(name="joint_vel", components=joints, unit=speed, frame="joint"),
        SignalSpec(name="ee_to_object", components=("x", "y", "z"), unit="m", frame="base"),
        SignalSpec(name="object_error", components=("x", "y"), unit="m", frame="base"),
        SignalSpec(name="joint_step", components=joints, unit=unit, frame="joint"),
    )


def push_signals(
    chain: Chain, ee: str, joint_pos: Array, joint_vel: Array, object_pos: Array, goal: Array
) -> dict[str, Array]:
    """Signals of N arms.

    Args:
        chain: The arm's kinematics.
        ee: Its end effector's link; its z axis is kept pointing down.
        joint_pos: Measured, [N, J] rad.
        joint_vel: Measured, [N, J] rad/s.
        object_pos: Centre of the object as seen, [N, 3] m in the base frame.
        goal: Where it should be, [N, 3] m in the base frame.

    Returns:
        ``joint_pos``, ``joint_vel``; ``ee_to_object`` [N, 3] m; ``object_error`` [N, 2] m, object minus goal;
        ``joint_step`` [N, J] rad, the damped least squares step to :func:`push_waypoint`.
    """
    frames = chain.frames(joint_pos)
    tip = frames[ee][0]
    way = push_waypoint(tip, object_pos, goal)
    step = chain.joint_step(ee, joint_pos, frames, way - tip, STEP_DAMPING, downwards=True)
    return {
        "joint_pos": joint_pos,
        "joint_vel": joint_vel,
        "ee_to_object": object_pos - tip,
        "object_error": (object_pos - goal)[:, :2],
        "joint_step": step,
    }


def push_waypoint(tip: Array, object_pos: Array, goal: Array) -> Array:
    """Choose where a finger tip should go next to push an object to its goal, [N, 3] m.

    Over the object to the far side of it, down, then forwards along the line to the goal; without memory, so that it
    begins anew whenever the object slips away sideways.

    Args:
        tip: The finger tip, [N, 3] m.
        object_pos: Centre of the object, [N, 3] m.
        goal: Where the object should be, on the table, [N, 3] m.
    """
    table = goal[:, 2]  # the goal lies on the table
    way = goal[:, :2] - object_pos[:, :2]
    distance = np.sqrt((way * way).sum(axis=1))
    forward = way / np.maximum(distance, 1e-6)[:, None]
    side = np.stack((-forward[:, 1], forward[:, 0]), axis=1)
    offset = tip[:, :2] - object_pos[:, :2]
    along, across = (offset * forward).sum(axis=1), (offset * side).sum(axis=1)
    height = tip[:, 2] - table

    start = object_pos[:, :2] - STANDOFF_M * forward
    to_start = np.sqrt(((tip[:, :2] - start) ** 2).sum(axis=1))
    down = np.clip((to_start - 0.01) / 0.02, 0.0, 1.0)
    # Near the object and low: up first, then over.
    beside = (np.sqrt((offset * offset).sum(axis=1)) < BESIDE_M) & (height < CLEAR_HEIGHT_M - 0.02)
    beside &= to_start > 0.03
    walk = np.where(beside[:, None], tip[:, :2], start)
    walk_height = np.where(beside, CLEAR_HEIGHT_M, PUSH_HEIGHT_M + down * (CLEAR_HEIGHT_M - PUSH_HEIGHT_M))

    # The tip steers against its own sideways offset: twice over, because the object turns away from the line.
    ahead = np.minimum(distance, LEAD_M)
    push = object_pos[:, :2] + (ahead - CLOSE_M)[:, None] * forward - across[:, None] * side
    pushing = (along < 0.0) & (along > -STANDOFF_M - 0.015) & (np.abs(across) < ALIGNED_M) & (height < LOW_M)
    plane = np.where(pushing[:, None], push, walk)
    level = np.where(pushing, PUSH_HEIGHT_M, walk_height)
    # There: leave it alone.
    there = distance < 0.004
    plane = np.where(there[:, None], tip[:, :2], plane)
    return np.concatenate((plane, (table + level)[:, None]), axis=1)
