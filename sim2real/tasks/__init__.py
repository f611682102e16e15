"""Tasks by name. A task knows rewards, resets and success; it knows no Bullet client and no network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from sim2real.errors import ConfigError

if TYPE_CHECKING:
    from sim2real.sim.robot import RobotModel
    from sim2real.tasks.env import Task

TASKS = {
    "waypoint": "sim2real.tasks.hover:Waypoint",
    "reach": "sim2real.tasks.reach:Reach",
    "push": "sim2real.tasks.push:Push",
}


def load_task(name: str, settings: dict[str, Any], model: RobotModel) -> tuple[RobotModel, Task]:
    """Make the task registered as ``name`` with ``settings`` for a robot.

    Returns:
        The robot, with what the task adds to its physics (an object to push), and the task.

    Raises:
        ConfigError: No such task, or it does not suit the robot.
    """
    if name not in TASKS:
        raise ConfigError(f"unknown task '{name}'; known: {', '.join(sorted(TASKS))}")
    module, _, attribute = TASKS[name].partition(":")
    return cast("tuple[RobotModel, Task]", getattr(import_module(module), attribute).for_robot(model, settings))
