"""A target for any arm, made from its own URDF: MuJoCo in place of Bullet, other servos, other delays.

This is weaker evidence than a target that others made. Kinematics, masses and limits are those of the training
simulator, so nothing here can show that the URDF is wrong. What differs is the solver, the contact model, the class of
servo (a spring and damper behind a lag, without the training's profile, dead band, backlash and stiction), the delays
and the noise. Meshes are left out: links touch an object with the primitive shapes of their collision geometry, and
every arm with a small ball at its end effector.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import numpy as np

from robot_drivers.limits import DriverError
from sim2real.robots.simulated_urdf import simulated_urdf
from sim2real.robots.weights import WeighedChain
from sim2real.targets.arms import ArmsSim, Condition, See, SensedArm
from sim2real.targets.base import State
from sim2real.targets.so101_arm import CONTACT_STEP_S, Puck, add_table
from sim2real.types import Array

STEP_S = 0.002
LAG_S = 0.03  # of an industrial controller's own filter, in which position commands pass
BANDWIDTH_RAD_S = 30.0  # of the loop that follows the filtered command, critically damped
ARMATURE_S = 0.01  # full torque brings a joint without a load to full speed in this time
FRICTION = 0.01  # of a joint's torque limit
COMPENSATED = 0.9  # fraction of the arm's own weight that the controller knows of
PAYLOAD = 0.05  # of the arm's moving mass
TIP_RADIUS_M = 0.008
FRESH = Condition()
CONDITIONS = {
    "fresh": FRESH,
    "payload": FRESH,  # its mass depends on the arm
    "soft": replace(FRESH, stiffness=0.25),
    "late": replace(FRESH, command_delay_s=0.05, latency_s=0.025, camera_delay_s=0.09),
}


class MujocoArm:
    """The target ``mujoco_arm``: any arm with a folder, under four conditions.

    Args:
        robot: The robot model: its URDF, limits and kinematics.
        task: The task; it has an object where its signals need ``object_pos``.
    """

    name = "mujoco_arm"

    def __init__(self, robot: Any, task: Any) -> None:
        self.robot, self.task = robot, task
        self.variants: tuple[str, ...] = ("mujoco",)
        self.commands: tuple[str, ...] = robot.spec.actuators
        self.has_object = "object_pos" in task.signals.needs

    def conditions(self) -> tuple[str, ...]:
        """Payload, stiffness of the servos and delays."""
        return tuple(CONDITIONS)

    def start(self, task: Any, rng: np.random.Generator, n: int) -> State:
        """Sample the task's own starts."""
        start: State = task.start(rng, n)
        return start

    def make(self, variant: str, condition: str, n: int, seed: int) -> ArmsSim:
        """Make ``n`` arms; see :class:`sim2real.targets.base.Target`."""
        for kind, name, known in (("variant", variant, self.variants), ("condition", condition, tuple(CONDITIONS))):
            if name not in known:
                raise DriverError(f"unknown {kind} '{name}'; known: {', '.join(known)}")
        chosen = CONDITIONS[condition]
        if condition == "payload":
            moving = [mass for link, mass in self.robot.chain.masses.items() if link != self.robot.chain.root]
            chosen = replace(chosen, payload_kg=PAYLOAD * float(sum(moving)))
        model = build_model(self.robot, chosen, self.has_object)

        def arm(index: int, see: See | None) -> SensedArm:
            made = UrdfArm(model, self.robot, chosen.puck)
            return SensedArm(made, chosen, self.robot.encoder_step, seed + 1000 * index, self.has_object, see)

        return ArmsSim(self.robot, arm, n, seed, None)


def build_model(robot: Any, condition: Condition, has_object: bool) -> Any:
    """Compile the MuJoCo model of an arm with its servos; arms share it and must not change it.

    Raises:
        DriverError: MuJoCo is missing, or cannot use the URDF.
    """
    try:
        import mujoco
    except ImportError as error:
        raise DriverError("this target needs MuJoCo: pip install 'sim2real[drivers]'") from error
    chain, joints = robot.chain, robot.spec.actuators
    try:
        spec = mujoco.MjSpec.from_string(_without_meshes(chain))
        tip = spec.body(robot.ee)
        tip.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[TIP_RADIUS_M, 0, 0])
        # Bit 1: arms; bit 2: the table and the object. Links do not touch each other or the table.
        for geom in spec.geoms:
            geom.contype, geom.conaffinity, geom.friction[0] = 1, 0, 0.05
        if has_object:
            add_table(spec, condition.puck)
        for joint in chain.joints:
            if joint.mimic:
                column, factor, offset = chain.columns[joint.name]
                led = {"name1": joint.name, "name2": joints[column], "objtype": mujoco.mjtObj.mjOBJ_JOINT}
                data = [offset, factor, *[0.0] * 10]
                spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, data=data, **led)
        for name in joints:
            spec.add_actuator(name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name)
        spec.option.timestep = CONTACT_STEP_S if has_object else STEP_S
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        model = spec.compile()
    except (ValueError, OSError, ET.ParseError) as error:
        raise DriverError(f"MuJoCo cannot use {robot.urdf}: {error}") from error
    dofs = np.array([model.joint(name).dofadr[0] for name in joints])
    model.dof_armature[dofs] = ARMATURE_S * chain.effort / chain.velocity
    model.dof_frictionloss[dofs] = FRICTION * chain.effort
    model.dof_damping[dofs] = 0.0
    data = mujoco.MjData(model)
    data.qpos[[model.joint(name).qposadr[0] for name in joints]] = robot.rest
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    inertia = np.diag(inertia)[dofs]
    bandwidth = BANDWIDTH_RAD_S * np.sqrt(condition.stiffness)
    for row, name in enumerate(joints):
        actuator = model.actuator(name)
        actuator.gaintype, actuator.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        stiffness, damping = inertia[row] * bandwidth**2, 2.0 * inertia[row] * bandwidth
        actuator.gainprm[0], actuator.biasprm[:3] = stiffness, (0.0, -stiffness, -damping)
        actuator.forcelimited, actuator.forcerange[:] = True, (-chain.effort[row], chain.effort[row])
        actuator.ctrllimited = False
    model.body_mass[model.body(robot.ee).id] += condition.payload_kg
    return model


