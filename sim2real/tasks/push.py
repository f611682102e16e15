"""Push an object over the table to a goal and leave it there (Peng et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from sim2real.errors import ConfigError
from sim2real.robots.model import RobotModel
from sim2real.runtime.push_signals import CLEAR_HEIGHT_M, PushSignals
from sim2real.runtime.spec import ActionTerm, ObservationTerm
from sim2real.sim.puck_on_table import PuckOnTable
from sim2real.tasks.joint_actions import BASE_POINT, as_arm, follow, joint_increments, joint_term
from sim2real.types import Array, Bools, Model, State

_SCALE = {
    "joint_pos": 1.0,
    "joint_vel": 0.5,
    "ee_to_object": 10.0,
    "object_error": 10.0,
    "joint_step": 5.0,
    "tracking_error": 10.0,
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
        robot: The arm.
        settings: The task's.

    Raises:
        ConfigError: The robot is no arm, or its end effector cannot point down at the table.
    """

    name = "push"
    Settings = PushSettings
    goal = BASE_POINT
    signals_name = "arm_push"
    error_signal = "object_error"

    def __init__(self, robot: RobotModel, settings: PushSettings) -> None:
        arm = self.model = as_arm(robot, self.name)
        self.settings = settings
        self.episode_s, self.hold_s, self.tolerance_m = settings.episode_s, settings.hold_s, settings.tolerance_m
        self.near_m = 3.0 * settings.tolerance_m
        self.signals = PushSignals(arm.spec, arm.chain)
        self.scene = PuckOnTable(arm.reach_m)
        self._pool = self._start_poses()

    def observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the policy's observation."""
        s = self.settings
        return tuple(
            joint_term(self.model, self.signals, name, scale, s.action_history if name == "last_action" else s.history)
            for name, scale in _SCALE.items()
        )

    def history(self) -> tuple[ObservationTerm, ...]:
        """Terms of the past that identification reads."""
        names = ("joint_pos", "joint_vel", "ee_to_object", "tracking_error", "last_action")
        return tuple(
            joint_term(self.model, self.signals, name, _SCALE[name], self.settings.estimator_history) for name in names
        )

    def action(self) -> tuple[ActionTerm, ...]:
        """Increments of every joint's position command."""
        return joint_increments(self.model, self.settings.speed)

    def expert(self, signals: Mapping[str, Array]) -> Array:
        """Walk along the step to the pusher's next waypoint."""
        return follow(self.model, signals, self.settings.speed)

    def start(self, rng: np.random.Generator, count: int) -> State:
        """Draw arms at rest above the table, and objects."""
        position = self._pool[rng.integers(0, len(self._pool), count)]
        ee = self.model.chain.frames(position)[self.model.ee][0]
        place = self._places(rng, count)
        place[:, 2] = 0.5 * self.scene.height_m
        return {
            "joint_pos": position,
            "joint_vel": np.zeros_like(position),
            "ee_pos": ee,
            "object_pos": place,
            "object_vel": np.zeros((count, 3)),
        }

    def start_command(self, state: State) -> Array:
        """Stay where it is [N, J]."""
        return state["joint_pos"]

    def goals(self, rng: np.random.Generator, count: int, state: State | None = None) -> Array:
        """Draw goals [count, 3] m on the table, each a push away from its object."""
        goals = self._places(rng, count)
        if state is None:
            return goals
        s = self.settings
        open_rows = np.arange(count)
        for _ in range(200):
            distance = np.sqrt(((goals - state["object_pos"])[open_rows, :2] ** 2).sum(axis=1))
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

    def failed(self, state: State, goal: Array) -> Bools:
        """Tell whether each object has left the table."""
        return state["object_pos"][:, 2] < goal[:, 2] - 0.05

    def reward(self, state: State, goal: Array, action: Array, previous: Array, failed: Bools) -> Array:
        """Reward [N] of a step, about 1 with the object at rest on its goal, more while it moves there."""
        error = (state["object_pos"] - goal)[:, :2]
        distance = np.sqrt((error * error).sum(axis=1))
        tolerance = self.settings.tolerance_m
        reward = 0.3 * (1.0 - np.minimum(distance / 0.2, 1.5))
        for weight, width in ((0.2, 3.0), (0.3, 1.0), (0.2, 0.4)):
            reward += weight * np.exp(-((distance / (width * tolerance)) ** 2))
        # Credit at once for an object that moves towards its goal: summed over a push, 1 for every 20 mm.
        towards = -(state["object_vel"][:, :2] * error).sum(axis=1) / np.maximum(distance, tolerance)
        reward += towards / (0.02 * self.model.spec.control_rate_hz)
        change = ((action - previous) ** 2).sum(axis=1)
        return reward - 0.01 * (action * action).sum(axis=1) - 0.01 * change - 1.0 * failed

    def distance(self, state: State, goal: Array) -> Array:
        """Distance of the object from its goal on the table [N], m."""
        return np.sqrt(((state["object_pos"] - goal)[:, :2] ** 2).sum(axis=1))
