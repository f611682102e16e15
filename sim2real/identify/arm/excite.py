"""A motion that shows what a servo arm is made of, inside its limits and above its table.

Joint by joint: slow ramps both ways (friction, weight), small reversals (backlash, dead band), steps and rests (gain,
speed limit), a chirp (lag, inertia); at the end all joints together (multisine, Schoukens et al. 1988, low crest
factor by random phases). What is wanted is passed through a limiter of speed and acceleration, so no part exceeds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.files import write_text
from sim2real.recordings.tables import canonical_names
from sim2real.robots.arm import Arm
from sim2real.types import Array

MARGIN_RAD = 0.08  # kept from every joint limit
RAMPS = ((0.2, 0.5), (1.0, 1.0))  # rad/s, fraction of the range
REVERSALS_RAD = (0.02, 0.05, 0.1)
CHIRP_HZ = (0.1, 2.0)
SINES = 8
SINE_HZ = (0.05, 1.2)
REST_S = 1.0
SHRINK = 0.85
SPARE_M = 0.005  # kept besides, for what the limiter bends
LEAST_RANGE_RAD = 0.1


@dataclass(frozen=True)
class Excitation:
    """Commands for a recording.

    Attributes:
        time: [T] s, at the robot's control rate.
        command: [T, J] rad.
        low, high: [J] rad, what each joint alone may use from the rest pose.
    """

    time: Array
    command: Array
    low: Array
    high: Array

    def save(self, path: Path, joints: Sequence[str]) -> None:
        """Write the commands as CSV: ``time`` and one column ``des_dof_pos.JOINT`` a joint."""
        lines = [",".join(["time", *(f"des_dof_pos.{joint}" for joint in joints)])]
        for time, row in zip(self.time, self.command, strict=True):
            lines.append(",".join([f"{time:.4f}", *(f"{value:.6f}" for value in row)]))
        write_text(path, "\n".join(lines) + "\n")


def excite(
    arm: Arm,
    joints: Sequence[str],
    start: Array | None = None,
    duration_s: float = 360.0,
    speed: float = 1.5,
    acceleration: float = 8.0,
    clearance_m: float = 0.03,
    seed: int = 0,
) -> Excitation:
    """Make an excitation that starts at ``start`` and ends in the rest pose.

    Args:
        arm: The robot; its base stands on the table.
        joints: Which joints move; other names of theirs will do.
        start: Where the arm is [J] rad; its rest pose by default.
        duration_s: About how long it lasts.
        speed: Largest, rad/s; never more than the robot's own slew limit.
        acceleration: Largest, rad/s².
        clearance_m: Every link's frame but the base's stays this far above the base plane.
        seed: Of phases.

    Raises:
        ConfigError: A joint is unknown, a figure makes no sense, or the start or rest pose is out of limits or too low.
    """
    joints = list(dict.fromkeys(canonical_names(joints, arm.joints, arm.aliases)))
    for name, value, least in (
        ("duration", duration_s, 1.0), ("speed", speed, 1e-3), ("acceleration", acceleration, 1e-3),
        ("clearance", clearance_m, 0.0),
    ):  # fmt: skip
        if not least <= value < np.inf:
            raise ConfigError(f"{name} is {value:g}; it must be a number, at least {least:g}")
    unknown = [joint for joint in joints if joint not in arm.joints]
    if unknown or not joints:
        raise ConfigError(f"'{arm.name}' has no joints {unknown}; it has {', '.join(arm.joints)}")
    dt = 1.0 / arm.spec.control_rate_hz
    begin = arm.rest if start is None else start
    _must_be_safe(arm, begin, "start pose", clearance_m)
    _must_be_safe(arm, arm.rest, "rest pose", clearance_m)
    low, high = _safe_ranges(arm, clearance_m + SPARE_M)
    fastest = np.array([min(0.8 * command.slew_per_s, speed) for command in arm.spec.commands])
    moving = [arm.joints.index(joint) for joint in joints]
    part_s = duration_s / (len(moving) + 1)
    wanted = [np.tile(arm.rest, (round(2 * REST_S / dt), 1))]
    for joint in moving:
        wanted.append(np.tile(arm.rest, (round(part_s / dt), 1)))
        wanted[-1][:, joint] = _alone(arm.rest[joint], low[joint], high[joint], part_s, dt, float(fastest[joint]))
    waves = _waves(arm, moving, low, high, part_s, dt, np.random.default_rng(seed))
    wanted.append(_together(arm, waves, fastest, acceleration, dt, clearance_m + SPARE_M))
    wanted.append(np.tile(arm.rest, (round(4 * REST_S / dt), 1)))
    command = limit(np.concatenate(wanted), begin, fastest, acceleration, dt)
    if _lowest(arm, command) < clearance_m - 1e-9:
        raise ConfigError(f"from this start pose the way to the rest pose comes within {clearance_m} m of the table")
    return Excitation(np.arange(len(command)) / arm.spec.control_rate_hz, command, low, high)


def limit(wanted: Array, start: Array, speed: Array, acceleration: float, dt: float) -> Array:
    """Follow ``wanted`` [T, J] from ``start`` [J] as fast as speed [J] and acceleration allow."""
    position, velocity = start.astype(np.float64).copy(), np.zeros(len(start))
    result = np.empty_like(wanted)
    step = acceleration * dt
    for row, target in enumerate(wanted):
        gap = target - position
        # The speed from which it still stops in time, in whole steps.
        braking = step * (np.sqrt(0.25 + 2.0 * np.abs(gap) / (step * dt)) - 0.5)
        aim = np.sign(gap) * np.minimum(np.minimum(braking, speed), np.abs(gap) / dt)
        velocity = velocity + np.clip(aim - velocity, -step, step)
        position = position + dt * velocity
        result[row] = position
    return result


def _alone(rest: float, low: float, high: float, part_s: float, dt: float, fastest: float) -> Array:
    """One joint's own part, starting and ending at rest."""
    steps = round(part_s / dt)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    parts: list[Array] = []
    for ramp, reach in RAMPS:
        positions = [middle + reach * half, middle - reach * half]
        parts.append(_ramps(rest, (*positions, rest), min(ramp, 0.8 * fastest), dt))
    for size in REVERSALS_RAD:
        positions = [middle + s * min(size, half) for s in (1, -1, 1, -1)]
        parts.append(_ramps(rest if size == REVERSALS_RAD[0] else middle, (middle, *positions, middle), 0.1, dt))
    for position in (middle + 0.5 * half, middle - 0.5 * half, middle + 0.2 * half, middle - 0.2 * half, middle):
        parts.append(np.full(round(1.5 * REST_S / dt), position))
    used = sum(len(part) for part in parts)
    left = max(steps - used - round(2 * REST_S / dt), round(5.0 / dt))
    time = dt * np.arange(left)
    rate = np.log(CHIRP_HZ[1] / CHIRP_HZ[0])
    span = time[-1] + dt
    phase = 2 * np.pi * CHIRP_HZ[0] * span / rate * (np.exp(rate * time / span) - 1.0)
    hertz = CHIRP_HZ[0] * np.exp(rate * time / span)
    amplitude = np.minimum(0.7 * half, 0.7 * fastest / (2 * np.pi * hertz))
    parts.append(middle + amplitude * np.sin(phase))
    whole = np.concatenate([*parts, np.full(round(2 * REST_S / dt), rest)])
    if len(whole) > steps:  # too little time for everything: all of it, faster; the limiter keeps it safe
        whole = np.interp(np.linspace(0, len(whole) - 1, steps), np.arange(len(whole)), whole)
    return np.concatenate((whole, np.full(steps - len(whole), rest)))