def _without_meshes(chain: WeighedChain) -> str:
    """A chain's URDF without what is seen and without meshes, every link a body of its own."""
    root = ET.fromstring(simulated_urdf(chain, meshes=False)[0])
    for link in root.iter("link"):
        for shape in [*link.findall("visual"), *link.findall("collision")]:
            sizes = [v for e in shape.findall("geometry/*") for v in (e.get("size"), e.get("radius"), e.get("length"))]
            if shape.tag == "visual" or any(float(v) <= 0.0 for size in sizes if size for v in size.split()):
                link.remove(shape)
    for old in root.findall("mujoco"):
        root.remove(old)
    ET.SubElement(ET.SubElement(root, "mujoco"), "compiler", fusestatic="false", balanceinertia="true")
    return ET.tostring(root, encoding="unicode")


class UrdfArm:
    """One arm of a compiled model; every call is deterministic.

    Args:
        model: From :func:`build_model`.
        robot: The robot model.
        puck: The object, where the model has one.
    """

    def __init__(self, model: Any, robot: Any, puck: Puck) -> None:
        import mujoco

        self._mujoco, self._model, self._puck = mujoco, model, puck
        self._data = mujoco.MjData(model)
        joints = robot.spec.actuators
        self._q = np.array([model.joint(name).qposadr[0] for name in joints])
        self._v = np.array([model.joint(name).dofadr[0] for name in joints])
        self._u = np.array([model.actuator(name).id for name in joints])
        self._ee = model.body(robot.ee).id
        self._step_s = float(model.opt.timestep)
        self.reset(robot.rest)

    def reset(self, position: Array, puck_xy: Array | None = None) -> None:
        """Stand still at joint positions [J] rad, the object at [2] m on the table."""
        self._mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[self._q] = position
        if puck_xy is not None:
            self._data.joint("puck").qpos[:3] = (*puck_xy, 0.5 * self._puck.height_m)
        self._reference = position.copy()
        self._sent: list[tuple[float, Array]] = [(-np.inf, position.copy())]
        self._mujoco.mj_forward(self._model, self._data)

    def advance(self, command: Array, seconds: float, delay_s: float = 0.0) -> None:
        """Hold ``command`` [J] rad for ``seconds``; it takes effect after ``delay_s``, through a lag."""
        self._sent.append((self.time + delay_s, command.copy()))
        keep = np.exp(-self._step_s / LAG_S)
        for _ in range(round(seconds / self._step_s)):
            while len(self._sent) > 1 and self._sent[1][0] <= self.time + 1e-9:
                self._sent.pop(0)
            self._reference = self._sent[0][1] + keep * (self._reference - self._sent[0][1])
            self._data.ctrl[self._u] = self._reference
            # The bias holds Coriolis terms too, which are small at these speeds.
            self._data.qfrc_applied[self._v] = COMPENSATED * self._data.qfrc_bias[self._v]
            self._mujoco.mj_step(self._model, self._data)

    @property
    def time(self) -> float:
        """Since the last reset, s."""
        return float(self._data.time)

    @property
    def position(self) -> Array:
        """Joint positions [J] rad."""
        return np.array(self._data.qpos[self._q])

    @property
    def velocity(self) -> Array:
        """Joint velocities [J] rad/s."""
        return np.array(self._data.qvel[self._v])

    @property
    def ee_pos(self) -> Array:
        """End effector [3] m in the base frame."""
        return np.array(self._data.xpos[self._ee])

    @property
    def puck_pos(self) -> Array:
        """Centre of the object [3] m in the base frame."""
        return np.array(self._data.body("puck").xpos)

    @property
    def puck_vel(self) -> Array:
        """Velocity of the object [3] m/s in the base frame."""
        return np.array(self._data.joint("puck").qvel[:3])
