"""A policy flown on the drone target in process: fast, repeatable, no ROS 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import SpecError
from sim2real.runtime.flight_signals import flight_signals
from sim2real.runtime.geometry import quat_multiply, quat_to_matrix, rotate, rpy_to_quat, yaw_of
from sim2real.runtime.policy import PolicyRunner
from sim2real.targets.drone import COMMAND_NAMES, SimulatedDrones
from sim2real.tasks.hover import Waypoint
from sim2real.types import Array

START_YAW_RAD = 0.3  # the target was identified around zero yaw
_NORMAL_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class CellResult:
    """What one policy did on one airframe under one condition.

    Attributes:
        success: Share of episodes within tolerance at every sample of the last second, never crashed.
        ci95: Wilson interval of ``success``.
        n: Episodes.
        final_error_m: Median over episodes of the mean distance to the goal in the last second.
        crashes: Episodes that ended on the floor or turned over.
        distance: Distance to the goal [T, N] m, where it was asked for.
    """

    success: float
    ci95: tuple[float, float]
    n: int
    final_error_m: float
    crashes: int
    distance: Array | None = None

    def summary(self) -> dict[str, Any]:
        """The figures without the recording, ready for JSON."""
        return {
            "success": self.success,
            "ci95": list(self.ci95),
            "n": self.n,
            "final_error_m": self.final_error_m,
            "crashes": self.crashes,
        }


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927).

    Args:
        successes: How often it happened, 0 .. n.
        n: Trials, at least one.

    Raises:
        ValueError: Not ``0 <= successes <= n`` with ``n > 0``.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"need 0 <= successes <= n and n > 0, got {successes} of {n}")
    share, z2 = successes / n, _NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Exact at the ends, where rounding would leave 0.9999999999999999.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def summarise(
    distance: Array,
    crashed: NDArray[np.bool_],
    rate_hz: float,
    tolerance_m: float = 0.03,
    hold_s: float = 1.0,
    record: bool = False,
) -> CellResult:
    """Score flights from their true distances to the goal.

    Args:
        distance: [T, N] m, sampled at ``rate_hz``, the last sample at the end of the episode.
        crashed: [N].
        rate_hz: Samples per second.
        tolerance_m: Largest distance that counts as there.
        hold_s: The end of the episode that must be spent there.
        record: Keep ``distance`` in the result.
    """
    end = distance[-round(hold_s * rate_hz) :]
    succeeded = (end <= tolerance_m).all(axis=0) & ~crashed
    n = distance.shape[1]
    return CellResult(
        success=float(succeeded.mean()),
        ci95=wilson(int(succeeded.sum()), n),
        n=n,
        final_error_m=float(np.median(end.mean(axis=0))),
        crashes=int(crashed.sum()),
        distance=distance if record else None,
    )


def fly(
    make_runner: Callable[[int], PolicyRunner],
    airframe: str,
    condition: str,
    episodes: int,
    seed: int,
    record: bool = False,
) -> CellResult:
    """Fly a policy to the waypoint on the drone target, all episodes side by side.

    Args:
        make_runner: Number of robots to a runner.
        airframe: One of ``sim2real.targets.drone.AIRFRAMES``.
        condition: One of ``sim2real.targets.drone.CONDITIONS``.
        episodes: Number of episodes.
        seed: Of starts, trims, biases, gusts and noise: the same for every policy.
        record: Keep the distances over time.

    Raises:
        SpecError: The policy commands something else than a Crazyflie takes.
        DriverError: Unknown airframe or condition, or the policy's command is not finite.
    """
    task, runner = Waypoint(), make_runner(episodes)
    names = [term.name for term in runner.spec.action]
    if sorted(names) != sorted(COMMAND_NAMES):
        raise SpecError(f"the drone target takes {list(COMMAND_NAMES)}, this policy commands {names}")
    order = [names.index(name) for name in COMMAND_NAMES]
    goal, control_dt = np.tile(task.goal_m, (episodes, 1)), runner.spec.control_dt
    twin = SimulatedDrones(airframe, condition, episodes, seed)
    twin.reset(*_starts(task, episodes, seed))
    runner.reset()
    distance = np.empty((round(task.episode_s / control_dt), episodes))
    for step in range(len(distance)):
        pos, quat, lin_vel, ang_vel = twin.estimate()
        world_rate = rotate(quat_to_matrix(quat), ang_vel)
        twin.command(runner.step(flight_signals(pos - goal, quat, lin_vel, world_rate))[:, order])
        twin.advance(control_dt)
        distance[step] = np.linalg.norm(twin.truth()[0] - goal, axis=1)
    return summarise(distance, twin.crashed, 1.0 / control_dt, task.tolerance_m, task.hold_s, record)


def _starts(task: Waypoint, count: int, seed: int) -> tuple[Array, Array, Array]:
    """The task's own starts, turned to a small yaw: position, quaternion, velocity."""
    # A stream of its own, so that the start does not depend on how many draws the target takes.
    rng = np.random.default_rng([seed, 1])
    start = task.start(rng, count)
    turn = np.zeros((count, 3))
    turn[:, 2] = rng.uniform(-START_YAW_RAD, START_YAW_RAD, count) - yaw_of(start.quat)
    return start.pos, quat_multiply(rpy_to_quat(turn), start.quat), start.lin_vel
