"""Kinematics and gravity of a serial chain from its URDF, for many poses at once."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.runtime.geometry import quat_to_matrix, rpy_to_quat
from sim2real.types import Array

GRAVITY = 9.81
LIMIT_MARGIN = 0.25  # rad; nearer to its limit than this a joint moves less
POSTURE_FADE_M = 0.05  # from this far the posture counts in full
POSTURE_RAD = 1.5  # so far from the middle of its range a joint is pulled back in full
POSTURE = 2.0
DOWN_WEIGHT_M = 0.02  # m/rad
STEP_DAMPING = 0.03  # m/rad; a twentieth to a tenth of an arm's reach
LONGEST_LIMIT_RAD = 7.0  # a turn and a little; limits beyond it were written in degrees
ROUNDING = 1e-6  # share of the largest moment of inertia that rounding in a file may be
FLAT = 1e-9  # a smallest moment of inertia below this share of the largest is none
_TENSOR = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Link:
    mass: float
    com: Array  # [3] m in the link's frame
    inertia: Array  # [3] kg m^2, about the axes of its inertial frame


@dataclass(frozen=True)
class _Joint:
    name: str
    moves: bool
    origin: Array  # [3] m, child frame in the parent's
    rotation: Array  # [3, 3]
    axis: Array  # [3], unit, in the child's frame
    parent: str
    child: str
    low: float
    high: float
    effort: float
    velocity: float


class Chain:
    """A tree of revolute and fixed joints with point-accurate masses.

    Args:
        urdf: The description; every link needs an inertial, every moving joint a limit.
        text: Its content; read from ``urdf`` by default.

    Attributes:
        joint_names: Moving joints, from the base outwards.
        low, high: [J] rad.
        effort, velocity: Limits [J] in N·m and rad/s, positive.
        link_names: All links.
        masses: kg by link.
        inertias: [3] kg·m² by link, about the axes of its inertial frame; a tensor that no body can have for its
            triangle inequality alone is mended to the nearest that one can, and a warning is logged.

    Raises:
        ConfigError: The file is missing, not a URDF, lacks a mass, a limit or a link, holds an impossible inertia or
            limit, or its links and joints are no tree.
    """

    def __init__(self, urdf: Path, text: str | None = None) -> None:
        try:
            root = ET.fromstring(urdf.read_text() if text is None else text)
        except (OSError, UnicodeDecodeError, ET.ParseError) as error:
            raise ConfigError(f"{urdf} is not a readable URDF: {error}") from error
        joints = [_read_joint(joint, urdf) for joint in root.findall("joint")]
        children = {joint.child for joint in joints}
        links = [_attribute(link, "name", f"{urdf}: a <link>") for link in root.findall("link")]
        self.root, self._joints = _tree(links, joints, urdf)
        self._links = {
            name: _read_link(link, urdf, name in children)
            for name, link in zip(links, root.findall("link"), strict=True)
        }
        moving = [joint for joint in self._joints if joint.moves]
        self.joint_names = tuple(joint.name for joint in moving)
        self.low = np.array([joint.low for joint in moving])
        self.high = np.array([joint.high for joint in moving])
        self.effort = np.array([joint.effort for joint in moving])
        self.velocity = np.array([joint.velocity for joint in moving])
        self.link_names = tuple(self._links)
        self.masses = {name: link.mass for name, link in self._links.items()}
        self.inertias = {name: link.inertia for name, link in self._links.items()}

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

    def jacobian(self, link: str, frames: Mapping[str, tuple[Array, Array]]) -> Array:
        """How ``link``'s origin moves with every joint [N, 3, J] m/rad, in the root's frame.

        Args:
            link: Its name.
            frames: Of :meth:`frames`.
        """
        tip = frames[link][0]
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
        """How ``link`` turns with every joint [N, 3, J], in the root's frame."""
        result = np.zeros((len(frames[link][0]), 3, len(self.joint_names)))
        parents = {joint.child: joint for joint in self._joints}
        columns = {name: index for index, name in enumerate(self.joint_names)}
        while link != self.root:
            joint = parents[link]
            if joint.moves:
                result[:, :, columns[joint.name]] = frames[joint.child][1] @ joint.axis
            link = joint.parent
        return result

    def gravity_torque(
        self,
        position: Array,
        added_mass: Mapping[str, Array | float] = {},
        frames: Mapping[str, tuple[Array, Array]] | None = None,
    ) -> Array:
        """Torque that every joint must give to hold still [N, J] N·m at poses [N, J] rad, z upwards.

        Args:
            position: Poses.
            added_mass: kg on top of a link's own at its centre of mass, by link; a payload.
            frames: Of :meth:`frames` at these poses, where they are known already.
        """
        frames = self.frames(position) if frames is None else frames
        torque = np.zeros((len(position), len(self.joint_names)))
        # From the tips to the base: mass and mass times place of everything a joint carries.
        carried: dict[str, tuple[Array | float, Array]] = {}
        column = len(self.joint_names)
        for joint in reversed(self._joints):
            name = joint.child
            (origin, rotation), link = frames[name], self._links[name]
            own = np.asarray(link.mass + added_mass.get(name, 0.0))
            mass, moment = carried.get(name, (0.0, np.zeros_like(origin)))
            mass = mass + own
            moment = moment + own[..., None] * (origin + rotation @ link.com)
            above = carried.get(joint.parent, (0.0, np.zeros_like(origin)))
            carried[joint.parent] = (above[0] + mass, above[1] + moment)
            if joint.moves:
                column -= 1
                arm = moment - np.asarray(mass)[..., None] * origin
                axis = rotation @ joint.axis
                # axis · (arm × gravity), against it, with gravity along -z
                torque[:, column] = -GRAVITY * (axis[:, 1] * arm[:, 0] - axis[:, 0] * arm[:, 1])
        return torque


