"""The SO-101 target under conditions that no training saw: the arm in MuJoCo, its delays, its sensors, a camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_drivers.limits import DriverError
from sim2real.errors import SpecError
from sim2real.runtime.perception import Locator
from sim2real.targets.base import State
from sim2real.targets.so101_arm import ENCODER_STEP, JOINTS, ArmModel, Puck, read_figures
from sim2real.types import Array

if TYPE_CHECKING:
    from sim2real.targets.so101_eyes import Eyes

CAMERA_HZ = 30.0
ORDINARY_PUCK = Puck()


@dataclass(frozen=True)
class Condition:
    """How the arm, its connection and its surroundings differ from the ordinary.

    Attributes:
        speed: Of the servos, in shares of the fitted one: a low supply voltage.
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


FRESH = Condition()
CONDITIONS = {
    "fresh": FRESH,
    "payload": replace(FRESH, payload_kg=0.08),
    "low_battery": replace(FRESH, speed=0.75, stiffness=0.75),
    "late": replace(FRESH, command_delay_s=0.05, latency_s=0.025, camera_delay_s=0.09),
}
# Objects that no training saw: outside the training's ranges in at least one of mass, size and friction.
PUCK_CONDITIONS = {
    "fresh": FRESH,
    "heavy": replace(FRESH, puck=Puck(mass_kg=0.35, friction=0.6)),
    "slippery": replace(FRESH, puck=Puck(mass_kg=0.06, friction=0.12)),
    "wide": replace(FRESH, puck=Puck(radius_m=0.038, mass_kg=0.15, friction=0.4)),
}


class ArmTarget:
    """One SO-101 with what reads it and what commands it.

    Args:
        condition: A key of ``CONDITIONS``, or of ``PUCK_CONDITIONS`` with ``puck``.
        seed: Of all noise.
        puck: Put an object on the table.
        see: Joint positions [6] rad and the true centre of the object [3] m to where it is seen [3] m, or None where
            it is not seen well enough and the last sighting stays: what looks at the camera's images. By default the
            truth with the condition's noise.

    Raises:
        DriverError: Unknown condition.
    """

    def __init__(
        self, condition: str, seed: int, puck: bool = False, see: Callable[[Array, Array], Array | None] | None = None
    ) -> None:
        known = PUCK_CONDITIONS if puck else CONDITIONS
        if condition not in known:
            raise DriverError(f"unknown condition '{condition}'; known: {', '.join(known)}")
        self.condition = known[condition]
        figures = read_figures()
        figures["speed"] = figures["speed"] * self.condition.speed
        figures["stiffness"] = figures["stiffness"] * self.condition.stiffness
        self.has_puck = puck
        self.arm = ArmModel(figures, self.condition.payload_kg, self.condition.puck if puck else None)
        self._rng = np.random.default_rng(seed)
        self._see = see or self._truth
        self.reset(np.zeros(len(JOINTS)))

    def reset(self, position: Array, puck_xy: Array | None = None) -> None:
        """Stand still at joint positions [6] rad, the object at [2] m."""
        self.arm.reset(position, puck_xy)
        self._command = position.copy()
        self._readings = [(-np.inf, self.arm.position, self.arm.velocity)]
        seen = self._see(self.arm.position, self.puck_pos) if puck_xy is not None else None
        self._seen = [(-np.inf, self.puck_pos if seen is None else seen)]
        self._taken_s = 0.0

    def command(self, command: Array) -> None:
        """Joint positions [6] rad that the servos are told from now on."""
        self._command = command.copy()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.arm.advance(self._command, seconds, self.condition.command_delay_s)
        now = self.arm.time
        self._readings.append((now, self.arm.position, self.arm.velocity))
        if now - self._taken_s >= 1.0 / CAMERA_HZ and self.has_puck:
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
        """Joint positions [6] rad, joint velocities [6] rad/s and the object's position [3] m, as measured."""
        now, condition = self.arm.time, self.condition
        late = [row for row in self._readings if row[0] <= now - condition.latency_s][-1]
        position = late[1] + condition.noise_rad * self._rng.standard_normal(len(JOINTS))
        seen = [row for row in self._seen if row[0] <= now - condition.camera_delay_s][-1]
        return np.round(position / ENCODER_STEP) * ENCODER_STEP, late[2], seen[1]

    @property
    def puck_pos(self) -> Array:
        """True centre of the object [3] m; zeros without one."""
        return self.arm.puck_pos if self.has_puck else np.zeros(3)


class So101:
    """The target ``so101``: one arm; its conditions are about the arm, or about the object where there is one.

    Args:
        robot: The robot model, for its kinematics.
        task: The task; it has an object where its signals need ``object_pos``.
    """

    name = "so101"
    variants = ("so101",)
    commands = JOINTS

    def __init__(self, robot: Any, task: Any) -> None:
        self.robot, self.task = robot, task
        self.has_object = "object_pos" in task.signals.needs
        self.locator: Locator | None = None

    def look_through(self, locator: Locator) -> None:
        """Measure the object's position as ``locator`` finds it in camera images, not as the truth with noise.

        Raises:
            SpecError: The task has no object.
        """
        if not self.has_object:
            raise SpecError(f"task '{self.task.name}' has no object to find; leave --perception out")
        self.locator = locator

    def conditions(self) -> tuple[str, ...]:
        """Conditions of the object where there is one, of the arm otherwise."""
        return tuple(PUCK_CONDITIONS if self.has_object else CONDITIONS)

    def start(self, task: Any, rng: np.random.Generator, n: int) -> State:
        """Sample the task's own starts."""
        start: State = task.start(rng, n)
        return start

    def make(self, variant: str, condition: str, n: int, seed: int) -> So101Sim:
        """Make ``n`` arms; see :class:`sim2real.targets.base.Target`."""
        if variant not in self.variants:
            raise DriverError(f"unknown variant '{variant}'; known: {', '.join(self.variants)}")
        return So101Sim(self, condition, n, seed)


class So101Sim:
    """Simulated SO-101 arms side by side.

    Args:
        target: What they are made for.
        condition: A key of ``PUCK_CONDITIONS`` with an object, of ``CONDITIONS`` without.
        n: Number of arms N.
        seed: Of all noise.

    Attributes:
        arms: The arms.
        step_s, longest_catch_up_s: As of :class:`sim2real.targets.base.Paced`.
    """

    step_s = 0.01
    longest_catch_up_s = 0.1

    def __init__(self, target: So101, condition: str, n: int, seed: int) -> None:
        self._chain, self._ee = target.robot.chain, target.robot.ee
        self._locator, self._seed = target.locator, seed
        self._eyes: Eyes | None = None
        self.has_object = target.has_object
        self.failed = np.zeros(n, dtype=np.bool_)
        see = self._looker if self._locator is not None else (lambda index: None)
        self.arms = [ArmTarget(condition, seed + 1000 * i, self.has_object, see(i)) for i in range(n)]

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
        """Send joint positions [N, 6] rad."""
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

    def _looker(self, index: int) -> Callable[[Array, Array], Array | None]:
        def see(joint_pos: Array, object_pos: Array) -> Array | None:
            assert self._eyes is not None, "reset() comes first"
            return self._eyes.see(index, joint_pos, object_pos)

        return see