def _ramps(start: float, positions: Sequence[float], speed: float, dt: float) -> Array:
    corners = [start, *positions]
    times = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(corners)) / speed + 0.2)))
    return np.interp(np.arange(0.0, times[-1], dt), times, corners)


def _waves(
    arm: Arm, moving: Sequence[int], low: Array, high: Array, part_s: float, dt: float, rng: np.random.Generator
) -> Array:
    """All joints at once, as departures from the rest pose [T, J] rad that fill every joint's range."""
    time = dt * np.arange(round(part_s / dt))
    fade = np.minimum(1.0, np.minimum(time, time[-1] - time) / 3.0)
    waves = np.zeros((len(time), len(arm.joints)))
    for joint in moving:
        hertz = rng.uniform(*SINE_HZ, SINES)
        phase = rng.uniform(0.0, 2.0 * np.pi, SINES)
        wave = np.sin(2 * np.pi * hertz * time[:, None] + phase).sum(axis=1)
        wave /= np.abs(wave).max()
        rest = arm.rest[joint]
        waves[:, joint] = fade * np.where(wave > 0, wave * (high[joint] - rest), wave * (rest - low[joint]))
    return waves


def _together(arm: Arm, waves: Array, fastest: Array, acceleration: float, dt: float, clearance_m: float) -> Array:
    """Poses [T, J] around the rest pose, as large as the table allows once speed and acceleration are limited."""
    size = 0.8
    while _lowest(arm, limit(arm.rest + size * waves, arm.rest, fastest, acceleration, dt)) < clearance_m:
        size *= SHRINK
        if size < 0.02:
            raise ConfigError(f"'{arm.name}' cannot move all its joints at once {clearance_m:.3f} m above the table")
    return arm.rest + size * waves


def _safe_ranges(arm: Arm, clearance_m: float) -> tuple[Array, Array]:
    """From the rest pose, how far each joint alone may go [J] rad."""
    low = np.array([c.low for c in arm.spec.commands]) + MARGIN_RAD
    high = np.array([c.high for c in arm.spec.commands]) - MARGIN_RAD
    for joint, name in enumerate(arm.joints):
        grid = np.linspace(low[joint], high[joint], 241)
        poses = np.tile(arm.rest, (len(grid), 1))
        poses[:, joint] = grid
        good = _heights(arm, poses) >= clearance_m
        at = int(np.abs(grid - arm.rest[joint]).argmin())
        below, above = np.nonzero(~good[:at])[0], np.nonzero(~good[at:])[0]
        low[joint] = grid[below[-1] + 1] if len(below) else grid[0]
        high[joint] = grid[at + above[0] - 1] if len(above) else grid[-1]
        if high[joint] - low[joint] < LEAST_RANGE_RAD:
            raise ConfigError(f"'{name}' can move by {high[joint] - low[joint]:.3f} rad only; give another rest pose")
    return low, high


def _heights(arm: Arm, poses: Array) -> Array:
    """Height [T] m of the lowest moving link's frame above the base plane."""
    frames = arm.chain.frames(poses)
    return np.min([frames[name][0][:, 2] for name in arm.chain.lifted_links()], axis=0)


def _lowest(arm: Arm, poses: Array) -> float:
    return float(_heights(arm, poses).min())


def _must_be_safe(arm: Arm, pose: Array, what: str, clearance_m: float) -> None:
    for command, value in zip(arm.spec.commands, pose, strict=True):
        if not command.low <= value <= command.high:
            raise ConfigError(f"{what}: '{command.name}' at {value:.3f} is outside {command.low} .. {command.high} rad")
    height = _lowest(arm, pose[None])
    if height < clearance_m:
        raise ConfigError(f"{what}: a link is {height:.3f} m above the table, less than {clearance_m} m")
