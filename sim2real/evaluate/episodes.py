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
from sim2real.tasks.success import Holding, within
from sim2real.types import Array, Bools

SETTLE_S = 5.0  # a robot may take this long to a new goal before its time within tolerance counts
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
        within: Fraction of time within tolerance, from ``SETTLE_S`` after each goal on; None where no time is left.
        distance: Distance to the goal [T, N] m, where it was asked for.
    """

    success: float
    ci95: tuple[float, float]
    n: int
    final_error_m: float
    crashes: int
    within: float | None = None
    distance: Array | None = None

    def summary(self) -> dict[str, Any]:
        """The metrics without the recording, ready for JSON."""
        return {
            "success": self.success,
            "ci95": list(self.ci95),
            "n": self.n,
            "final_error_m": self.final_error_m,
            "crashes": self.crashes,
            "within": self.within,
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
    distance: Array,
    near: Bools,
    failed: Bools,
    crashed: Bools,
    task: Any,
    rate_hz: float,
    record: bool = False,
    goal_s: float = math.inf,
) -> CellResult:
    """Score episodes from their true states.

    Args:
        distance: To the goal [T, N] m, one row a control step, the last at the end of the episode.
        near: Who was within tolerance [T, N].
        failed: Episodes that failed by the task's or the target's own judgement [N].
        crashed: Those of them that the target says have crashed [N].
        task: Says how long it must be held.
        rate_hz: Rows per second.
        record: Keep ``distance`` in the result.
        goal_s: A new goal came every so often, s.
    """
    n, steps = distance.shape[1], round(task.hold_s * rate_hz)
    holding = Holding(n, steps)
    for row in near:
        holding.update(row, failed)
    succeeded = holding.success
    settled = np.arange(len(near)) / rate_hz % goal_s >= SETTLE_S
    return CellResult(
        success=float(succeeded.mean()),
        ci95=wilson(int(succeeded.sum()), n),
        n=n,
        final_error_m=float(np.median(distance[-steps:].mean(axis=0))),
        crashes=int(crashed.sum()),
        within=float(near[settled].mean()) if settled.any() else None,
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
    seconds: float | None = None,
    goal_s: float = math.inf,
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
        seconds: Length of the episodes; the task's by default.
        goal_s: Give a new goal every so often.

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
        steps = round((task.episode_s if seconds is None else seconds) / control_dt)
        goal_steps = steps if math.isinf(goal_s) else max(round(goal_s / control_dt), 1)
        goals = np.random.default_rng([seed, 2])
        distance, near = np.empty((steps, episodes)), np.empty((steps, episodes), dtype=np.bool_)
        failed = np.zeros(episodes, dtype=np.bool_)
        for step in range(steps):
            if step and step % goal_steps == 0:
                goal = task.goals(goals, episodes, sim.truth())
            sim.command(runner.step(task.signals.measure(sim.measured(), goal))[:, order])
            sim.advance(control_dt)
            truth = sim.truth()
            distance[step], near[step] = task.distance(truth, goal), within(task, truth, goal)
            failed |= sim.failed | task.failed(truth, goal)
        return score(distance, near, failed, sim.failed, task, 1.0 / control_dt, record, goal_steps * control_dt)
    finally:
        sim.close()
