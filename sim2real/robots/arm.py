"""An arm as a folder describes it: URDF, ``robot.yaml`` with limits, names, servo quantities and randomization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParameter, PhysicsParams
from sim2real.robots.servo import SERVO_QUANTITIES
from sim2real.runtime.kinematics import Chain, arm_signals, signal_specs
from sim2real.runtime.spec import RobotSpec
from sim2real.sim.arm_sim import ArmSim, ArmState
from sim2real.sim.randomization import RandomizationTerm, expand_terms
from sim2real.sim.robot import IdentifiedQuantity
from sim2real.types import Array, Model

_STOPS = ("low_stop", "high_stop")
_OF_WEIGHT = ("gravity_scale", "load_friction")  # servos feel these where something weighs on the joint
WEIGHS_NM = 1e-6  # torque that 1 kg of a link must put on a joint to weigh on it


class ServoQuantity(Model):
    """One quantity of every joint's servo: nominal value, bounds, and why.

    Attributes:
        fixed: Not fitted by identification.
        joints: Nominal values of single joints that differ.
    """

    unit: str
    nominal: float
    low: float
    high: float
    reason: str
    fixed: bool = False
    joints: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _inside(self) -> ServoQuantity:
        for owner, value in {"nominal": self.nominal, **self.joints}.items():
            if not self.low <= value <= self.high:
                raise ValueError(f"{owner} {value:g} is outside {self.low:g} .. {self.high:g} {self.unit}")
        return self


class _ArmFile(Model):
    spec: RobotSpec
    urdf: str
    ee: str
    encoder_step: float = Field(default=1e-5, gt=0)
    rest: dict[str, float] = Field(default_factory=dict)
    aliases: dict[str, str] = Field(default_factory=dict)
    servo: dict[str, ServoQuantity]
    parameters: dict[str, PhysicsParameter]
    randomization: dict[str, RandomizationTerm] = Field(default_factory=dict)


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
        parameters: Everything the physics can vary: ``JOINT.QUANTITY`` of every servo, ``LINK.mass_scale``, and those
            named in ``robot.yaml``.
        randomization: Terms; one of a servo quantity stands for every joint, drawn independently.
        signals: What a policy may read.
        identified: Every parameter, and the sum of all delays.
        source: The argument ``identified``.

    Raises:
        ConfigError: A file is missing or wrong; the message says which and where.
    """

    def __init__(self, folder: Path, identified: Path | None = None) -> None:
        file = folder / "robot.yaml"
        try:
            described = yaml.safe_load(file.read_text())
            if not isinstance(described, dict) or not isinstance(described.get("urdf"), str):
                raise ConfigError(f"{file} names no 'urdf'; an arm needs at least urdf, ee and control_rate_hz")
            self.chain = Chain(folder / described["urdf"])
            data = _ArmFile.model_validate(_with_defaults(described, self.chain, folder.resolve().name))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{file} is not valid YAML: {error}") from error
        except ValidationError as error:
            raise ConfigError(_first_fault(error, file, described)) from error
        self.spec = data.spec.model_copy(update={"ee": data.ee})
        self.aliases, self.servo = data.aliases, data.servo
        self.name, self.joints = data.spec.name, data.spec.actuators
        self.folder, self.urdf, self.ee, self.encoder_step = folder, folder / data.urdf, data.ee, data.encoder_step
        self.rest = np.array([data.rest.get(joint, 0.0) for joint in self.joints])
        self._check(file)
        own = folder / "identified.yaml"
        source = identified or (own if own.is_file() else None)
        self.source = identified
        self._nominal = read_parameters(source, self) if source else self.described()
        self.parameters = self._all_parameters(data.parameters)
        self.randomization = expand_terms(data.randomization, self.parameters, str(file))
        self.signals = {signal.name: signal for signal in signal_specs(self.joints)}
        self._name_identified()
        self.longest_delay_s = self.servo["dead_time"].high + self.parameters["action_delay"].high

    position_signal = "goal_error"

    def _name_identified(self) -> None:
        self.identified = {
            name: IdentifiedQuantity(parameter.unit, partial(_value, name))
            for name, parameter in self.parameters.items()
        }
        self.identified["delay"] = IdentifiedQuantity("s", self._delay)

    @cached_property
    def reach_m(self) -> float:
        """How far the end effector gets from the base's axis, horizontally, m: nearly always less."""
        rng = np.random.default_rng(0)
        poses = rng.uniform(self.chain.low, self.chain.high, (4096, len(self.joints)))
        tip = self.chain.frames(poses)[self.ee][0]
        return float(np.quantile(np.sqrt((tip[:, :2] ** 2).sum(axis=1)), 0.999))

    def position(self, state: ArmState) -> Array:
        """Of the end effector, base frame [N, 3] m."""
        return state.ee_pos

    def nominal_state(self, count: int) -> ArmState:
        """At rest, in its rest pose."""
        position = np.tile(self.rest, (count, 1))
        return ArmState(position, np.zeros_like(position), self.chain.frames(position)[self.ee][0])

    def _check(self, file: Path) -> None:
        if self.chain.joint_names != self.joints:
            raise ConfigError(f"{file} lists the joints {self.joints}, {self.urdf} has {self.chain.joint_names}")
        if self.ee not in self.chain.link_names:
            raise ConfigError(
                f"{file}: '{self.ee}' is no link of {self.urdf}; it has {', '.join(self.chain.link_names)}"
            )
        wanted = {*SERVO_QUANTITIES, *_STOPS}
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
            if link != self.ee and on.any()
        }
        return {**servos, **masses, **others}

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
        added = {self.ee: values[:, table.column("payload")]}
        for link, mass in self.chain.masses.items():
            if f"{link}.mass_scale" in table.table:
                added[link] = mass * (values[:, table.column(f"{link}.mass_scale")] - 1.0)
        return added

    def _delay(self, p: Mapping[str, Array]) -> Array:
        dead_times = np.mean([p[f"{joint}.dead_time"] for joint in self.joints], axis=0)
        return dead_times + p["action_delay"] + p["observation_delay"]

    def measure(self, state: ArmState, goal: Array) -> dict[str, Array]:
        """Signals [N, d] relative to ``goal`` [N, 3] m, base frame: :func:`sim2real.runtime.kinematics.arm_signals`."""
        return arm_signals(self.chain, self.ee, state.joint_pos, state.joint_vel, goal)

    def simulator(
        self, count: int, terms: Mapping[str, RandomizationTerm], decimation: int = 2, seed: int = 0
    ) -> ArmSim:
        """``count`` simulated arms."""
        return ArmSim(self, count, terms, decimation, seed)


