"""A drone's ``robot.yaml``, with defaults from its URDF and from ``multirotor_defaults.yaml``."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from sim2real.errors import ConfigError
from sim2real.robots.physics import PhysicsParameter
from sim2real.robots.terms import RandomizationTerm
from sim2real.robots.weights import GRAVITY
from sim2real.runtime.spec import RobotSpec
from sim2real.types import Model

Vector = tuple[float, float, float]
COMMANDS = ("thrust", "roll", "pitch", "yaw_rate")
INTERFACE = "cmd_vel_legacy"
_SHORT = ("control_rate_hz", "max_thrust_n", "max_torque", "max_tilt_rad", "max_yaw_rate")


class DroneBody(Model):
    """Constants of an airframe.

    Attributes:
        inertia: Principal moments, kg·m².
        max_torque: Largest torque of the mixer at hover, N·m.
        thrust_reference_n: Where the thrust curve's exponent leaves the command unchanged, N.
        action_ranges: Ranges of command components that policies use; by default thrust from 16 % of the weight to its
            limit, the others up to two thirds (yaw rate) or all but 4 % (tilt) of their limits.
        rotors, turns, yaw_ratio, recorded_mass: For identification from recordings: places of the rotors (x forward,
            y left, m), the turn each gives the body, Izz over the mean of Ixx and Iyy, and the mass flown, kg.
    """

    inertia: Vector
    max_torque: Vector
    thrust_reference_n: float = Field(gt=0)
    action_ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    rotors: tuple[tuple[float, float], ...] = ()
    turns: tuple[int, ...] = ()
    yaw_ratio: float = 1.8
    recorded_mass: float | None = None


class MultirotorFile(Model):
    """Contents of a drone's ``robot.yaml``, defaults filled in."""

    model: str = "multirotor"
    urdf: str
    spec: RobotSpec
    attitude: str = "second_order"
    body: DroneBody
    parameters: dict[str, PhysicsParameter]
    randomization: dict[str, RandomizationTerm]
    disturbances: dict[str, dict[str, RandomizationTerm]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _commands_fit(self) -> MultirotorFile:
        names = tuple(command.name for command in self.spec.commands)
        if names != COMMANDS:
            raise ValueError(f"a drone takes the commands {COMMANDS}, in this order; here are {names}")
        return self

    def range_of(self, command: str) -> tuple[float, float]:
        """Range of a command component that policies use."""
        if command in self.body.action_ranges:
            return self.body.action_ranges[command]
        limit = next(c for c in self.spec.commands if c.name == command)
        if command == "thrust":
            return 0.16 * (limit.hold or 0.0), limit.high
        factor = 0.67 if command == "yaw_rate" else 0.96
        return factor * limit.low, factor * limit.high


def read_multirotor_file(folder: Path) -> MultirotorFile:
    """Read a drone's ``robot.yaml``.

    Its shortest form is ``model: multirotor``, ``urdf``, ``control_rate_hz``, ``max_thrust_n``, ``max_torque`` [3] N·m,
    ``max_tilt_rad`` and ``max_yaw_rate``; mass and inertia then come from the URDF's single link.

    Raises:
        ConfigError: A file is missing or wrong; the message says which and where.
    """
    file = folder / "robot.yaml"
    try:
        data = yaml.safe_load(file.read_text())
        if not isinstance(data, dict):
            raise ConfigError(f"{file} must hold a mapping, not {type(data).__name__}")
        return MultirotorFile.model_validate(_with_defaults(data, folder) if "spec" not in data else _current(data))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "(top level)"
        raise ConfigError(f"{file}: {place}: {first['msg'].removeprefix('Value error, ')}") from error


def _current(data: dict[str, Any]) -> dict[str, Any]:
    """A full description, also one of an earlier release, which named its URDF under ``body``."""
    body, spec = data.get("body"), data["spec"]
    if "urdf" not in data and isinstance(body, dict) and "urdf" in body:
        data = {**data, "urdf": body["urdf"], "body": {k: v for k, v in body.items() if k != "urdf"}}
    return {**data, "spec": {"interface": INTERFACE, **spec}} if isinstance(spec, dict) else data


def _with_defaults(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    file = folder / "robot.yaml"
    missing = [name for name in ("urdf", *_SHORT) if name not in data]
    if missing:
        unread = [f"'{name}'" for name in ("name", "mass", "inertia") if name in data]
        ignored = (
            f". {', '.join(unread)} must go: the folder gives the name, the URDF mass and inertia" if unread else ""
        )
        raise ConfigError(
            f"{file} lacks {', '.join(missing)}; a drone needs urdf, control_rate_hz, max_thrust_n (N, of all rotors), "
            f"max_torque ([x, y, z] N·m), max_tilt_rad and max_yaw_rate (rad/s){ignored}"
        )
    for key in ("parameters", "randomization", "disturbances"):
        if not isinstance(data.get(key, {}), dict):
            raise ConfigError(f"{file}: '{key}' must hold names and values; leave it out where there are none")
    for key in ("max_thrust_n", "max_tilt_rad", "max_yaw_rate"):
        if not isinstance(data[key], int | float):
            raise ConfigError(f"{file}: {key} is '{data[key]}', not a number")
    mass, inertia = _inertial(folder / str(data["urdf"]))
    rotors = data.get("rotors")
    weight, highest = mass * GRAVITY, float(data["max_thrust_n"])
    tilt, yaw_rate = float(data["max_tilt_rad"]), float(data["max_yaw_rate"])
    if not highest > 1.2 * weight:
        raise ConfigError(
            f"{file}: max_thrust_n is {highest:g} N, the drone weighs {weight:.3g} N; it needs at least 1.2 times that"
        )
    defaults = yaml.safe_load((Path(__file__).parent / "multirotor_defaults.yaml").read_text())
    scales = {"1": 1.0, "mass": mass, "weight": weight}
    parameters = {name: _scaled(entry, scales) for name, entry in defaults["parameters"].items()}
    terms = {name: _scaled(entry, scales) for name, entry in defaults["randomization"].items()}
    pushes = {
        kind: {name: _scaled(entry, scales) for name, entry in entries.items()}
        for kind, entries in defaults["disturbances"].items()
    }
    limits = {
        "thrust": (0.0, highest),
        "roll": (-tilt, tilt),
        "pitch": (-tilt, tilt),
        "yaw_rate": (-yaw_rate, yaw_rate),
    }
    slews = {"thrust": 110.0 * weight, "roll": 40.0, "pitch": 40.0, "yaw_rate": 120.0}
    units = {"thrust": "N", "roll": "rad", "pitch": "rad", "yaw_rate": "rad/s"}
    commands = [
        {"name": name, "unit": units[name], "low": low, "high": high, "slew_per_s": slews[name]}
        | ({"hold": weight, "land": 0.94 * weight} if name == "thrust" else {"hold": 0.0, "land": 0.0})
        for name, (low, high) in limits.items()
    ]
    spec = {
        "name": folder.resolve().name,
        "actuators": [f"m{i + 1}" for i in range(len(rotors) if isinstance(rotors, list) and rotors else 4)],
        "control_rate_hz": data["control_rate_hz"],
        "commands": commands,
        "envelope": defaults["envelope"],
        "interface": data.get("interface", INTERFACE),
    }
    body = {"inertia": inertia, "max_torque": data["max_torque"], "thrust_reference_n": 1.9 * weight}
    body |= {
        key: data[key] for key in ("rotors", "turns", "yaw_ratio", "recorded_mass", "action_ranges") if key in data
    }
    rest = {key: value for key, value in data.items() if key not in {*_SHORT, *body, "interface"}}
    return {
        **rest,
        "spec": spec,
        "body": body,
        "parameters": parameters | data.get("parameters", {}),
        "randomization": terms | data.get("randomization", {}),
        "disturbances": pushes | data.get("disturbances", {}),
    }


def _scaled(entry: Mapping[str, Any], scales: Mapping[str, float]) -> dict[str, Any]:
    """An entry of the defaults, its numbers multiplied by what ``times`` names."""
    factor = scales[entry.get("times", "1")]
    numbers = {key: factor * entry[key] for key in ("nominal", "low", "high") if key in entry}
    if "range" in entry:
        numbers["range"] = [factor * value for value in entry["range"]]
    return {key: value for key, value in entry.items() if key != "times"} | numbers


def _inertial(urdf: Path) -> tuple[float, list[float]]:
    """Mass kg and principal moments [3] kg·m² of a URDF's links together; a drone has one with mass."""
    try:
        links = [link for link in ET.parse(urdf).getroot().iter("link") if link.find("inertial/mass") is not None]
    except (OSError, ET.ParseError) as error:
        raise ConfigError(f"{urdf} cannot be read: {error}") from error
    if len(links) != 1:
        raise ConfigError(f"{urdf} has {len(links)} links with a mass; a drone's description needs exactly one")
    try:
        mass = float(links[0].find("inertial/mass").attrib["value"])  # type: ignore[union-attr]
        tensor = links[0].find("inertial/inertia")
        moments = [float(tensor.attrib[key]) for key in ("ixx", "iyy", "izz")]  # type: ignore[union-attr]
    except (AttributeError, KeyError, ValueError) as error:
        raise ConfigError(f"{urdf}: its <inertial> needs a mass and ixx, iyy, izz as numbers ({error})") from error
    if not (mass > 0 and min(moments) > 0 and 2 * max(moments) <= np.sum(moments)):
        raise ConfigError(f"{urdf}: mass {mass} kg and inertia {moments} kg·m² are not those of a body")
    return mass, moments
