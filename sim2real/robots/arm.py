"""An arm as a folder describes it: URDF, ``robot.yaml`` with limits, names, servo quantities and randomization."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import ConfigError
from sim2real.robots.arm_body import ArmBody
from sim2real.robots.arm_file import read_arm_file
from sim2real.robots.identified import IdentifiedQuantity
from sim2real.robots.parameters_file import STOPS, read_parameters, read_parameters_file
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.servo import SERVO_QUANTITIES
from sim2real.robots.terms import RandomizationTerm, expand_terms
from sim2real.types import Array, State

if TYPE_CHECKING:
    from sim2real.sim.world import World

_OF_WEIGHT = ("gravity_scale", "load_friction")  # servos feel these where something weighs on the joint
TINY_KG = 1e-9
WEIGHS_NM = 1e-6  # torque that 1 kg of a link must put on a joint to weigh on it


class Arm:
    """Everything the simulator knows about one kind of arm.

    Args:
        folder: Holds ``robot.yaml`` and the URDF it names.
        identified: Parameters that 'sim2real identify' wrote; the folder's own ``identified.yaml`` by default.

    Attributes:
        name, spec, aliases: From ``robot.yaml``.
        urdf: Its file.
        chain: Its kinematics and gravity.
        ee: The end effector's link.
        rest: Joint positions [J] rad of its rest pose.
        encoder_step: rad.
        servo: Quantities by name.
        joints: Joint names in order.
        parameters: Everything the physics can vary: ``JOINT.QUANTITY`` of every servo, ``LINK.mass_scale``,
            ``LINK.com_scale``, and those named in ``robot.yaml``.
        randomization: Terms; one of a servo quantity stands for every joint, drawn independently.
        disturbances: Kinds of random disturbances, each with its terms.
        identified: Every parameter, and the sum of all delays.
        source: The argument ``identified``.

    Raises:
        ConfigError: A file is missing or wrong; the message says which and where.
    """

    def __init__(self, folder: Path, identified: Path | None = None) -> None:
        file = folder / "robot.yaml"
        data, self.chain = read_arm_file(folder)
        self.spec = data.spec.model_copy(update={"ee": data.ee})
        self.aliases, self.servo = data.aliases, data.servo
        self.name, self.joints = data.spec.name, data.spec.actuators
        self.folder, self.urdf, self.ee, self.encoder_step = folder, folder / data.urdf, data.ee, data.encoder_step
        self.rest = np.array([data.rest.get(joint, 0.0) for joint in self.joints])
        self._check(file)
        own = folder / "identified.yaml"
        source = identified or (own if own.is_file() else None)
        self.source = identified
        self._nominal = self.described()
        self.parameters = self._all_parameters(data.parameters)
        if source:
            self._nominal = read_parameters(source, self)
            entries = read_parameters_file(source, self).entries
            for name, entry in entries.items():
                self.parameters[name] = self.parameters[name].model_copy(update={"nominal": float(entry["value"])})
        weighs = any(name.endswith(".mass_scale") for name in self.parameters)
        terms = {name: term for name, term in data.randomization.items() if weighs or name != "mass_scale"}
        self.randomization = expand_terms(terms, self.parameters, str(file))
        self.disturbances = {n: expand_terms(t, self.parameters, str(file)) for n, t in data.disturbances.items()}
        self.identified = {
            name: IdentifiedQuantity(parameter.unit, partial(_value, name))
            for name, parameter in self.parameters.items()
        }
        self.identified["delay"] = IdentifiedQuantity("s", self._delay)
        self.longest_delay_s = self.servo["dead_time"].high + self.parameters["action_delay"].high

    fixed_base = weightless = True
    position = "ee_pos"

    def action_range(self, command: str) -> tuple[float, float]:
        """Limits of a joint's position command, rad."""
        limit = next(c for c in self.spec.commands if c.name == command)
        return limit.low, limit.high

    @cached_property
    def reach_m(self) -> float:
        """Distance that the end effector gets from the base's axis, horizontally, m: nearly always less."""
        rng = np.random.default_rng(0)
        poses = rng.uniform(self.chain.low, self.chain.high, (4096, len(self.joints)))
        tip = self.chain.frames(poses)[self.ee][0]
        return float(np.quantile(np.sqrt((tip[:, :2] ** 2).sum(axis=1)), 0.999))

    def nominal_state(self, count: int) -> State:
        """Make arms at rest, in their rest pose."""
        position = np.tile(self.rest, (count, 1))
        ee_pos = self.chain.frames(position)[self.ee][0]
        return {"joint_pos": position, "joint_vel": np.zeros_like(position), "ee_pos": ee_pos}

    def body(self, world: World, params: PhysicsParams, decimation: int, seed: int) -> ArmBody:
        """Make the arms of ``world``."""
        return ArmBody(self, world, params, decimation, seed)

    def _check(self, file: Path) -> None:
        if self.chain.joint_names != self.joints:
            raise ConfigError(f"{file} lists the joints {self.joints}, {self.urdf} has {self.chain.joint_names}")
        if self.ee not in self.chain.link_names:
            raise ConfigError(
                f"{file}: '{self.ee}' is no link of {self.urdf}; it has {', '.join(self.chain.link_names)}"
            )
        wanted = {*SERVO_QUANTITIES, *STOPS}
        if set(self.servo) != wanted:
            raise ConfigError(f"{file}: servo needs exactly {sorted(wanted)}, it has {sorted(self.servo)}")

    def described(self) -> dict[str, Array]:
        """Values of ``robot.yaml``: quantity → [J]."""
        return {n: np.array([q.joints.get(j, q.nominal) for j in self.joints]) for n, q in self.servo.items()}

    def nominal(self) -> dict[str, Array]:
        """Identified values where there are any, else those of ``robot.yaml``: quantity → [J]."""
        return {name: values.copy() for name, values in self._nominal.items()}

    def _all_parameters(self, others: Mapping[str, PhysicsParameter]) -> dict[str, PhysicsParameter]:
        weighs = self._weighs()
        borne = dict(zip(self.joints, np.any(list(weighs.values()), axis=0).tolist(), strict=True))
        servos = {
            f"{joint}.{name}": PhysicsParameter(
                unit=quantity.unit,
                nominal=float(self._nominal[name][index]),
                low=quantity.low,
                high=quantity.high,
                idle=name in _OF_WEIGHT and not borne[joint],
            )
            for index, joint in enumerate(self.joints)
            for name, quantity in self.servo.items()
        }
        masses = {
            f"{link}.mass_scale": PhysicsParameter(unit="1", nominal=1.0, low=0.1, high=10.0)
            for link, on in weighs.items()
            if link != self.ee and on.any() and self.chain.masses[link] > 0.0
        }
        centres = {
            f"{link}.com_scale": PhysicsParameter(unit="1", nominal=1.0, low=0.0, high=2.0)
            for link in (name.removesuffix(".mass_scale") for name in masses)
            if self.chain.links[link].com.any()
        }
        return {**servos, **masses, **others, **centres}

    def _weighs(self) -> dict[str, NDArray[np.bool_]]:
        """On which joints [J] every link weighs, the root apart: on none that only turn it about a vertical axis."""
        poses = np.random.default_rng(0).uniform(self.chain.low, self.chain.high, (64, len(self.joints)))
        bare = self.chain.gravity_torque(poses)
        return {
            link: np.abs(self.chain.gravity_torque(poses, {link: 1.0}) - bare).max(axis=0) > WEIGHS_NM
            for link in self.chain.link_names
            if link != self.chain.root
        }

    def identified_terms(self, path: Path) -> dict[str, RandomizationTerm]:
        """The randomization with the ranges of what ``path`` (a parameters file) has identified in place of its own.

        What was identified of one joint is drawn together, as the file's correlations say.

        Raises:
            ConfigError: The file cannot be used; see :func:`read_parameters_file`.
        """
        file, terms = read_parameters_file(path, self), dict(self.randomization)
        identified = {name: entry for name, entry in file.entries.items() if _has_range(entry)}
        for name, entry in identified.items():
            terms = {key: term for key, term in terms.items() if term.parameter != name or term.kind == "step"}
            terms[name] = RandomizationTerm(
                parameter=name,
                operation="set",
                distribution="uniform",
                range=(float(entry["low"]), float(entry["high"])),
                reason=f"identified: {path.name}",
                correlated={o: r for o, r in file.correlations.get(name, {}).items() if o in identified},
            )
        return terms

    def servo_quantities(self, values: Array, table: PhysicsParams) -> dict[str, Array]:
        """Servo quantities [n, J] by name of parameter rows [n, P]."""
        return {
            name: values[:, [table.column(f"{joint}.{name}") for joint in self.joints]].copy() for name in self.servo
        }

    def added_mass(self, values: Array, table: PhysicsParams) -> dict[str, Array]:
        """Kg on top of every link's own [n], by link, of parameter rows [n, P]."""
        added = {self.ee: values[:, table.column("payload")].copy()}
        for link, mass in self.chain.masses.items():
            if f"{link}.mass_scale" in table.table:
                added[link] = mass * (values[:, table.column(f"{link}.mass_scale")] - 1.0)
        return added

    def shifted_com(self, values: Array, table: PhysicsParams) -> dict[str, Array]:
        """Displacements of centres of mass from where the URDF has them [n, 3] m, by link; only those that moved.

        ``LINK.com_scale`` moves a link's away from its joint or towards it, ``payload_offset`` a payload along the end
        effector's z axis.
        """
        shift = {}
        for link, own in self.chain.links.items():
            if f"{link}.com_scale" in table.table:
                further = values[:, table.column(f"{link}.com_scale")] - 1.0
                if further.any():
                    shift[link] = further[:, None] * own.com
        payload, offset = (values[:, table.column(name)] for name in ("payload", "payload_offset"))
        if (payload * offset).any():
            fraction = payload / (self.chain.masses[self.ee] + payload + TINY_KG)
            shift[self.ee] = (fraction * offset)[:, None] * np.array([0.0, 0.0, 1.0])
        return shift

    def _delay(self, p: Mapping[str, Array]) -> Array:
        dead_times = np.mean([p[f"{joint}.dead_time"] for joint in self.joints], axis=0)
        return dead_times + p["action_delay"] + p["observation_delay"]


def _has_range(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("identified")) and float(entry["low"]) < float(entry["high"])


def _value(name: str, p: Mapping[str, Array]) -> Array:
    return p[name]
