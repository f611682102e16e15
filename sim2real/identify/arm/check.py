"""Joint doctor: is every measured joint the one that was commanded, with its sign, zero and scale, at the right rate?

Compared are commands and measurements of the same recording. A fault that both share (both in another order, both in
degrees of another zero) does not show; nor does it in the robot's motion, which obeys the same mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from scipy.optimize import linear_sum_assignment

from sim2real.errors import ConfigError
from sim2real.identify.arm.replay import SIM_DT, references
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import yaml_fault
from sim2real.robots.arm import Arm
from sim2real.robots.servo import Servo
from sim2real.types import Array, Model

KIND = "sim2real_joint_mapping"
GRID_S = 0.02
LAGS_S = np.arange(0.0, 0.42, 0.02)
EXCITED_RAD = 0.04  # standard deviation; quieter joints cannot be judged
OFFSET_RAD = 0.06  # what a servo model leaves unexplained at most
STICKS_RAD = 0.12
FOLLOWS = 0.5  # share of the motion explained, below which nothing follows the command
ALIKE = 0.98  # commands so correlated cannot be told apart
SCALE_TOLERANCE = 0.035  # and what a model error of MODEL_RAD bends, the more the less a joint moves
MODEL_RAD = 0.01
STRAIGHT = 0.2  # a slope so near one is taken as one when the zero is judged
FAR = 3.0  # scales beyond, and below its inverse, are undone before the servo model is asked
DEGREES = 180.0 / np.pi
RATE_TOLERANCE = 0.1
CLEARLY = 0.7  # share of what one clock leaves unexplained that another may leave, to be the right one


class _Entry(Model):
    source: str
    slope: float
    offset: float

    @field_validator("slope", "offset")
    @classmethod
    def _usable(cls, value: float, info: ValidationInfo) -> float:
        if not np.isfinite(value) or (info.field_name == "slope" and value == 0.0):
            raise ValueError(f"{value} cannot be used")
        return value


class _Mapping(Model):
    kind: str
    time_scale: float = Field(gt=0.0, lt=1e6)
    joints: dict[str, _Entry] = Field(min_length=1)


@dataclass(frozen=True)
class JointFinding:
    """What the recordings say about one joint of the robot.

    Attributes:
        joint: Its name.
        judged: Whether it moved enough, alone enough.
        source: Column that really holds it.
        slope, slope_std: Measured over commanded.
        tolerance: Of the slope, at this much motion.
        offset, offset_std: Measured minus commanded at zero, rad.
        faults: In words; empty where all is well.
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

    def has(self, word: str) -> bool:
        """Whether a fault is of one kind."""
        return any(word in fault for fault in self.faults)

    @property
    def within(self) -> float:
        """How far from ``slope`` the true one may be: by chance (2 deviations), and by what the servo model bends."""
        return 2.0 * self.slope_std + self.tolerance * abs(self.slope)

    @property
    def correction(self) -> float:
        """What measurements must be divided by: the slope where it is a fault; a unit's own where it may be one."""
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
        clock: A sentence where the rate is not the robot's; a fault where ``time_scale`` is not 1, else a remark.
    """

    joints: tuple[JointFinding, ...]
    period_s: float
    time_scale: float
    clock: str

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that is wrong, in words."""
        found = [f"{joint.joint}: {fault}" for joint in self.joints for fault in joint.faults]
        return tuple(found + ([self.clock] if self.time_scale != 1.0 else []))

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
    command = [_on_grid(log, log.command) for log in logs]
    measured = [_on_grid(log, log.position) for log in logs]
    late = [_late(c, m) for c, m in zip(command, measured, strict=True)]
    plain = _regressions(late, measured)
    spread = _spread(command)
    source = _assign(plain.share, _alike(command), spread > EXCITED_RAD)
    follows = plain.share[np.arange(len(names)), source] >= FOLLOWS
    flipped = follows & (spread > EXCITED_RAD) & (plain.slope[np.arange(len(names)), source] < 0)
    # Order and signs first; scale and zero are judged on what these corrections leave.
    turn, moving = np.where(flipped, -1.0, 1.0), follows & (spread > EXCITED_RAD)
    straight = [replace(log, position=log.position[:, source] * turn) for log in logs]
    plain = _regressions(late, [m[:, source] * turn for m in measured])
    unit = _rough_scale(arm, straight, np.where(moving, np.diag(plain.slope), 1.0))
    straight = [replace(log, position=log.position / unit) for log in straight]
    fine = _fine(arm, straight)
    period = float(np.median([log.period_s for log in logs]))
    time_scale, clock = 1.0, ""
    if abs(period * arm.spec.control_rate_hz - 1.0) > RATE_TOLERANCE:
        scaled = [replace(log, time=log.time / (period * arm.spec.control_rate_hz)) for log in straight]
        other = _fine(arm, scaled)
        time_scale, clock = _clock(period, arm.spec.control_rate_hz, _left(fine, moving), _left(other, moving))
        fine = other if time_scale != 1.0 else fine
    fine = fine.times(unit)
    moves = [sum(c[:, j].std() > EXCITED_RAD for c in command) for j in range(len(names))]
    findings = tuple(
        _finding(j, names[j], names[source[j]], bool(flipped[j]), float(spread[j]), moves[j], plain, fine)
        for j in range(len(names))
    )
    return JointCheck(findings, period, time_scale, clock)


