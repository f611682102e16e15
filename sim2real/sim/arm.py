"""An arm as a folder describes it: URDF, ``robot.yaml`` with limits, names and servo quantities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from sim2real.errors import ConfigError
from sim2real.sim.chain import Chain
from sim2real.sim.servo import SERVO_QUANTITIES
from sim2real.spec import Model, RobotSpec

Array = NDArray[np.float64]


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
        for value in (self.nominal, *self.joints.values()):
            if not self.low <= value <= self.high:
                raise ValueError(f"nominal {value} is outside {self.low} .. {self.high}")
        return self


class _ArmFile(Model):
    spec: RobotSpec
    urdf: str
    aliases: dict[str, str] = Field(default_factory=dict)
    servo: dict[str, ServoQuantity]


class Arm:
    """Everything the simulator knows about one kind of arm.

    Args:
        folder: Holds ``robot.yaml`` and the URDF it names.

    Attributes:
        name, spec, aliases: From ``robot.yaml``.
        urdf: Its file.
        chain: Its kinematics and gravity.
        servo: Quantities by name.
        joints: Joint names in order.

    Raises:
        ConfigError: A file is missing or wrong; the message says which and where.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "robot.yaml"
        try:
            data = _ArmFile.model_validate(yaml.safe_load(file.read_text()))
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error}") from error
        except (yaml.YAMLError, ValidationError) as error:
            raise ConfigError(f"{file} is not an arm's description: {error}") from error
        self.spec, self.aliases, self.servo = data.spec, data.aliases, data.servo
        self.name, self.joints = data.spec.name, data.spec.actuators
        self.folder, self.urdf = folder, folder / data.urdf
        self.chain = Chain(self.urdf)
        if self.chain.joint_names != self.joints:
            raise ConfigError(f"{file} lists the joints {self.joints}, {self.urdf} has {self.chain.joint_names}")
        wanted = {*SERVO_QUANTITIES, "low_stop", "high_stop"}
        if set(self.servo) != wanted:
            raise ConfigError(f"{file}: servo needs exactly {sorted(wanted)}, it has {sorted(self.servo)}")
        identified = folder / "identified.yaml"
        self._nominal = read_parameters(identified, self) if identified.is_file() else self.described()

    def described(self) -> dict[str, Array]:
        """Values of ``robot.yaml``: quantity → [J]."""
        return {n: np.array([q.joints.get(j, q.nominal) for j in self.joints]) for n, q in self.servo.items()}

    def nominal(self) -> dict[str, Array]:
        """Identified values where the folder has them, else those of ``robot.yaml``: quantity → [J]."""
        return {name: values.copy() for name, values in self._nominal.items()}


def read_parameters(path: Path, arm: Arm) -> dict[str, Array]:
    """Servo quantities [J] from a parameters file; what it does not name keeps the description's value.

    Raises:
        ConfigError: The file is missing, of another robot, or names or values are wrong.
    """
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, Mapping) or content.get("kind") != "sim2real_parameters":
        raise ConfigError(f"{path} is not a parameters file; 'sim2real identify {arm.name} LOG … --out' writes one")
    if content.get("robot") != arm.name:
        raise ConfigError(f"{path} holds parameters of '{content.get('robot')}', not of '{arm.name}'")
    values = arm.described()
    for name, entry in content["parameters"].items():
        joint, _, quantity = name.rpartition(".")
        if joint not in arm.joints or quantity not in arm.servo:
            raise ConfigError(f"{path}: '{name}' is no parameter of '{arm.name}'; they are JOINT.QUANTITY")
        value, bounds = float(entry["value"]), arm.servo[quantity]
        if not bounds.low <= value <= bounds.high:
            raise ConfigError(f"{path}: {name} is {value}, outside {bounds.low} .. {bounds.high} {bounds.unit}")
        values[quantity][arm.joints.index(joint)] = value
    return values
