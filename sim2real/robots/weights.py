"""Masses, inertias and gravity of a chain: what the simulator knows of an arm beyond its kinematics."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.urdf import attribute, number, origin_of
from sim2real.types import Array

GRAVITY = 9.81
ROUNDING = 1e-6  # share of the largest moment of inertia that rounding in a file may be
FLAT = 1e-9  # a smallest moment of inertia below this share of the largest is none
POINT_M = 0.01  # radius of a fixed part whose inertia is written as zero
ESTIMATED_KG = 3.0  # of a link without <inertial>, of an arm that reaches 1 m; times its reach squared
STRENGTH = 3.0  # torque of a joint without effort, times the most that weight asks of it
_TENSOR = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Link:
    """Mass, centre of mass and inertia of a link."""

    mass: float
    com: Array  # [3] m in the link's frame
    inertia: Array  # [3] kg m^2, about the axes of its inertial frame
    axes: Array  # [3, 3], of its inertial frame in the link's
    written: bool = False  # as the file has it


_FRAME = Link(0.0, np.zeros(3), np.zeros(3), np.eye(3))  # a link without mass, or one that is bolted down


class WeighedChain(Chain):
    """A tree of joints whose links have masses and inertias.

    A link on a fixed joint needs no inertial: it may be a mere frame. What moves without any mass gets an estimated
    one, and a joint without effort an estimated torque; ``remarks`` say so.

    Args:
        urdf: The description.

    Attributes:
        urdf: Its file.
        masses: kg by link; 0 of frames.
        inertias: [3] kg·m² by link, about the axes of its inertial frame; a tensor that no body can have for its
            triangle inequality alone is mended to the nearest that one can, and a warning is logged.
        links: All of this, by link.
        estimated: Links whose mass, centre of mass and inertia are estimated.
        rewritten: Links whose inertial is not the file's own: these, frames, and points without a size.

    Raises:
        ConfigError: As of :class:`Chain`, or a mass or inertia is impossible.
    """

    def __init__(self, urdf: Path) -> None:
        self.urdf = urdf
        super().__init__(urdf)
        self._estimate_links()
        self.rewritten = {name for name, link in self.links.items() if not link.written} - {self.root}
        self.masses = {name: link.mass for name, link in self.links.items()}
        self.inertias = {name: link.inertia for name, link in self.links.items()}
        self._estimate_efforts()

    def _read_links(self, urdf: Path, faults: list[str]) -> None:
        on: dict[str, tuple[str, bool]] = {}  # link → what it hangs on, and whether it is fixed there
        for joint in self.xml.findall("joint"):
            parent, child = joint.find("parent"), joint.find("child")
            if parent is not None and child is not None:
                on[child.get("link", "")] = parent.get("link", ""), joint.get("type") == "fixed"
        self.links: dict[str, Link] = {}
        heavy, bare, massless = set(), list[str](), list[str]()
        for element in self.xml.findall("link"):
            name = attribute(element, "name", f"{urdf}: a <link>")
            hangs, fixed = on.get(name, ("", False))
            try:
                link = _read_link(element, urdf, not hangs, fixed)
            except ConfigError as error:
                faults.append(str(error))
                continue
            self.links[name] = link
            if link.mass > 0.0:
                heavy.add(_bearer(name, on))
            elif hangs and not fixed:
                (bare if element.find("inertial") is None else massless).append(name)
        faults += [
            f"{urdf}: link '{name}' has no positive mass; give it an <inertial>"
            for name in massless
            if name not in heavy
        ]
        self.estimated = tuple(name for name in bare if name not in heavy)
        if self.estimated:
            self.remarks.append(
                f"no <inertial> is given for {', '.join(self.estimated)}; they are estimated until you write them"
            )

    def _estimate_links(self) -> None:
        """Give moving links without any mass one of an arm of this size, halfway to the next joint."""
        lengths = {self.root: 0.0}
        for joint in self.joints:
            lengths[joint.child] = lengths[joint.parent] + float(np.linalg.norm(joint.origin))
        mass = ESTIMATED_KG * max(*lengths.values(), 0.1) ** 2
        for name in self.estimated:
            ends = [joint.origin for joint in self.joints if joint.parent == name]
            com = 0.5 * np.mean(ends, axis=0) if ends else np.zeros(3)
            radius = max(float(np.linalg.norm(com)), 2.0 * POINT_M)
            self.links[name] = Link(mass, com, np.full(3, 0.4 * mass * radius**2), np.eye(3))
        if not self.estimated or not self.effort.any():
            return
        # No heavier than the torques that the file gives can carry with ease.
        given = self.effort > 0.0
        most = float((STRENGTH * self._borne()[given] / self.effort[given]).max())
        for name in self.estimated if most > 1.0 else ():
            link = self.links[name]
            self.links[name] = replace(link, mass=link.mass / most, inertia=link.inertia / most)

    def _borne(self) -> Array:
        """Find the most that weight asks of every joint [J] N·m."""
        poses = np.random.default_rng(0).uniform(self.low, self.high, (64, len(self.low)))
        return np.abs(self.gravity_torque(poses)).max(axis=0)

    def _estimate_efforts(self) -> None:
        """Give joints without effort what carries the arm's weight with ease."""
        unknown = np.nonzero(self.effort == 0.0)[0]
        if not len(unknown):
            return
        # A joint is no weaker than those that it carries.
        borne = np.maximum.accumulate(self._borne()[::-1])[::-1]
        enough = STRENGTH * np.maximum(borne, np.maximum(0.1 * borne.max(), 0.1))
        self.effort[unknown] = [float(f"{value:.2g}") for value in enough[unknown]]
        taken = ", ".join(
            f"'{self.joint_names[i]}' ({self.effort[i]:g} {'N' if self.sliding[i] else 'N·m'})" for i in unknown
        )
        self.remarks.append(f"no effort is given for {taken}; these are taken until you write it in <limit>")

    def gravity_torque(
        self,
        position: Array,
        added_mass: Mapping[str, Array | float] = {},
        frames: Mapping[str, tuple[Array, Array]] | None = None,
        shift: Mapping[str, Array] = {},
    ) -> Array:
        """Torque that every joint must give to hold still [N, J] N·m at poses [N, J] rad, z upwards.

        Args:
            position: Poses.
            added_mass: kg on top of a link's own at its centre of mass, by link; a payload.
            frames: Of :meth:`frames` at these poses, where they are known already.
            shift: How far a link's centre of mass, with what was added, has moved in the link's frame [N, 3] m.
        """
        frames = self.frames(position) if frames is None else frames
        torque = np.zeros((len(position), len(self.joint_names)))
        # From the tips to the base: mass and mass times place of everything a joint carries.
        carried: dict[str, tuple[Array | float, Array]] = {}
        for joint in reversed(self.joints):
            name = joint.child
            (origin, rotation), link = frames[name], self.links[name]
            own = np.asarray(link.mass + added_mass.get(name, 0.0))
            mass, moment = carried.get(name, (0.0, np.zeros_like(origin)))
            mass = mass + own
            moment = moment + own[..., None] * (origin + rotation @ link.com)
            if name in shift:
                moment = moment + own[..., None] * _rotated(rotation, shift[name])
            above = carried.get(joint.parent, (0.0, np.zeros_like(origin)))
            carried[joint.parent] = (above[0] + mass, above[1] + moment)
            if joint.moves:
                column, factor, _ = self.columns[joint.name]
                arm = moment - np.asarray(mass)[..., None] * origin
                axis = rotation @ joint.axis
                if joint.kind == "prismatic":
                    torque[:, column] += factor * GRAVITY * mass * axis[:, 2]
                else:  # axis · (arm × gravity), against it, with gravity along -z
                    torque[:, column] += factor * -GRAVITY * (axis[:, 1] * arm[:, 0] - axis[:, 0] * arm[:, 1])
        return torque

    def added_inertia(
        self,
        added_mass: Mapping[str, Array],
        frames: Mapping[str, tuple[Array, Array]],
        shift: Mapping[str, Array] = {},
    ) -> Array:
        """Inertia that every joint feels besides its own [N, J] kg·m², of masses on top of the links'.

        A link's own inertia grows with its mass. Coupling between joints is left out, as it is of the arm itself.

        Args:
            added_mass: kg [N] by link, negative where a link is lighter.
            frames: Of :meth:`frames`.
            shift: As of :meth:`gravity_torque`.
        """
        count = len(frames[self.root][0])
        result = np.zeros((count, len(self.joint_names)))
        # From the tips to the base: sums of mass, mass times place, its square, and the links' own inertia.
        zero = (np.zeros(count), np.zeros((count, 3)), np.zeros((count, 3, 3)), np.zeros((count, 3, 3)))
        carried: dict[str, tuple[Array, ...]] = {}
        for joint in reversed(self.joints):
            name = joint.child
            (origin, rotation), link = frames[name], self.links[name]
            here = carried.get(name, zero)
            if name in added_mass or name in shift:
                added, place = added_mass.get(name, np.zeros(count)), origin + rotation @ link.com
                own = np.zeros((count, 3, 3))
                if link.mass > 0.0:
                    axes = rotation @ link.axes
                    own = (axes * link.inertia) @ axes.transpose(0, 2, 1) * (added / link.mass)[:, None, None]
                moved = place + _rotated(rotation, shift[name]) if name in shift else place
                here = _with_point(_with_point(here, link.mass + added, moved), np.full(count, -link.mass), place)
                here = (*here[:3], here[3] + own)
            above = carried.get(joint.parent, zero)
            carried[joint.parent] = tuple(a + b for a, b in zip(above, here, strict=True))
            if joint.moves:
                column, factor, _ = self.columns[joint.name]
                axis = rotation @ joint.axis
                felt = here[0] if joint.kind == "prismatic" else _about(axis, origin, here)
                result[:, column] += factor**2 * felt
        return result


