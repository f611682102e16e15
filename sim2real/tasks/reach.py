"""Bring an arm's end effector to a point and hold it there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from sim2real.robots.model import RobotModel
from sim2real.runtime.arm_signals import ArmSignals
from sim2real.runtime.spec import ActionTerm, ObservationTerm
from sim2real.tasks.joint_actions import BASE_POINT, as_arm, follow, joint_increments, joint_term
from sim2real.tasks.workspace import Workspace
from sim2real.types import Array, Bools, Model, State

# How each signal is scaled for the networks: one unit of the network is about the spread near the goal.
_SCALE = {
    "joint_pos": 1.0,
    "joint_vel": 0.5,
    "goal_error": 10.0,
    "joint_step": 5.0,
    "tracking_error": 10.0,
    "last_action": 1.0,
}


class ReachSettings(Model):
    """Settings of the task; every arm takes the same file.

    Attributes:
        tolerance_m: Success is being this close for the last ``hold_s``.
        span: Share of every joint's range that poses are drawn from.
        unfolded_rad: At most so far from the middle of its range a joint starts that moves the end effector: from
            poses folded further, no straight way leads to most goals.
        near, far: Starts and goals are this far from the base's axis, horizontally, in shares of the arm's reach,
        low, high: this far above the base plane, in the same shares,
        azimuth_rad: and at most this far to either side of the base's x axis.
        speed: Largest command speed, rad/s.
        history: Control steps of everything the policy sees; 1 is the newest only.
        action_history: Past outputs the policy sees.
        estimator_history: Control steps the identification network sees.
    """

    episode_s: float = Field(default=4.0, gt=0)
    hold_s: float = Field(default=0.5, gt=0)
    tolerance_m: float = Field(default=0.01, gt=0)
    span: float = Field(default=0.8, gt=0, le=1)
    unfolded_rad: float = Field(default=1.6, gt=0)
    near: float = 0.35
    far: float = 0.8
    low: float = 0.12
    high: float = 0.7
    azimuth_rad: float = 1.2
    speed: float = Field(default=2.0, gt=0)
    history: int = Field(default=1, ge=1)
    action_history: int = Field(default=6, ge=1)
    estimator_history: int = Field(default=30, ge=2)


class Reach:
    """The task ``reach`` for one arm.

    Args:
        robot: The arm.
        settings: The task's.

    Raises:
        ConfigError: The robot is no arm, or its end effector hardly moves.
    """

    name = "reach"
    Settings = ReachSettings
    goal = BASE_POINT
    signals_name = "arm"
    error_signal = "goal_error"
    scene = None

    def __init__(self, robot: RobotModel, settings: ReachSettings) -> None:
        arm = self.model = as_arm(robot, self.name)
        self.settings = settings
        self.episode_s, self.hold_s, self.tolerance_m = settings.episode_s, settings.hold_s, settings.tolerance_m
        self.near_m = 3.0 * settings.tolerance_m
        self.signals = ArmSignals(arm.spec, arm.chain)
        self._workspace = Workspace(arm, settings)

    def observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the policy's observation."""
        s = self.settings
        return tuple(
            joint_term(self.model, self.signals, name, scale, s.action_history if name == "last_action" else s.history)
            for name, scale in _SCALE.items()
        )

    def history(self) -> tuple[ObservationTerm, ...]:
        """Terms of the past that identification reads."""
        names = ("joint_pos", "joint_vel", "tracking_error", "last_action")
        return tuple(
            joint_term(self.model, self.signals, name, _SCALE[name], self.settings.estimator_history) for name in names
        )

    def action(self) -> tuple[ActionTerm, ...]:
        """Increments of every joint's position command."""
        return joint_increments(self.model, self.settings.speed)

    def expert(self, signals: Mapping[str, Array]) -> Array:
        """Walk along the damped least squares step, without winding the command up."""
        return follow(self.model, signals, self.settings.speed)

    def start(self, rng: np.random.Generator, count: int) -> State:
        """Draw ``count`` poses at rest."""
        position = self._workspace.sample(rng, count)
        ee = self.model.chain.frames(position)[self.model.ee][0]
        return {"joint_pos": position, "joint_vel": np.zeros_like(position), "ee_pos": ee}

    def start_command(self, state: State) -> Array:
        """Stay where it is [N, J]."""
        return state["joint_pos"]

    def goals(self, rng: np.random.Generator, count: int, state: State | None = None) -> Array:
        """Draw points [count, 3] m in the base frame that the end effector can reach."""
        return self.model.chain.frames(self._workspace.sample(rng, count))[self.model.ee][0]

    def failed(self, state: State, goal: Array) -> Bools:
        """Tell whether each arm has failed for good: never, an arm that is bolted down cannot fall."""
        return np.zeros(len(goal), dtype=np.bool_)

    def reward(self, state: State, goal: Array, action: Array, previous: Array, failed: Bools) -> Array:
        """Reward [N] of a step, about 1 when holding still on the goal, never above."""
        error = state["ee_pos"] - goal
        distance = np.sqrt((error * error).sum(axis=1))
        tolerance = self.settings.tolerance_m
        # Bells of several widths: always a slope towards the goal, and a margin inside the tolerance.
        reward = 0.3 * (1.0 - np.minimum(distance / 0.3, 1.5))
        for weight, width in ((0.2, 5.0), (0.3, 1.0), (0.2, 0.4)):
            reward += weight * np.exp(-((distance / (width * tolerance)) ** 2))
        change = ((action - previous) ** 2).sum(axis=1)
        speed = (state["joint_vel"] ** 2).sum(axis=1)
        return reward - 0.01 * (action * action).sum(axis=1) - 0.01 * change - 0.002 * speed

    def distance(self, state: State, goal: Array) -> Array:
        """Distance of the end effector from the goal [N], m."""
        return np.sqrt(((state["ee_pos"] - goal) ** 2).sum(axis=1))
