"""The end effector's gap to motion capture: what encoders leave of it already, and what simulation adds.

Neither the frame of motion capture nor where its markers sit on the end effector is known, nor its clock. They are
fitted to the forward kinematics of the measured joints, in the first half of every recording; the gap is of the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from sim2real.identify.arm.replay import MotionReplay
from sim2real.recordings.mocap import Mocap
from sim2real.recordings.tables import LogError
from sim2real.robots.arm import Arm
from sim2real.types import Array

GRID_S = 0.02
OVERLAP_S = 3.0
ALIKE = 0.7  # correlation of the speeds, from which on it is the same motion
OUTLIER_M = 0.01
OTHER_UNIT = 10.0
LOOSE_M = 1.0  # standard deviation of where markers sit, before they are seen


@dataclass(frozen=True)
class _Track:
    """Place [T, 3] and rotation [T, 3, 3] of the end effector in the base, over time [T]."""

    time: Array
    place: Array
    turned: Array

    def at(self, time: Array) -> tuple[Array, Array]:
        """Interpolated; the rotation is one but for the square of a step's angle."""
        flat = np.concatenate([self.place, self.turned.reshape(-1, 9)], axis=1)
        found = np.stack([np.interp(time, self.time, column) for column in flat.T], axis=1)
        return found[:, :3], found[:, 3:].reshape(-1, 3, 3)


