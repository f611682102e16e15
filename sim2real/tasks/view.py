"""Pictures of one environment: robot, scene and goal."""

from __future__ import annotations

import numpy as np

from sim2real.tasks.env import TaskEnv
from sim2real.types import Image

_GOAL_RGBA = (0.15, 0.5, 0.2, 1.0)


def mark_goal(env: TaskEnv) -> None:
    """Draw the first robot's goal as a cross; it stays where it is."""
    goal = env.goal[0, :3]
    size = 0.03 if env.sim.robot.fixed_base else 0.15
    for axis in np.eye(3):
        env.sim.world.add_visual_box((0.002 + (size - 0.002) * axis).tolist(), goal.tolist(), _GOAL_RGBA)


def snapshot(env: TaskEnv, width: int = 300, height: int = 220) -> Image:
    """Picture [height, width, 3] of the first robot: a bolted one from before it, another from beside its goal."""
    if env.sim.robot.fixed_base:
        eye, centre, angle = np.array([0.75, -0.75, 0.6]), np.array([0.25, 0.0, 0.1]), 45.0
    else:
        goal, place = env.goal[0, :3], env.sim.state[env.sim.robot.position][0]
        # Near enough to see a drone as large as a hand, and never so near that it or the goal leaves the picture.
        away = 0.3 + 0.75 * float(np.linalg.norm(place - goal))
        centre = 0.5 * (goal + place)
        eye, angle = centre + away * np.array([0.55, -0.8, 0.3]), 60.0
    return env.sim.world.render(eye.tolist(), centre.tolist(), width, height, angle)
