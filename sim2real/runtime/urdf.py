"""Joints of a URDF: parsed and checked, with all faults of a file in one error."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.runtime.geometry import quat_to_matrix, rpy_to_quat
from sim2real.types import Array

LONGEST_LIMIT_RAD = 12.6  # two turns, which some wrists make; limits beyond it were written in degrees
ENDLESS = 1000.0  # a limit beyond it is written for a joint without stops
WITHIN = {"revolute": float(np.pi), "prismatic": 1.0}  # of a joint without stops: rad, m to either side
XACRO = "{http://www.ros.org/wiki/xacro}"
KINDS = {"revolute": "revolute", "continuous": "revolute", "prismatic": "prismatic", "fixed": "fixed"}


@dataclass(frozen=True)
class Joint:
    """A joint: ``revolute`` (a continuous one within a turn), ``prismatic`` or ``fixed``.

    Attributes:
        low, high: rad, or m where it slides.
        effort: N·m or N; 0 where the file gives none.
        velocity: rad/s or m/s.
        mimic: The joint it follows, factor and offset; None for one that is commanded.
    """

    name: str
    kind: str
    origin: Array  # [3] m, child frame in the parent's
    rotation: Array  # [3, 3]
    axis: Array  # [3], unit, in the child's frame
    parent: str
    child: str
    low: float
    high: float
    effort: float
    velocity: float
    mimic: tuple[str, float, float] | None = None
    endless: bool = False  # it has no stops, and is commanded within ``WITHIN``

    @property
    def moves(self) -> bool:
        """Tell whether it is not fixed."""
        return self.kind != "fixed"

    @property
    def commanded(self) -> bool:
        """Tell whether it moves on its own."""
        return self.moves and self.mimic is None


def parse_urdf(urdf: Path, text: str | None = None) -> ET.Element:
    """Parse a URDF.

    Args:
        urdf: The file, for errors.
        text: Its content; read from ``urdf`` by default.

    Raises:
        ConfigError: The file is missing, not a URDF, or still xacro.
    """
    try:
        content = urdf.read_bytes() if text is None else text.encode()
    except OSError as error:
        raise ConfigError(f"{urdf} is not a readable URDF: {error}") from error
    try:
        root = ET.fromstring(content)
    except (ET.ParseError, ValueError) as error:
        if b"<xacro:" in content:
            raise ConfigError(_xacro(urdf)) from error
        raise ConfigError(f"{urdf} is not a readable URDF: {error}") from error
    if any(element.tag.startswith(XACRO) for element in root.iter()):
        raise ConfigError(_xacro(urdf))
    if root.tag != "robot":
        known = {"mujoco": "a MuJoCo model", "sdf": "an SDF model", "COLLADA": "a COLLADA mesh"}
        what = known.get(root.tag.rpartition("}")[2], f"XML of the kind <{root.tag}>")
        raise ConfigError(f"{urdf} is {what}, not a URDF, whose outermost element is <robot>; give the arm's URDF")
    return root


def _xacro(urdf: Path) -> str:
    plain = urdf.name.removesuffix(".xacro").removesuffix(".urdf") + ".urdf"
    if plain == urdf.name:
        plain = f"{urdf.stem}_expanded.urdf"
    return f"{urdf} is xacro, not a URDF: expand it (xacro {urdf.name} > {plain}) and name {plain} in robot.yaml"


def link_names(root: ET.Element, urdf: Path) -> list[str]:
    """Names of all links, in the file's order."""
    return [attribute(link, "name", f"{urdf}: a <link>") for link in root.findall("link")]


def raise_faults(urdf: Path, faults: Sequence[str], remarks: Sequence[str] = ()) -> None:
    """Raise one error for everything that is wrong with a file, and tell what else is worth knowing.

    Raises:
        ConfigError: There is a fault.
    """
    if len(faults) == 1 and not remarks:
        raise ConfigError(faults[0])
    if faults:
        lines = [fault.removeprefix(f"{urdf}: ") for fault in faults]
        count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
        listed = "".join(f"\n  {line}" for line in lines)
        besides = f"\nbesides, {'; '.join(remarks)}" if remarks else ""
        raise ConfigError(f"{urdf} has {count}:{listed}{besides}")


