"""The traces of one rollout: steps in shared memory, and a table of the episodes that ended in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim2real.learn.acting import floats, shared_floats
from sim2real.tasks.env import EndedEpisodes
from sim2real.types import Array, Bools, EnvIds, Float32


class Buffers:
    """One worker's columns of a rollout in shared memory, float32; all are [T, N, …].

    Args:
        steps: Control steps T.
        widths: Width of every observation group.
        count: Robots N.
        actions: Components of an action.
        lstm: Width of the policy's LSTM; 0 without.
    """

    def __init__(self, steps: int, widths: Mapping[str, int], count: int, actions: int, lstm: int = 0) -> None:
        groups = {f"groups.{name}": (steps, count, width) for name, width in widths.items()}
        last = {f"last_groups.{name}": (count, width) for name, width in widths.items()}
        self._shapes: dict[str, tuple[int, ...]] = {
            **groups,
            **last,
            "actions": (steps, count, actions),
            "mean": (steps, count, actions),
            "std": (steps, count, actions),
            "rewards": (steps, count, 1),
            "terminated": (steps, count, 1),
            "truncated": (steps, count, 1),
            "memory": (2, count, lstm),  # hidden and cell state before the first step
        }
        self._memory = {name: shared_floats(*shape) for name, shape in self._shapes.items()}
        self._view()

    def _view(self) -> None:
        def view(name: str) -> Float32:
            return floats(self._memory[name], self._shapes[name])

        names = [name.removeprefix("groups.") for name in self._shapes if name.startswith("groups.")]
        self.groups = {name: view(f"groups.{name}") for name in names}
        self.last_groups = {name: view(f"last_groups.{name}") for name in names}
        self.actions, self.mean, self.std = view("actions"), view("mean"), view("std")
        self.rewards, self.terminated, self.truncated = view("rewards"), view("terminated"), view("truncated")
        self.memory = view("memory")

    def __getstate__(self) -> dict[str, Any]:
        """Only the shared memory travels to a worker."""
        return {"_shapes": self._shapes, "_memory": self._memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See the same memory from another process."""
        self.__dict__.update(state)
        self._view()


@dataclass(frozen=True)
class EpisodeTable:
    """Episodes that ended in one rollout, a row each.

    Attributes:
        steps: Control step of the rollout in which each ended [E].
        columns: Whose [E]: robots of all workers, side by side.
        params: Their physics [E, P].
        returns: Sums of their rewards [E].
        success: Which succeeded [E].
        lengths: Control steps they took [E].
        running: Physics of the episodes that had not ended at the end of the rollout [N, P].
    """

    steps: EnvIds
    columns: EnvIds
    params: Array
    returns: Array
    success: Bools
    lengths: EnvIds
    running: Array

    @classmethod
    def of(cls, ended: Sequence[tuple[int, EndedEpisodes]], running: Array) -> EpisodeTable:
        """Put together what ended, step by step, and the physics [N, P] of what goes on."""
        parts = [part for _, part in ended]

        def join(name: str, empty: Any) -> Any:
            return np.concatenate([getattr(part, name) for part in parts]) if parts else empty

        none = np.zeros(0, dtype=np.int64)
        steps = [np.full(len(part.env_ids), step) for step, part in ended]
        return cls(
            np.concatenate(steps) if steps else none,
            join("env_ids", none),
            join("params", np.zeros((0, running.shape[1]))),
            join("returns", np.zeros(0)),
            join("success", np.zeros(0, dtype=np.bool_)),
            join("lengths", none),
            running,
        )

    @classmethod
    def merge(cls, tables: Sequence[EpisodeTable], count: int) -> EpisodeTable:
        """Put the tables of workers with ``count`` robots each side by side."""
        parts = [
            (t.steps, t.columns + i * count, t.params, t.returns, t.success, t.lengths, t.running)
            for i, t in enumerate(tables)
        ]
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def rows_of_steps(self, steps: int, columns: int) -> EnvIds:
        """Row of the episode that every step [steps, columns] of the rollout belongs to; -1 where it has not ended."""
        rows = np.full((steps, columns), -1)
        for row, (last, column, length) in enumerate(zip(self.steps, self.columns, self.lengths, strict=True)):
            rows[max(0, last - length + 1) : last + 1, column] = row
        return rows

    def of_steps(self, steps: int, ended: Array, running: Array) -> Array:
        """Numbers of every step's episode [steps, N]: ``ended`` [E], and ``running`` [N] where it goes on."""
        rows = self.rows_of_steps(steps, len(running))
        return np.where(rows >= 0, np.append(ended, np.nan)[rows], running)
