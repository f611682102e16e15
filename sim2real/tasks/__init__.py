"""Tasks by name. A task knows rewards, resets and success; it knows no Bullet client and no network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

from sim2real.config import validate
from sim2real.registry import resolve
from sim2real.robots.model import RobotModel
from sim2real.tasks.base import Task

TASKS = {
    "hover": "sim2real.tasks.hover:Hover",
    "reach": "sim2real.tasks.reach:Reach",
    "push": "sim2real.tasks.push:Push",
}
OLD_NAMES = {"waypoint": "hover"}  # accepted for one release


def load_task(settings: Mapping[str, Any], robot: RobotModel) -> Task:
    """Make the task that ``settings`` name for a robot.

    Args:
        settings: ``name`` (a key of ``TASKS`` or ``module:Class``) and the task's own settings.
        robot: Whose task.

    Raises:
        ConfigError: No such task, a wrong setting, or the task does not suit the robot.
    """
    name = str(settings["name"])
    if name in OLD_NAMES:
        warnings.warn(f"task '{name}' is called '{OLD_NAMES[name]}' now", FutureWarning, stacklevel=2)
        name = OLD_NAMES[name]
    made = resolve(name, TASKS, "task")
    own = {key: value for key, value in settings.items() if key != "name"}
    return cast(Task, made(robot, validate(made.Settings, own, f"task '{name}'")))
