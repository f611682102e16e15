"""A batch of simulated robots: physics, actuation, delays and sensors behind one ``step``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sim2real.errors import SimulationError
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.runtime.geometry import quat_multiply
from sim2real.runtime.spec import RobotSpec, SignalSpec
from sim2real.sim.randomization import Randomization, RandomizationTerm
from sim2real.sim.world import World
from sim2real.types import Array, EnvIds


@dataclass(frozen=True)
class BodyState:
    """True or measured state of N floating bases, world frame.

    Attributes:
        pos: [N, 3] m.
        quat: [N, 4] xyzw.
        lin_vel: [N, 3] m/s.
        ang_vel: [N, 3] rad/s, world frame.
    """

    pos: Array
    quat: Array
    lin_vel: Array
    ang_vel: Array

    def take(self, rows: EnvIds) -> BodyState:
        """The states of some robots."""
        return BodyState(self.pos[rows], self.quat[rows], self.lin_vel[rows], self.ang_vel[rows])


@dataclass(frozen=True)
class IdentifiedQuantity:
    """A combination of parameters that data can identify, with the range training will show.

    Attributes:
        compute: Parameter lookup (name to [N]) to the quantity [N].
    """

    unit: str
    compute: Callable[[Mapping[str, Array]], Array]


class Actuation(Protocol):
    """Turns commands into forces on the bodies, with its own memory (rotor lag, setpoints)."""

    def reset(self, rows: EnvIds, state: BodyState) -> None:
        """Forget the past of ``rows``; parameters of those rows have just changed."""

    def apply(self, world: World, state: BodyState, command: Array) -> None:
        """Act on the world for the next physics step under ``command`` [N, A]."""


class RobotModel(Protocol):
    """What a robot's folder provides to the simulator.

    Attributes:
        position_signal: The signal that is zero where the robot should be, m.
    """

    name: str
    spec: RobotSpec
    urdf: Path
    parameters: dict[str, PhysicsParameter]
    randomization: dict[str, RandomizationTerm]
    signals: dict[str, SignalSpec]
    identified: dict[str, IdentifiedQuantity]
    position_signal: str

    def identified_terms(self, path: Path) -> dict[str, RandomizationTerm]:
        """The randomization with the ranges that a parameters file has identified."""

    def position(self, state: Any) -> Array:
        """What a goal is about [N, 3] m: a drone's body, an arm's end effector."""

    def nominal_state(self, count: int) -> Any:
        """A plain state of ``count`` robots, to start an audit from."""

    def simulator(
        self, count: int, terms: Mapping[str, RandomizationTerm], decimation: int = 2, seed: int = 0
    ) -> Simulation:
        """``count`` simulated robots with the randomization ``terms``."""

    def measure(self, state: Any, goal: Array) -> dict[str, Array]:
        """Signals of a state estimate, relative to ``goal`` [N, 3] m."""


class Simulation(Protocol):
    """Simulated robots of one kind: :class:`RobotSim` for a floating base, ``ArmSim`` for an arm.

    Attributes:
        model: The robot.
        count: Number of robots N.
        rng: For start states and goals.
        params: Physics of every robot.
        state: True state.
        world: What they live in, for pictures.
    """

    model: Any
    count: int
    rng: np.random.Generator
    params: PhysicsParams
    state: Any
    world: World

    def reset(self, rows: EnvIds, state: Any, command: Array, params: Array | None = None) -> None:
        """Start robots anew in ``state``, with drawn or given physics."""

    def step(self, command: Array) -> None:
        """Send ``command`` [N, A] and advance one control period."""

    def estimate(self) -> Any:
        """The state as the robot's own sensors report it."""

    def close(self) -> None:
        """Release the physics client."""


class FloatingModel(RobotModel, Protocol):
    """What the folder of a robot with a floating base provides besides."""

    def inertial(self, params: Array, table: PhysicsParams) -> tuple[Array, Array]:
        """Mass [n] kg and principal inertia [n, 3] kg·m² of parameter rows [n, P]."""

    def actuation(self, params: PhysicsParams, sim_dt: float, rng: np.random.Generator) -> Actuation:
        """The robot's actuators for ``params``."""


class DelayLine:
    """Commands as the actuators receive them: held for one control period, late by a time a robot.

    Args:
        count: Number of robots N.
        size: Components of a command.
        control_dt: Control period, s.
        longest_s: Longest delay that will be asked for, s.
    """

    def __init__(self, count: int, size: int, control_dt: float, longest_s: float) -> None:
        self._dt = control_dt
        self._past = np.zeros((count, int(np.ceil(longest_s / control_dt)) + 3, size))
        self._rows = np.arange(count)

    def reset(self, rows: EnvIds, command: Array) -> None:
        """Pretend ``command`` [len(rows), size] had been sent forever."""
        self._past[rows] = command[:, None, :]

    def push(self, command: Array) -> None:
        """A new command [N, size] is sent now."""
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = command

    def average(self, start_s: float, length_s: float, delay_s: Array) -> Array:
        """Mean command [N, size] received from ``start_s`` to ``start_s + length_s`` after the last push.

        ``length_s`` must not exceed the control period, so at most two commands take part.
        """
        end = start_s + length_s - delay_s
        index = np.maximum(np.floor(1.0 - end / self._dt), 0.0)
        boundary = -index * self._dt
        weight = np.clip((end - np.maximum(end - length_s, boundary)) / length_s, 0.0, 1.0)[:, None]
        newer = np.minimum(index.astype(np.int64), self._past.shape[1] - 2)
        return weight * self._past[self._rows, newer] + (1.0 - weight) * self._past[self._rows, newer + 1]


