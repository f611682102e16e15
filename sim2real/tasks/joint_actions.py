"""Shared parts of arm tasks: increments of joint commands, and a plain controller that walks along ``joint_step``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from sim2real.errors import ConfigError
from sim2real.robots.arm import Arm
from sim2real.robots.model import RobotModel
from sim2real.runtime.arm_signals import joint_units
from sim2real.runtime.signals import Signals
from sim2real.runtime.spec import ActionTerm, ObservationTerm, SignalSpec
from sim2real.types import Array

# A goal of arm tasks.
BASE_POINT = SignalSpec(name="goal", components=("x", "y", "z"), unit="m", frame="base")
GAIN = 4.5  # 1/s; approach with this rate, slower than the servo's lag
DAMPING_S = 0.15
AHEAD = 0.25  # rad; more than this pulls a servo no harder


def joint_increments(arm: Arm, speed: float) -> tuple[ActionTerm, ...]:
    """Increments of every joint's position command, at most ``speed`` rad/s, and no more than the joint's own."""
    return tuple(
        ActionTerm(
            name=limit.name, unit=limit.unit, low=-step, high=step, limits=(limit.low, limit.high), measured="joint_pos"
        )
        for limit, step in zip(
            arm.spec.commands, (_speeds(arm, speed) / arm.spec.control_rate_hz).tolist(), strict=True
        )
    )


def _speeds(arm: Arm, speed: float) -> Array:
    """Command speeds [J] rad/s: a joint that cannot keep up would only be wound up."""
    return np.array([min(speed, limit.slew_per_s) for limit in arm.spec.commands])


def joint_term(arm: Arm, signals: Signals, name: str, scale: float, history: int) -> ObservationTerm:
    """Observation term of an arm's signal, or of the policy's own ``tracking_error`` or ``last_action``."""
    own = {"tracking_error": (joint_units(arm.spec)[0], "command"), "last_action": ("1", "command")}
    signal = signals.specs.get(name)
    unit, frame = (signal.unit, signal.frame) if signal else own[name]
    components = signal.components if signal else arm.joints
    return ObservationTerm(
        name=name, components=components, unit=unit, frame=frame, scale=scale, clip=10.0, history=history
    )


def follow(arm: Arm, signals: Mapping[str, Array], speed: float) -> Array:
    """Action [N, J] that walks along the damped least squares step, without winding the command up."""
    ahead, rate = signals["tracking_error"], arm.spec.control_rate_hz
    walk = GAIN * (signals["joint_step"] - DAMPING_S * signals["joint_vel"])
    step = np.clip(walk / rate, -AHEAD - ahead, AHEAD - ahead)
    return step * (rate / _speeds(arm, speed))


def as_arm(robot: RobotModel, task: str) -> Arm:
    """The robot as an arm.

    Raises:
        ConfigError: It has no end effector.
    """
    if robot.chain is None:
        raise ConfigError(f"task '{task}' is for arms; '{robot.name}' is none")
    return cast(Arm, robot)