def _fine(arm: Arm, logs: Sequence[JointLog]) -> _Regression:
    """Of the measurements on what the arm's servos make of the commands."""
    command, measured = ([_on_grid(log, values) for log, values in pairs] for pairs in (
        [(log, log.command) for log in logs], [(log, log.position) for log in logs]
    ))  # fmt: skip
    return _regressions(_modelled(arm, logs, command), measured)


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
    seen = far & (np.diag(found.share) >= FOLLOWS)
    return np.where(seen, rough * np.diag(found.slope), rough)


def _left(found: _Regression, moving: NDArray[np.bool_]) -> float:
    """Share of the moving joints' motion that is left unexplained."""
    return float((1.0 - np.diag(found.share)[moving]).mean()) if moving.any() else 1.0


def _on_grid(log: JointLog, values: Array) -> Array:
    grid = np.arange(0.0, log.time[-1], GRID_S)
    return np.stack([np.interp(grid, log.time, column) for column in values.T], axis=1)


def _late(command: Array, measured: Array) -> Array:
    """Commands, late by the time under which they explain the measurements best."""
    steps = [round(lag / GRID_S) for lag in LAGS_S]
    late = [np.concatenate((np.repeat(command[:1], n, axis=0), command[: len(command) - n])) for n in steps]
    return late[int(np.argmax([np.abs(_correlation(c, measured)).max(axis=0).sum() for c in late]))]


def _modelled(arm: Arm, logs: Sequence[JointLog], command: Sequence[Array]) -> list[Array]:
    """What the arm's servos make of the commands, on the grid."""
    quantities = arm.nominal()
    low, high = quantities["low_stop"], quantities["high_stop"]
    known = [references(log, quantities["dead_time"], low, high, SIM_DT) for log in logs]
    steps = max(len(k) for k in known)
    reference = np.stack([np.pad(k, ((0, steps - len(k)), (0, 0)), mode="edge") for k in known])
    weight = [arm.chain.gravity_torque(np.clip(log.command, arm.chain.low, arm.chain.high)) for log in logs]
    grid = SIM_DT * np.arange(steps)
    gravity = np.stack(
        [np.stack([np.interp(grid, log.time, w) for w in ws.T], axis=1) for log, ws in zip(logs, weight, strict=True)]
    )
    # Friction keeps a joint where it began; that is taken from the measurement where it can be right.
    began = np.stack([log.position[0] for log in logs])
    start = np.where(np.abs(began - reference[:, 0]) < STICKS_RAD, began, reference[:, 0])
    wide = {name: np.tile(values, (len(logs), 1)) for name, values in quantities.items()}
    servo = Servo(wide, start, np.zeros_like(start), SIM_DT)
    track = np.empty((steps, *start.shape))
    for step in range(steps):
        servo.step(reference[:, step], gravity[:, step])
        track[step] = servo.position
    stride = round(GRID_S / SIM_DT)
    return [track[::stride, i][: len(c)] for i, c in enumerate(command)]


