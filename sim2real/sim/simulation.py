"""One simulation for robots of any kind: a world, its robots, a scene around them, and their randomized physics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim2real.errors import SimulationError
from sim2real.robots.model import RobotModel
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.terms import RandomizationTerm
from sim2real.sim.randomization import Randomization
from sim2real.sim.scene import Scene
from sim2real.sim.world import NO_GRAVITY, World
from sim2real.types import Array, EnvIds, State

_GRAVITY = (0.0, 0.0, -9.81)


class Simulation:
    """N simulated robots of one kind, each in an environment of its own.

    Args:
        robot: The robot.
        count: Number of robots N.
        terms: Randomization terms by name; empty for the nominal simulator.
        decimation: Physics steps in one control step.
        seed: Seed of every random draw.
        scene: What stands around every robot.
        window: Open PyBullet's window.

    Attributes:
        rng: For start states and goals; physics, noise and scene have streams of their own.
        params: Physics of every robot and its scene.
        randomization: What samples them.
        world: What they live in, for pictures.
    """

    def __init__(
        self,
        robot: RobotModel,
        count: int,
        terms: Mapping[str, RandomizationTerm],
        decimation: int = 2,
        seed: int = 0,
        scene: Scene | None = None,
        window: bool = False,
    ) -> None:
        self.robot, self.count, self.decimation = robot, count, decimation
        self.control_dt = 1.0 / robot.spec.control_rate_hz
        # Separate streams, so that one more or one fewer random term leaves all other draws as they were.
        self.rng, draws = (np.random.default_rng([seed, stream]) for stream in range(2))
        table = {**robot.parameters, **(scene.parameters if scene else {})}
        self.params = PhysicsParams(table, count)
        self.randomization = Randomization(terms, self.params, draws)
        gravity = NO_GRAVITY if robot.weightless else _GRAVITY
        self.world = World(count, self.control_dt / decimation, gravity, window=window)
        # Without anything to touch or to draw, meshes would only take time.
        meshes = scene is not None or window or count == 1
        self.world.load_robots(robot.urdf, robot.fixed_base, meshes)
        self._body = robot.body(self.world, self.params, decimation, seed)
        self._scene = scene.build(self.world, self.params, decimation, seed) if scene else None

    @property
    def state(self) -> State:
        """True state of robots and scene."""
        return {**self._body.state, **self._scene.state} if self._scene else self._body.state

    def reset(self, env_ids: EnvIds, state: State, command: Array, params: Array | None = None) -> None:
        """Start robots anew.

        Args:
            env_ids: Which robots.
            state: Their true states and their scene's.
            command: Command [len(env_ids), A] taken as already sent.
            params: Physics parameters [len(env_ids), P]; sampled by default.
        """
        self.randomization.reset(env_ids, params)
        self._body.reset(env_ids, state, command)
        if self._scene:
            self._scene.reset(env_ids, state)

    def step(self, command: Array) -> None:
        """Send ``command`` [N, A] and advance one control period.

        Raises:
            SimulationError: A command is not finite.
        """
        if not np.isfinite(command).all():
            raise SimulationError("a command is not finite; the policy's output or the decoding is broken")
        self.randomization.step()
        self._body.send(command)
        for index in range(self.decimation):
            self._body.before_step(index)
            self.world.step()
            self._body.after_step()
        self._body.end_period()
        if self._scene:
            self._scene.end_period()

    def measured(self) -> State:
        """Read robots and scene as the robots' own sensors report them."""
        return {**self._body.measured(), **(self._scene.measured() if self._scene else {})}

    def close(self) -> None:
        """Release the physics client."""
        self.world.close()
