"""Joint doctor: is every measured joint the one that was commanded, with its sign, zero and scale, at the right rate?

Compared are commands and measurements of the same recording. A fault that both share (both in another order, both in
degrees of another zero) does not show; nor does it in the robot's motion, which obeys the same mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sim2real.files import write_text
from sim2real.identify.arm.clock import joint_lags, pace
from sim2real.identify.arm.limits import SOME, beyond_limits
from sim2real.identify.arm.mapping import KIND
from sim2real.identify.arm.regression import (
    EXCITED_RAD,
    Regression,
    command_correlation,
    delayed,
    modelled,
    motion_std,
    on_grid,
    regressions,
)
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.types import Array

OFFSET_RAD = 0.06  # what a servo model leaves unexplained at most
FOLLOWS = 0.5  # fraction of the motion explained, below which nothing follows the command
ALIKE = 0.98  # commands so correlated cannot be told apart
SCALE_TOLERANCE = 0.035  # and what a model error of MODEL_RAD bends, the more the less a joint moves
MODEL_RAD = 0.01
FAR = 3.0  # scales beyond, and below its inverse, are undone before the servo model is asked
DEGREES = 180.0 / np.pi


@dataclass(frozen=True)
class JointFinding:
    """Findings about one joint of the robot.

    Attributes:
        joint: Its name.
        judged: Whether it moved enough, alone enough.
        source: Column that really holds it.
        slope, slope_std: Measured over commanded.
        tolerance: Of the slope, at this much motion.
        offset, offset_std: Measured minus commanded at zero, rad.
        faults: In words; empty where all is well.
        lag_s: Time by which measurements follow commands; NaN where it does not show.
        beyond_limits: Fraction of the commands beyond the joint's limits.
    """

    joint: str
    judged: bool
    source: str
    slope: float
    slope_std: float
    offset: float
    offset_std: float
    tolerance: float
    faults: tuple[str, ...]
    lag_s: float = np.nan
    beyond_limits: float = 0.0

    def has(self, word: str) -> bool:
        """True where a fault is of one kind."""
        return any(word in fault for fault in self.faults)

    @property
    def remark(self) -> str:
        """Oddities that are no faults."""
        return f"{self.beyond_limits:.0%} of its commands are beyond its limits" if self.beyond_limits > SOME else ""

    @property
    def verdict(self) -> str:
        """The judgement in words."""
        whole = "in order" if self.judged else "did not move, cannot be judged"
        return "; ".join(filter(None, (*self.faults, self.remark))) if self.faults or self.remark else whole

    @property
    def within(self) -> float:
        """Uncertainty of ``slope``: 2 standard deviations, and what the servo model's own error adds."""
        return 2.0 * self.slope_std + self.tolerance * abs(self.slope)

    @property
    def correction(self) -> float:
        """Divisor of the measurements: the slope where it is a fault; a unit's own where it may be one."""
        if not self.has("scaled"):
            return -1.0 if self.has("flipped") else 1.0
        unit = _unit(abs(self.slope), self.within)
        return float(np.copysign(unit or abs(self.slope), self.slope))


