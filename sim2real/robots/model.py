"""The contract of a robot: what its folder provides to simulator, tasks and training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sim2real.robots.identified import IdentifiedQuantity
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.spec import RobotSpec
from sim2real.types import Array, EnvIds, State

if TYPE_CHECKING:
    from sim2real.sim.world import World


class Body(Protocol):
    """N robots of one kind in a physics world: actuators, delays and sensors.

    Attributes:
        state: True state, [N, d] by name.
    """

    state: State

    def reset(self, env_ids: EnvIds, state: State, command: Array) -> None:
        """Start robots anew in ``state``, ``command`` [n, A] taken as already sent; their parameters have changed."""

    def send(self, command: Array) -> None:
        """Send a command [N, A] at the start of a control period."""

    def before_step(self, index: int) -> None:
        """Act on the world before physics step ``index`` of the control period."""

    def after_step(self) -> None:
        """Read the world after a physics step."""

    def end_period(self) -> None:
        """Take in the state at the end of the control period, for the sensors."""

    def measured(self) -> State:
        """Read the state as the robot's own sensors report it."""


class RobotModel(Protocol):
    """Everything that a robot's folder provides.

    Attributes:
        name: Of the folder.
        spec: Names, order, units, limits, rate.
        urdf: Its description.
        chain: Its kinematics; None without an end effector.
        fixed_base: Whether the base is bolted to the origin.
        weightless: Whether the world leaves gravity to the robot's own actuators.
        parameters: Everything its physics can vary.
        randomization: Terms that vary them.
        disturbances: Kinds of random disturbances (``white``, ``constant``), each with the terms that make them.
        identified: Quantities that data can identify.
        position: Entry of the state that says where the robot is, for pictures and audits.
    """

    name: str
    spec: RobotSpec
    urdf: Path
    chain: Chain | None
    fixed_base: bool
    weightless: bool
    parameters: Mapping[str, PhysicsParameter]
    randomization: Mapping[str, RandomizationTerm]
    disturbances: Mapping[str, Mapping[str, RandomizationTerm]]
    identified: Mapping[str, IdentifiedQuantity]
    position: str

    def action_range(self, command: str) -> tuple[float, float]:
        """Range of a command component that policies use, inside its limits."""

    def identified_terms(self, path: Path) -> dict[str, RandomizationTerm]:
        """Read the randomization with the ranges that a parameters file has identified."""

    def nominal_state(self, count: int) -> State:
        """Make a plain state of ``count`` robots."""

    def body(self, world: World, params: PhysicsParams, decimation: int, seed: int) -> Body:
        """Make the robots of ``world``; their random draws come from streams of ``seed``."""
