"""Offline identification of an arm's servos from recordings: joint by joint, by whole-motion cross-validation.

A joint is simulated alone, with gravity from the measured pose: in free motion that is what the arm in PyBullet does,
since its joints follow the same servo model, and hundreds of candidates fit into one pass over the recordings. The
search is CMA-ES (Hansen 2016) over bounded, partly logarithmic quantities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, NamedTuple

import cma
import numpy as np
from numpy.typing import NDArray

from sim2real.identify.arm.replay import SIM_DT, references, stops_of
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import LogError
from sim2real.robots.arm import Arm
from sim2real.robots.arm_file import ServoQuantity
from sim2real.robots.servo import Servo
from sim2real.types import Array

# For the search a recording is cut, so that all pieces run side by side; a piece starts at the measured state.
SEGMENT_S = 60.0
SHORTEST_S = 5.0
LOGARITHMIC = ("acceleration", "gain", "no_load_speed", "armature")
POPULATION = 16
STOP_MARGIN_RAD = 0.15  # more than gravity bends a joint
STOP_ROWS = 25
DIFFERENCE = 0.02  # of a quantity's range, for sensitivities
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Segments:
    """Pieces of recordings of one joint, S of them, padded to K steps.

    Attributes:
        motion: [S] index of the recording.
        reference: [K + P, S] rad, commands without dead time; the first P steps are the past.
        measured: [K, S] rad.
        gravity: [K, S] N·m.
        counts: [K, S], 1 where the step is part of the recording, else 0.
        velocity: [S] rad/s at the start.
    """

    motion: NDArray[np.int64]
    reference: Array
    measured: Array
    gravity: Array
    counts: Array
    velocity: Array

    def of(self, motions: NDArray[np.int64]) -> Segments:
        """The pieces of some recordings."""
        keep = np.isin(self.motion, motions)
        return Segments(
            self.motion[keep],
            self.reference[:, keep],
            self.measured[:, keep],
            self.gravity[:, keep],
            self.counts[:, keep],
            self.velocity[keep],
        )


@dataclass(frozen=True)
class Space:
    """The fitted quantities of one joint as coordinates in a unit cube."""

    names: tuple[str, ...]
    low: Array
    high: Array
    logarithmic: NDArray[np.bool_]
    fixed: Mapping[str, float]

    @staticmethod
    def of(quantities: Mapping[str, ServoQuantity], fixed: Mapping[str, float]) -> Space:
        """All quantities that are not ``fixed``."""
        names = tuple(name for name in quantities if name not in fixed)
        low, high = (np.array([getattr(quantities[n], end) for n in names]) for end in ("low", "high"))
        return Space(names, low, high, np.array([n in LOGARITHMIC for n in names]), fixed)

    def decode(self, cube: Array) -> dict[str, Array]:
        """Quantities [C] of points [C, P] of the cube."""
        low, high = self._ends()
        values = low + np.clip(cube, 0.0, 1.0) * (high - low)
        values = np.where(self.logarithmic, np.exp(values), values)
        count = len(cube)
        return {n: values[:, i] for i, n in enumerate(self.names)} | {
            n: np.full(count, value) for n, value in self.fixed.items()
        }

    def encode(self, values: Mapping[str, float]) -> Array:
        """The cube's point [P] of some values."""
        low, high = self._ends()
        raw = np.array([values[n] for n in self.names])
        raw = np.where(self.logarithmic, np.log(np.maximum(raw, 1e-12)), raw)
        return np.clip((raw - low) / (high - low), 0.0, 1.0)

    def slope(self, cube: Array) -> Array:
        """How much each quantity changes with its coordinate [P], at one point."""
        low, high = self._ends()
        values = np.array([self.decode(cube[None])[n][0] for n in self.names])
        return (high - low) * np.where(self.logarithmic, values, 1.0)

    def _ends(self) -> tuple[Array, Array]:
        tiny = 1e-12
        low = np.where(self.logarithmic, np.log(np.maximum(self.low, tiny)), self.low)
        return low, np.where(self.logarithmic, np.log(np.maximum(self.high, tiny)), self.high)


@dataclass
class JointFit:
    """What the recordings say about one joint.

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
    """Where one joint's commands end, rad, and in how many motions that was seen (0: the description says so)."""

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
        folds: Parts that the motions are divided into.
        generations: Of the search.
        seed: Of folds and search.
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
    fold_of = np.random.default_rng(seed).permutation(len(logs)) % folds
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
    """Where every joint's commands end: seen where a joint stands short of what is asked of it, else described."""
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


