"""Poses from which an arm's camera, or a camera that looks at the arm, sees something new; and a safe way through them.

Joint targets are sampled around the rest pose and kept if every link stays above the table and the hand away from the
base; what is kept is spread out, visited in short moves and at moderate speed, and every pose on the way is held to the
same limits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.collect.views import farthest_points
from sim2real.errors import ConfigError
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.spec import RobotSpec
from sim2real.types import Array

MARGIN_RAD = 0.1  # kept from every joint limit
CANDIDATES = 4000
STEP_RAD = 0.03  # between poses that are checked on the way
SLEW_SHARE = 0.25  # of the robot's own limit of speed
HAND_FROM_BASE_M = 0.1  # between the last two links' frames and those of the base and of the link on it
SHORTEST_MOVE_S = 0.4


@dataclass(frozen=True)
class ViewMotion:
    """Commands that go through view poses and rest at each.

    Attributes:
        time: [T] s, at the robot's control rate.
        command: [T, J] rad.
        views: The poses it rests at [V, J] rad.
    """

    time: Array
    command: Array
    views: Array


def plan_views(
    chain: Chain,
    spec: RobotSpec,
    ee: str,
    rest: Array,
    start: Array,
    count: int,
    reach: float = 0.6,
    clearance_m: float = 0.05,
    speed: float = 0.8,
    dwell_s: float = 0.8,
    seed: int = 0,
) -> ViewMotion:
    """Make a motion from ``start`` through ``count`` view poses and back.

    Args:
        chain: Kinematics; its base stands on the table.
        spec: Limits of position and speed, and the control rate.
        ee: The end effector's link. Joints that do not move it, like a gripper, stay where they are.
        rest: Rest pose [J] rad.
        start: Where the arm is [J] rad.
        count: View poses.
        reach: Fraction of the way from the rest pose to the joint limits that is used.
        clearance_m: Every moving link's frame stays this far above the base plane.
        speed: Largest joint speed, rad/s; never more than a quarter of the robot's own limit.
        dwell_s: Rest at every pose, so that images are sharp.
        seed: Of the draws.

    Raises:
        ConfigError: The start or rest pose is not safe, or fewer than two safe poses can be reached.
    """
    for pose, what in ((start, "start pose"), (rest, "rest pose")):
        if not safe(chain, pose[None], clearance_m)[0]:
            raise ConfigError(
                f"{what}: a link is less than {clearance_m} m above the table, or the hand is at the base; move the "
                "arm by hand, or allow less with --clearance"
            )
    low = np.array([c.low for c in spec.commands]) + MARGIN_RAD
    high = np.array([c.high for c in spec.commands]) - MARGIN_RAD
    low, high = rest + reach * (np.minimum(low, rest) - rest), rest + reach * (np.maximum(high, rest) - rest)
    moves = (chain.jacobian(ee, chain.frames(rest[None]))[0] != 0.0).any(axis=0) | _rotating(chain, ee, rest)
    candidates = np.random.default_rng(seed).uniform(low, high, (CANDIDATES, len(rest)))
    candidates[:, ~moves] = start[~moves]
    candidates = candidates[safe(chain, candidates, clearance_m)]
    if not len(candidates):
        raise ConfigError(f"no pose within {reach:.0%} of the joints' ranges is {clearance_m} m above the table")
    chosen, _ = farthest_points(candidates.astype(np.float32), count)
    home = np.where(moves, rest, start)
    fastest = np.minimum(speed, [SLEW_SHARE * c.slew_per_s for c in spec.commands])
    path, views = [start], []
    left = list(candidates[chosen])
    while left:
        left.sort(key=lambda pose: float(np.abs(pose - path[-1]).max()))
        target = left.pop(0)
        for through in ([target], [home, target]):
            if all(_clear(chain, a, b, clearance_m) for a, b in zip([path[-1], *through], through, strict=False)):
                path += through
                views.append(target)
                break
    if len(views) < 2:
        raise ConfigError("the arm gets from here to fewer than two safe view poses; move it to its rest pose first")
    back = [start] if _clear(chain, path[-1], start, clearance_m) else [home, start]
    if not all(_clear(chain, a, b, clearance_m) for a, b in zip([path[-1], *back], back, strict=False)):
        back = []  # it stays at the last view
    path += back
    command = _timed(np.array(path), fastest, dwell_s, 1.0 / spec.control_rate_hz)
    return ViewMotion(np.arange(len(command)) / spec.control_rate_hz, command, np.array(views))


def safe(chain: Chain, poses: Array, clearance_m: float) -> NDArray[np.bool_]:
    """Test poses [N, J]: True [N] where every moving link is above the table and the hand away from the base.

    Links are looked at by their frames only; joints between, as of an arm that folds flat, are the operator's to watch.
    """
    frames = chain.frames(poses)
    lifted, still = chain.lifted_links(), chain.upright_links()
    hand = sorted(lifted, key=lambda name: len(chain.moving_joints(name)))[-2:]
    high = np.min([frames[name][0][:, 2] for name in lifted], axis=0) >= clearance_m
    gaps = [np.linalg.norm(frames[tip][0] - frames[base][0], axis=1) for tip in hand for base in still]
    return high & (np.min(gaps, axis=0) >= HAND_FROM_BASE_M)


def _rotating(chain: Chain, ee: str, rest: Array) -> NDArray[np.bool_]:
    """Joints [J] that turn the end effector, even where they do not move its origin."""
    frame = chain.frames(rest[None])[ee][1][0]
    rotated = chain.frames(rest + 0.1 * np.eye(len(rest)))[ee][1]
    return np.abs(rotated - frame).max(axis=(1, 2)) > 1e-6


def _clear(chain: Chain, a: Array, b: Array, clearance_m: float) -> bool:
    steps = max(2, int(np.ceil(np.abs(b - a).max() / STEP_RAD)) + 1)
    return bool(safe(chain, a + np.linspace(0.0, 1.0, steps)[:, None] * (b - a), clearance_m).all())


def _timed(path: Array, fastest: Array, dwell_s: float, dt: float) -> Array:
    """Straight moves between poses, starting and ending softly (minimum jerk), with a rest at each [T, J]."""
    parts: list[Array] = [np.tile(path[0], (max(1, round(dwell_s / dt)), 1))]
    for a, b in itertools.pairwise(path):
        # The peak speed of a minimum-jerk move is 15/8 of its mean (Flash and Hogan 1985).
        seconds = max(SHORTEST_MOVE_S, float((15.0 / 8.0 * np.abs(b - a) / fastest).max()))
        s = np.linspace(0.0, 1.0, int(np.ceil(seconds / dt)) + 1)[1:, None]
        parts.append(a + (10 * s**3 - 15 * s**4 + 6 * s**5) * (b - a))
        parts.append(np.tile(b, (max(1, round(dwell_s / dt)), 1)))
    return np.concatenate(parts)


def joint_ranges(motion: ViewMotion, joints: Sequence[str]) -> dict[str, tuple[float, float]]:
    """From where to where every joint goes, rad."""
    low, high = motion.command.min(axis=0), motion.command.max(axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(joints, low, high, strict=True)}
