"""Rollout workers: each steps its own world with its own copy of the policy, into shared memory.

Lockstep with the learner would wait for the slowest side at every step; here workers and learner
meet once an iteration.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from sim2real.errors import SimulationError
from sim2real.interrupts import shielded
from sim2real.learn.buffers import Buffers, EpisodeTable
from sim2real.learn.rsl_rl import act, hidden_state, read_groups
from sim2real.tasks.env import EndedEpisodes, TaskEnv
from sim2real.types import Array

EnvFactory = Callable[[int], TaskEnv]
SamplerState = Mapping[str, Array]


@dataclass(frozen=True)
class RolloutStats:
    """Counts and episodes of one rollout.

    Attributes:
        episodes, successes, crashes: Counts over the episodes that ended.
        reward_sum: Over all steps.
        table: The episodes that ended.
    """

    episodes: int
    successes: int
    crashes: int
    reward_sum: float
    table: EpisodeTable


def collect(env: TaskEnv, actor: Any, buffers: Buffers, names: Sequence[str]) -> RolloutStats:
    """Fill ``buffers`` with as many steps as they hold.

    Args:
        env: Goes on from where it is.
        actor: Acts; an rsl-rl model.
        buffers: Where the steps go.
        names: Observation groups of the contract.
    """
    episodes = successes = crashes = 0
    ended: list[tuple[int, EndedEpisodes]] = []
    with torch.inference_mode():
        obs = read_groups(env, names)
        for kept, state in zip(buffers.memory, hidden_state(actor), strict=False):
            kept[:] = state
        for t in range(len(buffers.actions)):
            action, log_prob, mean, std = act(actor, obs)
            for name, target in buffers.groups.items():
                target[t] = obs[name]
            buffers.actions[t] = action
            buffers.log_prob[t, :, 0] = log_prob
            buffers.mean[t], buffers.std[t] = mean, std
            reward, terminated, truncated = env.step(action.numpy())
            buffers.rewards[t, :, 0] = torch.from_numpy(reward)
            buffers.terminated[t, :, 0] = torch.from_numpy(terminated)
            buffers.truncated[t, :, 0] = torch.from_numpy(truncated)
            episodes += int(terminated.sum() + truncated.sum())
            crashes += int(terminated.sum())
            successes += int(env.success.sum())
            if len(env.ended.env_ids):
                ended.append((t, env.ended))
            actor.reset(torch.from_numpy(env.trial_ended))
            obs = read_groups(env, names)
        for name, target in buffers.last_groups.items():
            target[:] = obs[name]
    table = EpisodeTable.of(ended, env.sim.params.values.shape[1])
    return RolloutStats(episodes, successes, crashes, float(buffers.rewards.sum()), table)


def _serve(
    pipe: Connection,
    make_env: EnvFactory,
    seed: int,
    actor: Any,
    buffers: Buffers,
    names: Sequence[str],
    state: SamplerState,
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    env = make_env(seed)
    if state and env.sim.randomization.sampler is not None:  # the first episodes of a resumed run, too
        env.sim.randomization.sampler.load(state)
        env.reset()
    # Spread the first episodes' ends, or all robots would start anew in the same step for ever.
    env.steps[:] = env.sim.rng.integers(0, env.episode_steps, env.count)
    pipe.send("ready")
    with contextlib.suppress(EOFError):  # the learner was killed
        while (message := pipe.recv()) is not None:
            if message and env.sim.randomization.sampler is not None:
                env.sim.randomization.sampler.load(message)
            pipe.send(collect(env, actor, buffers, names))
    env.sim.close()


class Workers:
    """Processes that roll out a policy together.

    Args:
        make_env: Seed to a freshly started environment; must be picklable.
        seeds: One a worker.
        actor: Policy with parameters in shared memory; update it in place between rollouts.
        buffers: One a worker.
        names: Observation groups of the contract.
        state: What the samplers of physics know already.
    """

    def __init__(
        self,
        make_env: EnvFactory,
        seeds: list[int],
        actor: Any,
        buffers: list[Buffers],
        names: Sequence[str],
        state: SamplerState | None = None,
    ) -> None:
        context = mp.get_context("spawn")
        self._count = buffers[0].actions.shape[1]
        self._pipes: list[Connection] = []
        self._processes = []
        try:
            for seed, buffer in zip(seeds, buffers, strict=True):
                here, there = context.Pipe()
                arguments = (there, make_env, seed, actor, buffer, names, state or {})
                process = context.Process(target=_serve, args=arguments, daemon=True)
                with shielded():  # the learner decides when to stop
                    process.start()
                    self._processes.append(process)
                there.close()
                self._pipes.append(here)
            self._receive()
        except BaseException:
            self.close()
            raise

    def _receive(self) -> list[Any]:
        try:
            return [pipe.recv() for pipe in self._pipes]
        except EOFError:
            raise SimulationError("a rollout worker died; its own traceback is above") from None

    def collect(self, state: SamplerState | None = None) -> RolloutStats:
        """Roll out every worker's buffers and put the statistics together.

        Args:
            state: What the samplers of physics take in before.
        """
        for pipe in self._pipes:
            pipe.send(state or {})
        parts: list[RolloutStats] = self._receive()
        return RolloutStats(
            sum(p.episodes for p in parts),
            sum(p.successes for p in parts),
            sum(p.crashes for p in parts),
            sum(p.reward_sum for p in parts),
            EpisodeTable.merge([p.table for p in parts], self._count),
        )

    def close(self) -> None:
        """Stop the processes; calling it twice is harmless."""
        for pipe in self._pipes:
            try:
                pipe.send(None)
            except (BrokenPipeError, OSError):
                continue
        for process in self._processes:
            process.join(timeout=5.0)
            if process.is_alive():
                process.kill()
        self._pipes, self._processes = [], []
