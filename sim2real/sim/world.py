"""One Bullet client with many robots in it: all physics. What is only drawn is in ``drawing.py``."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import SimulationError
from sim2real.robots.simulated_urdf import simulated_urdf
from sim2real.robots.weights import WeighedChain, remark
from sim2real.sim.quiet import quiet
from sim2real.types import Array, EnvIds

with quiet():  # it tells the terminal when it was built
    import pybullet

_ORIGIN = (0.0, 0.0, 0.0)
CELL_M = 16.0
NO_GRAVITY = (0.0, 0.0, 0.0)
_UPRIGHT = (0.0, 0.0, 0.0, 1.0)


class World:
    """A physics client with ``count`` robots of the same kind, free-floating or bolted down.

    Robots do not collide with each other. Each has a cell of its own, ``CELL_M`` wide, because Bullet's
    broad phase compares all bodies that overlap; positions are given and returned relative to the cell.
    Calls run in one order in one thread, so the same calls give the same bits.

    Args:
        count: Number of robots N.
        sim_dt: Physics step, s.
        gravity: World-frame gravity, m/s².
        egl: Draw with OpenGL through EGL, which pays where a GPU is, in place of Bullet's own TinyRenderer.
        window: Open PyBullet's window.

    Attributes:
        renderer: Bullet's number of what draws.

    Raises:
        SimulationError: PyBullet gave no client, or EGL cannot be used here.
    """

    def __init__(
        self,
        count: int,
        sim_dt: float,
        gravity: Sequence[float] = (0.0, 0.0, -9.81),
        egl: bool = False,
        window: bool = False,
    ) -> None:
        if count < 1 or sim_dt <= 0:
            raise SimulationError(f"a world needs at least one robot and a positive sim_dt, got {count} and {sim_dt}")
        if window and not _has_display():
            raise SimulationError("there is no display for PyBullet's window; write a video with --video FILE instead")
        self._client: int = pybullet.connect(pybullet.GUI if window else pybullet.DIRECT)
        if self._client < 0:
            raise SimulationError("PyBullet gave no client; too many are open in this process, close() the others")
        self.renderer = _load_egl(self._client) if egl else pybullet.ER_TINY_RENDERER
        self.count = count
        self.sim_dt = sim_dt
        self.bodies: list[int] = []
        self.joint_names: tuple[str, ...] = ()
        self._joints: list[int] = []
        self._followers: list[tuple[int, int, float, float]] = []  # joint, column of its leader, factor, offset
        self._acting: list[Callable[[], None]] = []
        side = int(np.ceil(np.sqrt(count)))
        index = np.arange(count)
        self._cell = CELL_M * np.stack((index % side, index // side, np.zeros(count)), axis=1)
        pybullet.setTimeStep(sim_dt, physicsClientId=self._client)
        pybullet.setGravity(*gravity, physicsClientId=self._client)
        pybullet.setPhysicsEngineParameter(
            deterministicOverlappingPairs=1, enableFileCaching=0, physicsClientId=self._client
        )

    @property
    def client(self) -> int:
        """Bullet's number of this client, for what is only drawn."""
        return self._client

    def before_step(self, act: Callable[[], None]) -> None:
        """Call ``act`` before every physics step: a scene that pushes its objects."""
        self._acting.append(act)

    def cell_origin(self, cell: int) -> Array:
        """Origin of a cell, in Bullet's frame [3] m."""
        return self._cell[cell].copy()

    def load_robots(self, urdf: Path, fixed_base: bool = False, meshes: bool = True) -> None:
        """Load every robot from one URDF, without damping (drag is a named parameter) and without mutual contact.

        Bullet's 50 solver iterations stay: with 10, joint motors end up to 10 mrad beside their targets.

        Args:
            urdf: The robot's description, with inertias.
            fixed_base: Bolt every base to the origin of its cell.
            meshes: Load an arm's meshes, for pictures and contacts; many copies of fine ones take minutes.

        Raises:
            SimulationError: The file is missing or Bullet refuses it.
            ConfigError: Bullet finds an inertia impossible, and so does :class:`sim2real.robots.weights.WeighedChain`.
        """
        if not urdf.is_file():
            raise SimulationError(f"no URDF at {urdf}")
        chain = WeighedChain(urdf) if fixed_base else None
        with tempfile.TemporaryDirectory() as folder:
            self._load_all(urdf if chain is None else self._prepare(chain, Path(folder), meshes), fixed_base)
        if chain is not None:
            self._mend_inertias(chain)
        self._find_joints(urdf, chain)

    def _prepare(self, chain: WeighedChain, folder: Path, meshes: bool) -> Path:
        text, missing = simulated_urdf(chain, meshes)
        if missing:
            remark(missing)
        (folder / chain.urdf.name).write_text(text, encoding="utf-8")
        return folder / chain.urdf.name

    def _load_all(self, urdf: Path, fixed_base: bool) -> None:
        for cell in self._cell.tolist():
            body = self._load(urdf, cell if fixed_base else _ORIGIN, fixed_base)
            for link in range(-1, pybullet.getNumJoints(body, self._client)):
                pybullet.setCollisionFilterGroupMask(body, link, 0, 0, physicsClientId=self._client)
                pybullet.changeDynamics(
                    body, link, linearDamping=0.0, angularDamping=0.0, jointDamping=0.0, physicsClientId=self._client
                )
            self.bodies.append(body)

    @property
    def origins(self) -> Array:
        """Origins of all cells in Bullet's frame [N, 3] m."""
        return np.asarray(self._cell, dtype=np.float64)

    def _load(self, urdf: Path, place: Sequence[float], fixed_base: bool) -> int:
        flags, client = pybullet.URDF_USE_INERTIA_FROM_FILE, self._client
        try:
            with quiet():  # what Bullet would remark of inertias and materials is checked here, or does not matter
                body = pybullet.loadURDF(str(urdf), place, useFixedBase=fixed_base, flags=flags, physicsClientId=client)
        except pybullet.error as error:
            raise SimulationError(f"Bullet cannot load {urdf}: {error}") from error
        return int(body)

    def _mend_inertias(self, chain: WeighedChain) -> None:
        """Give links whose inertia Bullet has set to zero, for the least excess, what the chain makes of it."""
        client, body = self._client, self.bodies[0]
        info = [pybullet.getDynamicsInfo(body, link, client) for link in range(pybullet.getNumJoints(body, client))]
        zeroed = [link for link, (mass, _, inertia, *_) in enumerate(info) if mass > 0.0 and not min(inertia) > 0.0]
        for link in zeroed:
            moments = chain.inertias[pybullet.getJointInfo(body, link, client)[12].decode()].tolist()
            for robot in self.bodies:
                pybullet.changeDynamics(robot, link, localInertiaDiagonal=moments, physicsClientId=client)

    def _find_joints(self, urdf: Path, chain: WeighedChain | None) -> None:
        """Find the moving joints: in the chain's order, which is not Bullet's where an arm branches."""
        body, client = self.bodies[0], self._client
        infos = [pybullet.getJointInfo(body, i, client) for i in range(pybullet.getNumJoints(body, client))]
        moving = {
            info[1].decode(): info[0]
            for info in infos
            if info[2] in (pybullet.JOINT_REVOLUTE, pybullet.JOINT_PRISMATIC)
        }
        self.joint_names = tuple(moving) if chain is None else chain.joint_names
        self._joints = [moving[name] for name in self.joint_names]
        if chain is not None:
            led = {joint.name for joint in chain.joints if joint.mimic}
            self._followers = [(moving[name], *where) for name, where in chain.columns.items() if name in led]
        for link in range(len(infos)):
            mass, _, inertia, *_ = pybullet.getDynamicsInfo(body, link, client)
            if not (mass > 0 and min(inertia) > 0):
                what = f"link '{infos[link][12].decode()}' has mass {mass} and inertia {inertia}"
                raise SimulationError(f"{urdf}: {what}; both must be positive, give it an <inertial>")

    def read_joints(self) -> tuple[Array, Array]:
        """Positions [N, J] rad and velocities [N, J] rad/s of all joints, in the order of ``joint_names``."""
        client, joints = self._client, self._joints
        states = [pybullet.getJointStates(body, joints, client) for body in self.bodies]
        values = np.array([[state[:2] for state in body] for body in states])
        return values[..., 0], values[..., 1]

    def write_joints(self, rows: EnvIds, pos: Array, vel: Array) -> None:
        """Place the joints of the robots ``env_ids``; arrays are [len(rows), J]."""
        for row, positions, velocities in zip(rows.tolist(), pos.tolist(), vel.tolist(), strict=True):
            for joint, p, v in zip(self._joints, positions, velocities, strict=True):
                pybullet.resetJointState(self.bodies[row], joint, p, v, self._client)
            for joint, column, factor, offset in self._followers:
                p, v = factor * positions[column] + offset, factor * velocities[column]
                pybullet.resetJointState(self.bodies[row], joint, p, v, self._client)

    def drive_joints(self, velocity: Array, torque: Array) -> None:
        """Turn every joint at ``velocity`` [N, J] rad/s with at most ``torque`` [J] N·m, until told otherwise."""
        client, joints, kind, forces = self._client, self._joints, pybullet.VELOCITY_CONTROL, torque.tolist()
        if self._followers:
            led, columns, factors, _ = zip(*self._followers, strict=True)
            joints, forces = [*joints, *led], [*forces, *(forces[column] for column in columns)]
            velocity = np.concatenate((velocity, velocity[:, columns] * factors), axis=1)
        for body, target in zip(self.bodies, velocity.tolist(), strict=True):
            pybullet.setJointMotorControlArray(
                body, joints, kind, targetVelocities=target, forces=forces, physicsClientId=client
            )

    def add_visual_box(self, half_extents: Sequence[float], position: Sequence[float], rgba: Sequence[float]) -> int:
        """A coloured box without mass or collision, for pictures."""
        shape = pybullet.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=list(half_extents), rgbaColor=list(rgba), physicsClientId=self._client
        )
        return int(pybullet.createMultiBody(0, -1, shape, list(position), physicsClientId=self._client))

    def read_base(self) -> tuple[Array, Array, Array, Array]:
        """State of every robot's base.

        Returns:
            position [N, 3] m, quaternion [N, 4] xyzw, linear velocity [N, 3] m/s and
            angular velocity [N, 3] rad/s, all in the world frame.
        """
        client = self._client
        pose_of, velocity_of = pybullet.getBasePositionAndOrientation, pybullet.getBaseVelocity
        flat, count = chain.from_iterable, self.count
        states = [(pose_of(body, client), velocity_of(body, client)) for body in self.bodies]
        rows = [(*pos, *quat, *lin_vel, *ang_vel) for (pos, quat), (lin_vel, ang_vel) in states]
        # By columns, which formulas read.
        table = np.asfortranarray(np.fromiter(flat(rows), float, 13 * count).reshape(count, 13))
        if count > 1:
            table[:, :3] -= self._cell
        return table[:, :3], table[:, 3:7], table[:, 7:10], table[:, 10:]

    def write_base(self, rows: EnvIds, pos: Array, quat: Array, lin_vel: Array, ang_vel: Array) -> None:
        """Place the robots ``env_ids``; arrays are [len(rows), …] in the units and frames of :meth:`read_base`."""
        client = self._client
        for row, p, q, v, w in zip(
            rows.tolist(),
            (pos + self._cell[rows]).tolist(),
            quat.tolist(),
            lin_vel.tolist(),
            ang_vel.tolist(),
            strict=True,
        ):
            body = self.bodies[row]
            pybullet.resetBasePositionAndOrientation(body, p, q, client)
            pybullet.resetBaseVelocity(body, v, w, client)

    def write_inertia(self, rows: EnvIds, mass: Array, inertia: Array) -> None:
        """Set mass [n] kg and principal inertia [n, 3] kg·m² of the robots ``env_ids``.

        Raises:
            SimulationError: A mass or inertia is not positive, or breaks the triangle inequality.
        """
        largest = inertia.max(axis=1)
        if not ((mass > 0).all() and (inertia > 0).all() and (2 * largest <= inertia.sum(axis=1) * (1 + 1e-9)).all()):
            raise SimulationError(
                "mass and inertia must be positive and no principal inertia larger than the sum of the other two; "
                "check the ranges of mass and inertia_scale"
            )
        for row, m, i in zip(rows.tolist(), mass.tolist(), inertia.tolist(), strict=True):
            pybullet.changeDynamics(self.bodies[row], -1, mass=m, localInertiaDiagonal=i, physicsClientId=self._client)

    def apply_wrench(self, force: Array, torque: Array) -> None:
        """Force [N, 3] N at the centre of mass and torque [N, 3] N·m, both in the body frame, for the next step."""
        client, frame = self._client, pybullet.LINK_FRAME
        push, twist = pybullet.applyExternalForce, pybullet.applyExternalTorque
        for body, f, t in zip(self.bodies, force.tolist(), torque.tolist(), strict=True):
            push(body, -1, f, _ORIGIN, frame, client)
            twist(body, -1, t, frame, client)

    def step(self) -> None:
        """Advance every robot by ``sim_dt``."""
        for act in self._acting:
            act()
        pybullet.stepSimulation(self._client)

    def render(
        self, eye: Sequence[float], target: Sequence[float], width: int = 320, height: int = 240, fov_deg: float = 45.0
    ) -> NDArray[np.uint8]:
        """RGB picture [height, width, 3] from a camera at ``eye`` that looks at ``target`` (world, m)."""
        view = pybullet.computeViewMatrix(list(eye), list(target), [0, 0, 1])
        projection = pybullet.computeProjectionMatrixFOV(fov_deg, width / height, 0.02, 20.0)
        image: Any = pybullet.getCameraImage(
            width, height, view, projection, renderer=self.renderer, physicsClientId=self._client
        )
        return np.asarray(image[2], dtype=np.uint8).reshape(height, width, 4)[..., :3].copy()

    def close(self) -> None:
        """Disconnect from Bullet; calling it twice is harmless."""
        if self._client >= 0:
            pybullet.disconnect(self._client)
            self._client = -1


def _has_display() -> bool:
    """Tell whether a window can be opened; PyBullet would end the process where it cannot."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY"))


def _load_egl(client: int) -> int:
    """Let a client draw with OpenGL; shapes made before would be missing from its pictures.

    Raises:
        SimulationError: Bullet's plugin or a display for it is missing.
    """
    plugin = find_spec("eglRenderer")
    if plugin is None or plugin.origin is None:
        raise SimulationError("this PyBullet comes without its EGL renderer; leave egl out to draw with TinyRenderer")
    if pybullet.loadPlugin(plugin.origin, "_eglRendererPlugin", physicsClientId=client) < 0:
        raise SimulationError(
            "EGL has no display here; install the GPU's driver, or Mesa's software one ('apt-get install libegl1 "
            "libgl1-mesa-dri'), or leave egl out to draw with TinyRenderer"
        )
    return pybullet.ER_BULLET_HARDWARE_OPENGL
