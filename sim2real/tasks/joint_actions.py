"""What arm tasks share: increments of joint commands, and a plain controller that walks along ``joint_step``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim2real.robots.arm import Arm
from sim2real.runtime.spec import ActionTerm, ObservationTerm
from sim2real.types import Array

GAIN = 4.5  # 1/s; approach with this rate, slower than the servo's lag
DAMPING_S = 0.15
LEAD = 0.25  # rad; more than this pulls a servo no harder


def joint_increments(arm: Arm, speed: float) -> tuple[ActionTerm, ...]:
    """Increments of every joint's position command, at most ``speed`` rad/s."""
    step = speed / arm.spec.control_rate_hz
    return tuple(
        ActionTerm(
            name=limit.name, unit=limit.unit, low=-step, high=step, limits=(limit.low, limit.high), measured="joint_pos"
        )
        for limit in arm.spec.commands
    )


def joint_term(arm: Arm, name: str, scale: float, history: int) -> ObservationTerm:
    """Observation term of an arm's signal, or of the policy's own ``command_lead`` or ``last_action``."""
    own = {"command_lead": ("rad", "command"), "last_action": ("1", "command")}
    signal = arm.signals.get(name)
    unit, frame = (signal.unit, signal.frame) if signal else own[name]
    components = signal.components if signal else arm.joints
    return ObservationTerm(
        name=name, components=components, unit=unit, frame=frame, scale=scale, clip=10.0, history=history
    )


def follow(arm: Arm, signals: Mapping[str, Array], speed: float) -> Array:
    """Action [N, J] that walks along the damped least squares step, without winding the command up."""
    lead, rate = signals["command_lead"], arm.spec.control_rate_hz
    walk = GAIN * (signals["joint_step"] - DAMPING_S * signals["joint_vel"])
    step = np.clip(walk / rate, -LEAD - lead, LEAD - lead)
    return step * (rate / speed)
