"""Today's tasks with the surface of the tasks to come. Delete this when tasks take and give states by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from sim2real.robots import load_robot
from sim2real.runtime.bundle import PolicyBundle
from sim2real.sim.arm_on_table import TableState
from sim2real.sim.arm_sim import ArmState
from sim2real.sim.robot import BodyState
from sim2real.tasks import load_task
from sim2real.types import Array, Bools, EnvIds


class TaskView:
    """A task over states by name; ``signals`` is the view itself."""

    def __init__(self, model: Any, task: Any) -> None:
        self.model, self.task, self.signals = model, task, self
        self.tolerance_m = getattr(task, "tolerance_m", None) or task.settings.tolerance_m
        self.expert = task.teacher
        self.needs = tuple(vars(model.nominal_state(1)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def start(self, rng: np.random.Generator, n: int) -> dict[str, Array]:
        return dict(vars(self.task.start(rng, n)))

    def start_command(self, state: Mapping[str, Array]) -> Array:
        return np.asarray(self.task.start_command(_old(state)))

    def goals(self, rng: np.random.Generator, n: int, state: Mapping[str, Array]) -> Array:
        return np.asarray(self.task.goals(rng, n, _old(state)))

    def measure(self, state: Mapping[str, Array], goal: Array) -> dict[str, Array]:
        return dict(self.model.measure(_old(state), goal))

    def failed(self, state: Mapping[str, Array], goal: Array) -> Bools:
        return np.asarray(self.task.failed(_old(state), goal))

    def reward(self, state: Mapping[str, Array], goal: Array, action: Array, previous: Array, failed: Bools) -> Array:
        return np.asarray(self.task.reward(_old(state), goal, action, previous, failed))

    def distance(self, state: Mapping[str, Array], goal: Array) -> Array:
        if "object_pos" in state:
            return np.asarray(np.linalg.norm((state["object_pos"] - goal)[:, :2], axis=1))
        return np.asarray(np.linalg.norm(state["pos" if "pos" in state else "ee_pos"] - goal, axis=1))


def _old(state: Mapping[str, Array]) -> Any:
    s = state
    if "joint_pos" not in s:
        return BodyState(s["pos"], s["quat"], s["lin_vel"], s["ang_vel"])
    tip = s.get("ee_pos", s["joint_pos"][:, :3])
    if "object_pos" in s:
        still = np.zeros_like(s["object_pos"])
        return TableState(s["joint_pos"], s["joint_vel"], tip, s["object_pos"], s.get("object_vel", still))
    return ArmState(s["joint_pos"], s["joint_vel"], tip)


def make_case(robot: str, task: str, settings: Mapping[str, Any]) -> Any:
    """Robot and task by name, as an experiment would hold them: ``.robot`` and ``.task``."""
    model, made = load_task(task, dict(settings), load_robot(robot))
    return SimpleNamespace(robot=model, task=TaskView(model, made))


def bundle_experiment(bundle: PolicyBundle) -> Any:
    """Robot and task of a bundle."""
    config = bundle.provenance["config"]
    settings = {key: value for key, value in config["task"].items() if key != "name"}
    return make_case(config["robot"], config["task"]["name"], settings)


class Holding:
    """Success of n robots: near the goal at every one of the last ``steps`` steps, and never failed."""

    def __init__(self, n: int, steps: int) -> None:
        self._steps = steps
        self._held = np.zeros(n, dtype=np.int64)
        self._failed = np.zeros(n, dtype=np.bool_)

    def update(self, near: Bools, failed: Bools) -> None:
        self._held = np.where(near, self._held + 1, 0)
        self._failed |= failed

    def reset(self, env_ids: EnvIds) -> None:
        self._held[env_ids], self._failed[env_ids] = 0, False

    @property
    def success(self) -> Bools:
        return (self._held >= self._steps) & ~self._failed