def _with_point(carried: tuple[Array, ...], mass: Array, place: Array) -> tuple[Array, ...]:
    moment = mass[:, None] * place
    return carried[0] + mass, carried[1] + moment, carried[2] + moment[:, :, None] * place[:, None], carried[3]


def _about(axis: Array, origin: Array, carried: tuple[Array, ...]) -> Array:
    """Moment of inertia [N] about unit axes [N, 3] through ``origin`` [N, 3]."""
    mass, moment, square, own = carried
    from_origin = np.trace(square, axis1=1, axis2=2) - 2.0 * (origin * moment).sum(axis=1)
    from_origin = from_origin + mass * (origin * origin).sum(axis=1)
    along = (axis * origin).sum(axis=1)
    on_axis = _form(axis, square) - 2.0 * along * (axis * moment).sum(axis=1) + mass * along**2
    return from_origin - on_axis + _form(axis, own)


def _form(axis: Array, tensor: Array) -> Array:
    return ((axis[:, None] @ tensor)[:, 0] * axis).sum(axis=1)


def _rotated(rotation: Array, vector: Array) -> Array:
    return (rotation @ vector[:, :, None])[:, :, 0]


def _bearer(name: str, on: Mapping[str, tuple[str, bool]]) -> str:
    """The link that carries ``name``: the end of its chain of fixed joints."""
    passed = {name}
    while on.get(name, ("", False))[1] and on[name][0] not in passed:
        name = on[name][0]
        passed.add(name)
    return name