def _correlation(a: Array, b: Array) -> Array:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.outer(np.sqrt((a**2).sum(axis=0)), np.sqrt((b**2).sum(axis=0)))
    return (a.T @ b) / np.maximum(norm, 1e-9)


def _spread(values: Sequence[Array]) -> Array:
    """Standard deviation [J] rad within the recordings in which a joint moves; 0 where it never does."""
    own = np.array([v.std(axis=0) for v in values])
    moves = own > EXCITED_RAD
    return np.sqrt((own**2 * moves).sum(axis=0) / np.maximum(moves.sum(axis=0), 1))


@dataclass(frozen=True)
class _Regression:
    """Of every measured column m on every joint's prediction c [J, J]: share explained, slope, offset, deviations.

    The offset is the one at the slope ``straight``; ``centre`` [J] rad is the mean of the predictions.
    """

    share: Array
    slope: Array
    slope_std: Array
    offset: Array
    offset_std: Array
    straight: Array
    centre: Array

    def times(self, unit: Array) -> _Regression:
        """The same with measured columns multiplied by ``unit`` [J]."""
        return replace(
            self,
            slope=self.slope * unit,
            slope_std=self.slope_std * unit,
            offset=self.offset * unit,
            offset_std=self.offset_std * unit,
            straight=self.straight * unit,
        )


def _regressions(predicted: Sequence[Array], measured: Sequence[Array]) -> _Regression:
    joints = predicted[0].shape[1]
    cc, cm, mm, rows = np.zeros(joints), np.zeros((joints, joints)), np.zeros(joints), 0.0
    gap = []  # of the means of every recording
    for c, m in zip(predicted, measured, strict=True):
        size = min(len(c), len(m))
        c, m = c[:size], m[:size]  # noqa: PLW2901
        gap.append((c.mean(axis=0), m.mean(axis=0), size))
        c, m = c - c.mean(axis=0), m - m.mean(axis=0)  # noqa: PLW2901
        cc, mm = cc + (c**2).sum(axis=0), mm + (m**2).sum(axis=0)
        cm += c.T @ m
        rows += size
    slope = cm / np.maximum(cc[:, None], 1e-9)
    share = cm**2 / np.maximum(np.outer(cc, mm), 1e-12)
    # Neighbouring rows belong together: about one independent sample a second.
    seconds = max(rows * GRID_S, 1.0)
    left = np.maximum(mm[None] - slope**2 * cc[:, None], 0.0)
    slope_std = np.sqrt(left / np.maximum(cc[:, None], 1e-9) / seconds)
    # The zero is judged at the slope that a healthy or plainly scaled joint has, not at one that noise has bent.
    straight = np.where(np.abs(np.abs(slope) - 1.0) < STRAIGHT, np.sign(slope), slope)
    offsets = np.stack([m[None] - straight * c[:, None] for c, m, _ in gap])
    weights = np.array([size for *_, size in gap], dtype=np.float64)
    offset = np.average(offsets, axis=0, weights=weights)
    between = np.sqrt(np.average((offsets - offset) ** 2, axis=0, weights=weights) / len(gap))
    offset_std = np.sqrt(between**2 + left / max(rows, 1.0) / seconds)
    centre = np.average([c for c, *_ in gap], axis=0, weights=weights)
    return _Regression(share, slope, slope_std, offset, offset_std, straight, centre)


def _alike(command: Sequence[Array]) -> Array:
    """Correlation [J, J] of commands within the recordings."""
    return np.abs(_correlation(*(2 * [np.concatenate([c - c.mean(axis=0) for c in command])])))


