"""Offline identification of an arm's servos from recordings: joint by joint, cross-validated by kinds of motion.

A joint is simulated alone, with gravity from the measured pose: in free motion that is what the arm in PyBullet does,
since its joints follow the same servo model, and hundreds of candidates fit into one pass over the recordings. The
search is CMA-ES (Hansen 2016) over bounded, partly logarithmic quantities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim2real.identify.arm.kinds import kinds_of
from sim2real.identify.arm.replay import stops_of
from sim2real.identify.arm.search import covariance, search, simulate
from sim2real.identify.arm.segments import SHORTEST_S, Segments, cut
from sim2real.identify.arm.space import Space
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import LogError
from sim2real.robots.arm import Arm
from sim2real.types import Array

STOP_MARGIN_RAD = 0.15  # more than gravity bends a joint
STOP_ROWS = 25
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass
class JointFit:
    """Fitted quantities of one joint, and their uncertainty.

    Attributes:
        values: Best value by quantity.
        covariance: [P, P] of the fitted quantities ``names``, robust to errors that belong together in a piece.
        rmse: On the recordings it was fitted on, rad.
        held_out: Motion → mean squared error (rad²) over the whole motion by a fit that never saw it.
        stops_seen: In how many motions the low and the high stop were seen; 0 where it is the description's.
    """

    joint: str
    names: tuple[str, ...]
    values: dict[str, float]
    covariance: Array
    rmse: float
    held_out: dict[str, float] = field(default_factory=dict)
    stops_seen: tuple[int, int] = (0, 0)


class Stops(NamedTuple):
    """Hard stops of one joint's commands, rad, and in how many motions each was seen (0: as described)."""

    low: float
    high: float
    low_seen: int = 0
    high_seen: int = 0


def identify(
    arm: Arm,
    logs: Sequence[JointLog],
    *,
    folds: int,
    generations: int,
    seed: int,
    on_progress: Progress,
    finished: dict[str, dict[str, float]],
    processes: int = 2,
) -> list[JointFit]:
    """Fit every joint's servo on all recordings, and on all but each fold's for an honest error.

    Args:
        arm: The robot; its description gives bounds and start.
        logs: Recordings.
        folds: Kinds that the motions are divided into; see :func:`kinds_of`.
        generations: Of the search.
        seed: Of the search.
        on_progress: Called after every search with how many are done, how many there are, and figures.
        finished: Searches of an interrupted identification, and where new ones are put: key → values.
        processes: Searches that run at the same time.

    Raises:
        LogError: Fewer motions than folds, or fewer that are long enough.
    """
    if len(logs) < max(folds, 2):
        raise LogError(f"{len(logs)} motions cannot be divided into {folds} folds; record more, or ask for fewer folds")
    usable = sum(bool(log.time[-1] >= SHORTEST_S) for log in logs)
    if usable < max(folds, 2):
        raise LogError(
            f"{usable} of {len(logs)} motions last {SHORTEST_S:g} s or more, {max(folds, 2)} are needed; the shortest, "
            f"'{min(logs, key=lambda log: log.time[-1]).name}', lasts {min(log.time[-1] for log in logs):.1f} s: "
            "record longer motions"
        )
    fold_of = kinds_of(logs, folds)
    jobs = [(joint, fold) for joint in range(len(arm.joints)) for fold in range(-1, folds)]
    pieces = [cut(arm, logs, joint) for joint in range(len(arm.joints))]
    # What a fold must not see includes the stops: they come from its own training motions.
    stops = {
        fold: find_stops(arm, [log for log, part in zip(logs, fold_of, strict=True) if part != fold])
        for fold in range(-1, folds)
    }
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[dict[str, float]], str] = {}
        for joint, fold in jobs:
            key = f"{arm.joints[joint]}/{'all' if fold < 0 else fold}"
            if key not in finished:
                motions = np.nonzero(fold_of != fold)[0]
                space = _space(arm, joint, stops[fold][joint])
                start = space.encode({n: float(v[joint]) for n, v in arm.described().items()})
                arguments = (space, pieces[joint].of(motions), start, generations, seed)
                futures[pool.submit(search, *arguments)] = key
        on_progress(len(jobs) - len(futures), len(jobs), {})
        try:
            for future in as_completed(futures):
                finished[futures[future]] = future.result()
                figures = {"rmse_rad": finished[futures[future]]["rmse"]}
                on_progress(len(finished), len(jobs), figures)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [_collect(arm, logs, j, pieces[j], stops[-1][j], fold_of, finished) for j in range(len(arm.joints))]


def _space(arm: Arm, joint: int, stops: Stops) -> Space:
    fixed = {n: float(arm.described()[n][joint]) for n, q in arm.servo.items() if q.fixed or q.low == q.high}
    return Space.of(arm.servo, fixed | {"low_stop": stops.low, "high_stop": stops.high})


def _collect(
    arm: Arm,
    logs: Sequence[JointLog],
    joint: int,
    pieces: Segments,
    stops: Stops,
    fold_of: NDArray[np.int64],
    finished: Mapping[str, Mapping[str, float]],
) -> JointFit:
    name, space = arm.joints[joint], _space(arm, joint, stops)
    best = {k: v for k, v in finished[f"{name}/all"].items() if k != "rmse"}
    fit = JointFit(
        name,
        space.names,
        best,
        covariance(space, pieces, space.encode(best)),
        finished[f"{name}/all"]["rmse"],
        stops_seen=(stops.low_seen, stops.high_seen),
    )
    for fold in range(int(fold_of.max()) + 1):
        held = np.nonzero(fold_of == fold)[0]
        values = {k: np.array([v]) for k, v in finished[f"{name}/{fold}"].items()}
        part = cut(arm, [logs[int(motion)] for motion in held], joint, np.inf)
        ends = [_ends_of(arm, logs[int(motion)], joint, values) for motion in held]
        for end in sorted(set(ends)):
            chosen = np.array([index for index, own in enumerate(ends) if own == end])
            error = simulate(values | dict(zip(("low_stop", "high_stop"), np.array(end)[:, None], strict=True)), part)
            for index in chosen:
                log = logs[int(held[index])]
                fit.held_out[log.name] = float(error[1][0, index] / part.counts[:, index].sum())
    return fit


def _ends_of(arm: Arm, log: JointLog, joint: int, values: Mapping[str, Array]) -> tuple[float, float]:
    """The stops (rad) of one joint that replay would use for a motion."""
    ends = [np.full(len(arm.joints), values[name][0]) for name in ("low_stop", "high_stop")]
    low, high = stops_of(arm, log, *ends)
    return float(low[joint]), float(high[joint])


def find_stops(arm: Arm, logs: Sequence[JointLog]) -> list[Stops]:
    """Find every joint's hard stops: seen where a joint stays short of its commands, else as described."""
    position, command = (np.concatenate([getattr(log, part) for log in logs]) for part in ("position", "command"))
    motion = np.repeat(np.arange(len(logs)), [len(log.time) for log in logs])
    described = arm.described()
    stops = []
    for joint in range(len(arm.joints)):
        q, c = position[:, joint], command[:, joint]
        ends, seen = [], []
        for name, beyond in (
            ("low_stop", c < q.min() - STOP_MARGIN_RAD),
            ("high_stop", c > q.max() + STOP_MARGIN_RAD),
        ):
            shown = bool(beyond.sum() > STOP_ROWS)
            ends.append(float(np.median(q[beyond])) if shown else float(described[name][joint]))
            seen.append(len(np.unique(motion[beyond])) if shown else 0)
        stops.append(Stops(ends[0], ends[1], seen[0], seen[1]))
    return stops
