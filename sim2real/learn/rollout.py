"""Rollout workers: each steps its own world with its own copy of the policy, into shared memory.

Lockstep with the learner would wait for the slowest side at every step; here workers and learner
meet once an iteration, and the learner learns from one rollout while the workers collect the next.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from sim2real.errors import SimulationError
from sim2real.interrupts import shielded
from sim2real.learn.acting import Acting, SharedWeights
from sim2real.learn.buffers import Buffers, EpisodeTable
from sim2real.tasks.env import EndedEpisodes, TaskEnv
from sim2real.types import Array, Float32

EnvFactory = Callable[[int], TaskEnv]
SamplerState = Mapping[str, Array]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class RolloutStats:
    """Counts and episodes of one rollout.

    Attributes:
        episodes, successes, crashes: Counts over the episodes that ended.
        reward_sum: Over all steps.
        table: The episodes that ended.
        seconds: Time it took; of the slowest worker.
    """

    episodes: int
    successes: int
    crashes: int
    reward_sum: float
    table: EpisodeTable
    seconds: float


def read_groups(env: TaskEnv, names: Sequence[str]) -> dict[str, Float32]:
    """Read observation groups, identified quantities and privileged observation, each [N, d]."""
    groups = {name: env.observation(name) for name in names}
    return groups | {"parameters": env.parameters(), "privileged": env.privileged_observation()}


def collect(env: TaskEnv, actor: Acting, buffers: Buffers, names: Sequence[str], reads: Sequence[str]) -> RolloutStats:
    """Fill ``buffers`` with as many steps as they hold.

    Args:
        env: Goes on from where it is.
        actor: Acts.
        buffers: Where the steps go.
        names: Observation groups of the contract.
        reads: Groups that the actor reads, in order.
    """
    began = time.perf_counter()
    episodes = successes = crashes = 0
    ended: list[tuple[int, EndedEpisodes]] = []
    obs = read_groups(env, names)
    buffers.memory[...] = actor.memory
    for t in range(len(buffers.actions)):
        for name, target in buffers.groups.items():
            target[t] = obs[name]
        action, mean, std = actor.act(np.concatenate([buffers.groups[name][t] for name in reads], axis=1))
        buffers.actions[t], buffers.mean[t], buffers.std[t] = action, mean, std
        reward, terminated, truncated = env.step(action)
        buffers.rewards[t, :, 0] = reward
        buffers.terminated[t, :, 0] = terminated
        buffers.truncated[t, :, 0] = truncated
        episodes += int(terminated.sum() + truncated.sum())
        crashes += int(terminated.sum())
        successes += int(env.success.sum())
        if len(env.ended.env_ids):
            ended.append((t, env.ended))
        actor.forget(env.trial_ended)
        obs = read_groups(env, names)
    for name, target in buffers.last_groups.items():
        target[...] = obs[name]
    table = EpisodeTable.of(ended, env.sim.randomization.values.copy())
    took = time.perf_counter() - began
    return RolloutStats(episodes, successes, crashes, float(buffers.rewards.sum()), table, took)


def _serve(
    pipe: Connection,
    make_env: EnvFactory,
    seed: int,
    weights: SharedWeights,
    slots: Sequence[Buffers],
    groups: tuple[Sequence[str], Sequence[str]],
    state: SamplerState,
) -> None:
    env = make_env(seed)
    actor = Acting(weights, env.count, np.random.default_rng([seed, 1]))
    if state and env.sim.randomization.sampler is not None:  # the first episodes of a resumed run, too
        env.sim.randomization.sampler.load(state)
        env.reset()
    # Spread the first episodes' ends, or all robots would start anew in the same step for ever.
    env.steps[:] = env.sim.rng.integers(0, env.episode_steps, env.count)
    pipe.send("ready")
    with contextlib.suppress(EOFError):  # the learner was killed
        while (message := pipe.recv()) is not None:
            slot, sampler_state = message
            if sampler_state and env.sim.randomization.sampler is not None:
                env.sim.randomization.sampler.load(sampler_state)
            actor.refresh()
            pipe.send("read")  # from here on the learner may write other weights
            pipe.send(collect(env, actor, slots[slot], *groups))
    env.sim.close()


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes that start here get one thread of linear algebra: two would wait for each other."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Workers:
    """Processes that roll out a policy together.

    Args:
        make_env: Seed to a freshly started environment; must be picklable.
        seeds: One a worker.
        weights: Of the policy; write them between rollouts.
        slots: For every slot, one buffer a worker: one is learned from while the next is filled.
        names: Observation groups of the contract.
        reads: Groups that the policy reads, in order.
        state: What the samplers of physics know already.
    """

    def __init__(
        self,
        make_env: EnvFactory,
        seeds: list[int],
        weights: SharedWeights,
        slots: Sequence[Sequence[Buffers]],
        names: Sequence[str],
        reads: Sequence[str],
        state: SamplerState | None = None,
    ) -> None:
        context = mp.get_context("spawn")
        self._count = slots[0][0].actions.shape[1]
        self._pipes: list[Connection] = []
        self._processes = []
        try:
            for i, seed in enumerate(seeds):
                here, there = context.Pipe()
                own = [buffers[i] for buffers in slots]
                arguments = (there, make_env, seed, weights, own, (names, reads), state or {})
                process = context.Process(target=_serve, args=arguments, daemon=True)
                with shielded(), _single_threaded():  # the learner decides when to stop
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

    def start(self, slot: int, state: SamplerState | None = None) -> None:
        """Begin a rollout with the weights as they are; returns when every worker has read them.

        Args:
            slot: Which buffers it fills.
            state: What the samplers of physics take in before.
        """
        with contextlib.suppress(BrokenPipeError):  # the next line says so
            for pipe in self._pipes:
                pipe.send((slot, state or {}))
        self._receive()

    def wait(self) -> RolloutStats:
        """Wait for the rollout that :meth:`start` began, and put its statistics together."""
        parts: list[RolloutStats] = self._receive()
        return RolloutStats(
            sum(p.episodes for p in parts),
            sum(p.successes for p in parts),
            sum(p.crashes for p in parts),
            sum(p.reward_sum for p in parts),
            EpisodeTable.merge([p.table for p in parts], self._count),
            max(p.seconds for p in parts),
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
