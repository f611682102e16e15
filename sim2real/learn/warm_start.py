"""A policy's first guess: imitate a plain controller that the task knows, before PPO begins.

Where a task has a controller (for an arm, a step of its inverse kinematics), exploring from noise only finds what is
known already. States come from rollouts of the mixture of controller and policy (DAgger, Ross et al. 2011), so the
policy has seen the consequences of its own errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sim2real.learn.rollout import read_groups
from sim2real.tasks.env import TaskEnv

ROUNDS = 6
STEPS = 60
BATCHES = 400
BATCH_SIZE = 512
LEARNING_RATE = 2e-3
NOISE = 0.2


def warm_start(env: TaskEnv, actor: Any, seed: int) -> float:
    """Fit ``actor`` (an rsl-rl model) to the task's own controller.

    Args:
        env: Environment whose task has a ``teacher``.
        actor: Changed in place.
        seed: Of noise and sample order.

    Returns:
        Root of the mean squared difference between policy and controller in the last round, network units.
    """
    assert env.task.teacher is not None, f"task '{env.task.name}' has no controller to imitate"
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(actor.mlp.parameters(), lr=LEARNING_RATE, fused=True)
    inputs: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    error = np.inf
    for index in range(ROUNDS):
        follow = 1.0 - index / (ROUNDS - 1)  # share of robots that the controller drives
        for _ in range(STEPS):
            groups = read_groups(env)
            wanted = np.clip(env.task.teacher(env.signals), -1.0, 1.0).astype(np.float32)
            with torch.inference_mode():
                own = actor(groups).numpy()
            inputs.append(torch.cat([groups[name] for name in actor.obs_groups], dim=-1))
            targets.append(torch.from_numpy(wanted))
            led = rng.random((env.count, 1)) < follow
            env.step(np.where(led, wanted, own) + NOISE * rng.standard_normal(own.shape).astype(np.float32))
        data, truth = torch.cat(inputs), torch.cat(targets)
        if not index:  # PPO goes on averaging; from nothing, its first update would change what the policy does
            actor.obs_normalizer.train()
            actor.obs_normalizer.update(data)
            actor.obs_normalizer.until = 0
        squared = 0.0
        for _ in range(BATCHES):
            rows = torch.randint(len(data), (BATCH_SIZE,), generator=generator)
            loss = ((actor.mlp(actor.obs_normalizer(data[rows])) - truth[rows]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            squared += float(loss.detach())
        error = float(np.sqrt(squared / BATCHES))
    return error