def cut(arm: Arm, logs: Sequence[JointLog], joint: int, longest_s: float = SEGMENT_S) -> Segments:
    """Cut recordings into pieces of one joint, at most ``longest_s`` long.

    Raises:
        LogError: No recording is long enough.
    """
    quantity = arm.servo["dead_time"]
    past = int(np.ceil(quantity.high / SIM_DT)) + 1
    length = round(min(longest_s, max(log.time[-1] for log in logs) + 2 * SIM_DT) / SIM_DT)
    parts: list[tuple[int, Array, Array, Array, Array, float]] = []
    nothing, far = np.zeros(len(arm.joints)), np.full(len(arm.joints), 1e9)
    for number, log in enumerate(logs):
        reference = references(log, nothing, -far, far, SIM_DT)[:, joint]
        reference = np.concatenate((np.full(past, log.command[0, joint]), reference))
        grid = SIM_DT * np.arange(len(reference) - past + 1)
        measured = np.interp(grid, log.time, log.position[:, joint])
        gravity = np.interp(grid, log.time, arm.chain.gravity_torque(log.position)[:, joint])
        starts = [k for k in range(0, len(grid) - 1, length) if k == 0 or (len(grid) - k) * SIM_DT >= SHORTEST_S]
        for start in starts:
            stop = min(start + length, len(grid) - 1)
            pad = length - (stop - start)
            window = np.clip(np.arange(start - 3, start + 4), 0, len(grid) - 1)
            velocity = float(np.polyfit(grid[window] + 1e-9 * np.arange(7), measured[window], 1)[0])
            parts.append(
                (
                    number,
                    np.pad(reference[start : stop + past], (0, pad), mode="edge"),
                    np.pad(measured[start : stop + 1], (0, pad), mode="edge"),
                    np.pad(gravity[start:stop], (0, pad), mode="edge"),
                    np.pad(np.ones(stop - start), (0, pad)),
                    velocity,
                )
            )
    if not parts:
        raise LogError(f"no recording lasts {SHORTEST_S:g} s; record longer motions")
    reference, measured, gravity, counts = (
        np.ascontiguousarray(np.stack([part[i] for part in parts], axis=1)) for i in (1, 2, 3, 4)
    )
    return Segments(
        np.array([part[0] for part in parts]), reference, measured, gravity, counts, np.array([p[5] for p in parts])
    )


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
    share = (late - whole)[:, None]
    low, high = values["low_stop"][:, None], values["high_stop"][:, None]
    squared = np.zeros((candidates, count))
    track = np.empty((steps, count)) if candidates == 1 else np.empty((0, count))
    for k in range(steps):
        newer = pieces.reference[k + past - whole]
        reference = newer + share * (pieces.reference[k + past - whole - 1] - newer)
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


def parameters_file(arm: Arm, fits: Sequence[JointFit], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a parameters file: values with spread and bounds, and covariances."""
    parameters: dict[str, dict[str, float | str | bool]] = {}
    for fit in fits:
        seen = dict(zip(("low_stop", "high_stop"), fit.stops_seen, strict=True))
        std = dict(zip(fit.names, np.sqrt(np.diag(fit.covariance)).tolist(), strict=True))
        for name, value in fit.values.items():
            bounds, spread = arm.servo[name], std.get(name, 0.0)
            width = value * np.log(bounds.high / bounds.low) if name in LOGARITHMIC else bounds.high - bounds.low
            parameters[f"{fit.joint}.{name}"] = {
                "value": _written(value, bounds),
                "std": round(spread, 6),
                "low": _written(value - 2.0 * spread, bounds),
                "high": _written(value + 2.0 * spread, bounds),
                "unit": bounds.unit,
                "identified": bool(name in fit.names and spread < 0.25 * width),
            }
            if name in seen:
                parameters[f"{fit.joint}.{name}"]["seen_in_motions"] = seen[name]
    return {
        "kind": "sim2real_parameters",
        "robot": arm.name,
        **extra,
        "parameters": parameters,
        "correlation": {
            fit.joint: {"names": list(fit.names), "matrix": np.round(correlation(fit.covariance), 3).tolist()}
            for fit in fits
        },
    }


def _written(number: float, bounds: ServoQuantity) -> float:
    """A number with as many digits as a file keeps, inside bounds that may have more."""
    return float(np.clip(round(number, 6), bounds.low, bounds.high))


def correlation(matrix: Array) -> Array:
    """Correlations of a covariance [P, P]."""
    std = np.sqrt(np.diag(matrix))
    return matrix / np.maximum(np.outer(std, std), 1e-300)