def joint_tree(links: Sequence[str], joints: Sequence[Joint], urdf: Path) -> tuple[str, list[Joint]]:
    """The root, and the joints from there outwards."""
    children, named = [joint.child for joint in joints], [joint.name for joint in joints]
    faults = [
        f"{urdf} has two joints '{name}'; give one of them another name"
        for name in sorted({name for name in named if named.count(name) > 1})
    ]
    for name in dict.fromkeys(links):
        if links.count(name) > 1:
            faults.append(f"{urdf} has two links '{name}'; give one of them another name")
        if children.count(name) > 1:
            faults.append(f"{urdf}: link '{name}' is the child of two joints; it can hang on one")
    for joint in joints:
        for end, link in (("parent", joint.parent), ("child", joint.child)):
            if link not in links:
                faults.append(f"{urdf}: joint '{joint.name}' has the {end} '{link}', which is no link of the file")
    raise_faults(urdf, faults)
    order = [name for name in links if name not in children]
    if len(order) > 1:
        first, *others = order
        raise ConfigError(
            f"{urdf} needs one root link, it has {', '.join(order)}; join them: put {', '.join(others)} on '{first}' "
            f'with <joint type="fixed"><parent link="{first}"/><child link="{others[0]}"/>…</joint>'
        )
    if not order:
        raise ConfigError(f"{urdf} needs one root link, it has none: every link is the child of a joint")
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


def read_joints(root: ET.Element, urdf: Path, faults: list[str]) -> list[Joint]:
    """Read all joints; what is wrong with them is added to ``faults``."""
    joints = []
    for element in root.findall("joint"):
        try:
            joints.append(_read_joint(element, urdf))
        except ConfigError as error:
            faults.append(str(error))
    moving = {joint.name: joint for joint in joints if joint.moves}
    for joint in moving.values():
        if joint.mimic and joint.mimic[0] not in moving and not faults:
            faults.append(f"{urdf}: joint '{joint.name}' mimics '{joint.mimic[0]}', which is no moving joint")
    return joints


def _read_joint(joint: ET.Element, urdf: Path) -> Joint:
    name = attribute(joint, "name", f"{urdf}: a <joint>")
    owner = f"{urdf}: joint '{name}'"
    written = attribute(joint, "type", owner)
    if written not in KINDS:
        raise ConfigError(f"{owner} is {written}; {', '.join(KINDS)} joints are known")
    kind = KINDS[written]
    axis, mimic = joint.find("axis"), joint.find("mimic")
    parent, child = (attribute(joint.find(end), "link", f"{owner}: its <{end}>") for end in ("parent", "child"))
    origin, rotation = origin_of(joint, owner)
    direction = numbers(axis.get("xyz"), owner) if axis is not None else np.array([1.0, 0.0, 0.0])
    if kind == "fixed":
        return Joint(name, kind, origin, rotation, direction, parent, child, 0.0, 0.0, 0.0, 0.0)
    if not direction.any():
        raise ConfigError(f"{owner} has no axis: it is 0 0 0")
    follows = None
    if mimic is not None:
        leader, factor = attribute(mimic, "joint", f"{owner}: its <mimic>"), number(mimic, "multiplier", owner, "1")
        follows = (leader, factor, number(mimic, "offset", owner, "0"))
    low = high = effort = velocity = 0.0
    endless = False
    if not follows:
        low, high, effort, velocity, endless = _limits(joint.find("limit"), written, owner)
    axis_ = direction / max(float(np.linalg.norm(direction)), 1e-12)
    where = (name, kind, origin, rotation, axis_, parent, child)
    return Joint(*where, low, high, effort, velocity, follows, endless)


def _limits(limit: ET.Element | None, written: str, owner: str) -> tuple[float, float, float, float, bool]:
    """Lower and upper end, effort (0: the file gives none), velocity, and whether there are no stops."""
    if limit is None:
        wanted = "" if written == "continuous" else "lower=… upper=… "
        raise ConfigError(f"{owner} has no limits; give it <limit {wanted}effort=… velocity=…>")
    low, high = (number(limit, key, owner, "0") for key in ("lower", "upper"))
    endless = written == "continuous" or max(-low, high) >= ENDLESS
    if endless:
        high = WITHIN[KINDS[written]]
        low = -high
    unit = "m" if written == "prismatic" else "rad"
    effort, velocity = number(limit, "effort", owner, "0"), number(limit, "velocity", owner, "0")
    wrong = []
    if not low < high:
        wrong.append(f"has no range: lower is {low:g}, upper {high:g} {unit}; write both, or make it a fixed joint")
    if max(-low, high) > LONGEST_LIMIT_RAD:
        reason = "URDF limits are radians" if unit == "rad" else "URDF limits of sliding joints are metres"
        much = "more than two turns" if unit == "rad" else "a long way"
        wrong.append(f"moves from {low:g} to {high:g} {unit}, {much}; {reason}")
    if effort < 0.0:
        wrong.append(f"has effort={effort:g} in its <limit>; write the joint's greatest torque, N·m")
    if not velocity > 0.0:
        wrong.append(f"has velocity={velocity:g} in its <limit>; write the joint's greatest speed, {unit}/s")
    if wrong:
        raise ConfigError(f"{owner} " + ". It also ".join(wrong))
    return low, high, effort, velocity, endless
