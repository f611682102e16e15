"""Robots by name. A robot is a folder: URDF, ``robot.yaml`` with the source of every figure, dynamics."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.sim.robot import RobotModel

ROBOTS = {
    "crazyflie": "sim2real.robots.crazyflie.model:Crazyflie",
}


def load_robot(name: str) -> RobotModel:
    """Make the robot model registered as ``name``.

    Raises:
        ConfigError: No such robot.
    """
    if name not in ROBOTS:
        raise ConfigError(f"unknown robot '{name}'; known: {', '.join(sorted(ROBOTS))}")
    module, _, attribute = ROBOTS[name].partition(":")
    return cast("RobotModel", getattr(import_module(module), attribute)())


def robot_folder(name: str) -> Path:
    """Folder of a robot shipped with this package by name, or any folder with a ``robot.yaml`` by path.

    Raises:
        ConfigError: There is no such robot.
    """
    shipped = Path(__file__).parent / name
    folder = shipped if (shipped / "robot.yaml").is_file() else Path(name)
    if not (folder / "robot.yaml").is_file():
        raise ConfigError(f"no robot '{name}': neither one of this package's nor a folder with a robot.yaml")
    return folder
