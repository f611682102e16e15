"""Fly to a point and hold it, and a heading."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from sim2real.errors import ConfigError
from sim2real.robots.flight_body import flight_state
from sim2real.robots.model import RobotModel
from sim2real.runtime.columns import Column, array, choose, column, columns, exp, smaller, sqrt
from sim2real.runtime.flight_signals import FlightSignals
from sim2real.runtime.geometry import (
    quat_multiply,
    rotation_vector_to_quat,
    rpy_to_quat,
    tilt_of,
    wrap_angle,
    yaw_column,
    yaw_of,
)
from sim2real.runtime.spec import ActionTerm, ObservationTerm, PolicySpec, SignalSpec
from sim2real.tasks.hover_controller import COMMANDS, HoverController, HoverGains
from sim2real.types import Array, Bools, Model, State

_UNITS = ("N", "rad", "rad", "rad/s")
# How each signal is scaled for the networks: one unit of the network is about the spread near the goal.
_SCALE = {
    "position_error": 2.0,
    "linear_velocity": 1.0,
    "up": 3.0,
    "angular_velocity": 0.5,
    "heading_error": 2.0,
    "last_action": 1.0,
}
# A heading farther away looks like one 29° away: turning is the same, and nothing jumps at ±180°.
_CLIP = {"heading_error": 1.0}


class HoverSettings(Model):
    """Settings of the task: start anywhere near the goal, tilted and moving; be there for the last second.

    The goal's heading is sampled around the heading at the start.

    Attributes:
        tolerance_m: Success is being this close for the last ``hold_s``, and
        heading_tolerance_rad: with a heading this close.
        start_m: Start within ± this of the goal on each axis.
        start_tilt_rad: Largest start tilt.
        start_speed: Largest start speed, m/s.
        start_heading_rad: Start with a heading within ± this of the goal's.
        max_tilt_rad, max_distance_m: A drone beyond these has failed.
        goal_m: Where to hover, world frame; within ± ``goal_range_m`` of it on each axis.
        action_history: Past commands the policy sees; longer than the longest delay, so that it knows
            what is still on its way.
        history: Control steps of everything else that the policy sees; 1 is the newest only.
        estimator_history: Control steps the identification network sees.
    """

    episode_s: float = Field(default=5.0, gt=0)
    hold_s: float = Field(default=1.0, gt=0)
    tolerance_m: float = Field(default=0.03, gt=0)
    heading_tolerance_rad: float = Field(default=float(np.deg2rad(10.0)), gt=0)
    start_m: float = Field(default=1.0, ge=0)
    start_tilt_rad: float = float(np.deg2rad(30.0))
    start_speed: float = Field(default=0.5, ge=0)
    start_heading_rad: float = Field(default=0.5, ge=0)
    max_tilt_rad: float = float(np.deg2rad(80.0))
    max_distance_m: float = Field(default=3.0, gt=0)
    goal_m: tuple[float, float, float] = (0.0, 0.0, 1.5)
    goal_range_m: float = Field(default=0.2, ge=0)
    action_history: int = Field(default=8, ge=1)
    history: int = Field(default=1, ge=1)
    estimator_history: int = Field(default=40, ge=2)


class Hover:
    """The task ``hover`` for one drone.

    Args:
        robot: The drone; it takes thrust, roll, pitch and yaw rate.
        settings: The task's.

    Raises:
        ConfigError: The robot takes other commands.
    """

    name = "hover"
    Settings = HoverSettings
    goal = SignalSpec(name="goal", components=("x", "y", "z", "yaw"), unit="m, rad", frame="world")
    signals_name = "flight"
    error_signal = "position_error"
    near_m = 0.1
    scene = None
    expert = None

    def __init__(self, robot: RobotModel, settings: HoverSettings) -> None:
        names = tuple(command.name for command in robot.spec.commands)
        if names != COMMANDS:
            raise ConfigError(f"task '{self.name}' commands {COMMANDS}, robot '{robot.name}' takes {names}")
        self._robot, self.settings = robot, settings
        self.episode_s, self.hold_s, self.tolerance_m = settings.episode_s, settings.hold_s, settings.tolerance_m
        self.signals = FlightSignals(robot.spec)

    def controller(self, spec: PolicySpec, count: int, gains: HoverGains | None = None) -> HoverController:
        """Make the classical controller that policies are compared with, for ``count`` drones."""
        weight = next(c.hold for c in self._robot.spec.commands if c.name == "thrust")
        assert weight is not None
        return HoverController(spec, count, weight, gains)

    def observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the policy's observation."""
        s = self.settings
        return tuple(self._term(name, s.action_history if name == "last_action" else s.history) for name in _SCALE)

    def history(self) -> tuple[ObservationTerm, ...]:
        """Terms of the past that identification reads."""
        return tuple(self._term(name, self.settings.estimator_history) for name in _SCALE)

    def _term(self, name: str, history: int) -> ObservationTerm:
        own = SignalSpec(name=name, components=COMMANDS, unit="1", frame="command")
        signal = self.signals.specs.get(name, own)
        clip = _CLIP.get(name, 10.0)
        return ObservationTerm(**signal.model_dump(), scale=_SCALE[name], clip=clip, history=history)

    def action(self) -> tuple[ActionTerm, ...]:
        """Command terms: zero is level flight at the middle of the range of weights."""
        ranges = [self._robot.action_range(name) for name in COMMANDS]
        return tuple(
            ActionTerm(name=name, unit=unit, low=low, high=high)
            for name, unit, (low, high) in zip(COMMANDS, _UNITS, ranges, strict=True)
        )

    def start(self, rng: np.random.Generator, count: int) -> State:
        """Draw ``count`` start states around the goal."""
        goal = np.array(self.settings.goal_m)
        pos = goal + rng.uniform(-self.settings.start_m, self.settings.start_m, (count, 3))
        direction = rng.uniform(-np.pi, np.pi, count)
        tilt = rng.uniform(0.0, self.settings.start_tilt_rad, count)
        vector = np.stack((tilt * np.cos(direction), tilt * np.sin(direction), np.zeros(count)), axis=1)
        yaw = np.zeros((count, 3))
        yaw[:, 2] = rng.uniform(-np.pi, np.pi, count)
        quat = quat_multiply(rpy_to_quat(yaw), rotation_vector_to_quat(vector))
        velocity = rng.standard_normal((count, 3))
        velocity *= (rng.uniform(0.0, self.settings.start_speed, count) / np.linalg.norm(velocity, axis=1))[:, None]
        return flight_state(pos, quat, velocity, np.zeros((count, 3)))

    def start_command(self, state: State) -> Array:
        """The middle of every command [N, A]."""
        return np.tile([0.5 * (term.low + term.high) for term in self.action()], (len(state["pos"]), 1))

    def goals(self, rng: np.random.Generator, count: int, state: State | None = None) -> Array:
        """Goals [count, 4]: m in the world frame, and a heading in rad near that of ``state``."""
        s = self.settings
        point = np.array(s.goal_m) + rng.uniform(-s.goal_range_m, s.goal_range_m, (count, 3))
        heading = rng.uniform(-s.start_heading_rad, s.start_heading_rad, (count, 1))
        if state is not None:
            heading = wrap_angle(heading + yaw_of(state["quat"])[:, None])
        return np.concatenate((point, heading), axis=1)

    def failed(self, state: State, goal: Array) -> Bools:
        """Tell whether each robot has crashed: too tilted, too far, or on the floor."""
        s, height = self.settings, columns(state["pos"])[2]
        tilted = column(tilt_of(state["quat"])) > s.max_tilt_rad
        return array(tilted | (self._distance(state, goal) > s.max_distance_m) | (height < 0.02))

    def reward(self, state: State, goal: Array, action: Array, previous: Array, failed: Bools) -> Array:
        """Reward [N] of a step, about 1 when holding still on the goal, never above."""
        s, distance, heading = self.settings, self._distance(state, goal), column(self.heading_error(state, goal))
        sent = columns(action)
        speed, spin = _squares(columns(state["lin_vel"])), _squares(columns(state["ang_vel"]))
        change = _squares([new - old for new, old in zip(sent, columns(previous), strict=True)])
        # Bells of several widths: always a slope towards the goal, and a margin inside the tolerance.
        reward = 0.2 * (1.0 - smaller(distance, 2.0))
        for weight, width in ((0.2, 5.0), (0.35, 1.0), (0.25, 0.4)):
            reward = reward + weight * _bell(distance / (width * self.tolerance_m))
        reward = reward - (0.05 * abs(heading) + 0.1 * (1.0 - _bell(heading / (2.0 * s.heading_tolerance_rad))))
        reward = reward - (0.02 * speed + 0.002 * spin + 0.02 * change + 0.02 * (sent[3] * sent[3]))
        return array(choose(column(failed), reward - 10.0, reward))

    def _distance(self, state: State, goal: Array) -> Column:
        (x, y, z), (goal_x, goal_y, goal_z, *_) = columns(state["pos"]), columns(goal)
        return sqrt(_squares((x - goal_x, y - goal_y, z - goal_z)))

    def distance(self, state: State, goal: Array) -> Array:
        """Distance of the drone from the goal [N], m."""
        return array(self._distance(state, goal))

    def heading_error(self, state: State, goal: Array) -> Array:
        """Heading minus the goal's [N], rad within ±π."""
        return array(wrap_angle(yaw_column(columns(state["quat"])) - columns(goal)[3]))

    def within(self, state: State, goal: Array) -> Bools:
        """Tell whether each drone is on its goal, with its heading [N]."""
        headed = np.abs(self.heading_error(state, goal)) <= self.settings.heading_tolerance_rad
        return (self.distance(state, goal) <= self.tolerance_m) & headed

    def criterion(self) -> str:
        """Say what :meth:`within` asks for."""
        heading = np.rad2deg(self.settings.heading_tolerance_rad)
        return f"within {100.0 * self.tolerance_m:g} cm of the goal and {heading:g} degrees of its heading"


def _squares(values: Sequence[Column]) -> Column:
    x, y, z, *rest = values
    total = x * x + y * y + z * z
    for value in rest:
        total = total + value * value
    return total


def _bell(value: Column) -> Column:
    return exp(-(value * value))
