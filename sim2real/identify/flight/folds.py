"""Which flights are held out together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim2real.identify.flight.model import STEP_S, Flight
from sim2real.types import Array

EVERY_S, SHIFT_S = 0.1, 2.0
ALIKE = 0.3  # distance over spread of two flights of one trajectory; repeated real flights have less than 0.1


def trajectories(flights: Sequence[Flight]) -> list[int]:
    """Number the trajectories that flights follow; flights of one number repeat each other.

    Such flights say nothing about a prediction elsewhere, so they must be held out together.
    """
    every = round(EVERY_S / STEP_S)
    tracks = [flight.pos[::every] - flight.pos.mean(axis=0) for flight in flights]
    found: list[int] = []
    for index, track in enumerate(tracks):
        same = [found[other] for other in range(index) if _distance(track, tracks[other]) < ALIKE]
        found.append(same[0] if same else max(found, default=-1) + 1)
    return found


def _distance(first: Array, second: Array) -> float:
    """Least distance of two tracks over their spread, one shifted in time against the other."""
    most = round(SHIFT_S / EVERY_S)
    spread = float(np.sqrt(0.5 * ((first**2).sum(axis=1).mean() + (second**2).sum(axis=1).mean()))) + 1e-9
    best = np.inf
    for shift in range(-most, most + 1):
        a, b = (first[shift:], second) if shift >= 0 else (first, second[-shift:])
        count = min(len(a), len(b))
        if count > most:
            best = min(best, float(np.sqrt(((a[:count] - b[:count]) ** 2).sum(axis=1).mean())) / spread)
    return best
