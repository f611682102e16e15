"""A batch of simulated arms: servos, delays, payload and encoders around one Bullet world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim2real.errors import SimulationError
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.servo import Servo
from sim2real.sim.randomization import Randomization, RandomizationTerm
from sim2real.sim.robot import DelayLine
from sim2real.sim.world import NO_GRAVITY, World
from sim2real.types import Array, EnvIds

if TYPE_CHECKING:
    from sim2real.robots.arm import Arm


# The motor in Bullet follows the servo model, whose torque is limited already; this only lets contact stop it.
MOTOR_TORQUE_SHARE = 3.0
LONGEST_SERVO_STEP_S = 0.01


@dataclass(frozen=True)
class ArmState:
    """True or measured state of N arms.

    Attributes:
        joint_pos: [N, J] rad.
        joint_vel: [N, J] rad/s.
        ee_pos: [N, 3] m, end effector in the base frame.
    """

    joint_pos: Array
    joint_vel: Array
    ee_pos: Array


class ArmSim:
    """N simulated arms in one world, each in a cell of its own.

    Args:
        model: The arm.
        count: Number of arms N.
        terms: Randomization terms by name; empty for the nominal simulator.
        decimation: Physics steps in one control step.
        seed: Seed of every random draw.

    Attributes:
        rng: For start states and goals; noise and physics have streams of their own.
        state: True state.
    """

    def __init__(
        self, model: Arm, count: int, terms: Mapping[str, RandomizationTerm], decimation: int = 2, seed: int = 0
    ) -> None:
        self.model, self.count, self.decimation = model, count, decimation
        self.control_dt = 1.0 / model.spec.control_rate_hz
        # Separate streams, so that one more or one fewer random term leaves all other draws as they were.
        self.rng, draws, self._noise = (np.random.default_rng([seed, stream]) for stream in range(3))
        self.params = PhysicsParams(model.parameters, count)
        self.randomization = Randomization(terms, self.params, draws)
        self._tremor = np.random.default_rng([seed, 4])
        # The servo model carries the arm's weight; a second one would make the motors in Bullet creep.
        self.world = World(count, self.control_dt / decimation, gravity=NO_GRAVITY)
        self.world.load_robots(model.urdf, fixed_base=True)
        joints = len(model.joints)
        zero = np.zeros((count, joints))
        self._quantities = model.servo_quantities(self.params.values, self.params)
        # Servos are cheap and need short steps; Bullet only follows them, and stops them at a contact.
        self._servo_steps = int(np.ceil(self.world.sim_dt / LONGEST_SERVO_STEP_S - 1e-9))
        self._servo = Servo(self._quantities, zero, zero, self.world.sim_dt / self._servo_steps)
        self._torque = MOTOR_TORQUE_SHARE * self._quantities["stall_torque"].max(axis=0)
        # A joint has a dead time of its own, so every joint of every arm is a row of the delay line.
        self._commands = DelayLine(count * joints, 1, self.control_dt, model.longest_delay_s)
        longest = int(np.ceil(model.parameters["observation_delay"].high / self.control_dt)) + 2
        self._past = np.zeros((count, longest, 2 * joints))
        self._rows = np.arange(count)
        self._gravity = zero
        self.state = ArmState(zero.copy(), zero.copy(), np.zeros((count, 3)))

    def reset(self, rows: EnvIds, state: ArmState, command: Array, params: Array | None = None) -> None:
        """Start arms anew.

        Args:
            rows: Which arms.
            state: Their joint positions and velocities.
            command: Command [len(rows), J] rad taken as already sent.
            params: Physics parameters [len(rows), P]; drawn from the randomization by default.
        """
        self.randomization.reset(rows, params)
        quantities = self.model.servo_quantities(self.params.values[rows], self.params)
        for name, values in quantities.items():
            self._quantities[name][rows] = values
        self._servo.configure(rows, quantities)
        self._servo.place(rows, state.joint_pos, state.joint_vel)
        self.world.write_joints(rows, state.joint_pos, state.joint_vel)
        self.state.joint_pos[rows], self.state.joint_vel[rows] = state.joint_pos, state.joint_vel
        self._look(rows)
        joints = len(self.model.joints)
        flat = (rows[:, None] * joints + np.arange(joints)).ravel()
        self._commands.reset(flat, command.reshape(-1, 1))
        self._past[rows] = np.concatenate((state.joint_pos, state.joint_vel), axis=1)[:, None, :]

    def step(self, command: Array) -> None:
        """Send ``command`` [N, J] rad and advance one control period.

        Raises:
            SimulationError: A command is not finite.
        """
        if not np.isfinite(command).all():
            raise SimulationError("a command is not finite; the policy's output or the decoding is broken")
        self.randomization.step()
        shaking = self.params["action_noise"]
        if shaking.any():
            command = command + shaking[:, None] * self._tremor.standard_normal(command.shape)
        self._commands.push(command.reshape(-1, 1))
        shape, sim_dt, quantities = command.shape, self.world.sim_dt, self._quantities
        delay = (quantities["dead_time"] + self.params["action_delay"][:, None]).ravel()
        servo, servo_dt = self._servo, sim_dt / self._servo_steps
        for substep in range(self.decimation):
            before = servo.motor.copy()
            for inner in range(self._servo_steps):
                start = substep * sim_dt + inner * servo_dt
                reference = self._commands.average(start, servo_dt, delay).reshape(shape)
                reference = np.minimum(np.maximum(reference, quantities["low_stop"]), quantities["high_stop"])
                servo.step(reference, self._gravity)
            wanted = (servo.motor - before) / sim_dt
            self.world.drive_joints(wanted, self._torque)
            self.world.step()
            position, velocity = self.world.read_joints()
            servo.observe(slice(None), position, servo.velocity + (velocity - wanted))
        self.state = ArmState(self._servo.position.copy(), self._servo.velocity.copy(), self.state.ee_pos)
        self._look(self._rows)
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = np.concatenate((self.state.joint_pos, self.state.joint_vel), axis=1)

    def _look(self, rows: EnvIds) -> None:
        """Bring end effector and gravity of ``rows`` up to date with their joints."""
        position = self.state.joint_pos[rows]
        frames = self.model.chain.frames(position)
        self.state.ee_pos[rows] = frames[self.model.ee][0]
        added = self.model.added_mass(self.params.values[rows], self.params)
        gravity = self.model.chain.gravity_torque(position, added, frames)
        if len(rows) == self.count:
            self._gravity = gravity
        else:
            self._gravity[rows] = gravity

    def estimate(self) -> ArmState:
        """The state as the encoders report it: late, in steps, and noisy."""
        steps = self.params["observation_delay"] / self.control_dt
        index = steps.astype(np.int64)
        late = (steps - index)[:, None]
        past = (1.0 - late) * self._past[self._rows, index] + late * self._past[self._rows, index + 1]
        joints = len(self.model.joints)
        noise = self._noise.standard_normal((self.count, 2 * joints))
        position = past[:, :joints] + noise[:, :joints] * self.params["position_noise"][:, None]
        position = np.round(position / self.model.encoder_step) * self.model.encoder_step
        velocity = past[:, joints:] + noise[:, joints:] * self.params["velocity_noise"][:, None]
        return ArmState(position, velocity, self.model.chain.frames(position)[self.model.ee][0])

    def close(self) -> None:
        """Release the physics client."""
        self.world.close()
