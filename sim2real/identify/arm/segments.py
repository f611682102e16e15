"""Pieces of recordings of one joint, that are simulated side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim2real.identify.arm.replay import SIM_DT, references
from sim2real.recordings.logs import JointLog
from sim2real.recordings.tables import LogError
from sim2real.robots.arm import Arm
from sim2real.types import Array

# For the search a recording is cut, so that all pieces run side by side; a piece starts at the measured state.
SEGMENT_S = 60.0
SHORTEST_S = 5.0


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
