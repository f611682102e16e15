"""Simulated drones: actuation, delays and state estimator of N floating bases in one world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from sim2real.robots.delays import DelayLine, LateReading
from sim2real.robots.physics import PhysicsParams
from sim2real.runtime.columns import columns, joined, sqrt
from sim2real.runtime.geometry import quat_multiply_columns
from sim2real.types import Array, EnvIds, State

if TYPE_CHECKING:
    from sim2real.sim.world import World

ENTRIES = ("pos", "quat", "lin_vel", "ang_vel")
_PARTS = dict(zip(ENTRIES, (slice(0, 3), slice(3, 7), slice(7, 10), slice(10, 13)), strict=True))
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
        self._read = params.reader(
            "position_noise", "velocity_noise", "rate_noise", "attitude_noise", "roll_trim", "pitch_trim"
        )
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
        past = columns(self._readings.read(self._params["observation_delay"]))
        noise = columns(self._noise.standard_normal((len(self._bias), 12)))
        bias = columns(self._bias)
        position, velocity, rate, attitude, roll_trim, pitch_trim = self._read()
        # Trim of the robot's own sensor, then noise: a small rotation.
        half = [0.5 * (tilt * attitude) for tilt in noise[9:12]]
        small = (half[0] + 0.5 * roll_trim, half[1] + 0.5 * pitch_trim, half[2], 1.0)
        x, y, z, w = quat_multiply_columns(past[3:7], small)
        length = sqrt(x * x + y * y + z * z + w * w)
        parts = (
            *(past[i] + bias[i] + noise[i] * position for i in range(3)),
            *(part / length for part in (x, y, z, w)),
            *(past[7 + i] + bias[3 + i] + noise[3 + i] * velocity for i in range(3)),
            *(past[10 + i] + noise[6 + i] * rate for i in range(3)),
        )
        table = joined(parts, (len(self._bias),))
        return {name: table[:, part] for name, part in _PARTS.items()}


def flight_state(pos: Array, quat: Array, lin_vel: Array, ang_vel: Array) -> dict[str, Array]:
    """Make a state of N floating bases from its arrays, world frame."""
    return dict(zip(ENTRIES, (pos, quat, lin_vel, ang_vel), strict=True))
