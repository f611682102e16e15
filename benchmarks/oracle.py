"""How well can the target be flown at all? A policy trained on the target's own dynamics.

It is told everything a policy on the robot cannot know: which airframe, which condition and the
attitude trim. The distance between the nominal policy and this one is the reality gap of the task;
the report of the gap says which share of it a transfer method closed.

    python benchmarks/oracle.py --run runs/oracle --results runs/demo/results.json --json benchmarks/results/oracle.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from sim2real.config import PPOConfig
from sim2real.evaluate.in_process import _starts, summarise
from sim2real.evaluate.table import mean_success, share_of_gap
from sim2real.learn.osi import UniversalPolicy
from sim2real.learn.ppo import Trainer
from sim2real.provenance import commit
from sim2real.runtime.flight_signals import flight_signals
from sim2real.runtime.geometry import quat_to_matrix, rotate
from sim2real.runtime.observation import ObservationHistory, decode_action, encode_action
from sim2real.runtime.spec import ParameterTerm, PolicySpec
from sim2real.sim.robot import BodyState
from sim2real.targets.drone import AIRFRAMES, CONDITIONS, DroneSensors, SimulatedDrones
from sim2real.tasks.hover import Waypoint

CELLS = [(airframe, condition) for airframe in AIRFRAMES for condition in CONDITIONS]


def oracle_spec(task: Waypoint) -> PolicySpec:
    """The waypoint contract, told the cell (one-hot) and the trim."""
    names = [f"{a}/{c}" for a, c in CELLS] + ["roll_trim", "pitch_trim"]
    return PolicySpec(
        robot="crazyflie",
        task="waypoint",
        control_rate_hz=50,
        observation=task.observation(),
        estimator_observation=task.estimator_observation(),
        parameters=tuple(ParameterTerm(name=n, unit="1", low=-1, high=1, nominal=0) for n in names),
        action=task.action(),
    )


class TwinEnv:
    """All sixteen cells side by side, as the trainer expects an environment; a cell starts anew as a whole."""

    def __init__(self, seed: int, per_cell: int = 16) -> None:
        self.task = Waypoint()
        self.spec = oracle_spec(self.task)
        self.per_cell, self.count = per_cell, per_cell * len(CELLS)
        self.twins = [SimulatedDrones(a, c, per_cell, seed + i) for i, (a, c) in enumerate(CELLS)]
        self.sim = SimpleNamespace(rng=np.random.default_rng(seed), close=lambda: None)
        self.episode_steps = 250
        self.steps = np.zeros(self.count, dtype=np.int64)
        self.goal = np.tile(self.task.goal_m, (self.count, 1))
        self.success = np.zeros(self.count, dtype=np.bool_)
        self._held = np.zeros(self.count, dtype=np.int64)
        self._action = np.zeros((self.count, 4))
        self._history = ObservationHistory(self.spec.observation, self.count)
        self._parameters = np.zeros((self.count, len(CELLS) + 2), dtype=np.float32)
        for cell in range(len(CELLS)):
            self._restart(cell)
        self._observe(np.arange(self.count))

    def _rows(self, cell: int) -> slice:
        return slice(cell * self.per_cell, (cell + 1) * self.per_cell)

    def _restart(self, cell: int) -> None:
        rows, twin = self._rows(cell), self.twins[cell]
        twin.reset(*_starts(self.task, self.per_cell, int(self.sim.rng.integers(2**31))))
        self._action[rows], self._held[rows], self.steps[rows] = 0.0, 0, 0
        self._parameters[rows] = 0.0
        self._parameters[rows, cell] = 1.0
        self._parameters[rows, -2:] = twin.trim / DroneSensors().trim_rad

    def _stack(self, which: str) -> BodyState:
        parts = [getattr(twin, which)() for twin in self.twins]
        pos, quat, vel, rate = (np.concatenate(values) for values in zip(*parts, strict=True))
        return BodyState(pos, quat, vel, rotate(quat_to_matrix(quat), rate))

    def _observe(self, restarted: np.ndarray) -> None:
        s = self._stack("estimate")
        signals = flight_signals(s.pos - self.goal, s.quat, s.lin_vel, s.ang_vel)
        signals["last_action"] = self._action
        self._history.push(signals)
        if len(restarted):
            self._history.reset({n: v[restarted] for n, v in signals.items()}, restarted)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fly one control period; see ``TaskEnv.step``."""
        command = decode_action(self.spec.action, action)
        sent = encode_action(self.spec.action, command)
        for cell, twin in enumerate(self.twins):
            twin.command(command[self._rows(cell)])
            twin.advance(0.02)
        state = self._stack("truth")
        self.distance = np.linalg.norm(state.pos - self.goal, axis=1)
        terminated = np.concatenate([twin.crashed for twin in self.twins]) | self.task.failed(state, self.goal)
        reward = self.task.reward(state, self.goal, sent, self._action, terminated)
        self._action = sent
        self.steps += 1
        self._held = np.where(self.task.within(state, self.goal), self._held + 1, 0)
        # The trainer spreads first episodes by changing `steps` row by row; a cell goes by its first row.
        over = np.repeat(self.steps[:: self.per_cell] >= self.episode_steps, self.per_cell)
        truncated = over & ~terminated
        self.success = truncated & (self._held >= 50)
        for cell in np.nonzero(over[:: self.per_cell])[0]:
            self._restart(int(cell))
        self._observe(np.nonzero(over)[0])
        return reward, terminated, truncated

    def observation(self) -> np.ndarray:
        """The policy's observation."""
        return self._history.observation()

    def parameters(self) -> np.ndarray:
        """Cell and trim."""
        return self._parameters

    def privileged_observation(self) -> np.ndarray:
        """True state and time left, for the critic."""
        s = self._stack("truth")
        signals = flight_signals(s.pos - self.goal, s.quat, s.lin_vel, s.ang_vel)
        left = (1.0 - self.steps / self.episode_steps)[:, None]
        return np.concatenate((*signals.values(), 10 * np.clip(signals["position_error"], -0.3, 0.3), left), 1).astype(
            np.float32
        )


