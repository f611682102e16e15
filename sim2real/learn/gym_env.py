"""The task environment as a Gymnasium environment, one robot at a time, for other people's algorithms."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sim2real.config import load_config
from sim2real.learn.build import build_env
from sim2real.types import Float32

IDS = {"sim2real/CrazyflieWaypoint-v0": "randomized", "sim2real/CrazyflieWaypointNominal-v0": "nominal"}


class GymTaskEnv(gymnasium.Env[Float32, Float32]):
    """One simulated robot with its task.

    The observation is the policy's, without physical parameters; those are in ``info["parameters"]``
    (normalised, empty unless the configuration identifies some). ``info["success"]`` is set at the end.

    Args:
        config: Configuration file or shipped name.
    """

    metadata = {  # noqa: RUF012 - Gymnasium declares it so
        "render_modes": ["rgb_array"],
        "render_fps": 50,
    }

    def __init__(self, config: str = "randomized", render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self._config = load_config(config)
        self._env = build_env(self._config, self._config.seed, robots=1, restart=False)
        size, actions = self._env.observation().shape[1], len(self._env.spec.action)
        clip = np.concatenate([np.full(t.size * t.history, t.clip, np.float32) for t in self._env.spec.observation])
        self.observation_space = gymnasium.spaces.Box(-clip, clip, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (actions,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Start an episode; with a ``seed`` the same one every time."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.sim.close()
            self._env = build_env(self._config, seed, robots=1, restart=False)
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
        if self.render_mode != "rgb_array":
            return None
        pos = self._env.sim.state.pos[0]
        return self._env.sim.world.render(pos + np.array([0.35, -0.35, 0.2]), pos)

    def close(self) -> None:
        """Release the physics client."""
        self._env.sim.close()


def register() -> None:
    """Register the environments of :data:`IDS`; call it before ``gymnasium.make``."""
    for name, config in IDS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point="sim2real.learn.gym_env:GymTaskEnv", kwargs={"config": config})
