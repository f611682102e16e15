"""Push an object over the table to a goal and leave it there (Peng et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from sim2real.errors import ConfigError
from sim2real.robots.arm import Arm
from sim2real.runtime.pushing import CLEAR_HEIGHT_M
from sim2real.runtime.spec import ActionTerm, ObservationTerm
from sim2real.sim.arm_on_table import ArmOnTable, TableState
from sim2real.tasks.joint_actions import follow, joint_increments, joint_term
from sim2real.types import Array, Bools, Model

_SCALE = {
    "joint_pos": 1.0,
    "joint_vel": 0.5,
    "ee_to_object": 10.0,
    "object_error": 10.0,
    "joint_step": 5.0,
    "command_lead": 10.0,
    "last_action": 1.0,
}
_POOL = 512
_STEPS = 120  # of inverse kinematics for a start pose


class PushSettings(Model):
    """Settings of the task; every arm takes the same file.

    Attributes:
        tolerance_m: Success is the object being this close for the last ``hold_s``.
        near, far: Objects and goals lie this far from the base's axis, in shares of the arm's reach,
        azimuth_rad: and at most this far to either side of the base's x axis.
        shortest_m, longest_m: Distance between object and goal.
        speed: Largest command speed, rad/s.
        history: Control steps of everything the policy sees; 1 is the newest only.
        action_history: Past outputs the policy sees.
        estimator_history: Control steps the identification network sees.
    """

    episode_s: float = Field(default=8.0, gt=0)
    hold_s: float = Field(default=0.5, gt=0)
    tolerance_m: float = Field(default=0.03, gt=0)
    near: float = 0.45
    far: float = 0.8
    azimuth_rad: float = 0.8
    shortest_m: float = 0.06
    longest_m: float = 0.16
    speed: float = Field(default=2.0, gt=0)
    history: int = Field(default=1, ge=1)
    action_history: int = Field(default=6, ge=1)
    estimator_history: int = Field(default=30, ge=2)


class Push:
    """The task ``push`` for one arm.

    Args:
        model: The arm at its table.
        settings: Of the task.
    """

    name = "push"

    def __init__(self, model: ArmOnTable, settings: PushSettings) -> None:
        self.model, self.settings = model, settings
        self.episode_s, self.hold_s = settings.episode_s, settings.hold_s
        self.near = 3.0 * settings.tolerance_m
        self._pool = self._start_poses()

    @classmethod
    def for_robot(cls, model: Any, settings: dict[str, Any]) -> tuple[ArmOnTable, Push]:
        """The task for an arm, and the arm at a table."""
        if not isinstance(model, Arm):
            raise ConfigError(f"task 'push' is for arms; '{model.name}' is none")
        at_table = ArmOnTable(model.folder, model.source)
        return at_table, cls(at_table, PushSettings(**settings))

    def observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the policy's observation."""
        s = self.settings
        return tuple(
            joint_term(self.model, name, scale, s.action_history if name == "last_action" else s.history)
            for name, scale in _SCALE.items()
        )

    def estimator_observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the identification network's input."""
        names = ("joint_pos", "joint_vel", "ee_to_object", "command_lead", "last_action")
        return tuple(joint_term(self.model, name, _SCALE[name], self.settings.estimator_history) for name in names)

    def action(self) -> tuple[ActionTerm, ...]:
        """Increments of every joint's position command."""
        return joint_increments(self.model, self.settings.speed)

    def teacher(self, signals: Mapping[str, Array]) -> Array:
        """Walk along the step to the pusher's next waypoint."""
        return follow(self.model, signals, self.settings.speed)

    def start(self, rng: np.random.Generator, count: int) -> TableState:
        """Draw arms at rest above the table, and objects."""
        position = self._pool[rng.integers(0, len(self._pool), count)]
        ee = self.model.chain.frames(position)[self.model.ee][0]
        place = self._places(rng, count)
        place[:, 2] = 0.5 * self.model.object_height()
        return TableState(position, np.zeros_like(position), ee, place, np.zeros((count, 3)))

    def start_command(self, state: TableState) -> Array:
        """Stay where it is [N, J]."""
        return state.joint_pos

    def goals(self, rng: np.random.Generator, count: int, state: TableState | None = None) -> Array:
        """Draw goals [count, 3] m on the table, each a push away from its object."""
        goals = self._places(rng, count)
        if state is None:
            return goals
        s = self.settings
        open_rows = np.arange(count)
        for _ in range(200):
            distance = np.sqrt(((goals - state.object_pos)[open_rows, :2] ** 2).sum(axis=1))
            open_rows = open_rows[(distance < s.shortest_m) | (distance > s.longest_m)]
            if not len(open_rows):
                break
            goals[open_rows] = self._places(rng, len(open_rows))
        return goals

    def _places(self, rng: np.random.Generator, count: int) -> Array:
        s, reach = self.settings, self.model.reach_m
        radius = np.sqrt(rng.uniform((s.near * reach) ** 2, (s.far * reach) ** 2, count))
        angle = rng.uniform(-s.azimuth_rad, s.azimuth_rad, count)
        return np.stack((radius * np.cos(angle), radius * np.sin(angle), np.zeros(count)), axis=1)

    def _start_poses(self) -> Array:
        """Poses with the finger tip above the table, pointing down, by inverse kinematics from the rest pose."""
        arm = self.model
        rng = np.random.default_rng(7)
        goal = self._places(rng, _POOL)
        goal[:, 2] = CLEAR_HEIGHT_M + rng.uniform(0.0, 0.03, _POOL)
        pose = np.tile(arm.rest, (_POOL, 1)) + 0.05 * rng.standard_normal((_POOL, len(arm.joints)))
        low, high = (np.array([getattr(c, end) for c in arm.spec.commands]) for end in ("low", "high"))
        for _ in range(_STEPS):
            frames = arm.chain.frames(pose)
            error = goal - frames[arm.ee][0]
            step = arm.chain.joint_step(arm.ee, pose, frames, error, 0.05, downwards=True)
            pose = np.clip(pose + 0.5 * step, low + 0.02, high - 0.02)
        frames = arm.chain.frames(pose)
        off = np.sqrt(((frames[arm.ee][0] - goal) ** 2).sum(axis=1))
        good = (off < 0.01) & (frames[arm.ee][1][:, 2, 2] < -0.8)
        if good.sum() < _POOL // 8:
            raise ConfigError(
                f"'{arm.name}' cannot point its end effector '{arm.ee}' (its z axis) down at the table from its rest "
                "pose; give robot.yaml a 'rest' pose that nearly does, and an 'ee' frame whose z axis leaves the tool"
            )
        return pose[good]

    def failed(self, state: TableState, goal: Array) -> Bools:
        """Whether each object has left the table."""
        return state.object_pos[:, 2] < goal[:, 2] - 0.05

    def reward(self, state: TableState, goal: Array, action: Array, previous: Array, failed: Bools) -> Array:
        """Reward [N] of a step, about 1 with the object at rest on its goal, more while it moves there."""
        error = (state.object_pos - goal)[:, :2]
        distance = np.sqrt((error * error).sum(axis=1))
        tolerance = self.settings.tolerance_m
        reward = 0.3 * (1.0 - np.minimum(distance / 0.2, 1.5))
        for weight, width in ((0.2, 3.0), (0.3, 1.0), (0.2, 0.4)):
            reward += weight * np.exp(-((distance / (width * tolerance)) ** 2))
        # Credit at once for an object that moves towards its goal: summed over a push, 1 for every 20 mm.
        towards = -(state.object_vel[:, :2] * error).sum(axis=1) / np.maximum(distance, tolerance)
        reward += towards / (0.02 * self.model.spec.control_rate_hz)
        change = ((action - previous) ** 2).sum(axis=1)
        return reward - 0.01 * (action * action).sum(axis=1) - 0.01 * change - 1.0 * failed

    def within(self, state: TableState, goal: Array) -> Bools:
        """Whether each object is inside the tolerance now."""
        return ((state.object_pos - goal)[:, :2] ** 2).sum(axis=1) <= self.settings.tolerance_m**2
