"""An arm's ``robot.yaml``: limits, names, servo quantities and randomization, with defaults from its URDF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParameter
from sim2real.robots.terms import RandomizationTerm
from sim2real.robots.weights import WeighedChain, remark
from sim2real.runtime.spec import RobotSpec
from sim2real.types import Array, Model

INTERFACE = "joint_trajectory"
GENTLE_SPEED = 1.0  # rad/s or m/s; a slower joint gets a larger gain, so that its lag is no longer
NO_ARM = "For a drone write 'model: multirotor' and what docs/tutorials/own_drone.md lists"


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


class ArmFile(Model):
    """Contents of an arm's ``robot.yaml``, defaults filled in."""

    model: str = "arm"
    spec: RobotSpec
    urdf: str
    ee: str
    encoder_step: float = Field(default=1e-5, gt=0)
    rest: dict[str, float] = Field(default_factory=dict)
    aliases: dict[str, str] = Field(default_factory=dict)
    servo: dict[str, ServoQuantity]
    parameters: dict[str, PhysicsParameter]
    randomization: dict[str, RandomizationTerm] = Field(default_factory=dict)
    disturbances: dict[str, dict[str, RandomizationTerm]] = Field(default_factory=dict)


def read_arm_file(folder: Path) -> tuple[ArmFile, WeighedChain]:
    """Read an arm's ``robot.yaml`` and the URDF it names.

    Raises:
        ConfigError: A file is missing or wrong; the message says which and where.
    """
    file = folder / "robot.yaml"
    try:
        described = yaml.safe_load(file.read_text())
        if not isinstance(described, dict) or not isinstance(described.get("urdf"), str):
            raise ConfigError(f"{file} names no 'urdf'; an arm needs at least urdf, ee and control_rate_hz")
        chain = WeighedChain(folder / described["urdf"])
        if not chain.joint_names:
            raise ConfigError(f"{chain.urdf} has no moving joint; an arm has some. {NO_ARM}")
        if chain.remarks:
            remark(f"{chain.urdf}: {'; '.join(chain.remarks)}")
        return ArmFile.model_validate(_with_defaults(described, chain, folder.resolve().name)), chain
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(_first_fault(error, file, described)) from error


def _with_defaults(described: dict[str, Any], chain: WeighedChain, name: str) -> dict[str, Any]:
    """``robot.yaml`` with what it leaves out: from the URDF's limits and from ``arm_defaults.yaml``."""
    defaults = yaml.safe_load((Path(__file__).parent / "arm_defaults.yaml").read_text())
    for key in ("servo", "parameters", "randomization", "disturbances", "rest"):
        if not isinstance(described.get(key, {}), dict):
            raise ConfigError(f"robot '{name}': '{key}' must hold names and values; leave it out where there are none")
    for joint, value in described.get("rest", {}).items():
        if not isinstance(value, int | float):
            raise ConfigError(f"robot '{name}': rest.{joint} is '{value}', not an angle in rad")
    data = {"randomization": _terms(defaults["randomization"], chain), **described}
    data["parameters"] = defaults["parameters"] | described.get("parameters", {})
    data["disturbances"] = defaults["disturbances"] | described.get("disturbances", {})
    defaults["servo"]["gain"]["joints"] = _gains(chain, defaults["servo"]["gain"])
    data["servo"] = _servo_from_limits(chain) | defaults["servo"] | described.get("servo", {})
    if "spec" not in data:
        rest, rate = described.get("rest", {}), data.pop("control_rate_hz", None)
        if rate is None:
            raise ConfigError(f"robot '{name}' names no control_rate_hz; it is the rate of position commands, Hz")
        commands = [
            {"name": joint, "unit": "m" if sliding else "rad", "low": low, "high": high, "slew_per_s": min(speed, 4.0)}
            | {"hold": None, "land": None}
            for joint, sliding, low, high, speed in zip(
                chain.joint_names,
                chain.sliding,
                chain.low.tolist(),
                chain.high.tolist(),
                chain.velocity.tolist(),
                strict=True,
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
    if isinstance(data["spec"], dict):
        data["spec"] = {"interface": INTERFACE, **data["spec"]}
    return data


def _gains(chain: WeighedChain, gain: Mapping[str, Any]) -> dict[str, float]:
    """Gains of joints that are slow by nature: a rail, a gripper's finger."""
    speed = dict(zip(chain.joint_names, chain.velocity.tolist(), strict=True))
    return {joint: min(gain["nominal"] / v, gain["high"]) for joint, v in speed.items() if v < GENTLE_SPEED}


def _terms(terms: dict[str, dict[str, Any]], chain: WeighedChain) -> dict[str, dict[str, Any]]:
    """The default terms; friction and payload no larger than a small arm bears."""
    most = {"coulomb": 0.05 * float(chain.effort.min()), "payload": 0.05 * sum(chain.masses.values())}
    for name, limit in most.items():
        low, high = terms[name]["range"]
        terms[name]["range"] = [low, min(high, limit)]
    return terms


def _servo_from_limits(chain: WeighedChain) -> dict[str, Any]:
    torque, speed = chain.effort, np.minimum(chain.velocity, 6.0)
    armature, furthest = 0.02 * torque / speed, max(7.0, float(np.abs([chain.low, chain.high]).max()))
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
        "armature": quantity("kg*m^2", armature, 1e-4, max(20.0, 4.0 * float(armature.max()))),
        "low_stop": quantity("rad", chain.low, -furthest, furthest, True),
        "high_stop": quantity("rad", chain.high, -furthest, furthest, True),
    }


def _first_fault(error: ValidationError, file: Path, described: Mapping[str, Any]) -> str:
    """Name the first fault and its place: in ``robot.yaml``, or in the URDF where that stands in for it."""
    first = error.errors()[0]
    loc, message = first["loc"], first["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, loc))
    if loc[:1] == ("servo",) and len(loc) > 1 and loc[1] not in described.get("servo", {}):
        urdf = file.parent / described["urdf"]
        return f"{urdf}: its limits make {place}: {message}; correct effort and velocity, or write {place} in {file}"
    if "spec" not in described:
        place = place.removeprefix("spec.")
    return f"{file}: {place}: {message}"
