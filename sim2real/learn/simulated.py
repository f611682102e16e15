"""A policy in the training simulator, on physics and starts it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim2real.learn.experiment import Experiment
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import ReportTerm
from sim2real.tasks.success import Holding, within
from sim2real.types import Array, Bools


@dataclass(frozen=True)
class SimulatedEpisodes:
    """One episode of every robot.

    Attributes:
        succeeded, failed: [N].
        position: True positions relative to the goal, [T, N, 3] m.
        truth: True identified quantities in their units, [N, P]; empty without identification.
        estimate, estimate_std: The policy's estimates over time, [T, N, P].
        terms: What the columns are.
        control_dt: s.
    """

    succeeded: Bools
    failed: Bools
    position: Array
    truth: Array
    estimate: Array
    estimate_std: Array
    terms: tuple[ReportTerm, ...]
    control_dt: float

    @property
    def success(self) -> float:
        """Fraction of successful episodes."""
        return float(self.succeeded.mean())

    def identification(self, after_s: float) -> dict[str, dict[str, float]]:
        """Measure how good the estimates are ``after_s`` into the flight, against the prior, per quantity.

        ``rmse`` and ``prior_rmse`` (always guessing the mean) are in the quantity's unit;
        ``coverage_68`` and ``coverage_95`` say how often the truth lies within one and two of the
        estimator's own standard deviations (0.68 and 0.95 when it is calibrated).
        """
        result: dict[str, dict[str, float]] = {}
        if not self.terms:
            return result
        index = min(round(after_s / self.control_dt), len(self.estimate)) - 1
        for column, term in enumerate(self.terms):
            alive = ~self.failed
            truth = self.truth[alive, column]
            error = self.estimate[index, alive, column] - truth
            std = self.estimate_std[index, alive, column]
            result[term.name] = {
                "correlation": float(np.corrcoef(self.estimate[index, alive, column], truth)[0, 1]),
                "rmse": float(np.sqrt((error**2).mean())),
                "prior_rmse": float(truth.std()),
                "coverage_68": float((np.abs(error) <= std).mean()),
                "coverage_95": float((np.abs(error) <= 2 * std).mean()),
            }
        return result

    def summary(self) -> dict[str, Any]:
        """Metrics for provenance and reports."""
        return {
            "success": self.success,
            "crashes": int(self.failed.sum()),
            "episodes": len(self.succeeded),
            "identification_after_1s": self.identification(1.0),
        }


def run_simulated(experiment: Experiment, runner: PolicyRunner, seed: int) -> SimulatedEpisodes:
    """Run one episode of each of the runner's robots in the training simulator.

    Args:
        experiment: Whose simulator and randomization are used.
        runner: Policy for N robots; it is reset.
        seed: Of starts, physics and noise; use one that training has not.
    """
    env = experiment.make_env(seed, runner.count, restart=False)
    sim, task, spec = env.sim, env.task, runner.spec
    table = sim.params.rows(np.arange(runner.count))
    quantities = [experiment.identified[term.name] for term in spec.report if term.name in experiment.identified]
    known = len(quantities) == len(spec.report)
    truth = (
        np.stack([q.compute(table) for q in quantities], axis=1) if known and quantities else np.zeros((env.count, 0))
    )
    position, mean, std = [], [], []
    holding = Holding(env.count, round(task.hold_s * spec.control_rate_hz))
    place = task.scene.position if task.scene else sim.robot.position
    runner.reset()
    for _ in range(env.episode_steps):
        sim.step(runner.step(task.signals.measure(sim.measured(), env.goal)))
        holding.update(within(task, sim.state, env.goal), task.failed(sim.state, env.goal))
        position.append(sim.state[place] - env.goal[:, :3])
        mean.append(runner.report_mean.astype(np.float64))
        std.append(runner.report_std.astype(np.float64))
    sim.close()
    return SimulatedEpisodes(
        succeeded=holding.success,
        failed=holding.failed,
        position=np.stack(position),
        truth=truth,
        estimate=np.stack(mean),
        estimate_std=np.stack(std),
        terms=spec.report if known else (),
        control_dt=spec.control_dt,
    )
