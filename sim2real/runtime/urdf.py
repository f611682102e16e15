"""Joints of a URDF: parsed and checked, with one clear error a fault."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.runtime.geometry import quat_to_matrix, rpy_to_quat
from sim2real.types import Array

LONGEST_LIMIT_RAD = 7.0  # a turn and a little; limits beyond it were written in degrees


@dataclass(frozen=True)
class Joint:
    """A revolute or fixed joint."""

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


def parse_urdf(urdf: Path, text: str | None = None) -> ET.Element:
    """Parse a URDF.

    Args:
        urdf: The file, for errors.
        text: Its content; read from ``urdf`` by default.

    Raises:
        ConfigError: The file is missing or not a URDF.
    """
    try:
        return ET.fromstring(urdf.read_text() if text is None else text)
    except (OSError, UnicodeDecodeError, ET.ParseError) as error:
        raise ConfigError(f"{urdf} is not a readable URDF: {error}") from error


def link_names(root: ET.Element, urdf: Path) -> list[str]:
    """Names of all links, in the file's order."""
    return [attribute(link, "name", f"{urdf}: a <link>") for link in root.findall("link")]


def joint_tree(links: Sequence[str], joints: Sequence[Joint], urdf: Path) -> tuple[str, list[Joint]]:
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


def attribute(element: ET.Element | None, key: str, owner: str) -> str:
    """Read a text attribute; raises ConfigError, naming ``owner``, where it is missing."""
    text = None if element is None else element.get(key)
    if text is None:
        raise ConfigError(f"{owner} has no '{key}'; give it one")
    return text


def numbers(text: str | None, owner: str) -> Array:
    """Three numbers; zeros where there is no text."""
    try:
        numbers = np.array([float(value) for value in (text or "0 0 0").split()])
    except ValueError as error:
        raise ConfigError(f"{owner}: '{text}' is not numbers") from error
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise ConfigError(f"{owner}: '{text}' is not three finite numbers")
    return numbers


def number(element: ET.Element | None, key: str, owner: str, otherwise: str | None = None) -> float:
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


def origin_of(element: ET.Element | None, owner: str) -> tuple[Array, Array]:
    """Read an element's origin: position [3] m and rotation [3, 3]."""
    origin = element.find("origin") if element is not None else None
    if origin is None:
        return np.zeros(3), np.eye(3)
    rotation = quat_to_matrix(rpy_to_quat(numbers(origin.get("rpy"), owner)[None]))[0]
    return numbers(origin.get("xyz"), owner), rotation


def read_joint(joint: ET.Element, urdf: Path) -> Joint:
    """Read a joint; raises ConfigError where it is of another type, or lacks a limit or an axis."""
    name = attribute(joint, "name", f"{urdf}: a <joint>")
    owner = f"{urdf}: joint '{name}'"
    kind = attribute(joint, "type", owner)
    if kind not in ("revolute", "fixed"):
        raise ConfigError(f"{owner} is {kind}; revolute and fixed joints are known")
    axis = joint.find("axis")
    parent, child = (attribute(joint.find(end), "link", f"{owner}: its <{end}>") for end in ("parent", "child"))
    moves = kind == "revolute"
    low, high, effort, velocity = _limits(joint.find("limit"), owner) if moves else (0.0,) * 4
    direction = numbers(axis.get("xyz"), owner) if axis is not None else np.array([1.0, 0.0, 0.0])
    if moves and not direction.any():
        raise ConfigError(f"{owner} has no axis: it is 0 0 0")
    origin, rotation = origin_of(joint, owner)
    return Joint(
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
    low, high, effort, velocity = (number(limit, key, owner) for key in ("lower", "upper", "effort", "velocity"))
    if not low < high:
        raise ConfigError(f"{owner} has no range: lower is {low:g}, upper {high:g} rad")
    if max(-low, high) > LONGEST_LIMIT_RAD:
        raise ConfigError(f"{owner} moves from {low:g} to {high:g} rad, more than a turn; URDF limits are radians")
    for key, value, what in (("effort", effort, "torque, N·m"), ("velocity", velocity, "speed, rad/s")):
        if not value > 0.0:
            raise ConfigError(f"{owner} has {key}={value:g} in its <limit>; write the joint's greatest {what}")
    return low, high, effort, velocity