def _with_defaults(described: dict[str, Any], chain: Chain, name: str) -> dict[str, Any]:
    """``robot.yaml`` with what it leaves out: from the URDF's limits and from ``arm_defaults.yaml``."""
    defaults = yaml.safe_load((Path(__file__).parent / "arm_defaults.yaml").read_text())
    for key in ("servo", "parameters", "randomization", "rest"):
        if not isinstance(described.get(key, {}), dict):
            raise ConfigError(f"robot '{name}': '{key}' must hold names and values; leave it out where there are none")
    for joint, value in described.get("rest", {}).items():
        if not isinstance(value, int | float):
            raise ConfigError(f"robot '{name}': rest.{joint} is '{value}', not an angle in rad")
    data = {"randomization": defaults["randomization"], **described}
    data["parameters"] = defaults["parameters"] | described.get("parameters", {})
    data["servo"] = _servo_from_limits(chain) | defaults["servo"] | described.get("servo", {})
    if "spec" not in data:
        rest, rate = described.get("rest", {}), data.pop("control_rate_hz", None)
        if rate is None:
            raise ConfigError(f"robot '{name}' names no control_rate_hz; it is the rate of position commands, Hz")
        commands = [
            {"name": joint, "unit": "rad", "low": low, "high": high, "slew_per_s": min(speed, 4.0)}
            | {"hold": None, "land": None}
            for joint, low, high, speed in zip(
                chain.joint_names, chain.low.tolist(), chain.high.tolist(), chain.velocity.tolist(), strict=True
            )
        ]
        data["rest"] = {
            joint: float(np.clip(rest.get(joint, 0.0), low, high))
            for joint, low, high in zip(chain.joint_names, chain.low.tolist(), chain.high.tolist(), strict=True)
        }
        data["spec"] = {
            "name": name,
            "actuators": chain.joint_names,
            "control_rate_hz": rate,
            "commands": commands,
            "envelope": {},
        }
    return data


def _servo_from_limits(chain: Chain) -> dict[str, Any]:
    torque, speed = chain.effort, np.minimum(chain.velocity, 6.0)
    reason = "the URDF's limits"

    def quantity(unit: str, values: Array, low: float, high: float, fixed: bool = False) -> dict[str, Any]:
        joints = dict(zip(chain.joint_names, values.tolist(), strict=True))
        middle = float(np.median(values))
        return {"unit": unit, "nominal": middle, "low": low, "high": high, "reason": reason, "fixed": fixed} | {
            "joints": joints
        }

    return {
        "stall_torque": quantity("N*m", torque, float(torque.min()), float(torque.max()), True),
        "no_load_speed": quantity("rad/s", speed, 0.1 * float(speed.min()), 4.0 * float(speed.max())),
        # Full torque brings a joint to full speed in about 20 ms.
        "armature": quantity("kg*m^2", 0.02 * torque / speed, 1e-4, 20.0),
        "low_stop": quantity("rad", chain.low, -7.0, 7.0, True),
        "high_stop": quantity("rad", chain.high, -7.0, 7.0, True),
    }


