"""Arm environments: control steps a second on one core, next to panda-gym, in one run on one machine.

python benchmarks/arm_speed.py [--json FILE]

panda-gym is not a dependency of this project; without it its rows are left out: pip install --no-deps panda-gym==3.0.7
Ours run with everything randomized, and what training reads in every step is read; actions are those of the task's
own controller, whose computation counts, so that pushing really pushes. panda-gym runs as shipped (one arm, 25 Hz
control, 20 physics steps) with random actions. Rounds alternate between all of them, so that a slow spell of the
machine does not fall on one alone. "two workers" is the training's own rollout: two processes, shared memory, the
policy inside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from sim2real.config import load_config
from sim2real.learn.experiment import load_experiment
from sim2real.provenance import made as facts

OURS = {
    "FR3 reach, 16 arms": ("so101_reach", "fr3", 2, 16),
    "FR3 push, 16 arms": ("so101_push", "fr3", 3, 16),
    "SO-101 reach, 32 arms": ("so101_reach", "so101", 2, 32),
    "SO-101 push, 32 arms": ("so101_push", "so101", 2, 32),
}
PEERS = ("PandaReach-v3", "PandaPush-v3")
SECONDS, ROUNDS = 3.0, 3


def ours(config, robot, decimation, count):
    env = load_experiment(load_config(config, [f"robot={robot}", f"sim.decimation={decimation}"])).make_env(0, count)

    def step():
        env.step(np.asarray(env.task.teacher(env.signals), dtype=np.float32))
        env.observation()
        env.privileged_observation()
        return count

    return step


def panda_gym(name):
    import gymnasium
    import panda_gym  # noqa: F401 (registers its environments)

    env = gymnasium.make(name)
    env.reset(seed=0)

    def step():
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
        return 1

    return step


def rate(step):
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        steps += step()
    return steps / (time.perf_counter() - began)


def workers(count):
    """Steps a second of PPO's rollouts on FR3 reach with ``count`` processes."""
    from sim2real.learn.experiment import EnvOf
    from sim2real.learn.ppo import Trainer

    config = load_config(
        "so101_reach", ["robot=fr3", "sim.decimation=2", "sim.robots=16", f"sim.workers={count}", "ppo.iterations=9"]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(EnvOf(load_experiment(config), ("observation",)), config.ppo, Path(folder), count, 0)
        trainer.train()
    took = [row["collect_s"] for row in trainer.history[2:]]
    return config.ppo.steps * 16 * count / statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    steps = {f"sim2real, {name}": ours(*settings) for name, settings in OURS.items()}
    for name in PEERS:
        try:
            steps[f"panda-gym, {name}"] = panda_gym(name)
        except ImportError:
            print(f"panda-gym is not installed, so there is no {name}")
    rates = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            rates[name].append(rate(step))
    result = {name: round(statistics.median(values)) for name, values in rates.items()}
    one, two = workers(1), workers(2)
    result |= {"sim2real, rollout of FR3 reach, one worker": round(one), "two workers": round(two)}
    for name, value in result.items():
        print(f"{name:45s} {value:7d} control steps/s")
    print(f"two workers are {two / one:.2f} times one")
    if arguments.json:
        arguments.json.write_text(json.dumps({"made": facts(), "control_steps_per_s": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
