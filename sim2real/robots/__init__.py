"""Robots by name. A robot is a folder: URDF, ``robot.yaml`` with the source of every figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from sim2real.errors import ConfigError
from sim2real.registry import resolve
from sim2real.robots.arm import Arm
from sim2real.robots.model import RobotModel

# Kinds of robots, as ``model:`` in a folder's robot.yaml names them.
MODELS = {
    "arm": "sim2real.robots.arm:Arm",
    "multirotor": "sim2real.robots.multirotor:Multirotor",
}
# What only drones have; a robot.yaml with one of them and without an ``ee`` needs no ``model``.
DRONE_KEYS = {"body", "attitude", "mass", "rotors", "max_thrust_n", "max_torque", "max_tilt_rad", "max_yaw_rate"}


def load_robot(name: str, identified: Path | None = None) -> RobotModel:
    """Make a robot's model.

    Args:
        name: A shipped robot, a folder with a ``robot.yaml``, or ``module:Class`` of a model that needs no folder.
        identified: Parameters file: an arm's values become nominal, a drone takes the residual network it names.

    Raises:
        ConfigError: No such robot, or parameters that are not its own.
    """
    if ":" in name and not Path(name).exists():
        return cast(RobotModel, resolve(name, {}, "robot")(identified=identified))
    folder = robot_folder(name)
    return cast(RobotModel, resolve(model_of(folder), MODELS, f"model of robot '{name}',")(folder, identified))


def shipped_robots() -> list[str]:
    """Names of the robots that ship with this package."""
    return sorted(file.parent.name for file in Path(__file__).parent.glob("*/robot.yaml"))


def robot_folder(name: str) -> Path:
    """Find the folder of a shipped robot by name, or any folder with a ``robot.yaml`` by path.

    Raises:
        ConfigError: There is no such robot.
    """
    shipped = Path(__file__).parent / name
    folder = shipped if (shipped / "robot.yaml").is_file() else Path(name)
    if not (folder / "robot.yaml").is_file():
        known = ", ".join(shipped_robots())
        raise ConfigError(f"no robot '{name}'; there are {known}, and any folder with a robot.yaml")
    return folder


def model_of(folder: Path) -> str:
    """Read which kind of robot a folder describes."""
    try:
        data: Any = yaml.safe_load((folder / "robot.yaml").read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{folder / 'robot.yaml'} is not valid YAML: {error}") from error
    if isinstance(data, dict) and isinstance(data.get("model"), str):
        return str(data["model"])
    flies = isinstance(data, dict) and "ee" not in data and not DRONE_KEYS.isdisjoint(data)
    return "multirotor" if flies else "arm"


def load_arm(name: str) -> Arm:
    """Make the model of an arm.

    Raises:
        ConfigError: There is no such robot, or it is no arm.
    """
    folder = robot_folder(name)
    if model_of(folder) != "arm":
        raise ConfigError(f"'{name}' is not an arm: its robot.yaml names no 'ee'; this command is for arms")
    return Arm(folder)
