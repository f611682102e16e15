"""Simulated drones: actuation, delays and state estimator of N floating bases in one world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from sim2real.robots.delays import DelayLine, LateReading
from sim2real.robots.physics import PhysicsParams
from sim2real.runtime.geometry import quat_multiply
from sim2real.types import Array, EnvIds, State

if TYPE_CHECKING:
    from sim2real.sim.world import World

ENTRIES = ("pos", "quat", "lin_vel", "ang_vel")
GUSTS, _NOISE = 2, 3  # random streams


class Actuation(Protocol):
    """Turns commands into forces on the bodies, with a memory of its own (rotor lag, setpoints)."""

    def reset(self, env_ids: EnvIds, state: State) -> None:
        """Forget the past of ``env_ids``; parameters of those robots have just changed."""

    def apply(self, world: World, state: State, command: Array) -> None:
        """Act on the world for the next physics step under ``command`` [N, A]."""


class Flyer(Protocol):
    """A flying robot's model, as its body asks for it."""

    def inertial(self, params: Array, table: PhysicsParams) -> tuple[Array, Array]:
        """Mass [n] kg and principal inertia [n, 3] kg·m² of parameter rows [n, P]."""


class FlightBody:
    """N simulated drones of one kind.

    Args:
        model: Says their inertia.
        actuation: Turns commands into wrenches.
        world: Holds the drones already.
        params: Their physics.
        commands: Components of a command.
        decimation: Physics steps in one control step.
        seed: Seed of noise.

    Attributes:
        state: ``pos``, ``quat``, ``lin_vel`` and ``ang_vel``, world frame.
    """

    def __init__(
        self,
        model: Flyer,
        actuation: Actuation,
        world: World,
        params: PhysicsParams,
        commands: int,
        decimation: int,
        seed: int,
    ) -> None:
        self._model, self._actuation, self._world, self._params = model, actuation, world, params
        self._noise = np.random.default_rng([seed, _NOISE])
        count, control_dt, table = world.count, world.sim_dt * decimation, params.table
        self._commands = DelayLine(count, commands, control_dt, table["action_delay"].high)
        self._readings = LateReading(count, 13, control_dt, table["observation_delay"].high)
        self._bias = np.zeros((count, 6))
        self.state: State = dict(zip(ENTRIES, world.read_base(), strict=True))

    def reset(self, env_ids: EnvIds, state: State, command: Array) -> None:
        """Start drones anew in ``state``, ``command`` [n, A] taken as already sent."""
        mass, inertia = self._model.inertial(self._params.values[env_ids], self._params)
        self._world.write_inertia(env_ids, mass, inertia)
        arrays = [state[name] for name in ENTRIES]
        self._world.write_base(env_ids, *arrays)
        for name, part in zip(ENTRIES, arrays, strict=True):
            self.state[name][env_ids] = part
        self._commands.reset(env_ids, command)
        self._actuation.reset(env_ids, state)
        self._readings.reset(env_ids, np.concatenate(arrays, axis=1))
        bias = np.stack([self._params[f"{name}_bias"][env_ids] for name in ("position", "velocity")], axis=1)
        self._bias[env_ids] = self._noise.standard_normal((len(env_ids), 6)) * np.repeat(bias, 3, axis=1)

    def send(self, command: Array) -> None:
        """Send a command [N, A]."""
        self._commands.push(command)

    def before_step(self, index: int) -> None:
        """Put the wrench of the next physics step on every drone."""
        sim_dt = self._world.sim_dt
        received = self._commands.average(index * sim_dt, sim_dt, self._params["action_delay"])
        self._actuation.apply(self._world, self.state, received)

    def after_step(self) -> None:
        """Read the bodies."""
        self.state = dict(zip(ENTRIES, self._world.read_base(), strict=True))

    def end_period(self) -> None:
        """Take in the state for the estimator."""
        self._readings.push(np.concatenate([self.state[name] for name in ENTRIES], axis=1))

    def measured(self) -> State:
        """Read the state as the robot's own estimator reports it: late, noisy and biased."""
        params = self._params
        past = self._readings.read(params["observation_delay"])
        noise = self._noise.standard_normal((len(past), 12))
        return {
            "pos": past[:, 0:3] + self._bias[:, :3] + noise[:, 0:3] * params["position_noise"][:, None],
            "quat": self._perturb_attitude(past[:, 3:7], noise[:, 9:12] * params["attitude_noise"][:, None]),
            "lin_vel": past[:, 7:10] + self._bias[:, 3:] + noise[:, 3:6] * params["velocity_noise"][:, None],
            "ang_vel": past[:, 10:13] + noise[:, 6:9] * params["rate_noise"][:, None],
        }

    def _perturb_attitude(self, quat: Array, noise: Array) -> Array:
        """Attitude [N, 4] as measured: trim of the robot's own sensor, then noise [N, 3] rad, normalised."""
        half = 0.5 * noise
        half[:, 0] += 0.5 * self._params["roll_trim"]
        half[:, 1] += 0.5 * self._params["pitch_trim"]
        small = np.concatenate((half, np.ones((len(quat), 1))), axis=1)
        measured = quat_multiply(quat, small)
        return measured / np.sqrt((measured * measured).sum(axis=1, keepdims=True))


def flight_state(pos: Array, quat: Array, lin_vel: Array, ang_vel: Array) -> dict[str, Array]:
    """Make a state of N floating bases from its arrays, world frame."""
    return dict(zip(ENTRIES, (pos, quat, lin_vel, ang_vel), strict=True))
