"""Rollout workers: each steps its own world with its own copy of the policy, into shared memory.

Lockstep with the learner would wait for the slowest side at every step; here workers and learner
meet once an iteration.
"""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from tensordict import TensorDict

from sim2real.errors import SimulationError
from sim2real.tasks.env import TaskEnv

EnvFactory = Callable[[int], TaskEnv]
GROUPS = ("observation", "parameters", "privileged")


@dataclass(frozen=True)
class RolloutStats:
    """Counts over the episodes that ended in one rollout."""

    episodes: int
    successes: int
    crashes: int
    reward_sum: float


def read_groups(env: TaskEnv) -> TensorDict:
    """The environment's observation groups as float32 tensors, batch [N]."""
    groups = {
        "observation": torch.from_numpy(env.observation()),
        "parameters": torch.from_numpy(env.parameters().copy()),
        "privileged": torch.from_numpy(env.privileged_observation()),
    }
    return TensorDict(groups, batch_size=[env.count])


class Buffers:
    """One worker's columns of the rollout, views of shared memory; all are [T, N, …]."""

    def __init__(self, steps: int, groups: TensorDict, actions: int, lstm: int = 0) -> None:
        count = groups.batch_size[0]

        def shared(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape).share_memory_()

        self.groups = {name: shared(steps, count, groups[name].shape[1]) for name in GROUPS}
        self.last_groups = {name: shared(count, groups[name].shape[1]) for name in GROUPS}
        self.actions = shared(steps, count, actions)
        self.log_prob = shared(steps, count, 1)
        self.mean = shared(steps, count, actions)
        self.std = shared(steps, count, actions)
        self.rewards = shared(steps, count, 1)
        self.terminated = shared(steps, count, 1)
        self.truncated = shared(steps, count, 1)
        self.memory = shared(2, count, lstm)  # hidden and cell state before the first step


def collect(env: TaskEnv, actor: Any, buffers: Buffers) -> RolloutStats:
    """Fill ``buffers`` with as many steps as they hold, acting with ``actor`` (an rsl-rl model)."""
    episodes = successes = crashes = 0
    with torch.inference_mode():
        obs = read_groups(env)
        if actor.is_recurrent and actor.get_hidden_state() is not None:
            for kept, state in zip(buffers.memory, actor.get_hidden_state(), strict=True):
                kept[:] = state[0]
        for t in range(len(buffers.actions)):
            action = actor(obs, stochastic_output=True)
            for name in GROUPS:
                buffers.groups[name][t] = obs[name]
            buffers.actions[t] = action
            buffers.log_prob[t, :, 0] = actor.get_output_log_prob(action)
            buffers.mean[t], buffers.std[t] = actor.output_distribution_params
            reward, terminated, truncated = env.step(action.numpy())
            buffers.rewards[t, :, 0] = torch.from_numpy(reward)
            buffers.terminated[t, :, 0] = torch.from_numpy(terminated)
            buffers.truncated[t, :, 0] = torch.from_numpy(truncated)
            episodes += int(terminated.sum() + truncated.sum())
            crashes += int(terminated.sum())
            successes += int(env.success.sum())
            actor.reset(torch.from_numpy(terminated | truncated))
            obs = read_groups(env)
        for name in GROUPS:
            buffers.last_groups[name][:] = obs[name]
    return RolloutStats(episodes, successes, crashes, float(buffers.rewards.sum()))


def _serve(pipe: Connection, make_env: EnvFactory, seed: int, actor: Any, buffers: Buffers) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the learner decides when to stop
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    env = make_env(seed)
    # Spread the first episodes' ends, or all robots would start anew in the same step for ever.
    env.steps[:] = env.sim.rng.integers(0, env.episode_steps, env.count)
    pipe.send("ready")
    while pipe.recv():
        pipe.send(collect(env, actor, buffers))
    env.sim.close()


class Workers:
    """Processes that roll out a policy together.

    Args:
        make_env: Seed to a freshly started environment; must be picklable.
        seeds: One a worker.
        actor: Policy with parameters in shared memory; update it in place between rollouts.
        buffers: One a worker.
    """

    def __init__(self, make_env: EnvFactory, seeds: list[int], actor: Any, buffers: list[Buffers]) -> None:
        context = mp.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for seed, buffer in zip(seeds, buffers, strict=True):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, make_env, seed, actor, buffer), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        self._receive()

    def _receive(self) -> list[Any]:
        try:
            return [pipe.recv() for pipe in self._pipes]
        except EOFError:
            raise SimulationError("a rollout worker died; its own traceback is above") from None

    def collect(self) -> RolloutStats:
        """Roll out every worker's buffers and add up the statistics."""
        for pipe in self._pipes:
            pipe.send(True)
        parts: list[RolloutStats] = self._receive()
        return RolloutStats(
            sum(p.episodes for p in parts),
            sum(p.successes for p in parts),
            sum(p.crashes for p in parts),
            sum(p.reward_sum for p in parts),
        )

    def close(self) -> None:
        """Stop the processes; calling it twice is harmless."""
        for pipe in self._pipes:
            try:
                pipe.send(False)
            except (BrokenPipeError, OSError):
                continue
        for process in self._processes:
            process.join(timeout=5.0)
            if process.is_alive():
                process.terminate()
        self._pipes, self._processes = [], []