def _least_squares(jacobian: Array, error: Array, damping: float) -> Array:
    transposed = jacobian.transpose(0, 2, 1)
    square = jacobian @ transposed + damping**2 * np.eye(jacobian.shape[1])
    return (transposed @ np.linalg.solve(square, error[:, :, None]))[:, :, 0]


def _turn(axis: Array, angle: Array) -> Array:
    """Rotation matrices [N, 3, 3] about a unit axis (Rodrigues)."""
    k = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * k + (1.0 - cosine) * (k @ k)


def _tree(links: Sequence[str], joints: Sequence[_Joint], urdf: Path) -> tuple[str, list[_Joint]]:
    """The root, and the joints from there outwards."""
    children, named = [joint.child for joint in joints], [joint.name for joint in joints]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise ConfigError(f"{urdf} has two joints '{twice[0]}'; give one of them another name")
    for name in links:
        if links.count(name) > 1:
            raise ConfigError(f"{urdf} has two links '{name}'; give one of them another name")
        if children.count(name) > 1:
            raise ConfigError(f"{urdf}: link '{name}' is the child of two joints; it can hang on one")
    for joint in joints:
        for end, link in (("parent", joint.parent), ("child", joint.child)):
            if link not in links:
                raise ConfigError(f"{urdf}: joint '{joint.name}' has the {end} '{link}', which is no link of the file")
    order = [name for name in links if name not in children]
    if len(order) != 1:
        raise ConfigError(f"{urdf} needs one root link, it has {', '.join(order) or 'none'}")
    outwards = []
    for name in order:  # grows while it runs: parents before children
        hanging = [joint for joint in joints if joint.parent == name]
        outwards += hanging
        order += [joint.child for joint in hanging]
    lost = [name for name in links if name not in order]
    if lost:
        raise ConfigError(f"{urdf}: no joint leads from the root '{order[0]}' to {', '.join(lost)}; they form a ring")
    return order[0], outwards


def _attribute(element: ET.Element | None, key: str, owner: str) -> str:
    text = None if element is None else element.get(key)
    if text is None:
        raise ConfigError(f"{owner} has no '{key}'; give it one")
    return text


def _numbers(text: str | None, owner: str) -> Array:
    """Three numbers; zeros where there is no text."""
    try:
        numbers = np.array([float(value) for value in (text or "0 0 0").split()])
    except ValueError as error:
        raise ConfigError(f"{owner}: '{text}' is not numbers") from error
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise ConfigError(f"{owner}: '{text}' is not three finite numbers")
    return numbers


def _number(element: ET.Element | None, key: str, owner: str, otherwise: str | None = None) -> float:
    """An attribute; ``otherwise`` where it is missing, an error without."""
    text = otherwise if element is None else element.get(key, otherwise)
    if text is None:
        raise ConfigError(f"{owner} has no '{key}'; give it one")
    try:
        number = float(text)
    except ValueError as error:
        raise ConfigError(f"{owner}: {key} is '{text}', not a number") from error
    if not np.isfinite(number):
        raise ConfigError(f"{owner}: {key} is '{text}', not a finite number")
    return number


def _origin(element: ET.Element | None, owner: str) -> tuple[Array, Array]:
    origin = element.find("origin") if element is not None else None
    if origin is None:
        return np.zeros(3), np.eye(3)
    rotation = quat_to_matrix(rpy_to_quat(_numbers(origin.get("rpy"), owner)[None]))[0]
    return _numbers(origin.get("xyz"), owner), rotation


