"""Stand-ins for physical robots: the seam between an evaluation and a target simulator.

A target is not the training simulator: other equations, other parameters, its own sensors and delays. It is
constructed for a robot and a task, and makes any number of simulated robots side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from sim2real.errors import ConfigError
from sim2real.registry import resolve
from sim2real.types import Array, Bools, State

if TYPE_CHECKING:  # it brings onnxruntime, and the table alone needs none
    from sim2real.runtime.perception import Locator

TARGETS = {
    "crazyflie": "sim2real.targets.crazyflie:Crazyflie",
    "mujoco_arm": "sim2real.targets.mujoco_arm:MujocoArm",
    "so101": "sim2real.targets.so101:So101",
}


class Target(Protocol):
    """Stand-in for one kind of robot in one task.

    Attributes:
        name: As in ``TARGETS``.
        variants: Names of robots that differ in their construction.
        commands: Names of command components, in the order that :meth:`TargetSim.command` takes them.
    """

    name: str
    variants: tuple[str, ...]
    commands: tuple[str, ...]

    def conditions(self) -> tuple[str, ...]:
        """Conditions that every variant can be tried under; the first is the ordinary one."""

    def start(self, task: Any, rng: np.random.Generator, n: int) -> State:
        """Sample ``n`` start states of ``task``, near those around which the target was identified."""

    def make(self, variant: str, condition: str, n: int, seed: int) -> TargetSim:
        """Make ``n`` simulated robots.

        Args:
            variant: One of ``variants``.
            condition: One of :meth:`conditions`.
            n: Number of robots N.
            seed: Of all noise; starts come from a stream of their own.

        Raises:
            DriverError: Unknown variant or condition, or a package is missing.
        """


class TargetSim(Protocol):
    """N simulated robots side by side.

    Attributes:
        failed: Robots that have crashed since the last reset [N].
    """

    failed: Bools

    def reset(self, start: State) -> None:
        """Wait at ``start`` at time zero.

        The entry ``goal`` [N, G], if there is one, is where the task leads: a scene may keep clear of it.
        """

    def command(self, command: Array) -> None:
        """Send a command [N, A]; it holds until the next one."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""

    def measured(self) -> dict[str, Array]:
        """The state as the robots' sensors report it now."""

    def truth(self) -> dict[str, Array]:
        """The true state, for scoring only."""

    def close(self) -> None:
        """Free what it holds; harmless when closed."""


@runtime_checkable
class Overridable(Protocol):
    """Robots that cannot simply keep their last command when nobody commands them, such as a drone."""

    def hold_command(self) -> Array:
        """Command [N, A] that keeps every robot about where it is."""

    def land_command(self) -> Array:
        """Command [N, A] that brings every robot down slowly; ask again every control period."""

    def stop_command(self) -> Array:
        """Command [N, A] that cuts the actuators."""

    def remember(self, command: Array) -> None:
        """A pilot has sent ``command`` [N, A]; holding takes about what flying has taken lately."""


@runtime_checkable
class Paced(Protocol):
    """Robots that name the grid on which they follow the wall clock.

    Attributes:
        step_s: Commands arrive on a grid of this, s.
        longest_catch_up_s: A computer that is busier than that slows the robots down.
    """

    step_s: float
    longest_catch_up_s: float


@runtime_checkable
class Sighted(Protocol):
    """A target with a camera."""

    def look_through(self, locator: Locator) -> None:
        """Measure the object's position as ``locator`` finds it in the target's images."""


def target_for(robot: Any, task: Any, name: str = "") -> Target:
    """Make the target of a robot and a task.

    Args:
        robot: The robot model.
        task: The task.
        name: A key of ``TARGETS`` or ``module:Class``; by default the one named like the robot, and for any other
            arm one made from its URDF.

    Raises:
        ConfigError: There is no target for this robot.
    """
    name = name or (robot.name if robot.name in TARGETS else "mujoco_arm" if robot.spec.ee else "")
    if not name:
        raise ConfigError(
            f"there is no target for robot '{robot.name}'; there are {', '.join(TARGETS)}, and module:Class of yours"
        )
    return cast(Target, resolve(name, TARGETS, "target")(robot, task))


def begin(task: Any, target: Target, n: int, seed: int) -> tuple[dict[str, Array], Array]:
    """Start states and goals [n, G] of the episodes of ``seed``; the start holds the goal too.

    They come from a stream of their own: they do not depend on how many numbers a target samples.
    """
    rng = np.random.default_rng([seed, 1])
    start = target.start(task, rng, n)
    goal = task.goals(rng, n, start)
    return {**start, "goal": goal}, goal
