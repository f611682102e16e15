"""Kinematics of a tree of joints from its URDF, for many poses at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.runtime.urdf import WITHIN, Joint, joint_tree, link_names, parse_urdf, raise_faults, read_joints
from sim2real.types import Array

LIMIT_MARGIN = 0.25  # rad; nearer to its limit than this, or than a tenth of its range, a joint moves less
LIFTED_M = 1e-6
POSTURE_FADE_M = 0.05  # from this far the posture counts in full
POSTURE_RAD = 1.5  # so far from the middle of its range a joint is pulled back in full
POSTURE = 2.0
DOWN_WEIGHT_M = 0.02  # m/rad
STEP_DAMPING = 0.03  # m/rad; a twentieth to a tenth of an arm's reach


class Chain:
    """A tree of revolute, prismatic and fixed joints, some of which may mimic others.

    Positions of sliding joints are m, their speeds m/s and their efforts N, wherever rad and N·m are said.

    Args:
        urdf: The description; every moving joint needs a limit.
        text: Its content; read from ``urdf`` by default.

    Attributes:
        joint_names: Joints that move on their own, from the base outwards; one that mimics another is none of them.
        sliding: Which of them are prismatic [J].
        low, high: [J] rad; a continuous joint is taken within a turn.
        effort, velocity: Limits [J] in N·m and rad/s; an effort is 0 where the file gives none.
        link_names: All links.
        root: The link that is bolted down.
        joints: All joints, parents before children.
        columns: Position of every moving joint, by name: column, factor and offset.
        xml: The parsed description.
        remarks: What is taken of the file otherwise than it says, in sentences without a full stop.

    Raises:
        ConfigError: The file is missing, not a URDF, lacks a limit or a link, holds an impossible limit, or its links
            and joints are no tree. One error names all faults.
    """

    def __init__(self, urdf: Path, text: str | None = None) -> None:
        self.xml = parse_urdf(urdf, text)
        self.remarks: list[str] = []
        faults: list[str] = []
        links, joints = link_names(self.xml, urdf), read_joints(self.xml, urdf, faults)
        self._read_links(urdf, faults)
        raise_faults(urdf, faults, self.remarks)
        self.root, tree = joint_tree(links, joints, urdf)
        self.joints = tuple(tree)
        self.link_names = tuple(links)
        moving = [joint for joint in self.joints if joint.commanded]
        self.joint_names = tuple(joint.name for joint in moving)
        self.sliding = np.array([joint.kind == "prismatic" for joint in moving], dtype=np.bool_)
        self.low = np.array([joint.low for joint in moving])
        self.high = np.array([joint.high for joint in moving])
        self.effort = np.array([joint.effort for joint in moving])
        self.velocity = np.array([joint.velocity for joint in moving])
        self.columns = self._follow_leaders(urdf)
        self._remark_joints()

    def _read_links(self, urdf: Path, faults: list[str]) -> None:
        """Read what a subclass wants to know of the links; what is wrong with them is added to ``faults``."""

    def _follow_leaders(self, urdf: Path) -> dict[str, tuple[int, float, float]]:
        """Position of every moving joint, by name: column, factor and offset."""
        moving = {joint.name: joint for joint in self.joints if joint.moves}
        columns = {}
        for name, joint in moving.items():
            leader, factor, offset, passed = joint, 1.0, 0.0, {name}
            while leader.mimic:
                other, times, plus = leader.mimic
                factor, offset, leader = factor * times, offset + factor * plus, moving[other]
                if other in passed:
                    raise ConfigError(f"{urdf}: joint '{name}' mimics itself, through {', '.join(sorted(passed))}")
                passed.add(other)
            columns[name] = (self.joint_names.index(leader.name), factor, offset)
        return columns

    def _remark_joints(self) -> None:
        for kind, unit in (("revolute", "rad"), ("prismatic", "m")):
            endless = [f"'{joint.name}'" for joint in self.joints if joint.endless and joint.kind == kind]
            if endless:
                low, high = -WITHIN[kind], WITHIN[kind]
                within = f"they are commanded within {low:.4g} .. {high:.4g} {unit}"
                self.remarks.append(f"{', '.join(endless)} have no stops; {within}")
        for joint in self.joints:
            if joint.mimic:
                self.remarks.append(f"'{joint.name}' is no actuator of its own, it follows '{joint.mimic[0]}'")

    def range_of(self, joint: Joint) -> tuple[float, float]:
        """Positions between which a moving joint stays."""
        column, factor, offset = self.columns[joint.name]
        if not joint.mimic:
            return joint.low, joint.high
        ends = factor * float(self.low[column]) + offset, factor * float(self.high[column]) + offset
        return min(ends), max(ends)

    def position_of(self, joint: Joint, position: Array) -> Array:
        """Position [N] of a moving joint at poses [N, J]."""
        column, factor, offset = self.columns[joint.name]
        return factor * position[:, column] + offset if joint.mimic else position[:, column]

    def frames(self, position: Array) -> dict[str, tuple[Array, Array]]:
        """Origin [N, 3] m and rotation [N, 3, 3] of every link in the root's frame, at poses [N, J] rad."""
        count = len(position)
        frames = {self.root: (np.zeros((count, 3)), np.tile(np.eye(3), (count, 1, 1)))}
        for joint in self.joints:
            origin, rotation = frames[joint.parent]
            placed, shifted = rotation @ joint.rotation, origin + rotation @ joint.origin
            if joint.kind == "revolute":
                placed = placed @ _turn(joint.axis, self.position_of(joint, position))
            elif joint.kind == "prismatic":
                shifted = shifted + (placed @ joint.axis) * self.position_of(joint, position)[:, None]
            frames[joint.child] = (shifted, placed)
        return frames

    def jacobian(self, link: str, frames: Mapping[str, tuple[Array, Array]], point: Array | None = None) -> Array:
        """Jacobian: how ``link``'s origin moves with every joint [N, 3, J] m/rad, in the root's frame.

        Args:
            link: Its name.
            frames: Of :meth:`frames`.
            point: Another point of the link [N, 3] m, in the root's frame, in place of its origin.
        """
        tip = frames[link][0] if point is None else point
        result = np.zeros((len(tip), 3, len(self.joint_names)))
        for joint in self._path(link):
            (origin, rotation), (column, factor, _) = frames[joint.child], self.columns[joint.name]
            axis = rotation @ joint.axis
            result[:, :, column] += factor * (axis if joint.kind == "prismatic" else np.cross(axis, tip - origin))
        return result

    def _path(self, link: str) -> list[Joint]:
        """Moving joints from ``link`` inwards to the root."""
        parents = {joint.child: joint for joint in self.joints}
        path = []
        while link != self.root:
            path.append(parents[link])
            link = path[-1].parent
        return [joint for joint in path if joint.moves]

    def moving_joints(self, link: str) -> list[int]:
        """Columns of the joints that can move ``link``, from the base outwards."""
        return sorted({self.columns[joint.name][0] for joint in self._path(link)})

    def lifted_links(self) -> tuple[str, ...]:
        """Links whose height some joint changes: those that can touch the table."""
        frames = self._some_frames()
        return tuple(name for name in self.link_names if np.ptp(frames[name][0][:, 2]) > LIFTED_M)

    def upright_links(self) -> tuple[str, ...]:
        """Links that no joint lifts or tilts: the base, and what turns about the vertical on it."""
        frames, lifted = self._some_frames(), self.lifted_links()
        level = [name for name in self.link_names if np.ptp(frames[name][1][:, 2], axis=0).max() < LIFTED_M]
        return tuple(name for name in level if name not in lifted)

    def _some_frames(self) -> dict[str, tuple[Array, Array]]:
        return self.frames(np.random.default_rng(0).uniform(self.low, self.high, (16, len(self.low))))

    def joint_step(
        self,
        link: str,
        position: Array,
        frames: Mapping[str, tuple[Array, Array]],
        error: Array,
        damping: float,
        downwards: bool = False,
        posture: float = 0.0,
    ) -> Array:
        """Change of the joints [N, J] rad that moves ``link`` by ``error`` [N, 3] m, by damped least squares.

        A joint near a limit that the step would bring nearer counts for less, so that others take over (weighted
        least norm, Chan and Dubey 1995).

        Args:
            link: Its name.
            position: Poses [N, J] rad.
            frames: Of :meth:`frames` at these poses.
            error: Wanted displacement in the root's frame.
            damping: m/rad; the larger, the shorter the step near singular poses (Wampler 1986).
            downwards: Also turn the link's z axis against the root's; ``DOWN_WEIGHT_M`` of error a radian.
            posture: Share of the way to the middle of every joint's range that is taken besides, where it does not
                move the link, and less near the goal: without it arms fold into their limits and stay there.
        """
        jacobian = self.jacobian(link, frames)
        unfold = np.zeros_like(position)
        if posture:
            far = np.minimum(np.sqrt((error * error).sum(axis=1)) / POSTURE_FADE_M, 1.0)
            away = 0.5 * (self.low + self.high) - position
            # Nothing near the middle, where more would make a slow arm swing; all of it far from there.
            unfold = posture * far[:, None] * away * np.minimum(np.abs(away) / POSTURE_RAD, 1.0)
            unfold *= (jacobian != 0.0).any(axis=1)  # a gripper does not move the link
            error = error - (jacobian @ unfold[:, :, None])[:, :, 0]
        if downwards:
            axis = frames[link][1][:, :, 2]
            # Turning by (axis x down) brings the axis down; only the two horizontal components can.
            turn = np.stack((-axis[:, 1], axis[:, 0]), axis=1)
            jacobian = np.concatenate((jacobian, DOWN_WEIGHT_M * self._turning(link, frames)[:, :2]), axis=1)
            error = np.concatenate((error, DOWN_WEIGHT_M * turn), axis=1)
        free = _least_squares(jacobian, error, damping)
        room = np.where(free > 0.0, self.high - position, position - self.low)
        margin = np.minimum(LIMIT_MARGIN, 0.1 * (self.high - self.low))
        weight = np.minimum(np.maximum(room / margin, 0.0), 1.0)
        return unfold + weight * _least_squares(jacobian * weight[:, None, :], error, damping)

    def _turning(self, link: str, frames: Mapping[str, tuple[Array, Array]]) -> Array:
        """Angular jacobian: how ``link`` turns with every joint [N, 3, J], in the root's frame."""
        result = np.zeros((len(frames[link][0]), 3, len(self.joint_names)))
        for joint in self._path(link):
            if joint.kind == "revolute":
                column, factor, _ = self.columns[joint.name]
                result[:, :, column] += factor * (frames[joint.child][1] @ joint.axis)
        return result


def _least_squares(jacobian: Array, error: Array, damping: float) -> Array:
    transposed = jacobian.transpose(0, 2, 1)
    square = jacobian @ transposed + damping**2 * np.eye(jacobian.shape[1])
    return (transposed @ np.linalg.solve(square, error[:, :, None]))[:, :, 0]


def _turn(axis: Array, angle: Array) -> Array:
    """Rotation matrices [N, 3, 3] about a unit axis (Rodrigues)."""
    k = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * k + (1.0 - cosine) * (k @ k)
