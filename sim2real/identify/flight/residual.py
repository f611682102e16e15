"""Trains the network for the force that a fitted flight model leaves out, and says whether it helps.

On what :func:`~sim2real.identify.flight.fit.flying_windows` see beyond the model, with torch; it runs with NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sim2real.identify.flight.fit import flying_windows
from sim2real.identify.flight.model import Flight, FlightModel, accelerations
from sim2real.robots.residual import INPUTS, Residual
from sim2real.types import Array

HIDDEN = 32
EPOCHS = 20
BATCH_SIZE = 256
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
NO_WORSE = 1.005  # times the error without a network: noise of the last digits
BETTER = 0.98


def train_residual(model: FlightModel, flights: Sequence[Flight], seed: int) -> Residual:
    """Train a network on flights; whether it is of use, only flights that it has not seen can say.

    Args:
        model: Fitted physics.
        flights: With pose.
        seed: Of weights and batches.
    """
    import torch  # noqa: PLC0415 (only training needs it)

    inputs, targets = _examples(model, flights)
    mean, scale = inputs.mean(axis=0), 1.0 / (inputs.std(axis=0) + 1e-3)
    target_std = targets.std(axis=0) + 1e-6
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Tanh(),
        torch.nn.Linear(HIDDEN, 3),
    )  # fmt: skip
    x = torch.from_numpy(np.clip((inputs - mean) * scale, -3.0, 3.0)).float()
    y = torch.from_numpy(targets / target_std).float()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH_SIZE):
            loss = torch.nn.functional.huber_loss(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    arrays = [p.detach().numpy().astype(np.float64) for p in net.parameters()]
    w1, b1, w2, b2, w3, b3 = arrays
    return Residual(mean, scale, (w1.T, b1, w2.T, b2, w3.T * target_std, b3 * target_std))


def helps(without: Mapping[str, float], with_network: Mapping[str, float]) -> bool:
    """Tell whether a network lowers an error and raises none: of position, velocity, attitude and rate."""
    ratios = [with_network[name] / max(without[name], 1e-12) for name in without]
    return min(ratios) < BETTER and max(ratios) < NO_WORSE


def _examples(model: FlightModel, flights: Sequence[Flight]) -> tuple[Array, Array]:
    inputs, targets = [], []
    for flight in flights:
        force, _, v_body, rate, u, up = flying_windows(flight)
        own_force, _ = accelerations(model, v_body, rate, u)
        inputs.append(np.concatenate((v_body, rate, up, (u @ model.thrust)[:, None]), axis=1))
        targets.append(force - own_force)
    return np.concatenate(inputs), np.concatenate(targets)
