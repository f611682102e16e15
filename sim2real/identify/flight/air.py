"""The part of a recording in which a drone flies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from sim2real.types import Array

Mask = NDArray[np.bool_]

AVERAGE_S = 0.2  # longer than a rotor's lag, so that effort and what it lifts can be compared
SHORTEST_REST_S = 0.5  # in the air, effort and lift disagree for less
CARRYING = 0.5  # of the effort in flight; less cannot carry the weight
FELT_AT_REST = 0.85  # g that something else than the rotors gives the drone


def airborne(effort: Array, felt: Array, dt: float) -> Mask:
    """Tell flight from rest: on the ground, rotors too slow to carry the drone are felt with its whole weight.

    Falling feels light, so a steep descent counts as flight.

    Args:
        effort: [T] sum of squared rotor speeds or motor commands, in any unit.
        felt: [T] length of the specific force in g, as an accelerometer shows it.
        dt: s between rows.

    Returns:
        [T] true in the air.
    """
    size = max(1, round(AVERAGE_S / dt))
    effort, felt = uniform_filter1d(effort, size), uniform_filter1d(felt, size)
    turning = effort > 0.3 * np.percentile(effort, 99)
    if not turning.any():
        return np.zeros(len(effort), dtype=bool)
    resting = (effort < CARRYING * np.percentile(effort[turning], 75)) & (felt > FELT_AT_REST)
    air = np.ones(len(effort), dtype=bool)
    for start, stop in spans(resting):
        at_end = start == 0 or stop == len(effort)
        if at_end or (stop - start) * dt >= SHORTEST_REST_S:
            air[start:stop] = False
    return air


def spans(mask: Mask) -> list[tuple[int, int]]:
    """First and past-the-last row of every run of true."""
    edges = np.diff(np.concatenate(([False], mask, [False])).astype(np.int8))
    return list(zip(np.nonzero(edges == 1)[0].tolist(), np.nonzero(edges == -1)[0].tolist(), strict=True))


def shrunk(air: Mask, rest_rows: int, end_rows: int) -> Mask:
    """Rows of flight, without the ``rest_rows`` beside a rest and the ``end_rows`` at the ends of the recording."""
    inner = np.zeros_like(air)
    for start, stop in spans(air):
        first = start + (rest_rows if start else end_rows)
        last = stop - (rest_rows if stop < len(air) else end_rows)
        inner[first : max(first, last)] = True
    return inner


def whole(air: Mask, rows: int) -> Mask:
    """Rows from which the next ``rows``, this one among them, are all in the air; one for every place they have."""
    count = np.cumsum(np.concatenate(([0], air)))
    return np.asarray(count[rows:] - count[:-rows] == rows)