def _first_fault(error: ValidationError, file: Path, described: Mapping[str, Any]) -> str:
    """What is wrong first, and where: in ``robot.yaml``, or in the URDF where that stands in for it."""
    first = error.errors()[0]
    loc, message = first["loc"], first["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, loc))
    if loc[:1] == ("servo",) and len(loc) > 1 and loc[1] not in described.get("servo", {}):
        urdf = file.parent / described["urdf"]
        return f"{urdf}: its limits make {place}: {message}; correct effort and velocity, or write {place} in {file}"
    if "spec" not in described:
        place = place.removeprefix("spec.")
    return f"{file}: {place}: {message}"


def _has_range(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("identified")) and float(entry["low"]) < float(entry["high"])


def _value(name: str, p: Mapping[str, Array]) -> Array:
    return p[name]


@dataclass(frozen=True)
class ParametersFile:
    """What a parameters file says of an arm, checked.

    Attributes:
        entries: By ``JOINT.QUANTITY``.
        correlations: ``JOINT.QUANTITY`` → the joint's others → correlation; empty without any.
    """

    entries: dict[str, dict[str, Any]]
    correlations: dict[str, dict[str, float]]


def read_parameters_file(path: Path, arm: Arm) -> ParametersFile:
    """Read what 'sim2real identify' wrote.

    Raises:
        ConfigError: The file is missing, damaged, of another robot, names or values are wrong, or it was written when a
            servo had fewer quantities.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, Mapping) or content.get("kind") != "sim2real_parameters":
        raise ConfigError(f"{path} is not a parameters file; 'sim2real identify {arm.name} LOG … --out' writes one")
    if content.get("robot") != arm.name:
        raise ConfigError(f"{path} holds parameters of '{content.get('robot')}', not of '{arm.name}'")
    return ParametersFile(
        _entries(path, arm, content.get("parameters")), _correlations(path, arm, content.get("correlation") or {})
    )


def _entries(path: Path, arm: Arm, entries: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ConfigError(
            f"{path} is damaged: 'parameters' must hold JOINT.QUANTITY: {{value: …}}; run 'sim2real identify' again"
        )
    for name, entry in entries.items():
        joint, _, quantity = str(name).rpartition(".")
        if joint not in arm.joints or quantity not in arm.servo:
            raise ConfigError(f"{path}: '{name}' is no parameter of '{arm.name}'; they are JOINT.QUANTITY")
        bounds = arm.servo[quantity]
        try:
            value = float(entry["value"])
            ends = [float(entry[end]) for end in ("low", "high") if end in entry or entry.get("identified")]
        except (KeyError, TypeError, ValueError):
            raise ConfigError(f"{path}: {name} has no number as its value, low or high") from None
        if not np.isfinite([value, *ends]).all():
            raise ConfigError(f"{path}: {name} is not finite")
        if len(ends) == 2 and ends[0] > ends[1]:
            raise ConfigError(f"{path}: the low of {name}, {ends[0]}, is above its high, {ends[1]}")
        if not bounds.low <= value <= bounds.high:
            raise ConfigError(f"{path}: {name} is {value}, outside {bounds.low} .. {bounds.high} {bounds.unit}")
    for joint in arm.joints:
        low, high = (entries.get(f"{joint}.{name}", {}).get("value") for name in _STOPS)
        if low is not None and high is not None and not float(low) < float(high):
            raise ConfigError(f"{path}: {joint}.low_stop ({low}) is not below {joint}.high_stop ({high})")
    return entries


def _correlations(path: Path, arm: Arm, section: Any) -> dict[str, dict[str, float]]:
    result: dict[str, dict[str, float]] = {}
    fitted = {name for name, quantity in arm.servo.items() if not (quantity.fixed or quantity.low == quantity.high)}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{path} is damaged: 'correlation' must hold JOINT: {{names: …, matrix: …}}")
    for joint, entry in section.items():
        try:
            names, matrix = [str(name) for name in entry["names"]], np.asarray(entry["matrix"], dtype=np.float64)
            if matrix.shape != (len(names), len(names)) or len(set(names)) < len(names) or np.isnan(matrix).any():
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f"{path}: the correlation of '{joint}' is damaged; run 'sim2real identify' again"
            ) from None
        if missing := sorted(fitted - set(names)):
            raise ConfigError(
                f"{path} was identified before servos had {', '.join(missing)}; its values hold only together: run "
                "'sim2real identify' again"
            )
        for row, name in enumerate(names):
            result[f"{joint}.{name}"] = {
                f"{joint}.{other}": float(np.clip(matrix[row, column], -1.0, 1.0))
                for column, other in enumerate(names)
                if column != row
            }
    return result


def read_parameters(path: Path, arm: Arm) -> dict[str, Array]:
    """Servo quantities [J] from a parameters file; what it does not name keeps the description's value.

    Raises:
        ConfigError: As :func:`read_parameters_file`.
    """
    values = arm.described()
    for name, entry in read_parameters_file(path, arm).entries.items():
        joint, _, quantity = name.rpartition(".")
        values[quantity][arm.joints.index(joint)] = float(entry["value"])
    return values