class RobotSim:
    """N simulated robots in one world.

    Args:
        model: The robot.
        count: Number of robots N.
        terms: Randomization terms by name; empty for the nominal simulator.
        decimation: Physics steps in one control step.
        seed: Seed of every random draw.

    Attributes:
        rng: For start states; noise, gusts and physics have streams of their own.
    """

    def __init__(
        self,
        model: FloatingModel,
        count: int,
        terms: Mapping[str, RandomizationTerm],
        decimation: int = 2,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.count = count
        self.control_dt = 1.0 / model.spec.control_rate_hz
        self.decimation = decimation
        # Separate streams, so that one more or one fewer random term leaves all other draws as they were.
        self.rng, draws, gusts, self._noise = (np.random.default_rng([seed, stream]) for stream in range(4))
        self.params = PhysicsParams(model.parameters, count)
        self.randomization = Randomization(terms, self.params, draws)
        self.world = World(count, self.control_dt / decimation)
        self.world.load_robots(model.urdf)
        self.actuation = model.actuation(self.params, self.world.sim_dt, gusts)
        self._commands = DelayLine(
            count, len(model.spec.commands), self.control_dt, model.parameters["action_delay"].high
        )
        longest = int(np.ceil(model.parameters["observation_delay"].high / self.control_dt)) + 2
        self._past = np.zeros((count, longest, 13))
        self._bias = np.zeros((count, 6))
        self._rows = np.arange(count)
        self.state = BodyState(*self.world.read_base())

    def reset(self, rows: EnvIds, state: BodyState, command: Array, params: Array | None = None) -> None:
        """Start robots anew.

        Args:
            rows: Which robots.
            state: Their true states.
            command: Command [len(rows), A] taken as already sent.
            params: Physics parameters [len(rows), P]; drawn from the randomization by default.
        """
        self.randomization.reset(rows, params)
        mass, inertia = self.model.inertial(self.params.values[rows], self.params)
        self.world.write_inertia(rows, mass, inertia)
        self.world.write_base(rows, state.pos, state.quat, state.lin_vel, state.ang_vel)
        for whole, part in zip(_arrays(self.state), _arrays(state), strict=True):
            whole[rows] = part
        self._commands.reset(rows, command)
        self.actuation.reset(rows, state)
        self._past[rows] = np.concatenate(_arrays(state), axis=1)[:, None, :]
        self._bias[rows] = self._noise.standard_normal((len(rows), 6)) * np.repeat(
            np.stack((self.params["position_bias"][rows], self.params["velocity_bias"][rows]), axis=1), 3, axis=1
        )

    def step(self, command: Array) -> None:
        """Send ``command`` [N, A] and advance one control period.

        Raises:
            SimulationError: A command is not finite, or a state became so.
        """
        if not np.isfinite(command).all():
            raise SimulationError("a command is not finite; the policy's output or the decoding is broken")
        self.randomization.step()
        self._commands.push(command)
        sim_dt, delay = self.world.sim_dt, self.params["action_delay"]
        for substep in range(self.decimation):
            self.actuation.apply(self.world, self.state, self._commands.average(substep * sim_dt, sim_dt, delay))
            self.world.step()
            self.state = BodyState(*self.world.read_base())
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = np.concatenate(_arrays(self.state), axis=1)

    def estimate(self) -> BodyState:
        """The state as the robot's own estimator would report it: late, noisy and biased."""
        steps = self.params["observation_delay"] / self.control_dt
        index = steps.astype(np.int64)
        late = (steps - index)[:, None]
        past = (1.0 - late) * self._past[self._rows, index] + late * self._past[self._rows, index + 1]
        noise = self._noise.standard_normal((self.count, 12))
        params = self.params
        pos = past[:, 0:3] + self._bias[:, :3] + noise[:, 0:3] * params["position_noise"][:, None]
        lin_vel = past[:, 7:10] + self._bias[:, 3:] + noise[:, 3:6] * params["velocity_noise"][:, None]
        ang_vel = past[:, 10:13] + noise[:, 6:9] * params["rate_noise"][:, None]
        quat = self.perturb_attitude(past[:, 3:7], noise[:, 9:12] * params["attitude_noise"][:, None])
        return BodyState(pos, quat, lin_vel, ang_vel)

    def perturb_attitude(self, quat: Array, noise: Array) -> Array:
        """Attitude [N, 4] as measured: trim of the robot's own sensor, then noise [N, 3] rad, normalised."""
        half = 0.5 * noise
        half[:, 0] += 0.5 * self.params["roll_trim"]
        half[:, 1] += 0.5 * self.params["pitch_trim"]
        small = np.concatenate((half, np.ones((self.count, 1))), axis=1)
        measured = quat_multiply(quat, small)
        return measured / np.sqrt((measured * measured).sum(axis=1, keepdims=True))

    def close(self) -> None:
        """Release the physics client."""
        self.world.close()


def _arrays(state: BodyState) -> tuple[Array, Array, Array, Array]:
    return state.pos, state.quat, state.lin_vel, state.ang_vel
