"""A policy flown in the training simulator, on physics and starts it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.config import ExperimentConfig
from sim2real.learn.build import build_env
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import ParameterTerm, denormalise_parameters
from sim2real.types import Array


@dataclass(frozen=True)
class SimulatedFlights:
    """One episode of every robot.

    Attributes:
        succeeded, crashed: [N].
        position: True positions relative to the goal, [T, N, 3] m.
        truth: True identified quantities in their units, [N, P]; empty without identification.
        estimate, estimate_std: The policy's estimates over time, [T, N, P].
        terms: What the columns are.
        control_dt: s.
    """

    succeeded: NDArray[np.bool_]
    crashed: NDArray[np.bool_]
    position: Array
    truth: Array
    estimate: Array
    estimate_std: Array
    terms: tuple[ParameterTerm, ...]
    control_dt: float

    @property
    def success(self) -> float:
        """Share of successful episodes."""
        return float(self.succeeded.mean())

    def identification(self, after_s: float) -> dict[str, dict[str, float]]:
        """How good the estimates are ``after_s`` into the flight, against the prior, per quantity.

        ``rmse`` and ``prior_rmse`` (always guessing the mean) are in the quantity's unit;
        ``coverage_68`` and ``coverage_95`` say how often the truth lies within one and two of the
        estimator's own standard deviations (0.68 and 0.95 when it is calibrated).
        """
        result: dict[str, dict[str, float]] = {}
        if not self.terms:
            return result
        index = min(round(after_s / self.control_dt), len(self.estimate)) - 1
        for column, term in enumerate(self.terms):
            alive = ~self.crashed
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
        """Figures for provenance and reports."""
        return {
            "success": self.success,
            "crashes": int(self.crashed.sum()),
            "episodes": len(self.succeeded),
            "identification_after_1s": self.identification(1.0),
        }


def fly_simulated(config: ExperimentConfig, runner: PolicyRunner, seed: int) -> SimulatedFlights:
    """Fly one episode of each of the runner's robots in the training simulator.

    Args:
        config: The experiment whose simulator and randomization are used.
        runner: Policy for N robots; it is reset.
        seed: Of starts, physics and noise; use one that training has not.
    """
    env = build_env(config, seed, runner.count, restart=False)
    sim, spec = env.sim, runner.spec
    position, estimate, estimate_std = [], [], []
    truth = (
        denormalise_parameters(spec.parameters, env.parameters()) if config.identify else np.zeros((runner.count, 0))
    )
    held = np.zeros(runner.count, dtype=np.int64)
    crashed = np.zeros(runner.count, dtype=np.bool_)
    runner.reset()
    half_range = np.array([0.5 * (term.high - term.low) for term in spec.parameters])
    for _ in range(env.episode_steps):
        sim.step(runner.step(sim.model.measure(sim.estimate(), env.goal)))
        crashed |= env.task.failed(sim.state, env.goal)
        held = np.where(env.task.within(sim.state, env.goal) & ~crashed, held + 1, 0)
        position.append(sim.model.position(sim.state) - env.goal)
        if config.identify:
            estimate.append(denormalise_parameters(spec.parameters, runner.parameters))
            estimate_std.append(runner.parameters_std * half_range)
    sim.close()
    return SimulatedFlights(
        succeeded=held >= round(env.task.hold_s * spec.control_rate_hz),
        crashed=crashed,
        position=np.stack(position),
        truth=truth,
        estimate=np.stack(estimate) if estimate else np.zeros((env.episode_steps, runner.count, 0)),
        estimate_std=np.stack(estimate_std) if estimate_std else np.zeros((env.episode_steps, runner.count, 0)),
        terms=spec.parameters if config.identify else (),
        control_dt=spec.control_dt,
    )
