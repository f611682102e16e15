"""Fly to a point and hold it: the drone's first task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim2real.errors import ConfigError
from sim2real.runtime.geometry import quat_multiply, rotation_vector_to_quat, rpy_to_quat, tilt_of
from sim2real.runtime.spec import ActionTerm, ObservationTerm
from sim2real.sim.robot import BodyState, RobotModel
from sim2real.types import Array, Model

_XYZ = ("x", "y", "z")
_COMMAND = ("thrust", "roll", "pitch", "yaw_rate")
# How each signal is scaled for the networks: one unit of the network is about the spread near the goal.
_SCALE = {"position_error": 2.0, "linear_velocity": 1.0, "up": 3.0, "angular_velocity": 0.5, "last_action": 1.0}
_UNITS = {
    "position_error": ("m", "heading"),
    "linear_velocity": ("m/s", "heading"),
    "up": ("1", "body"),
    "angular_velocity": ("rad/s", "body"),
}


class Waypoint(Model):
    """Start anywhere near the goal, tilted and moving; be within ``tolerance_m`` for the last second.

    Attributes:
        start_m: Start within ± this of the goal on each axis.
        start_tilt_rad: Largest start tilt.
        start_speed: Largest start speed, m/s.
        hold_s: The end of the episode that must be spent within tolerance.
        action_history: Past commands the policy sees; longer than the longest delay, so that it knows
            what is still on its way.
        estimator_history: Control steps the identification network sees.
    """

    name: str = "waypoint"
    near: float = 0.1
    teacher: None = None
    episode_s: float = 5.0
    hold_s: float = 1.0
    tolerance_m: float = 0.03
    start_m: float = 1.0
    start_tilt_rad: float = float(np.deg2rad(30.0))
    start_speed: float = 0.5
    max_tilt_rad: float = float(np.deg2rad(80.0))
    max_distance_m: float = 3.0
    goal_m: tuple[float, float, float] = (0.0, 0.0, 1.5)
    action_history: int = Field(default=8, ge=1)
    estimator_history: int = Field(default=40, ge=2)

    @classmethod
    def for_robot(cls, model: RobotModel, settings: dict[str, Any]) -> tuple[RobotModel, Waypoint]:
        """The task for a robot that flies, and the robot."""
        names = tuple(command.name for command in model.spec.commands)
        if names != _COMMAND:
            raise ConfigError(f"task 'waypoint' commands {_COMMAND}, robot '{model.name}' takes {names}")
        return model, cls(**settings)

    def observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the policy's observation."""
        history = {"last_action": self.action_history}
        return tuple(_term(name, history.get(name, 1)) for name in _SCALE)

    def estimator_observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the identification network's input."""
        return tuple(_term(name, self.estimator_history) for name in _SCALE)

    def action(self) -> tuple[ActionTerm, ...]:
        """Command terms: zero is level flight at the middle of the range of weights."""
        return (
            ActionTerm(name="thrust", unit="N", low=0.05, high=0.73),
            ActionTerm(name="roll", unit="rad", low=-0.5, high=0.5),
            ActionTerm(name="pitch", unit="rad", low=-0.5, high=0.5),
            ActionTerm(name="yaw_rate", unit="rad/s", low=-2.0, high=2.0),
        )

    def start(self, rng: np.random.Generator, count: int) -> BodyState:
        """Draw ``count`` start states around the goal."""
        goal = np.array(self.goal_m)
        pos = goal + rng.uniform(-self.start_m, self.start_m, (count, 3))
        direction = rng.uniform(-np.pi, np.pi, count)
        tilt = rng.uniform(0.0, self.start_tilt_rad, count)
        vector = np.stack((tilt * np.cos(direction), tilt * np.sin(direction), np.zeros(count)), axis=1)
        yaw = np.zeros((count, 3))
        yaw[:, 2] = rng.uniform(-np.pi, np.pi, count)
        quat = quat_multiply(rpy_to_quat(yaw), rotation_vector_to_quat(vector))
        velocity = rng.standard_normal((count, 3))
        velocity *= (rng.uniform(0.0, self.start_speed, count) / np.linalg.norm(velocity, axis=1))[:, None]
        return BodyState(pos, quat, velocity, np.zeros((count, 3)))

    def start_command(self, state: BodyState) -> Array:
        """The middle of every command [N, A]."""
        return np.tile([0.5 * (term.low + term.high) for term in self.action()], (len(state.pos), 1))

    def goals(self, rng: np.random.Generator, count: int, state: BodyState | None = None) -> Array:
        """Goals [count, 3], m, world frame: all the same."""
        return np.tile(np.array(self.goal_m), (count, 1))

    def failed(self, state: BodyState, goal: Array) -> NDArray[np.bool_]:
        """Whether each robot has crashed: too tilted, too far, or on the floor."""
        distance = np.sqrt(((state.pos - goal) ** 2).sum(axis=1))
        return (tilt_of(state.quat) > self.max_tilt_rad) | (distance > self.max_distance_m) | (state.pos[:, 2] < 0.02)

    def reward(self, state: BodyState, goal: Array, action: Array, previous: Array, failed: NDArray[np.bool_]) -> Array:
        """Reward [N] of a step, about 1 when holding still on the goal, never above."""
        error = state.pos - goal
        distance = np.sqrt((error * error).sum(axis=1))
        speed = (state.lin_vel**2).sum(axis=1)
        spin = (state.ang_vel**2).sum(axis=1)
        change = ((action - previous) ** 2).sum(axis=1)
        # Bells of several widths: always a slope towards the goal, and a margin inside the tolerance.
        reward = 0.2 * (1.0 - np.minimum(distance, 2.0))
        for weight, width in ((0.2, 5.0), (0.35, 1.0), (0.25, 0.4)):
            reward += weight * np.exp(-((distance / (width * self.tolerance_m)) ** 2))
        reward -= 0.02 * speed + 0.002 * spin + 0.02 * change + 0.25 * action[:, 3] ** 2
        return np.where(failed, reward - 10.0, reward)

    def within(self, state: BodyState, goal: Array) -> NDArray[np.bool_]:
        """Whether each robot is inside the tolerance now."""
        return ((state.pos - goal) ** 2).sum(axis=1) <= self.tolerance_m**2


def _term(name: str, history: int) -> ObservationTerm:
    unit, frame = _UNITS.get(name, ("1", "command"))
    components = _COMMAND if name == "last_action" else _XYZ
    return ObservationTerm(
        name=name, components=components, unit=unit, frame=frame, scale=_SCALE[name], clip=10.0, history=history
    )
