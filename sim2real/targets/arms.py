"""Arms in MuJoCo under conditions: delays, readings, a camera, any number of them side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sim2real.runtime.perception import Locator
from sim2real.targets.base import State
from sim2real.targets.so101_arm import Puck
from sim2real.types import Array

if TYPE_CHECKING:
    from sim2real.targets.so101_eyes import Eyes

# Joint positions [J] rad and the true centre of the object [3] m to where it is seen [3] m, or None.
See = Callable[[Array, Array], Array | None]
CAMERA_HZ = 30.0
ORDINARY_PUCK = Puck()


@dataclass(frozen=True)
class Condition:
    """Differences of the arm, its connection and its surroundings from the ordinary.

    Attributes:
        speed: Of the servos, as a fraction of the fitted one: a low supply voltage.
        stiffness: The same for their stiffness.
        payload_kg: Held by the gripper.
        command_delay_s: Of the computer and the bus, on top of each servo's own dead time.
        latency_s: Of joint readings.
        noise_rad: Of joint readings, white, before the encoder rounds.
        camera_delay_s: Of the object's position.
        camera_noise_m: The same, white.
        puck: The object, where there is one.
    """

    speed: float = 1.0
    stiffness: float = 1.0
    payload_kg: float = 0.0
    command_delay_s: float = 0.015
    latency_s: float = 0.01
    noise_rad: float = 0.0005
    camera_delay_s: float = 0.04
    camera_noise_m: float = 0.002
    puck: Puck = ORDINARY_PUCK


class ArmModel(Protocol):
    """One simulated arm, and the object on its table if there is one."""

    @property
    def time(self) -> float:
        """Since the last reset, s."""

    @property
    def position(self) -> Array:
        """Joint positions [J] rad."""

    @property
    def velocity(self) -> Array:
        """Joint velocities [J] rad/s."""

    @property
    def ee_pos(self) -> Array:
        """End effector [3] m in the base frame."""

    @property
    def puck_pos(self) -> Array:
        """Centre of the object [3] m in the base frame."""

    @property
    def puck_vel(self) -> Array:
        """Velocity of the object [3] m/s in the base frame."""

    def reset(self, position: Array, puck_xy: Array | None = None) -> None:
        """Stand still at joint positions [J] rad, the object at [2] m on the table."""

    def advance(self, command: Array, seconds: float, delay_s: float = 0.0) -> None:
        """Hold ``command`` [J] rad for ``seconds``; it takes effect after ``delay_s`` and what servos add."""


class SensedArm:
    """One arm in MuJoCo with what reads it and what commands it.

    Args:
        arm: The arm.
        condition: Its delays and noise.
        encoder_step: rad.
        seed: Of all noise.
        has_object: Whether there is an object on the table.
        see: Joint positions [J] rad and the true centre of the object [3] m to where it is seen [3] m, or None where
            it is not seen well enough and the last sighting stays: what looks at the camera's images. By default the
            truth with the condition's noise.
    """

    def __init__(
        self,
        arm: ArmModel,
        condition: Condition,
        encoder_step: float,
        seed: int,
        has_object: bool = False,
        see: See | None = None,
    ) -> None:
        self.arm, self.condition, self.has_object = arm, condition, has_object
        self._encoder_step = encoder_step
        self._rng = np.random.default_rng(seed)
        self._see = see or self._truth
        self.reset(np.zeros(len(arm.position)))

    def reset(self, position: Array, puck_xy: Array | None = None) -> None:
        """Stand still at joint positions [J] rad, the object at [2] m."""
        self.arm.reset(position, puck_xy)
        self._command = position.copy()
        self._readings = [(-np.inf, self.arm.position, self.arm.velocity)]
        seen = self._see(self.arm.position, self.puck_pos) if puck_xy is not None else None
        self._seen = [(-np.inf, self.puck_pos if seen is None else seen)]
        self._taken_s = 0.0

    def command(self, command: Array) -> None:
        """Send joint positions [J] rad to the servos; they hold until the next ones."""
        self._command = command.copy()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.arm.advance(self._command, seconds, self.condition.command_delay_s)
        now = self.arm.time
        self._readings.append((now, self.arm.position, self.arm.velocity))
        if now - self._taken_s >= 1.0 / CAMERA_HZ and self.has_object:
            self._taken_s = now
            seen = self._see(self.arm.position, self.puck_pos)
            if seen is not None:
                self._seen.append((now, seen))
        for kept in (self._readings, self._seen):
            while len(kept) > 2 and kept[1][0] < now - 0.5:
                kept.pop(0)  # type: ignore[attr-defined]

    def _truth(self, joint_pos: Array, puck_pos: Array) -> Array:
        return puck_pos + self.condition.camera_noise_m * self._rng.standard_normal(3)

    def estimate(self) -> tuple[Array, Array, Array]:
        """Joint positions [J] rad, joint velocities [J] rad/s and the object's position [3] m, as measured."""
        now, condition = self.arm.time, self.condition
        late = [row for row in self._readings if row[0] <= now - condition.latency_s][-1]
        position = late[1] + condition.noise_rad * self._rng.standard_normal(len(late[1]))
        seen = [row for row in self._seen if row[0] <= now - condition.camera_delay_s][-1]
        return np.round(position / self._encoder_step) * self._encoder_step, late[2], seen[1]

    @property
    def puck_pos(self) -> Array:
        """True centre of the object [3] m; zeros without one."""
        return self.arm.puck_pos if self.has_object else np.zeros(3)


