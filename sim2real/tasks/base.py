"""The contract of a task: starts, goals, signals, scene, action, reward, failure and success."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from sim2real.robots.model import RobotModel
from sim2real.runtime.signals import Signals
from sim2real.runtime.spec import ActionTerm, ObservationTerm, SignalSpec
from sim2real.sim.scene import Scene
from sim2real.types import Array, Bools, Model, State


class Task(Protocol):
    """Everything that a task file provides; a class with a ``Settings`` model, made with a robot and its settings.

    Attributes:
        name: As in ``TASKS``.
        episode_s: Length of an episode, s.
        hold_s: The end of the episode that must be spent within ``tolerance_m``.
        tolerance_m: Largest :meth:`distance` that counts as there.
        goal: What a goal [N, G] is made of.
        signals_name, signals: What a policy may read, as named in the contract.
        scene: Tables and objects; None without.
        error_signal, near_m: The signal that is zero where the robot should be, m, and what it is divided by for the
            critic.
        within: Optional method of state and goal: who is where it should be [N], where distance is not all of it.
        criterion: Optional method that says the same in words; with ``within``.
        controller: Optional method of a contract and a number of robots: a runner to compare policies with.
        expert: Signals to action [N, A], -1 .. 1: a controller to imitate before PPO begins; None without one.
    """

    Settings: type[Model]
    name: str
    episode_s: float
    hold_s: float
    tolerance_m: float
    goal: SignalSpec
    signals_name: str
    signals: Signals
    scene: Scene | None
    error_signal: str
    near_m: float
    expert: Callable[[Mapping[str, Array]], Array] | None

    def __init__(self, robot: RobotModel, settings: Model) -> None:
        """Check that the robot suits the task; raises ConfigError where it does not."""

    def observation(self) -> tuple[ObservationTerm, ...]:
        """Terms of the policy's observation."""

    def history(self) -> tuple[ObservationTerm, ...]:
        """Terms of the past that identification reads."""

    def action(self) -> tuple[ActionTerm, ...]:
        """Terms of the command."""

    def start(self, rng: np.random.Generator, count: int) -> State:
        """Sample start states."""

    def start_command(self, state: State) -> Array:
        """Command [N, A] taken as already sent at the start."""

    def goals(self, rng: np.random.Generator, count: int, state: State) -> Array:
        """Sample goals [count, G] for robots that start in ``state``."""

    def failed(self, state: State, goal: Array) -> Bools:
        """Tell whether each robot has failed for good."""

    def distance(self, state: State, goal: Array) -> Array:
        """Distance from the goal [N], m."""

    def reward(self, state: State, goal: Array, action: Array, previous: Array, failed: Bools) -> Array:
        """Reward of a step [N]."""