def _read_link(link: ET.Element, urdf: Path, moves: bool) -> _Link:
    owner = f"{urdf}: link '{link.get('name')}'"
    inertial = link.find("inertial")
    mass, inertia = (inertial.find(part) if inertial is not None else None for part in ("mass", "inertia"))
    if inertial is not None and inertia is None:
        raise ConfigError(f"{owner} has an <inertial> without <inertia ixx=… iyy=… izz=…>; give it one")
    if not moves:  # the root is bolted down, its mass is nobody's business
        return _Link(0.0, np.zeros(3), np.zeros(3))
    if not _number(mass, "value", owner, "0") > 0.0:
        raise ConfigError(f"{owner} has no positive mass; give it an <inertial>")
    com = _origin(inertial, owner)[0]
    return _Link(_number(mass, "value", owner), com, _read_inertia(inertia, owner))


def _read_inertia(inertia: ET.Element | None, owner: str) -> Array:
    """Moments of inertia [3] kg·m² about the axes of the inertial frame, of a tensor that a body can have."""
    values = [_number(inertia, key, owner, None if key in _TENSOR[:3] else "0") for key in _TENSOR]
    xx, yy, zz, xy, xz, yz = values
    moments, axes = np.linalg.eigh(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
    written = ", ".join(f"{key}={value:g}" for key, value in zip(_TENSOR, values, strict=True))
    found = f"{owner} has the inertia {written} with the principal moments {_listed(moments)} kg·m²"
    if not moments[0] > FLAT * abs(moments[2]):
        raise ConfigError(f"{found}; all must be positive: check signs and the values off the diagonal")
    excess = moments[2] - moments[0] - moments[1]
    if excess > 0.0:
        # The nearest tensor, by the sum of squared differences, whose largest moment is the sum of the others.
        moments = moments + excess / 3.0 * np.array([1.0, 1.0, -1.0])
        if excess > ROUNDING * moments[2]:
            _remark(f"{found}; none can exceed the sum of the other two, so {_listed(moments)} are taken instead")
    return (axes**2 * moments).sum(axis=1)


def _listed(values: Array) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


@cache
def _remark(text: str) -> None:
    """Tell it once, however often the file is read."""
    log.warning(text)


def _read_joint(joint: ET.Element, urdf: Path) -> _Joint:
    name = _attribute(joint, "name", f"{urdf}: a <joint>")
    owner = f"{urdf}: joint '{name}'"
    kind = _attribute(joint, "type", owner)
    if kind not in ("revolute", "fixed"):
        raise ConfigError(f"{owner} is {kind}; revolute and fixed joints are known")
    axis = joint.find("axis")
    parent, child = (_attribute(joint.find(end), "link", f"{owner}: its <{end}>") for end in ("parent", "child"))
    moves = kind == "revolute"
    low, high, effort, velocity = _limits(joint.find("limit"), owner) if moves else (0.0,) * 4
    direction = _numbers(axis.get("xyz"), owner) if axis is not None else np.array([1.0, 0.0, 0.0])
    if moves and not direction.any():
        raise ConfigError(f"{owner} has no axis: it is 0 0 0")
    origin, rotation = _origin(joint, owner)
    return _Joint(
        name,
        moves,
        origin,
        rotation,
        direction / max(float(np.linalg.norm(direction)), 1e-12),
        parent,
        child,
        low,
        high,
        effort,
        velocity,
    )


def _limits(limit: ET.Element | None, owner: str) -> tuple[float, float, float, float]:
    """Lower and upper rad, effort N·m, velocity rad/s."""
    if limit is None:
        raise ConfigError(f"{owner} has no limits; give it <limit lower=… upper=… effort=… velocity=…>")
    low, high, effort, velocity = (_number(limit, key, owner) for key in ("lower", "upper", "effort", "velocity"))
    if not low < high:
        raise ConfigError(f"{owner} has no range: lower is {low:g}, upper {high:g} rad")
    if max(-low, high) > LONGEST_LIMIT_RAD:
        raise ConfigError(f"{owner} moves from {low:g} to {high:g} rad, more than a turn; URDF limits are radians")
    for key, value, what in (("effort", effort, "torque, N·m"), ("velocity", velocity, "speed, rad/s")):
        if not value > 0.0:
            raise ConfigError(f"{owner} has {key}={value:g} in its <limit>; write the joint's greatest {what}")
    return low, high, effort, velocity