@dataclass(frozen=True)
class JointCheck:
    """All joints, and the clock.

    Attributes:
        period_s: Median over the recordings.
        time_scale: What stamps must be multiplied with; 1 where they are right, or nothing shows that they are not.
        recordings: Number of recordings.
        clock: A sentence where the rate is not the robot's; a fault where ``time_scale`` is not 1, else a remark.
        late: A sentence for every recording whose stamps alone are wrong.
    """

    joints: tuple[JointFinding, ...]
    period_s: float
    time_scale: float
    clock: str
    recordings: int
    late: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that is wrong, in words."""
        found = [f"{joint.joint}: {fault}" for joint in self.joints for fault in joint.faults]
        return tuple(found + ([self.clock] if self.time_scale != 1.0 else []) + list(self.late))

    def summary(self) -> dict[str, Any]:
        """Figures for a JSON file."""
        return {
            "faults": self.faults,
            "joints": [asdict(joint) for joint in self.joints],
            "period_s": self.period_s,
            "time_scale": self.time_scale,
            "clock": self.clock,
        }

    def save(self, path: Path) -> None:
        """Write the correction; :func:`~sim2real.identify.arm.mapping.read_mapping` reads it."""
        write_text(path, yaml.safe_dump(self.mapping(), sort_keys=False))

    def mapping(self) -> dict[str, Any]:
        """The correction, ready for YAML; :func:`apply_mapping` takes it."""
        return {
            "kind": KIND,
            "time_scale": round(self.time_scale, 6),
            "joints": {
                f.joint: {
                    "source": f.source,
                    "slope": float(f"{f.correction:.6g}"),
                    "offset": round(f.offset, 5) if f.has("zero") else 0.0,
                }
                for f in self.joints
            },
        }


def check_joints(arm: Arm, logs: Sequence[JointLog]) -> JointCheck:
    """Compare measured joints with commanded ones, and with what the arm's servos make of the commands.

    Args:
        arm: The robot; weight and friction bend a small arm by more than a fault would.
        logs: Of this robot, all together; the more they move, the finer the judgement.
    """
    names = logs[0].joint_names
    command = [on_grid(log, log.command) for log in logs]
    measured = [on_grid(log, log.position) for log in logs]
    late = [delayed(c, m) for c, m in zip(command, measured, strict=True)]
    plain = regressions(late, measured)
    motion = motion_std(command)
    source = _assign(plain.explained, command_correlation(command), motion > EXCITED_RAD)
    follows = plain.explained[np.arange(len(names)), source] >= FOLLOWS
    if not follows[motion > EXCITED_RAD].all():  # stamps may be so wrong that nothing seems to follow
        wide = [delayed(c, m, wide=True) for c, m in zip(command, measured, strict=True)]
        other = regressions(wide, measured)
        placed = _assign(other.explained, command_correlation(command), motion > EXCITED_RAD)
        found = other.explained[np.arange(len(names)), placed] >= FOLLOWS
        if found.sum() > follows.sum():
            late, plain, source, follows = wide, other, placed, found
    flipped = follows & (motion > EXCITED_RAD) & (plain.slope[np.arange(len(names)), source] < 0)
    # Order and signs first; scale and zero are judged on what these corrections leave.
    sign, moving = np.where(flipped, -1.0, 1.0), follows & (motion > EXCITED_RAD)
    straight = [replace(log, position=log.position[:, source] * sign) for log in logs]
    plain = regressions(late, [m[:, source] * sign for m in measured])
    unit = _rough_scale(arm, straight, np.where(moving, np.diag(plain.slope), 1.0))
    straight = [replace(log, position=log.position / unit) for log in straight]
    fine = _fine(arm, straight)
    period = float(np.median([log.period_s for log in logs]))
    time_scale, clock = pace(arm, straight)
    if time_scale != 1.0:
        straight = [replace(log, time=time_scale * log.time) for log in straight]
        fine = _fine(arm, straight)
    lags = joint_lags(arm, straight)
    fine = fine.times(unit)
    moves = [sum(c[:, j].std() > EXCITED_RAD for c in command) for j in range(len(names))]
    findings = tuple(
        _finding(j, names[j], names[source[j]], bool(flipped[j]), float(motion[j]), moves[j], plain, fine)
        for j in range(len(names))
    )
    beyond = beyond_limits(arm, logs)
    findings = tuple(
        replace(
            found,
            lag_s=float(lags.lag_s[j]) if follows[j] else np.nan,
            faults=found.faults + ((lags.faults[j],) if follows[j] and lags.faults[j] else ()),
            beyond_limits=float(beyond[j]),
        )
        for j, found in enumerate(findings)
    )
    return JointCheck(findings, period, time_scale, clock, len(logs), lags.recordings)


def _fine(arm: Arm, logs: Sequence[JointLog]) -> Regression:
    """Regress the measurements on what the arm's servo model gives for the commands."""
    command, measured = ([on_grid(log, values) for log, values in pairs] for pairs in (
        [(log, log.command) for log in logs], [(log, log.position) for log in logs]
    ))  # fmt: skip
    return regressions(modelled(arm, logs, command), measured)


