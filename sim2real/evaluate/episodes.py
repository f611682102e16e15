"""One evaluation loop for every target: a policy, a task, a target, the number of successes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sim2real.errors import SpecError
from sim2real.robots.model import RobotModel
from sim2real.runtime.spec import PolicySpec
from sim2real.targets.base import Target, begin
from sim2real.tasks.base import Task
from sim2real.tasks.success import Holding
from sim2real.types import Array, Bools

_NORMAL_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


class Runner(Protocol):
    """A policy for N robots."""

    spec: PolicySpec

    def reset(self) -> None:
        """Forget the past."""

    def step(self, signals: dict[str, Array]) -> Array:
        """Command [N, A], ordered as ``spec.action``, for measured signals [N, d]."""


class Case(Protocol):
    """A robot and a task that a policy is for; an experiment is one."""

    @property
    def robot(self) -> RobotModel:
        """The robot."""

    @property
    def task(self) -> Task:
        """The task."""


@dataclass(frozen=True)
class CellResult:
    """Result of one policy on one variant of a target under one condition.

    Attributes:
        success: Fraction of episodes within tolerance at every control step of the last ``hold_s``, never failed.
        ci95: Wilson interval of ``success``.
        n: Episodes.
        final_error_m: Median over episodes of the mean distance to the goal in the last ``hold_s``.
        crashes: Episodes in which the target itself failed, for example a drone on the floor.
        distance: Distance to the goal [T, N] m, where it was asked for.
    """

    success: float
    ci95: tuple[float, float]
    n: int
    final_error_m: float
    crashes: int
    distance: Array | None = None

    def summary(self) -> dict[str, Any]:
        """The metrics without the recording, ready for JSON."""
        return {
            "success": self.success,
            "ci95": list(self.ci95),
            "n": self.n,
            "final_error_m": self.final_error_m,
            "crashes": self.crashes,
        }


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a fraction (Wilson 1927).

    Args:
        successes: How often it happened, 0 .. n.
        n: Trials, at least one.

    Raises:
        ValueError: Not ``0 <= successes <= n`` with ``n > 0``.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"need 0 <= successes <= n and n > 0, got {successes} of {n}")
    fraction, z2 = successes / n, _NORMAL_95**2
    centre = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_95 / (1 + z2 / n) * math.sqrt(fraction * (1 - fraction) / n + z2 / (4 * n * n))
    # Exact at the ends, where rounding would leave 0.9999999999999999.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def score(
    distance: Array, failed: Bools, crashed: Bools, task: Any, rate_hz: float, record: bool = False
) -> CellResult:
    """Score episodes from their true distances to the goal.

    Args:
        distance: [T, N] m, one row a control step, the last at the end of the episode.
        failed: Episodes that failed by the task's or the target's own judgement [N].
        crashed: Those of them that the target says have crashed [N].
        task: Its tolerance and how long it must be held.
        rate_hz: Rows per second.
        record: Keep ``distance`` in the result.
    """
    n, steps = distance.shape[1], round(task.hold_s * rate_hz)
    holding = Holding(n, steps)
    for row in distance:
        holding.update(row <= task.tolerance_m, failed)
    succeeded = holding.success
    return CellResult(
        success=float(succeeded.mean()),
        ci95=wilson(int(succeeded.sum()), n),
        n=n,
        final_error_m=float(np.median(distance[-steps:].mean(axis=0))),
        crashes=int(crashed.sum()),
        distance=distance if record else None,
    )


def command_order(spec: PolicySpec, target: Target) -> list[int]:
    """Columns of a policy's command in the order that a target takes them.

    Raises:
        SpecError: The policy commands something else than the target takes.
    """
    names = [term.name for term in spec.action]
    if sorted(names) != sorted(target.commands):
        raise SpecError(f"target '{target.name}' takes {list(target.commands)}, this policy commands {names}")
    return [names.index(name) for name in target.commands]


def run(
    make_runner: Callable[[int], Runner],
    case: Case,
    target: Target,
    variant: str,
    condition: str,
    episodes: int,
    seed: int,
    record: bool = False,
) -> CellResult:
    """Run a policy's task on a target, all episodes side by side.

    Args:
        make_runner: Number of robots to a runner.
        case: Robot and task that the policy is for.
        target: Made for them.
        variant: One of the target's.
        condition: One of the target's.
        episodes: Number of episodes.
        seed: Of starts, goals and noise: the same for every policy.
        record: Keep the distances over time.

    Raises:
        SpecError: The policy commands something else than the target takes.
        DriverError: Unknown variant or condition, or the policy's command is not finite.
    """
    task, runner = case.task, make_runner(episodes)
    order, control_dt = command_order(runner.spec, target), runner.spec.control_dt
    start, goal = begin(task, target, episodes, seed)
    sim = target.make(variant, condition, episodes, seed)
    try:
        sim.reset(start)
        runner.reset()
        distance = np.empty((round(task.episode_s / control_dt), episodes))
        failed = np.zeros(episodes, dtype=np.bool_)
        for step in range(len(distance)):
            sim.command(runner.step(task.signals.measure(sim.measured(), goal))[:, order])
            sim.advance(control_dt)
            truth = sim.truth()
            distance[step] = task.distance(truth, goal)
            failed |= sim.failed | task.failed(truth, goal)
        return score(distance, failed, sim.failed, task, 1.0 / control_dt, record)
    finally:
        sim.close()
