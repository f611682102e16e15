"""The contract of a scene: what stands around the robots, composed with them by the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.types import EnvIds, State

if TYPE_CHECKING:
    from sim2real.sim.world import World


class Surroundings(Protocol):
    """A scene around every robot of one world.

    Attributes:
        state: True state of the scene, [N, d] by name (``object_pos``, …).
    """

    state: State

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Put the scene of robots up anew as ``state`` says; their parameters have changed."""

    def end_period(self) -> None:
        """Read the world at the end of a control period."""

    def measured(self) -> State:
        """Read the scene as the robot's own sensors report it."""


class Scene(Protocol):
    """Tables and objects around a robot, and what of them can vary.

    Attributes:
        name: For targets, which choose their own objects by it.
        parameters: What its physics can vary.
        randomization: Terms that vary them.
        position: Entry of the state that a goal is about.
    """

    name: str
    parameters: Mapping[str, PhysicsParameter]
    randomization: Mapping[str, RandomizationTerm]
    position: str

    def nominal_state(self, count: int) -> State:
        """Make a plain state of ``count`` scenes."""

    def build(self, world: World, params: PhysicsParams, decimation: int, seed: int) -> Surroundings:
        """Put a scene around every robot of ``world``; random draws come from streams of ``seed``."""
