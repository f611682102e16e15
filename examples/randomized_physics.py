"""Randomized physics of eight Crazyflies, and how far apart they are after a second of the same commands."""

import numpy as np

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment

experiment = load_experiment(load_config("randomized"))
env = experiment.make_env(seed=0, count=8, restart=False)
start = experiment.task.start(np.random.default_rng(0), 1)
env.reset(start={name: np.repeat(value, 8, axis=0) for name, value in start.items()})
for _ in range(50):
    env.step(np.zeros((8, 4), np.float32))
for name in ("mass", "thrust_scale", "action_delay"):
    print(name, np.round(env.sim.params[name], 3))
print("height after a second, m", np.round(env.sim.state["pos"][:, 2], 2))
env.sim.close()
