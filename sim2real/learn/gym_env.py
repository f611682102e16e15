"""Tasks as Gymnasium environments, one robot at a time, for other people's algorithms.

Importing this module registers an environment for every shipped robot and task that go together::

    gymnasium.make("sim2real.learn.gym_env:sim2real/So101Push-v0", randomize="all")
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sim2real.config import validate_config
from sim2real.learn.experiment import load_experiment
from sim2real.tasks.view import snapshot
from sim2real.types import Float32

PAIRS = (
    ("crazyflie", "hover"),
    ("fr3", "reach"),
    ("fr3", "push"),
    ("so101", "reach"),
    ("so101", "push"),
)

# Accepted for one release.
OLD_IDS: dict[str, str | tuple[str, ...]] = {
    "sim2real/CrazyflieWaypoint-v0": "all",
    "sim2real/CrazyflieWaypointNominal-v0": (),
}


class GymTaskEnv(gymnasium.Env[Float32, Float32]):
    """One simulated robot with its task.

    The observation is the policy's, without physical parameters; those are in ``info["parameters"]`` (normalised, of
    the quantities that ``tell`` names). ``info["success"]`` is set at the end of an episode.

    Args:
        robot: A shipped robot, or a folder with a ``robot.yaml``.
        task: A task's name, or its settings with a ``name``.
        randomize: As in a configuration: ``all``, names of terms, or nothing.
        tell: Identified quantities in ``info["parameters"]``.
        seed: Of everything random until :meth:`reset` is given another.
        render_mode: ``rgb_array`` or None.
    """

    metadata = {  # noqa: RUF012 - Gymnasium declares it so
        "render_modes": ["rgb_array"],
        "render_fps": 50,
    }

    def __init__(
        self,
        robot: str,
        task: str | dict[str, Any],
        randomize: str | tuple[str, ...] = (),
        tell: tuple[str, ...] = (),
        seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        settings = {"robot": robot, "task": task, "randomize": randomize, "method": "randomized", "name": "gymnasium"}
        config = validate_config({**settings, "ppo": {"iterations": 1}}, "gymnasium.make")
        self._experiment = load_experiment(config).telling(tell)
        self._env = self._experiment.make_env(seed, 1, restart=False)
        size, actions = self._env.observation().shape[1], len(self._env.spec.action)
        clip = [np.full(t.size * t.history, t.clip, np.float32) for t in self._env.spec.observation["observation"]]
        high = np.concatenate(clip)
        self.observation_space = gymnasium.spaces.Box(-high, high, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Start an episode; with a ``seed`` the same one every time."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.sim.close()
            self._env = self._experiment.make_env(seed, 1, restart=False)
        else:
            self._env.reset()
        return self._env.observation()[0], {"parameters": self._env.parameters()[0].copy()}

    def step(self, action: Float32) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Act for one control period."""
        reward, terminated, truncated = self._env.step(np.asarray(action, dtype=np.float32)[None])
        info = {"parameters": self._env.parameters()[0].copy(), "success": bool(self._env.success[0])}
        return self._env.observation()[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """RGB picture of the robot, or None without ``render_mode="rgb_array"``."""
        return snapshot(self._env) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Release the physics client."""
        self._env.sim.close()


def register() -> None:
    """Register the environments of :data:`PAIRS`; importing this module does."""
    for robot, task in PAIRS:
        name = f"sim2real/{robot.capitalize()}{task.capitalize()}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, "sim2real.learn.gym_env:GymTaskEnv", kwargs={"robot": robot, "task": task})
    for name, randomize in OLD_IDS.items():
        if name not in gymnasium.registry:
            kwargs = {"robot": "crazyflie", "task": "hover", "randomize": randomize}
            gymnasium.register(name, "sim2real.learn.gym_env:GymTaskEnv", kwargs=kwargs)


register()
