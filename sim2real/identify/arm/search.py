"""Search for a joint's quantities, and their covariance."""

from __future__ import annotations

from collections.abc import Mapping

import cma
import numpy as np

from sim2real.identify.arm.replay import SIM_DT
from sim2real.identify.arm.segments import Segments
from sim2real.identify.arm.space import Space
from sim2real.robots.servo import Servo
from sim2real.types import Array

POPULATION = 16
DIFFERENCE = 0.02  # of a quantity's range, for sensitivities


def simulate(values: Mapping[str, Array], pieces: Segments) -> tuple[Array, Array]:
    """Every candidate through every piece.

    Args:
        values: Quantities [C].
        pieces: S pieces of K steps.

    Returns:
        Positions after every step [K, C, S] rad where C is 1, else empty, and summed squared errors [C, S] rad².
    """
    steps, count = pieces.gravity.shape
    candidates = len(values["gain"])
    wide = {name: np.repeat(value[:, None], count, axis=1) for name, value in values.items()}
    start = np.tile(pieces.measured[0], (candidates, 1))
    servo = Servo(wide, start, np.tile(pieces.velocity, (candidates, 1)), SIM_DT)
    past = len(pieces.reference) - steps
    late = values["dead_time"] / SIM_DT
    whole = np.floor(late).astype(np.int64)
    fraction = (late - whole)[:, None]
    low, high = values["low_stop"][:, None], values["high_stop"][:, None]
    squared = np.zeros((candidates, count))
    track = np.empty((steps, count)) if candidates == 1 else np.empty((0, count))
    for k in range(steps):
        newer = pieces.reference[k + past - whole]
        reference = newer + fraction * (pieces.reference[k + past - whole - 1] - newer)
        servo.step(np.clip(reference, low, high), pieces.gravity[k])
        error = servo.position - pieces.measured[k + 1]
        squared += error * error * pieces.counts[k]
        if candidates == 1:
            track[k] = servo.position[0]
    return track[:, None], squared


def search(space: Space, pieces: Segments, start: Array, generations: int, seed: int) -> dict[str, float]:
    """Best quantities for ``pieces`` and their ``rmse`` (rad)."""
    strategy = cma.CMAEvolutionStrategy(
        start.clip(0.02, 0.98), 0.15, {"popsize": POPULATION, "bounds": [0, 1], "seed": seed + 1, "verbose": -9}
    )
    samples = pieces.counts.sum()
    for _ in range(generations):
        points = strategy.ask()
        loss = simulate(space.decode(np.array(points)), pieces)[1].sum(axis=1) / samples
        strategy.tell(points, loss.tolist())
    best = np.array(strategy.result.xbest)
    values: dict[str, float] = {n: float(v[0]) for n, v in space.decode(best[None]).items()}
    return values | {"rmse": float(np.sqrt(strategy.result.fbest))}


def covariance(space: Space, pieces: Segments, best: Array) -> Array:
    """Covariance [P, P] of the fitted quantities, clustered by piece (Liang and Zeger 1986).

    Errors within a piece may depend on each other in any way; pieces count as independent.
    """
    size = len(space.names)
    base = simulate(space.decode(best[None]), pieces)[0][:, 0]
    sensitivity = np.empty((size, *base.shape))
    for index in range(size):
        ends = np.stack((best, best))
        ends[:, index] = np.clip(best[index] + DIFFERENCE * np.array([-1.0, 1.0]), 0.0, 1.0)
        tracks = [simulate(space.decode(end[None]), pieces)[0][:, 0] for end in ends]
        sensitivity[index] = (tracks[1] - tracks[0]) / (ends[1, index] - ends[0, index])
    sensitivity *= pieces.counts
    error = (pieces.measured[1:] - base) * pieces.counts
    information = np.einsum("iks,jks->ij", sensitivity, sensitivity)
    scores = np.einsum("iks,ks->si", sensitivity, error)
    # A quantity the data say nothing about stays within its bounds: a uniform prior's variance in the cube.
    noise = float((error**2).sum() / pieces.counts.sum())
    inverse = np.linalg.pinv(information + 12.0 * noise * np.eye(size))
    cube: Array = inverse @ (scores.T @ scores + 12.0 * noise**2 * np.eye(size)) @ inverse
    slope = space.slope(best)
    return cube * np.outer(slope, slope)