def _rough_scale(arm: Arm, logs: Sequence[JointLog], plain: Array) -> Array:
    """Scale [J] of measurements that are in another unit, 1 of the others.

    Servos lag behind and round off what is asked of them, so the plain slope is too small; what their model makes of
    the commands says by how much. The model begins where the measurement does, so it needs angles it can begin at.
    """
    far = (plain > FAR) | (plain < 1.0 / FAR)
    if not far.any():
        return np.ones(len(plain))
    rough = np.where(far, plain, 1.0)
    found = _fine(arm, [replace(log, position=log.position / rough) for log in logs])
    seen = far & (np.diag(found.explained) >= FOLLOWS)
    return np.where(seen, rough * np.diag(found.slope), rough)


def _assign(explained: Array, alike: Array, moving: NDArray[np.bool_]) -> list[int]:
    """Measured column of every commanded joint: itself, unless another one follows it much better."""
    joints = len(explained)
    worth = np.where(moving[:, None], explained, 0.0) + 0.2 * np.eye(joints)
    rows, columns = linear_sum_assignment(-worth)
    source = list(range(joints))
    for row, column in zip(rows, columns, strict=True):
        source[row] = int(column)
    for row in range(joints):
        column = source[row]
        if column != row and moving[row] and moving[column] and alike[row, column] > ALIKE:
            return list(range(joints))  # these two cannot be told apart, so neither can the rest of the cycle
    return source


def _finding(
    joint: int,
    name: str,
    source: str,
    flipped: bool,
    motion: float,
    moves: int,
    plain: Regression,
    fine: Regression,
) -> JointFinding:
    faults = [f"is measured in the column of '{source}'"] if source != name else []
    if motion < EXCITED_RAD:
        return JointFinding(name, False, source, 1.0, np.nan, 0.0, np.nan, np.inf, tuple(faults))
    at = (joint, joint)
    if plain.explained[at] < FOLLOWS:
        faults.append(f"does not follow its command ({plain.explained[at]:.0%} of its motion is explained)")
        return JointFinding(name, True, source, 1.0, np.nan, 0.0, np.nan, np.inf, tuple(faults))
    by = fine if fine.explained[at] >= FOLLOWS else plain
    size, slope_std, offset, offset_std = (float(v[at]) for v in (by.slope, by.slope_std, by.offset, by.offset_std))
    tolerance = SCALE_TOLERANCE + MODEL_RAD / (motion * float(np.sqrt(moves)))
    sign = -1.0 if flipped else 1.0
    if flipped:
        faults.append("turns the other way (sign flipped)")
    apart = OFFSET_RAD * max(1.0, size)
    found = JointFinding(name, True, source, sign * size, slope_std, sign * offset, offset_std, tolerance, ())
    if abs(size - 1.0) > tolerance + 2.0 * slope_std:
        apart = OFFSET_RAD * size
        faults.append(f"is scaled by {size:.3g} ± {found.within:.2g}{_unit_hint(size, found.within)}")
        # The zero of what is left when this is undone.
        offset += float(by.straight[at] - (_unit(size, found.within) or size)) * float(by.centre[joint])
    if abs(offset) > apart + 2.0 * offset_std:
        faults.append(f"has its zero off by {sign * offset:+.3f} ± {2 * offset_std:.3f} rad")
    return replace(found, offset=sign * offset, faults=tuple(faults))


def _unit(scale: float, within: float) -> float | None:
    """The unit's scale that may be the true one: degrees for radians, or the other way."""
    return next((unit for unit in (DEGREES, 1.0 / DEGREES) if abs(scale - unit) <= within), None)


def _unit_hint(scale: float, within: float) -> str:
    unit = _unit(scale, within)
    if unit is None:
        return ""
    return ": degrees, where the command is radians" if unit > 1.0 else ": radians, where the command is degrees"
