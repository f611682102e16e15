"""Poses that reach starts from and aims at: clear of the table, chosen by kinematics and never made up."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sim2real.errors import ConfigError
from sim2real.robots.arm import Arm
from sim2real.robots.weights import remark
from sim2real.types import Array, Bools

_DRAWS = 200  # poses tried for one in the region; then one of the poses that were found before is taken
_PROBE = 8192
_LEAST_SHARE = 0.02  # of random poses that must lie in a region for it to be used
_REGIONS = (
    "in front of the base",
    "all around its first joint, above the base plane",
    "anywhere above the base plane",
    "anywhere, since hardly a pose is above the base plane: it seems to hang; mind what is around it",
)
_LEVER = 0.05  # of the arm's reach; a joint with less only turns the end effector
_LEAST_SPREAD_M, _LEAST_SPREAD = 0.1, 0.25  # median distance of two points: m, or in shares of the arm's reach


class Region(Protocol):
    """Bounds of :class:`sim2real.tasks.reach.ReachSettings`, in shares of the arm's reach and rad."""

    near: float
    far: float
    low: float
    high: float
    azimuth_rad: float
    span: float
    unfolded_rad: float


class Workspace:
    """Poses of one arm from which starts and goals are sampled.

    The region is the one that the settings describe, in front of the base. Where an arm has hardly a pose in there,
    because its base is elsewhere or it hangs, a wider one is taken, and a warning says so.

    Args:
        arm: The arm.
        region: Bounds.

    Raises:
        ConfigError: No joint moves the end effector, or not far.
    """

    def __init__(self, arm: Arm, region: Region) -> None:
        self._arm, self._region, self._lifted = arm, region, arm.chain.lifted_links()
        limits = arm.spec.commands
        middle = np.array([0.5 * (c.low + c.high) for c in limits])
        half = region.span * np.array([0.5 * (c.high - c.low) for c in limits])
        self._shoulder, self._length = self._find_shoulder()
        half = np.where(self._moves_far(), np.minimum(half, region.unfolded_rad), half)
        self._low, self._high = middle - half, middle + half
        poses = np.random.default_rng(0).uniform(self._low, self._high, (_PROBE, len(self._low)))
        for self._choice in range(len(_REGIONS)):
            good = self._inside(poses)
            if good.mean() >= _LEAST_SHARE:
                break
        self._pool = poses[good]
        if self._choice:
            where = _REGIONS[self._choice]
            remark(f"reach: '{arm.name}' has hardly a pose in front of its base; points are sampled {where}")
        self._must_spread()

    def sample(self, rng: np.random.Generator, count: int) -> Array:
        """Sample ``count`` poses [count, J] rad."""
        poses = np.empty((count, len(self._low)))
        open_rows = np.arange(count)
        for _ in range(_DRAWS):
            draw = rng.uniform(self._low, self._high, (len(open_rows), len(self._low)))
            good = self._inside(draw)
            poses[open_rows[good]] = draw[good]
            open_rows = open_rows[~good]
            if not len(open_rows):
                break
        if len(open_rows):
            poses[open_rows] = self._pool[rng.integers(len(self._pool), size=len(open_rows))]
        return poses

    def _inside(self, poses: Array) -> Bools:
        """Tell which poses [N, J] lie in the chosen region."""
        s, arm, choice = self._region, self._arm, self._choice
        frames = arm.chain.frames(poses)
        tip = frames[arm.ee][0]
        if choice == 3:
            return np.ones(len(poses), dtype=np.bool_)
        reach = arm.reach_m if choice == 0 else self._length
        lowest = np.min([frames[link][0][:, 2] for link in self._lifted or (arm.ee,)], axis=0)
        good: Bools = lowest > 0.5 * s.low * reach
        if choice == 0:
            distance = np.sqrt((tip[:, :2] ** 2).sum(axis=1))
            good &= (tip[:, 2] > s.low * reach) & (tip[:, 2] < s.high * reach)
            good &= (distance > s.near * reach) & (distance < s.far * reach)
            good &= np.abs(np.arctan2(tip[:, 1], tip[:, 0])) < s.azimuth_rad
        elif choice == 1:
            distance = np.sqrt(((tip - self._shoulder) ** 2).sum(axis=1))
            good &= (tip[:, 2] > s.low * reach) & (distance > s.near * reach) & (distance < s.far * reach)
        return good

    def _moves_far(self) -> Bools:
        """Tell which joints [J] move the end effector, rather than turn it on the spot."""
        chain, ee = self._arm.chain, self._arm.ee
        poses = np.random.default_rng(0).uniform(chain.low, chain.high, (64, len(chain.low)))
        lever = np.sqrt((chain.jacobian(ee, chain.frames(poses)) ** 2).sum(axis=1)).max(axis=0)
        far: Bools = ~chain.sliding & (lever > _LEVER * self._length)
        return far

    def _find_shoulder(self) -> tuple[Array, float]:
        """Find the first joint that moves the end effector [3] m, and how far that gets from it, m."""
        chain, ee = self._arm.chain, self._arm.ee
        moving = chain.moving_joints(ee)
        if not moving:
            raise ConfigError(f"no joint of '{self._arm.name}' moves '{ee}'; name another link as 'ee' in robot.yaml")
        first = next(joint for joint in chain.joints if joint.name == chain.joint_names[moving[0]])
        poses = np.random.default_rng(0).uniform(chain.low, chain.high, (4096, len(chain.low)))
        frames = chain.frames(poses)
        shoulder = np.median(frames[first.child][0], axis=0)
        return shoulder, float(np.quantile(np.sqrt(((frames[ee][0] - shoulder) ** 2).sum(axis=1)), 0.999))

    def _must_spread(self) -> None:
        """Two poses of the region must be apart, or standing still would be success."""
        tips = self._arm.chain.frames(self._pool)[self._arm.ee][0]
        apart = float(np.median(np.sqrt(((tips - np.roll(tips, len(tips) // 2, axis=0)) ** 2).sum(axis=1))))
        if apart < min(_LEAST_SPREAD_M, _LEAST_SPREAD * self._length):
            raise ConfigError(
                f"'{self._arm.ee}' of '{self._arm.name}' hardly moves: points to reach would be {1e3 * apart:.0f} mm "
                "apart; name another link as 'ee' in robot.yaml, or widen the task's region"
            )