def _assign(share: Array, alike: Array, moving: NDArray[np.bool_]) -> list[int]:
    """Measured column of every commanded joint: itself, unless another one follows it much better."""
    joints = len(share)
    worth = np.where(moving[:, None], share, 0.0) + 0.2 * np.eye(joints)
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
    spread: float,
    moves: int,
    plain: _Regression,
    fine: _Regression,
) -> JointFinding:
    faults = [f"is measured in the column of '{source}'"] if source != name else []
    if spread < EXCITED_RAD:
        return JointFinding(name, False, source, 1.0, np.nan, 0.0, np.nan, np.inf, tuple(faults))
    at = (joint, joint)
    if plain.share[at] < FOLLOWS:
        faults.append(f"does not follow its command ({plain.share[at]:.0%} of its motion is explained)")
        return JointFinding(name, True, source, 1.0, np.nan, 0.0, np.nan, np.inf, tuple(faults))
    by = fine if fine.share[at] >= FOLLOWS else plain
    size, slope_std, offset, offset_std = (float(v[at]) for v in (by.slope, by.slope_std, by.offset, by.offset_std))
    tolerance = SCALE_TOLERANCE + MODEL_RAD / (spread * float(np.sqrt(moves)))
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


def _clock(period: float, rate_hz: float, left: float, left_scaled: float) -> tuple[float, str]:
    """What stamps must be multiplied with, and a sentence.

    A log at another rate than the robot's is in order if its motion is as fast as the servos make it.

    Args:
        period: Of the rows, s.
        rate_hz: Of the robot's control.
        left: Share of the motion that the servo model leaves unexplained with these stamps.
        left_scaled: The same with stamps scaled to the robot's rate.
    """
    ratio = period * rate_hz
    told = f"rows are {period:.4f} s apart, the robot is controlled every {1.0 / rate_hz:.4f} s"
    if left_scaled < CLEARLY * left:
        pace = f"{1.0 / ratio:.2g} times too fast" if ratio < 1.0 else f"{ratio:.2g} times too slow"
        return 1.0 / ratio, f"{told}: by its stamps the motion is {pace}, the servos say that the robot's rate is right"
    if left < CLEARLY * left_scaled:
        return 1.0, f"{told}; the motion is as fast as the servos make it, so the log has another rate and is in order"
    return 1.0, f"{told}; whether its stamps are wrong cannot be told from this motion, a faster one shows it"


def apply_mapping(log: JointLog, mapping: Mapping[str, Any]) -> JointLog:
    """The recording as it should have been: measured columns in order, turned, scaled and shifted; stamps scaled.

    Args:
        log: A recording.
        mapping: Of :meth:`JointCheck.mapping`.

    Raises:
        ConfigError: The mapping has no usable entry for a joint of the recording.
    """
    names, position = log.joint_names, log.position.copy()
    velocity = None if log.velocity is None else log.velocity.copy()
    for index, name in enumerate(names):
        entry = mapping["joints"].get(name)
        if entry is None or entry["source"] not in names:
            raise ConfigError(f"the mapping does not fit '{log.name}': it has no usable entry for '{name}'")
        column, slope = names.index(entry["source"]), float(entry["slope"])
        position[:, index] = (log.position[:, column] - float(entry["offset"])) / slope
        if velocity is not None and log.velocity is not None:
            velocity[:, index] = log.velocity[:, column] / slope
    time = log.time * float(mapping["time_scale"])
    return replace(log, time=time, position=position, velocity=velocity)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a mapping file.

    Raises:
        ConfigError: It is missing or none.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {yaml_fault(error)}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ConfigError(f"{path} is no joint mapping; 'sim2real check-joints ROBOT LOG … --out' writes one")
    try:
        return _Mapping.model_validate(content).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path} is a damaged joint mapping: {place or 'it'}: {first['msg']}; 'sim2real check-joints' writes one"
        ) from error
