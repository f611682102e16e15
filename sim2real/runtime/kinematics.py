"""Kinematics of a tree of joints from its URDF, for many poses at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sim2real.runtime.urdf import joint_tree, link_names, parse_urdf, read_joint
from sim2real.types import Array

LIMIT_MARGIN = 0.25  # rad; nearer to its limit than this a joint moves less
POSTURE_FADE_M = 0.05  # from this far the posture counts in full
POSTURE_RAD = 1.5  # so far from the middle of its range a joint is pulled back in full
POSTURE = 2.0
DOWN_WEIGHT_M = 0.02  # m/rad
STEP_DAMPING = 0.03  # m/rad; a twentieth to a tenth of an arm's reach


class Chain:
    """A tree of revolute and fixed joints.

    Args:
        urdf: The description; every moving joint needs a limit.
        text: Its content; read from ``urdf`` by default.

    Attributes:
        joint_names: Moving joints, from the base outwards.
        low, high: [J] rad.
        effort, velocity: Limits [J] in N·m and rad/s, positive.
        link_names: All links.
        root: The link that is bolted down.

    Raises:
        ConfigError: The file is missing, not a URDF, lacks a limit or a link, holds an impossible limit, or its links
            and joints are no tree.
    """

    def __init__(self, urdf: Path, text: str | None = None) -> None:
        self._xml = parse_urdf(urdf, text)
        links = link_names(self._xml, urdf)
        self.root, self._joints = joint_tree(links, [read_joint(j, urdf) for j in self._xml.findall("joint")], urdf)
        self.link_names = tuple(links)
        moving = [joint for joint in self._joints if joint.moves]
        self.joint_names = tuple(joint.name for joint in moving)
        self.low = np.array([joint.low for joint in moving])
        self.high = np.array([joint.high for joint in moving])
        self.effort = np.array([joint.effort for joint in moving])
        self.velocity = np.array([joint.velocity for joint in moving])

    def frames(self, position: Array) -> dict[str, tuple[Array, Array]]:
        """Origin [N, 3] m and rotation [N, 3, 3] of every link in the root's frame, at poses [N, J] rad."""
        count = len(position)
        frames = {self.root: (np.zeros((count, 3)), np.tile(np.eye(3), (count, 1, 1)))}
        column = 0
        for joint in self._joints:
            origin, rotation = frames[joint.parent]
            placed = rotation @ joint.rotation
            if joint.moves:
                placed = placed @ _turn(joint.axis, position[:, column])
                column += 1
            frames[joint.child] = (origin + rotation @ joint.origin, placed)
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
        parents = {joint.child: joint for joint in self._joints}
        columns = {name: index for index, name in enumerate(self.joint_names)}
        while link != self.root:
            joint = parents[link]
            if joint.moves:
                origin, rotation = frames[joint.child]
                result[:, :, columns[joint.name]] = np.cross(rotation @ joint.axis, tip - origin)
            link = joint.parent
        return result

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
        weight = np.minimum(np.maximum(room / LIMIT_MARGIN, 0.0), 1.0)
        return unfold + weight * _least_squares(jacobian * weight[:, None, :], error, damping)

    def _turning(self, link: str, frames: Mapping[str, tuple[Array, Array]]) -> Array:
        """Angular jacobian: how ``link`` turns with every joint [N, 3, J], in the root's frame."""
        result = np.zeros((len(frames[link][0]), 3, len(self.joint_names)))
        parents = {joint.child: joint for joint in self._joints}
        columns = {name: index for index, name in enumerate(self.joint_names)}
        while link != self.root:
            joint = parents[link]
            if joint.moves:
                result[:, :, columns[joint.name]] = frames[joint.child][1] @ joint.axis
            link = joint.parent
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