def _read_link(link: ET.Element, urdf: Path, root: bool, fixed: bool) -> Link:
    """Read a link's inertial; of the root nothing, since it is bolted down."""
    owner = f"{urdf}: link '{link.get('name')}'"
    inertial = link.find("inertial")
    if inertial is None:
        return _FRAME
    mass, inertia = number(inertial.find("mass"), "value", owner, "0"), inertial.find("inertia")
    if inertia is None:
        raise ConfigError(f"{owner} has an <inertial> without <inertia ixx=… iyy=… izz=…>; give it one")
    if mass < 0.0:
        raise ConfigError(f"{owner} has no positive mass; give it an <inertial>")
    if root or mass == 0.0:
        return _FRAME
    com, axes = origin_of(inertial, owner)
    if fixed and not any(number(inertia, key, owner, "0") for key in _TENSOR):
        return Link(mass, com, np.full(3, 0.4 * mass * POINT_M**2), axes)
    try:
        return Link(mass, com, _read_inertia(inertia, owner), axes, True)
    except ConfigError as error:
        if not fixed:
            raise
        remark(f"{error}; it is fixed to another link, so a small ball of its mass is taken instead")
        return Link(mass, com, np.full(3, 0.4 * mass * POINT_M**2), axes)


def _read_inertia(inertia: ET.Element, owner: str) -> Array:
    """Moments of inertia [3] kg·m² about the axes of the inertial frame, of a tensor that a body can have."""
    values = [number(inertia, key, owner, None if key in _TENSOR[:3] else "0") for key in _TENSOR]
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
            remark(f"{found}; none can exceed the sum of the other two, so {_listed(moments)} are taken instead")
    return (axes**2 * moments).sum(axis=1)


def _listed(values: Array) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


@cache
def remark(text: str) -> None:
    """Tell it once, however often the file is read."""
    log.warning(text)