class ArmsSim:
    """Simulated arms side by side.

    Args:
        robot: The robot model, for its kinematics.
        make: Index of an arm, and what sees its object (None for its true position with noise), to the arm.
        n: Number of arms N.
        seed: Of what cameras see.
        locator: Finds objects in camera images, where they are to be found there.

    Attributes:
        arms: The arms.
        step_s, longest_catch_up_s: As of :class:`sim2real.targets.base.Paced`.
    """

    step_s = 0.01
    longest_catch_up_s = 0.1

    def __init__(
        self, robot: Any, make: Callable[[int, See | None], SensedArm], n: int, seed: int, locator: Locator | None
    ) -> None:
        self._chain, self._ee = robot.chain, robot.ee
        self._locator, self._seed = locator, seed
        self._eyes: Eyes | None = None
        self.failed = np.zeros(n, dtype=np.bool_)
        self.arms = [make(i, self._looker(i) if locator is not None else None) for i in range(n)]
        self.has_object = self.arms[0].has_object

    def reset(self, start: State) -> None:
        """Stand still at ``joint_pos``, objects at ``object_pos``."""
        self.close()
        if self._locator is not None:
            from sim2real.targets.so101_eyes import Eyes

            puck = self.arms[0].condition.puck
            self._eyes = Eyes(self._locator, puck, self._seed, start["object_pos"], start["goal"])
        for index, arm in enumerate(self.arms):
            arm.reset(start["joint_pos"][index], start["object_pos"][index, :2] if self.has_object else None)

    def command(self, command: Array) -> None:
        """Send joint positions [N, J] rad."""
        for arm, row in zip(self.arms, command, strict=True):
            arm.command(row)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        for arm in self.arms:
            arm.advance(seconds)

    def measured(self) -> dict[str, Array]:
        """Encoder readings, the end effector they give, and the object as a camera sees it, not how fast it is."""
        pos, vel, seen = (np.array(part) for part in zip(*(arm.estimate() for arm in self.arms), strict=True))
        state = {"joint_pos": pos, "joint_vel": vel, "ee_pos": self._chain.frames(pos)[self._ee][0]}
        return state | ({"object_pos": seen, "object_vel": np.zeros_like(seen)} if self.has_object else {})

    def truth(self) -> dict[str, Array]:
        """The true state."""
        names = {"joint_pos": "position", "joint_vel": "velocity", "ee_pos": "ee_pos"}
        names |= {"object_pos": "puck_pos", "object_vel": "puck_vel"} if self.has_object else {}
        return {name: np.array([getattr(arm.arm, attribute) for arm in self.arms]) for name, attribute in names.items()}

    def close(self) -> None:
        """Free the camera; harmless when closed."""
        if self._eyes is not None:
            self._eyes.close()
            self._eyes = None

    def _looker(self, index: int) -> See:
        def see(joint_pos: Array, object_pos: Array) -> Array | None:
            assert self._eyes is not None, "reset() comes first"
            return self._eyes.see(index, joint_pos, object_pos)

        return see
