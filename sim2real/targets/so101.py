"""The SO-101 target under conditions that no training saw: the arm in MuJoCo, its delays, its sensors, a camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robot_drivers.limits import DriverError
from sim2real.errors import SpecError
from sim2real.runtime.perception import Locator
from sim2real.targets.arms import ArmsSim, Condition, See, SensedArm
from sim2real.targets.base import State
from sim2real.targets.so101_arm import ENCODER_STEP, JOINTS, ArmModel, Puck, read_figures

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


class ArmTarget(SensedArm):
    """One SO-101 with what reads it and what commands it.

    Args:
        condition: A key of ``CONDITIONS``, or of ``PUCK_CONDITIONS`` with ``puck``.
        seed: Of all noise.
        puck: Put an object on the table.
        see: As of :class:`sim2real.targets.arms.SensedArm`.

    Raises:
        DriverError: Unknown condition.
    """

    def __init__(self, condition: str, seed: int, puck: bool = False, see: See | None = None) -> None:
        known = PUCK_CONDITIONS if puck else CONDITIONS
        if condition not in known:
            raise DriverError(f"unknown condition '{condition}'; known: {', '.join(known)}")
        chosen, figures = known[condition], read_figures()
        figures["speed"] = figures["speed"] * chosen.speed
        figures["stiffness"] = figures["stiffness"] * chosen.stiffness
        arm = ArmModel(figures, chosen.payload_kg, chosen.puck if puck else None)
        super().__init__(arm, chosen, ENCODER_STEP, seed, puck, see)


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

    def make(self, variant: str, condition: str, n: int, seed: int) -> ArmsSim:
        """Make ``n`` arms; see :class:`sim2real.targets.base.Target`."""
        if variant not in self.variants:
            raise DriverError(f"unknown variant '{variant}'; known: {', '.join(self.variants)}")

        def make(index: int, see: See | None) -> ArmTarget:
            return ArmTarget(condition, seed + 1000 * index, self.has_object, see)

        return ArmsSim(self.robot, make, n, seed, self.locator)