def mocap_gap(arm: Arm, motions: Sequence[MotionReplay], seen: Sequence[Mocap]) -> dict[str, Any]:
    """Compare replayed motions with motion capture.

    Args:
        arm: The robot.
        motions: Replays, with measured and simulated joints.
        seen: Motion capture of each.

    Returns:
        Figures (mm, deg): ``encoders``, ``simulated``, ``added`` (from one to the other), by recording in
        ``per_motion``, with what was fitted.

    Raises:
        LogError: Motion capture shows another motion, is in another unit, or overlaps too little.
    """
    measured = [_track(arm, motion.time, motion.measured) for motion in motions]
    simulated = [_track(arm, motion.time, motion.simulated) for motion in motions]
    offsets = np.array([_offset(track, mocap) for track, mocap in zip(measured, seen, strict=True)])
    common = [_common(track, mocap, late) for track, mocap, late in zip(measured, seen, offsets, strict=True)]
    halves = [(rows[: len(rows) // 2], rows[len(rows) // 2 :]) for rows in common]
    fit = _fit(measured, seen, [half[0] for half in halves], offsets)
    world, shift, marker, offsets = fit[:3], fit[3:6], fit[6:9], fit[9:]
    to_world = Rotation.from_rotvec(world)

    def predicted(track: _Track, time: Array) -> tuple[Array, Rotation]:
        place, turned = track.at(time)
        return to_world.apply(place + turned @ marker) + shift, to_world * Rotation.from_matrix(turned)

    turns = [predicted(t, m.time[h[0]] - o)[1].inv() * Rotation.from_quat(m.quat[h[0]])
             for t, m, h, o in zip(measured, seen, halves, offsets, strict=True) if m.quat is not None]  # fmt: skip
    mounted = Rotation.concatenate(turns).mean() if turns else None
    parts: list[dict[str, Array]] = []
    per_motion = {}
    for motion, real, model, mocap, half, late in zip(motions, measured, simulated, seen, halves, offsets, strict=True):
        rows = half[1]
        (own, own_turn), (other, other_turn) = (predicted(t, mocap.time[rows] - late) for t in (real, model))
        gaps = {
            "encoders_mm": _length(own - mocap.position[rows]),
            "simulated_mm": _length(other - mocap.position[rows]),
            "added_mm": _length(other - own),
            "added_deg": _angle(own_turn, other_turn),
        }
        if mounted is not None and mocap.quat is not None:
            watched = Rotation.from_quat(mocap.quat[rows])
            gaps["encoders_deg"] = _angle(own_turn * mounted, watched)
            gaps["simulated_deg"] = _angle(other_turn * mounted, watched)
        parts.append(gaps)
        per_motion[motion.name] = _figures([gaps]) | {
            "time_offset_s": float(late),
            "lost": mocap.lost,
            "fitted_s": float(np.ptp(mocap.time[half[0]])),
            "held_out_s": float(np.ptp(mocap.time[rows])),
        }
    return _figures(parts) | {
        "per_motion": per_motion,
        "T_mocap_base": {"position_m": shift.tolist(), "quat_xyzw": to_world.as_quat().tolist()},
        "marker_in_ee_m": marker.tolist(),
    }


def _track(arm: Arm, time: Array, position: Array) -> _Track:
    return _Track(time, *arm.chain.frames(position)[arm.ee])


def _offset(track: _Track, mocap: Mocap) -> float:
    """By how much later (s) the clock of motion capture shows a motion; of both clocks the first row is zero.

    Raises:
        LogError: No offset makes their speeds alike.
    """
    grids = [np.arange(0.0, times[-1], GRID_S) for times in (track.time, mocap.time)]
    own, other = (
        _length(np.gradient(np.stack([np.interp(grid, times, column) for column in place.T], axis=1), GRID_S, axis=0))
        for grid, times, place in zip(grids, (track.time, mocap.time), (track.place, mocap.position), strict=True)
    )
    least = min(int(OVERLAP_S / GRID_S), len(own), len(other)) * 2 // 3
    best = (-1.0, 0)
    for lag in range(least - len(own), len(other) - least + 1):
        a, b = own[max(0, -lag) : len(other) - lag], other[max(0, lag) : len(own) + lag]
        if a.std() > 0.0 and b.std() > 0.0:
            # Long overlaps are worth more than short ones that happen to be alike.
            best = max(best, (float(np.corrcoef(a, b)[0, 1]) * min(1.0, 2.0 * len(a) / min(len(own), len(other))), lag))
    if best[0] < ALIKE:
        raise LogError(
            f"{mocap.name}: motion capture shows another motion than the recording: their speeds agree to "
            f"{max(best[0], 0.0):.2f} at best (correlation, {ALIKE:g} is needed); is it another recording, another "
            "body, or does the arm hardly move?"
        )
    return best[1] * GRID_S


def _common(track: _Track, mocap: Mocap, late: float) -> NDArray[np.int64]:
    """Rows of motion capture that the recording covers."""
    at = mocap.time - late
    rows: NDArray[np.int64] = np.nonzero((at >= track.time[0]) & (at <= track.time[-1]))[0]
    if not len(rows) or np.ptp(mocap.time[rows]) < OVERLAP_S:
        raise LogError(f"{mocap.name}: less than {OVERLAP_S:g} s of motion capture are of the recording")
    return rows


def _fit(measured: Sequence[_Track], seen: Sequence[Mocap], rows: Sequence[NDArray[np.int64]], offsets: Array) -> Array:
    """Rotation vector and shift of base in motion capture's frame, markers in the end effector's, offsets: [9 + R]."""
    place = np.concatenate([t.at(m.time[r] - o)[0] for t, m, r, o in zip(measured, seen, rows, offsets, strict=True)])
    watched = np.concatenate([m.position[r] for m, r in zip(seen, rows, strict=True)])
    wide, narrow = (float(np.sqrt(((p - p.mean(axis=0)) ** 2).sum(axis=1).mean())) for p in (watched, place))
    if not narrow / OTHER_UNIT < wide < OTHER_UNIT * narrow:
        raise LogError(
            f"{seen[0].name}: motion capture moves {wide:.3g} m where the end effector moves {narrow:.3g} m (root mean "
            f"square); positions are metres{': divide millimetres by 1000' if wide > narrow else ''}"
        )
    rotation, _ = Rotation.align_vectors(watched - watched.mean(axis=0), place - place.mean(axis=0))
    shift = watched.mean(axis=0) - rotation.apply(place.mean(axis=0))

    def residuals(x: Array) -> Array:
        turn, parts = Rotation.from_rotvec(x[:3]), []
        for track, mocap, own, late in zip(measured, seen, rows, x[9:], strict=True):
            at, turned = track.at(mocap.time[own] - late)
            parts.append((turn.apply(at + turned @ x[6:9]) + x[3:6] - mocap.position[own]).ravel())
        # Where the arm does not turn its end effector, markers may sit anywhere along: they are taken for near.
        return np.concatenate([*parts, 1e-3 * x[6:9] / LOOSE_M])

    start = np.concatenate([rotation.as_rotvec(), shift, np.zeros(3), offsets])
    found = least_squares(residuals, start, loss="soft_l1", f_scale=OUTLIER_M, x_scale="jac", diff_step=1e-6)
    return np.asarray(found.x)


def _length(vectors: Array) -> Array:
    return np.sqrt((vectors**2).sum(axis=-1))


def _angle(a: Rotation, b: Rotation) -> Array:
    """Degrees between rotations [T]."""
    return np.degrees((a.inv() * b).magnitude())


def _figures(parts: Sequence[dict[str, Array]]) -> dict[str, Any]:
    """Median and 95 % quantile of every gap, in mm and deg."""
    result: dict[str, Any] = {}
    for name in dict.fromkeys(key for part in parts for key in part):
        what, _, unit = name.rpartition("_")
        values = np.concatenate([part[name] for part in parts if name in part]) * (1e3 if unit == "mm" else 1.0)
        result.setdefault(what, {}).update(
            {f"median_{unit}": float(np.median(values)), f"p95_{unit}": float(np.quantile(values, 0.95))}
        )
    return result
