"""Tables under the arms of a world, and one object on each."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim2real.errors import SimulationError
from sim2real.robots.weights import GRAVITY
from sim2real.sim.quiet import quiet
from sim2real.sim.world import World
from sim2real.types import Array, EnvIds

with quiet():
    import pybullet

_UPRIGHT = (0.0, 0.0, 0.0, 1.0)
_STILL = (0.0, 0.0, 0.0)
_TABLE_HALF_M = 0.05


class Tables:
    """A table under every arm; the arms' moving links, tables and objects touch each other.

    Args:
        world: Holds the arms already.
        object_half_height: Of the objects that :meth:`write_objects` makes, m.
        shape: Of these: ``cylinder`` (upright), ``box`` (square) or ``sphere``.

    Raises:
        SimulationError: An unknown shape.
    """

    def __init__(self, world: World, object_half_height: float, shape: str = "cylinder") -> None:
        if shape not in _SHAPES:
            raise SimulationError(f"objects cannot be of shape '{shape}'; choose one of {', '.join(_SHAPES)}")
        client = self._client = world.client
        self._cell, self._tables = world.origins, list[int]()
        self._half_height, self._shape = object_half_height, shape
        half = (1.5, 1.5, _TABLE_HALF_M)
        top = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
        look = pybullet.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=half, rgbaColor=(0.75, 0.7, 0.62, 1.0), physicsClientId=client
        )
        for cell, arm in zip(self._cell.tolist(), world.bodies, strict=True):
            place = (cell[0], cell[1], -_TABLE_HALF_M)
            table = pybullet.createMultiBody(0, top, look, place, physicsClientId=client)
            pybullet.changeDynamics(table, -1, lateralFriction=1.0, physicsClientId=client)
            pybullet.setCollisionFilterGroupMask(table, -1, 1, 3, physicsClientId=client)
            self._tables.append(table)
            for link in range(pybullet.getNumJoints(arm, client)):
                pybullet.setCollisionFilterGroupMask(arm, link, 2, 1, physicsClientId=client)
        self._objects, self._weight = [-1] * world.count, [0.0] * world.count
        self._radius = np.full(world.count, -1.0)
        world.before_step(self._pull)

    def _pull(self) -> None:
        """Let gravity act on the objects; a world of arms has none of its own, their servos carry their weight."""
        client = self._client
        for body, weight in zip(self._objects, self._weight, strict=True):
            place, _ = pybullet.getBasePositionAndOrientation(body, client)
            pybullet.applyExternalForce(body, -1, (0.0, 0.0, weight), place, pybullet.WORLD_FRAME, client)

    def write_tables(self, env_ids: EnvIds, height: Array) -> None:
        """Move the table tops of ``env_ids`` to ``height`` [n] m."""
        for row, top in zip(env_ids.tolist(), height.tolist(), strict=True):
            x, y, _ = self._cell[row].tolist()
            place = (x, y, top - _TABLE_HALF_M)
            pybullet.resetBasePositionAndOrientation(self._tables[row], place, _UPRIGHT, self._client)

    def write_objects(
        self, env_ids: EnvIds, pos: Array, radius: Array, mass: Array, friction: Array, damping: Array
    ) -> None:
        """Put down an object in every cell of ``env_ids``, at rest.

        Args:
            env_ids: Which.
            pos: Centres [n, 3] m.
            radius: [n] m, half a side of a box; an object of another radius is made anew.
            mass: [n] kg.
            friction: [n], with the table; with the arm half of it.
            damping: [n] 1/s, of its speed.
        """
        client = self._client
        values = (
            env_ids.tolist(),
            (pos + self._cell[env_ids]).tolist(),
            radius.tolist(),
            mass.tolist(),
            friction.tolist(),
        )
        for row, place, r, m, f, d in zip(*values, damping.tolist(), strict=True):
            if r != self._radius[row]:
                self._make_object(row, r)
            body, self._weight[row] = self._objects[row], -GRAVITY * m
            inertia = _inertia(self._shape, m, r, self._half_height)
            pybullet.changeDynamics(
                body,
                -1,
                mass=m,
                localInertiaDiagonal=inertia,
                lateralFriction=f,
                linearDamping=d,
                physicsClientId=client,
            )
            pybullet.resetBasePositionAndOrientation(body, place, _UPRIGHT, client)
            pybullet.resetBaseVelocity(body, _STILL, _STILL, client)

    def _make_object(self, row: int, radius: float) -> None:
        client = self._client
        if self._objects[row] >= 0:
            pybullet.removeBody(self._objects[row], client)
        solid, drawn = _SHAPES[self._shape](radius, self._half_height)
        shape = pybullet.createCollisionShape(**solid, physicsClientId=client)
        look = pybullet.createVisualShape(**drawn, rgbaColor=(0.8, 0.25, 0.2, 1.0), physicsClientId=client)
        body = pybullet.createMultiBody(1.0, shape, look, self._cell[row].tolist(), physicsClientId=client)
        pybullet.setCollisionFilterGroupMask(body, -1, 1, 3, physicsClientId=client)
        pybullet.changeDynamics(
            body, -1, activationState=pybullet.ACTIVATION_STATE_DISABLE_SLEEPING, physicsClientId=client
        )
        self._objects[row], self._radius[row] = body, radius

    def read_objects(self) -> tuple[Array, Array]:
        """Centres [N, 3] m and velocities [N, 3] m/s of the objects."""
        client = self._client
        place = [pybullet.getBasePositionAndOrientation(body, client)[0] for body in self._objects]
        speed = [pybullet.getBaseVelocity(body, client)[0] for body in self._objects]
        return np.array(place) - self._cell, np.array(speed)


def _cylinder(radius: float, half: float) -> tuple[dict[str, Any], dict[str, Any]]:
    solid = {"shapeType": pybullet.GEOM_CYLINDER, "radius": radius}
    return {**solid, "height": 2.0 * half}, {**solid, "length": 2.0 * half}


def _box(radius: float, half: float) -> tuple[dict[str, Any], dict[str, Any]]:
    solid = {"shapeType": pybullet.GEOM_BOX, "halfExtents": (radius, radius, half)}
    return solid, solid


def _sphere(radius: float, half: float) -> tuple[dict[str, Any], dict[str, Any]]:
    solid = {"shapeType": pybullet.GEOM_SPHERE, "radius": radius}
    return solid, solid


_SHAPES = {"cylinder": _cylinder, "box": _box, "sphere": _sphere}


def _inertia(shape: str, mass: float, radius: float, half: float) -> tuple[float, float, float]:
    """Principal moments kg·m² of a solid body."""
    if shape == "sphere":
        return (0.4 * mass * radius * radius,) * 3
    if shape == "box":
        across = mass * (radius * radius + half * half) / 3
        return across, across, mass * 2 * radius * radius / 3
    across = mass * (radius * radius / 4 + half**2 / 3)
    return across, across, mass * radius * radius / 2
