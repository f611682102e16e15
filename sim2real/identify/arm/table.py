"""The table that a recorded arm presses on: where it is, how soft, and what it asks of the joints.

The contact is one vertical spring at the arm's lowest point. Its softness is the arm's own bending more than the
table's: encoders do not see it.
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sim2real.errors import ConfigError
from sim2real.recordings.logs import JointLog
from sim2real.robots.arm import Arm
from sim2real.runtime.urdf import numbers, origin_of, parse_urdf
from sim2real.types import Array

DISPROVED_M = 0.025  # a measured pose that is so far inside a table disproves it
ROUND = 8  # points on the rim of a cylinder


@dataclass(frozen=True)
class Table:
    """A horizontal table.

    Attributes:
        height_m: In the frame of the robot's root.
        stiffness: Of arm and table together, N/m.
    """

    height_m: float
    stiffness: float


class LowestPoint:
    """The lowest point of an arm's moving links, from the corners of its collision shapes.

    The links that only turn about the vertical beside the table do not count; of a mesh, the link's origin does.

    Args:
        arm: The robot.
    """

    def __init__(self, arm: Arm) -> None:
        self._chain = arm.chain
        still = arm.chain.upright_links()
        corners = {
            str(link.get("name")): _corners(link, f"{arm.urdf}: link '{link.get('name')}'")
            for link in parse_urdf(arm.urdf).findall("link")
            if link.get("name") not in still
        }
        self._links = [name for name in arm.chain.link_names if len(corners.get(name, ()))]
        self._corners = [corners[name] for name in self._links]
        self._owner = np.repeat(np.arange(len(self._links)), [len(c) for c in self._corners])

    def find(self, position: Array) -> tuple[Array, Array, dict[str, tuple[Array, Array]]]:
        """Lowest point [N, 3] m at poses [N, J] rad, its link's number [N], and the frames of all links."""
        frames = self._chain.frames(position)
        points = np.concatenate(
            [frames[name][0][:, None] + np.einsum("nij,pj->npi", frames[name][1], corners)
             for name, corners in zip(self._links, self._corners, strict=True)], axis=1,
        )  # fmt: skip
        lowest = points[:, :, 2].argmin(axis=1)
        return points[np.arange(len(points)), lowest], self._owner[lowest], frames

    def load(self, position: Array, table: Table, on: Array) -> tuple[Array, float]:
        """Torque [N, J] N·m that a table asks of every joint, and the least height above it, m.

        Args:
            position: Poses [N, J] rad.
            table: The table.
            on: [N], 1 where there is one, else 0.
        """
        point, owner, frames = self.find(position)
        depth = np.maximum(table.height_m - point[:, 2], 0.0) * on
        load = np.zeros_like(position)
        for number in np.unique(owner[depth > 0.0]).tolist():
            rows = owner == number
            up = self._chain.jacobian(self._links[number], frames, point)[rows, 2]
            load[rows] = -table.stiffness * depth[rows, None] * up
        return load, float((point[:, 2] - table.height_m)[on > 0.0].min(initial=np.inf))

    def heights(self, position: Array) -> Array:
        """Height [N] m of the lowest point at poses [N, J] rad."""
        return np.concatenate(
            [self.find(part)[0][:, 2] for part in np.array_split(position, len(position) // 4096 + 1)]
        )


def read_table(path: Path) -> Table | None:
    """The table that a parameters file holds, if any.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
        entry = content.get("table")
        table = entry and Table(float(entry["height_m"]), float(entry["stiffness"]))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: its table needs height_m and stiffness as numbers") from error
    if table and not (np.isfinite(table.height_m) and 0.0 < table.stiffness < np.inf):
        raise ConfigError(f"{path}: its table needs a finite height_m and a positive stiffness")
    return table or None


def tables_of(lowest: LowestPoint, logs: Sequence[JointLog], table: Table | None) -> Array:
    """Weights of recordings whose table holds [L]: 1, and 0 for a recording whose measured poses go through it."""
    if table is None:
        return np.zeros(len(logs))
    return np.array([float(lowest.heights(log.position).min() > table.height_m - DISPROVED_M) for log in logs])


def _corners(link: ET.Element, owner: str) -> Array:
    """Corners [P, 3] m of a link's collision shapes in its frame; its origin for a mesh."""
    found: list[Array] = []
    for shape in link.findall("collision"):
        origin, rotation = origin_of(shape, owner)
        if (box := shape.find("geometry/box")) is not None:
            points = 0.5 * numbers(box.get("size"), owner) * np.array(list(itertools.product((-1, 1), repeat=3)))
        elif (cylinder := shape.find("geometry/cylinder")) is not None:
            radius, half = float(cylinder.get("radius", 0.0)), 0.5 * float(cylinder.get("length", 0.0))
            angle = 2.0 * np.pi * np.arange(ROUND) / ROUND
            rim = radius * np.stack((np.cos(angle), np.sin(angle)), axis=1)
            points = np.concatenate([np.column_stack((rim, np.full(ROUND, end))) for end in (-half, half)])
        elif (sphere := shape.find("geometry/sphere")) is not None:
            points = float(sphere.get("radius", 0.0)) * np.concatenate((np.eye(3), -np.eye(3)))
        else:
            origin, points = np.zeros(3), np.zeros((1, 3))
        found.append(origin + points @ rotation.T)
    return np.concatenate(found) if found else np.zeros((0, 3))
