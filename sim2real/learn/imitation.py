"""Imitation of a task's expert, a plain controller, before PPO begins.

Where a task has a controller (for an arm, a step of its inverse kinematics), exploring from noise only finds what is
known already. States come from rollouts of the mixture of controller and policy (DAgger, Ross et al. 2011), so the
policy has seen the consequences of its own errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sim2real.learn.rollout import read_groups
from sim2real.learn.rsl_rl import actor_inputs, imitation_parameters, mean_actions, normalise_once, tensors
from sim2real.tasks.env import TaskEnv

ROUNDS = 6
STEPS = 60
BATCH_SIZE = 512
LEARNING_RATE = 2e-3  # of the first round; kept up, its noise would be the policy's error
NOISE = 0.2


def imitate(env: TaskEnv, actor: Any, seed: int, batches: int, names: Sequence[str]) -> float:
    """Fit ``actor`` (an rsl-rl model, with or without an LSTM) to the task's expert.

    Args:
        env: Environment whose task has an ``expert``.
        actor: Changed in place.
        seed: Of noise and sample order.
        batches: Gradient steps in each round.
        names: Observation groups of the contract.

    Returns:
        Root of the mean squared difference between policy and expert in the last round, network units.
    """
    assert env.task.expert is not None, f"task '{env.task.name}' has no controller to imitate"
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(imitation_parameters(actor), lr=LEARNING_RATE, fused=True)
    inputs: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    error = np.inf
    for index in range(ROUNDS):
        observed, wanted = _imitated_rollout(env, actor, rng, 1.0 - index / (ROUNDS - 1), names)
        inputs.append(observed)
        targets.append(wanted)
        data, truth = torch.cat(inputs, dim=1), torch.cat(targets, dim=1)
        if not index:  # PPO goes on averaging; from nothing, its first update would change what the policy does
            normalise_once(actor, data.flatten(0, 1))
        if not actor.is_recurrent:
            data, truth = data.flatten(0, 1)[None], truth.flatten(0, 1)[None]
        size = max(1, BATCH_SIZE // len(data))
        squared = 0.0
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1.0 - index / ROUNDS) ** 2
        for _ in range(batches):
            rows = torch.randint(data.shape[1], (size,), generator=generator)
            loss = ((mean_actions(actor, data[:, rows]) - truth[:, rows]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            squared += float(loss.detach())
        error = float(np.sqrt(squared / batches))
    actor.reset()
    return error


def _imitated_rollout(
    env: TaskEnv, actor: Any, rng: np.random.Generator, follow: float, names: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of the policy [T, N, O] and the expert's actions [T, N, A].

    Args:
        env: Goes on from where it is.
        actor: Drives the robots that the expert does not.
        rng: Of noise, and of who drives.
        follow: Fraction of robots that the expert drives.
        names: Observation groups of the contract.
    """
    assert env.task.expert is not None
    inputs, targets = [], []
    actor.reset()
    for _ in range(STEPS):
        groups = tensors(read_groups(env, names))
        wanted = np.clip(env.task.expert(env.signals), -1.0, 1.0).astype(np.float32)
        with torch.inference_mode():
            own = actor(groups).numpy()
        inputs.append(actor_inputs(actor, groups))
        targets.append(torch.from_numpy(wanted))
        led = rng.random((env.count, 1)) < follow
        env.step(np.where(led, wanted, own) + NOISE * rng.standard_normal(own.shape).astype(np.float32))
    return torch.stack(inputs), torch.stack(targets)
