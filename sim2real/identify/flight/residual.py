"""Trains the network for what a fitted flight model leaves out.

On what :func:`~sim2real.identify.flight.fit.windows` see beyond the model, with torch; it runs with NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim2real.identify.flight.fit import WINDOW, Trim, position_error, windows
from sim2real.identify.flight.model import Flight, FlightModel, accelerations
from sim2real.robots.residual import Residual
from sim2real.runtime.geometry import quat_to_matrix
from sim2real.types import Array

HIDDEN = 32
EPOCHS = 40
BATCH_SIZE = 256
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-4
HELD_OUT = 0.25


def train_residual(
    model: FlightModel, flights: Sequence[Flight], trim: Trim, seed: int
) -> tuple[Residual | None, float, float]:
    """Train on most of every flight, keep the network only if it predicts the rest better.

    Args:
        model: Fitted physics.
        flights: With pose.
        trim: As fitted; both candidates use it.
        seed: Of weights and batches.

    Returns:
        The network, or None where it does not help; position error after 50 steps on the held-out ends of the
        flights without and with it, m.
    """
    import torch  # noqa: PLC0415 (only training needs it)

    rows = [round(len(flight.pos) * (1.0 - HELD_OUT)) for flight in flights]
    seen = [_cut(flight, 0, end) for flight, end in zip(flights, rows, strict=True)]
    unseen = [_cut(flight, end, len(flight.pos)) for flight, end in zip(flights, rows, strict=True)]
    inputs, targets = _examples(model, seen)
    mean, scale = inputs.mean(axis=0), 1.0 / (inputs.std(axis=0) + 1e-3)
    target_std = targets.std(axis=0) + 1e-6
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(13, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Tanh(),
        torch.nn.Linear(HIDDEN, 6),
    )  # fmt: skip
    x = torch.from_numpy(np.clip((inputs - mean) * scale, -3.0, 3.0)).float()
    y = torch.from_numpy(targets / target_std).float()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    before = position_error(model, unseen, trim)
    best, after = None, before
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH_SIZE):
            loss = torch.nn.functional.huber_loss(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if epoch % 5 == 4:
            candidate = _as_residual(net, mean, scale, target_std)
            error = position_error(model, unseen, trim, candidate)
            if error < after:
                best, after = candidate, error
    return best, before, after


def _cut(flight: Flight, start: int, stop: int) -> Flight:
    s = slice(start, stop)
    return Flight(flight.name, flight.pos[s], flight.vel[s], flight.quat[s], flight.ang_vel[s], flight.inputs[s])


def _examples(model: FlightModel, flights: Sequence[Flight]) -> tuple[Array, Array]:
    inputs, targets = [], []
    for flight in flights:
        force, spin, v_body, rate, u = windows(flight)
        own_force, own_spin = accelerations(model, v_body, rate, u)
        up = quat_to_matrix(flight.quat[WINDOW // 2 : WINDOW // 2 + len(force)])[:, 2, :]
        inputs.append(np.concatenate((v_body, rate, up, u), axis=1))
        targets.append(np.concatenate((force - own_force, spin - own_spin), axis=1))
    return np.concatenate(inputs), np.concatenate(targets)


def _as_residual(net: object, mean: Array, scale: Array, target_std: Array) -> Residual:
    arrays = [p.detach().numpy().astype(np.float64) for p in net.parameters()]  # type: ignore[attr-defined]
    w1, b1, w2, b2, w3, b3 = arrays
    return Residual(mean, scale, (w1.T, b1, w2.T, b2, w3.T * target_std, b3 * target_std))
