"""Success: within tolerance at every control step of an episode's end, never failed. The one copy of this rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim2real.types import Array, Bools, EnvIds, State

if TYPE_CHECKING:
    from sim2real.tasks.base import Task


def within(task: Task, state: State, goal: Array) -> Bools:
    """Tell which robots [N] are where they should be: by the task's own ``within``, or else by distance."""
    own = getattr(task, "within", None)
    return np.asarray(own(state, goal) if own else task.distance(state, goal) <= task.tolerance_m)


def criterion(task: Task) -> str:
    """Say what counts as success: in the task's own words for :func:`within`, or else by distance; and for how long."""
    own = getattr(task, "criterion", None)
    where = own() if own else f"within {100.0 * task.tolerance_m:g} cm of the goal"
    return f"{where} for the last {task.hold_s:g} of {task.episode_s:g} s, without a failure"


class Holding:
    """Counts for how long N robots have been within tolerance.

    Args:
        count: Number of robots N.
        steps: Control steps that must be held at the end of an episode.

    Attributes:
        failed: Which have failed since their episode began [N].
    """

    def __init__(self, count: int, steps: int) -> None:
        self._steps = steps
        self._held = np.zeros(count, dtype=np.int64)
        self.failed = np.zeros(count, dtype=np.bool_)

    def reset(self, env_ids: EnvIds) -> None:
        """Begin the episodes of ``env_ids`` anew."""
        self._held[env_ids] = 0
        self.failed[env_ids] = False

    def update(self, near: Bools, failed: Bools) -> None:
        """Take in one control step: who is within tolerance [N], and who has failed [N]."""
        self.failed |= failed
        self._held = (self._held + 1) * (near & ~self.failed)

    @property
    def success(self) -> Bools:
        """Which would have succeeded if their episode ended now [N]."""
        return self._held >= self._steps
