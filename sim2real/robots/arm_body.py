"""Simulated arms: servos, delays, payload and encoders of N arms in one world."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim2real.robots.delays import DelayLine, LateReading
from sim2real.robots.physics import PhysicsParams
from sim2real.robots.servo import Servo
from sim2real.types import Array, EnvIds, State

if TYPE_CHECKING:
    from sim2real.robots.arm import Arm
    from sim2real.sim.world import World

# The motor in Bullet follows the servo model, whose torque is limited already; this only lets contact stop it.
MOTOR_TORQUE_SHARE = 3.0
LONGEST_SERVO_STEP_S = 0.01
LEAST_INERTIA = 0.1  # of the armature; lighter links leave at least the rotor's
_NOISE, _TREMOR = 2, 4  # random streams


class ArmBody:
    """N simulated arms of one kind.

    Args:
        model: The arm.
        world: Holds the arms already.
        params: Their physics.
        decimation: Physics steps in one control step.
        seed: Seed of noise.

    Attributes:
        state: ``joint_pos``, ``joint_vel`` [N, J] and ``ee_pos`` [N, 3].
    """

    def __init__(self, model: Arm, world: World, params: PhysicsParams, decimation: int, seed: int) -> None:
        self._model, self._world, self._params = model, world, params
        count, joints = world.count, len(model.joints)
        control_dt = world.sim_dt * decimation
        # Separate streams, so that one more or one fewer random term leaves all other draws as they were.
        self._noise, self._tremor = (np.random.default_rng([seed, stream]) for stream in (_NOISE, _TREMOR))
        zero = np.zeros((count, joints))
        self._quantities = model.servo_quantities(params.values, params)
        # Servos are cheap and need short steps; Bullet only follows them, and stops them at a contact.
        self._servo_steps = int(np.ceil(world.sim_dt / LONGEST_SERVO_STEP_S - 1e-9))
        self._servo = Servo(self._quantities, zero, zero, world.sim_dt / self._servo_steps)
        self._torque = MOTOR_TORQUE_SHARE * self._quantities["stall_torque"].max(axis=0)
        # A joint has a dead time of its own, so every joint of every arm is a row of the delay line.
        self._commands = DelayLine(count * joints, 1, control_dt, model.longest_delay_s)
        self._readings = LateReading(count, 2 * joints, control_dt, model.parameters["observation_delay"].high)
        self._all = np.arange(count)
        self._gravity = zero
        self._wanted = zero
        self._loaded = False  # until masses differ from the description, inertias are the servos' own
        self.state: dict[str, Array] = {
            "joint_pos": zero.copy(),
            "joint_vel": zero.copy(),
            "ee_pos": np.zeros((count, 3)),
        }

    def reset(self, env_ids: EnvIds, state: State, command: Array) -> None:
        """Start arms anew at joint positions and velocities, ``command`` [n, J] rad taken as already sent."""
        position, velocity = state["joint_pos"], state["joint_vel"]
        quantities = self._model.servo_quantities(self._params.values[env_ids], self._params)
        for name, values in quantities.items():
            self._quantities[name][env_ids] = values
        self._servo.configure(env_ids, quantities)
        self._servo.place(env_ids, position, velocity)
        self._world.write_joints(env_ids, position, velocity)
        self.state["joint_pos"][env_ids], self.state["joint_vel"][env_ids] = position, velocity
        self._follow(env_ids)
        joints = len(self._model.joints)
        flat = (env_ids[:, None] * joints + np.arange(joints)).ravel()
        self._commands.reset(flat, command.reshape(-1, 1))
        self._readings.reset(env_ids, np.concatenate((position, velocity), axis=1))

    def send(self, command: Array) -> None:
        """Send joint positions [N, J] rad; a trembling servo hears something else."""
        shaking = self._params["action_noise"]
        if shaking.any():
            command = command + shaking[:, None] * self._tremor.standard_normal(command.shape)
        self._commands.push(command.reshape(-1, 1))
        delay = self._quantities["dead_time"] + self._params["action_delay"][:, None]
        self._delay = delay.ravel()

    def before_step(self, index: int) -> None:
        """Advance the servos by one physics step and let Bullet's motors follow them."""
        servo, quantities, sim_dt = self._servo, self._quantities, self._world.sim_dt
        servo_dt = sim_dt / self._servo_steps
        before = servo.motor.copy()
        for inner in range(self._servo_steps):
            start = index * sim_dt + inner * servo_dt
            reference = self._commands.average(start, servo_dt, self._delay).reshape(before.shape)
            reference = np.minimum(np.maximum(reference, quantities["low_stop"]), quantities["high_stop"])
            servo.step(reference, self._gravity)
        self._wanted = (servo.motor - before) / sim_dt
        self._world.drive_joints(self._wanted, self._torque)

    def after_step(self) -> None:
        """Give the servos the joints that contact has left them."""
        position, velocity = self._world.read_joints()
        self._servo.observe(slice(None), position, self._servo.velocity + (velocity - self._wanted))

    def end_period(self) -> None:
        """Take in joints and end effector for the encoders."""
        ee_pos = self.state["ee_pos"]
        self.state = {
            "joint_pos": self._servo.position.copy(),
            "joint_vel": self._servo.velocity.copy(),
            "ee_pos": ee_pos,
        }
        self._follow(self._all)
        self._readings.push(np.concatenate((self.state["joint_pos"], self.state["joint_vel"]), axis=1))

    def _follow(self, env_ids: EnvIds) -> None:
        """Bring end effector and gravity of ``env_ids`` up to date with their joints."""
        model, position = self._model, self.state["joint_pos"][env_ids]
        frames = model.chain.frames(position)
        self.state["ee_pos"][env_ids] = frames[model.ee][0]
        values = self._params.values[env_ids]
        added = model.added_mass(values, self._params)
        shift = model.shifted_com(values, self._params)
        gravity = model.chain.gravity_torque(position, added, frames, shift)
        if self._loaded or shift or any(mass.any() for mass in added.values()):
            self._loaded = True
            armature = self._quantities["armature"][env_ids]
            inertia = armature + model.chain.added_inertia(added, frames, shift)
            self._servo.bear(env_ids, np.maximum(inertia, LEAST_INERTIA * armature))
        if len(env_ids) == len(self._all):
            self._gravity = gravity
        else:
            self._gravity[env_ids] = gravity

    def measured(self) -> State:
        """Read the joints as encoders report them: late, in steps, and noisy."""
        model, params = self._model, self._params
        past = self._readings.read(params["observation_delay"])
        joints = len(model.joints)
        noise = self._noise.standard_normal((len(past), 2 * joints))
        position = past[:, :joints] + noise[:, :joints] * params["position_noise"][:, None]
        position = np.round(position / model.encoder_step) * model.encoder_step
        velocity = past[:, joints:] + noise[:, joints:] * params["velocity_noise"][:, None]
        return {
            "joint_pos": position,
            "joint_vel": velocity,
            "ee_pos": model.chain.frames(position)[model.ee][0],
        }