def evaluate(trainer: Trainer, episodes: int, seed: int) -> dict[str, dict[str, dict[str, object]]]:
    """Fly the trained policy without exploration: airframe → condition → cell."""
    policy = UniversalPolicy(trainer.actor).eval()
    env = TwinEnv(seed, episodes)
    distance = np.empty((env.episode_steps, env.count))
    crashed = np.zeros(env.count, dtype=np.bool_)
    with torch.inference_mode():
        for step in range(env.episode_steps):
            action = policy(torch.from_numpy(env.observation()), torch.from_numpy(env.parameters()))
            _, terminated, _ = env.step(action.numpy())
            distance[step] = env.distance
            crashed |= terminated
    results: dict[str, dict[str, dict[str, object]]] = {}
    for cell, (airframe, condition) in enumerate(CELLS):
        rows = env._rows(cell)
        results.setdefault(airframe, {})[condition] = summarise(distance[:, rows], crashed[rows], 50.0).summary()
    return results


def main() -> None:
    """Train, evaluate, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/oracle"))
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--results", type=Path, help="results.json of a demo, to compare with")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    trainer = Trainer(TwinEnv, PPOConfig(iterations=arguments.iterations), arguments.run, 2, 0, True)
    trainer.load()
    trainer.train(lambda i, f: print(f"{i} success {f['success']:.2f}", flush=True) if i % 20 == 0 else None)
    cells = evaluate(trainer, arguments.episodes, 10_000)
    report = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "training_s": time.perf_counter() - started,
        "mean_success": mean_success(cells),
        "cells": cells,
    }
    if arguments.results:
        flown = json.loads(arguments.results.read_text())["in_process"]
        report["share_of_gap_closed"] = {name: share_of_gap(flown, name, cells) for name in flown if name != "nominal"}
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
