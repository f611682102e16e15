"""Robots by name. A robot is a folder: URDF, ``robot.yaml`` with the source of every figure, dynamics."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import yaml

from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.sim.robot import RobotModel

ROBOTS = {
    "crazyflie": "sim2real.robots.crazyflie.model:Crazyflie",
}
ARM = "sim2real.robots.arm:Arm"  # an arm is a folder without code


def load_robot(name: str, identified: Path | None = None) -> RobotModel:
    """Make the robot model registered as ``name``, or the arm whose folder has this name or path.

    Args:
        name: Of the robot.
        identified: Parameters file: an arm's values become nominal, a drone takes the residual network it names.

    Raises:
        ConfigError: No such robot, or parameters that are not its own.
    """
    folder = None if name in ROBOTS else robot_folder(name)
    module, _, attribute = ROBOTS.get(name, ARM).partition(":")
    model = getattr(import_module(module), attribute)
    return cast("RobotModel", model(folder, identified) if folder else model(identified))


def robot_folder(name: str) -> Path:
    """Folder of a robot shipped with this package by name, or any folder with a ``robot.yaml`` by path.

    Raises:
        ConfigError: There is no such robot.
    """
    shipped = Path(__file__).parent / name
    folder = shipped if (shipped / "robot.yaml").is_file() else Path(name)
    if not (folder / "robot.yaml").is_file():
        shipped_robots = ", ".join(sorted(file.parent.name for file in Path(__file__).parent.glob("*/robot.yaml")))
        raise ConfigError(f"no robot '{name}'; there are {shipped_robots}, and any folder with a robot.yaml")
    return folder


def arm_folder(name: str) -> Path:
    """Folder of an arm, as :func:`robot_folder` finds it.

    Raises:
        ConfigError: There is no such robot, or it is no arm.
    """
    folder = robot_folder(name)
    if not is_arm(folder):
        raise ConfigError(f"'{name}' is not an arm: its robot.yaml names no 'ee'; this command is for arms")
    return folder


def is_arm(folder: Path) -> bool:
    """Whether a robot's folder describes an arm: it has an end effector."""
    try:
        data = yaml.safe_load((folder / "robot.yaml").read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{folder / 'robot.yaml'} is not valid YAML: {error}") from error
    return isinstance(data, dict) and "ee" in data
