"""Masses, inertias and gravity of a chain: what the simulator knows of an arm beyond its kinematics."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from sim2real.errors import ConfigError
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.urdf import number, origin_of
from sim2real.types import Array

GRAVITY = 9.81
ROUNDING = 1e-6  # share of the largest moment of inertia that rounding in a file may be
FLAT = 1e-9  # a smallest moment of inertia below this share of the largest is none
_TENSOR = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Link:
    mass: float
    com: Array  # [3] m in the link's frame
    inertia: Array  # [3] kg m^2, about the axes of its inertial frame


class WeighedChain(Chain):
    """A tree of joints whose links have masses and inertias.

    Args:
        urdf: The description; every link but the root needs an inertial.

    Attributes:
        masses: kg by link.
        inertias: [3] kg·m² by link, about the axes of its inertial frame; a tensor that no body can have for its
            triangle inequality alone is mended to the nearest that one can, and a warning is logged.

    Raises:
        ConfigError: As of :class:`Chain`, or a mass is missing or an inertia impossible.
    """

    def __init__(self, urdf: Path) -> None:
        super().__init__(urdf)
        children = {joint.child for joint in self._joints}
        links = zip(self.link_names, self._xml.findall("link"), strict=True)
        self._links = {name: _read_link(link, urdf, name in children) for name, link in links}
        self.masses = {name: link.mass for name, link in self._links.items()}
        self.inertias = {name: link.inertia for name, link in self._links.items()}

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


def _read_link(link: ET.Element, urdf: Path, moves: bool) -> _Link:
    owner = f"{urdf}: link '{link.get('name')}'"
    inertial = link.find("inertial")
    mass, inertia = (inertial.find(part) if inertial is not None else None for part in ("mass", "inertia"))
    if inertial is not None and inertia is None:
        raise ConfigError(f"{owner} has an <inertial> without <inertia ixx=… iyy=… izz=…>; give it one")
    if not moves:  # the root is bolted down, its mass is nobody's business
        return _Link(0.0, np.zeros(3), np.zeros(3))
    if not number(mass, "value", owner, "0") > 0.0:
        raise ConfigError(f"{owner} has no positive mass; give it an <inertial>")
    com = origin_of(inertial, owner)[0]
    return _Link(number(mass, "value", owner), com, _read_inertia(inertia, owner))


def _read_inertia(inertia: ET.Element | None, owner: str) -> Array:
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
            _remark(f"{found}; none can exceed the sum of the other two, so {_listed(moments)} are taken instead")
    return (axes**2 * moments).sum(axis=1)


def _listed(values: Array) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


@cache
def _remark(text: str) -> None:
    """Tell it once, however often the file is read."""
    log.warning(text)
