"""Robots and tasks for tests of targets."""

from types import SimpleNamespace

from sim2real.robots import load_robot
from sim2real.tasks import load_task


def make_case(robot, task, settings):
    """A robot and a task for it, as an experiment holds them."""
    model = load_robot(robot)
    return SimpleNamespace(robot=model, task=load_task({"name": task, **settings}, model))
