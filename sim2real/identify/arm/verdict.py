"""Refusals of an identification: parameters that hide a clock, lean on their bounds, or explain nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sim2real.identify.arm.clock import joint_lags, pace
from sim2real.identify.arm.fit import JointFit
from sim2real.identify.arm.regression import EXCITED_RAD
from sim2real.identify.arm.space import LOGARITHMIC
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import LogError
from sim2real.robots.arm import Arm
from sim2real.robots.servo import FREE_ACCELERATION

AT_BOUND = 0.01  # of a quantity's range
KNOWN = 0.25  # of a quantity's range; a standard deviation above it says that the recordings do not tell


def refuse_clock(arm: Arm, logs: Sequence[JointLog]) -> None:
    """Refuse recordings whose stamps no servo of this arm could give; a fit would hide them in its parameters.

    Raises:
        LogError: Names the joints or recordings, and by how much.
    """
    lags = joint_lags(arm, logs)
    by_fault: dict[str, list[str]] = {}
    for joint, fault in zip(arm.joints, lags.faults, strict=True):
        if fault:
            by_fault.setdefault(fault, []).append(joint)
    faults = [f"{', '.join(joints)}: {fault}" for fault, joints in by_fault.items()] + list(lags.recordings)
    if not faults:
        time_scale, sentence = pace(arm, logs)
        faults = [sentence] if time_scale != 1.0 else []
    if faults:
        raise LogError(
            f"{'; '.join(faults)}. Nothing was fitted: a fit would take the clock for slow or fast servos. "
            f"'sim2real check-joints {arm.name} LOG' shows every joint"
        )


def on_bounds(arm: Arm, fit: JointFit) -> list[str]:
    """Quantities that the recordings determine, and that want to be outside their bounds, in words.

    Nothing of a quantity (no backlash, hardly any inertia) and no acceleration limit are no bounds.
    """
    found = []
    stds = dict(zip(fit.names, np.sqrt(np.diag(fit.covariance)).tolist(), strict=True))
    for name in fit.names:
        bounds, value = arm.servo[name], fit.values[name]
        low, high, at, width = bounds.low, bounds.high, value, bounds.high - bounds.low
        if name in LOGARITHMIC:
            low, high, at, width = np.log(low), np.log(high), np.log(value), value * np.log(high / low)
        if stds[name] > KNOWN * width:
            continue
        least = bounds.low != 0.0 and name != "armature" and at < low + AT_BOUND * (high - low)
        most = at > high - AT_BOUND * (high - low) and not (name == "acceleration" and value >= 0.9 * FREE_ACCELERATION)
        if least or most:
            found.append(f"{fit.joint}.{name} = {value:.4g} {bounds.unit} (bounds {bounds.low:g} .. {bounds.high:g})")
    return found


def refuse_fit(arm: Arm, logs: Sequence[JointLog], fits: Sequence[JointFit], held_out: Mapping[str, float]) -> None:
    """Refuse a fit that leans on its bounds, or is no better than "measured = commanded".

    Args:
        arm: The robot.
        logs: Recordings that were fitted.
        fits: Of all joints.
        held_out: Joint → root mean squared error (rad) on motions that the fit had not seen.

    Raises:
        LogError: Names joints, values and bounds.
    """
    seconds = [log.time[-1] for log in logs]
    squared = np.average([((log.command - log.position) ** 2).mean(axis=0) for log in logs], axis=0, weights=seconds)
    moves = np.any([log.command.std(axis=0) > EXCITED_RAD for log in logs], axis=0)
    worse = [
        f"{joint} ({1e3 * held_out[joint]:.1f} mrad, measured = commanded {1e3 * lag:.1f})"
        for joint, lag, moving in zip(arm.joints, np.sqrt(squared).tolist(), moves, strict=True)
        if moving and held_out[joint] > lag
    ]
    if worse:
        raise LogError(
            f"on motions that the fit had not seen, a simulator that does what is commanded is better for "
            f"{', '.join(worse)}; no parameters are written: 'sim2real check-joints' looks for wrong stamps, zeros and "
            "scales; else record more motions of one kind"
        )
    if leaning := [line for fit in fits for line in on_bounds(arm, fit)]:
        raise LogError(
            f"values lie on their bounds: {', '.join(leaning)}; no parameters are written: the robot or its stamps are "
            "not what robot.yaml allows. 'sim2real check-joints' tells; if it is right, widen 'servo' in robot.yaml"
        )
