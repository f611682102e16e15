"""EPOpt (Rajeswaran et al. 2017): the policy learns from the worst physics only, the critic from everything.

The paper maximises the return over the fraction epsilon of physics with the lowest expected return (its equation 2) and
approximates it by whole trajectories. Rollouts here are shorter than episodes: those that end in one are a tenth of it,
and only their last steps. So the expected return itself is estimated: a regression of the returns of episodes that
ended lately on their physics. A step counts where its episode's physics are among the worst, ended or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field

from sim2real.learn.artifact import Candidate
from sim2real.learn.buffers import EpisodeTable
from sim2real.learn.experiment import Experiment
from sim2real.learn.ppo import Hooks
from sim2real.methods.base import Method, PolicyMethod, Run
from sim2real.types import Array, Model

RIDGE = 0.01  # penalty, as a fraction of the episodes: physics that hardly matter stay out
RECORD_EVERY = 20  # iterations


class EpOptSettings(Model):
    """Settings of the method.

    Attributes:
        epsilon: Fraction of the physics that the policy learns from, the worst; 1 is plain randomization.
        after: Fraction of the iterations that learn from all physics first.
        episodes: Newest episodes whose returns are regressed on their physics.
    """

    epsilon: float = Field(default=0.2, gt=0, le=1)
    after: float = Field(default=0.33, ge=0, le=1)
    episodes: int = Field(default=4000, ge=100)


class WorstPhysics:
    """Weights of the steps of a rollout: 1 where the physics are among the worst, else 0.

    Args:
        settings: The method's.
        begin: Iteration from which on the worst are chosen.
        names: Physics parameters, in order.

    Attributes:
        history: Every ``RECORD_EVERY`` iterations ``fit``, the fraction of the returns' variance that physics explain,
            and the mean of every parameter over the chosen steps, in standard deviations from that over all steps.
    """

    def __init__(self, settings: EpOptSettings, begin: int, names: Sequence[str]) -> None:
        self._settings, self._begin, self._names = settings, begin, tuple(names)
        self._params, self._returns = np.zeros((0, len(names))), np.zeros(0)
        self.history: list[dict[str, float]] = []

    def weigh(self, iteration: int, table: EpisodeTable, steps: int, robots: int) -> Array | None:
        """Weights [steps, robots]; None while the policy learns from everything."""
        newest = slice(-self._settings.episodes, None)
        self._params = np.concatenate((self._params, table.params))[newest]
        self._returns = np.concatenate((self._returns, table.returns))[newest]
        known = len(self._returns)
        if iteration < self._begin or self._settings.epsilon == 1.0 or known < 4 * len(self._names):
            return None
        expected, fit = _regression(self._params, self._returns, np.concatenate((table.params, table.running)))
        ended = len(table.returns)
        of_steps = table.of_steps(steps, expected[:ended], expected[ended:])
        weights = (of_steps <= np.quantile(of_steps, self._settings.epsilon)).astype(np.float64)
        if iteration % RECORD_EVERY == 0:
            self._record(iteration, fit, table.running, weights[-1])
        return weights

    def _record(self, iteration: int, fit: float, params: Array, chosen: Array) -> None:
        std = params.std(axis=0)
        shift = (np.average(params, axis=0, weights=chosen + 1e-9) - params.mean(axis=0)) / np.where(std > 0, std, 1.0)
        means = {name: float(value) for name, value, on in zip(self._names, shift, std > 0, strict=True) if on}
        self.history.append({"iteration": float(iteration), "fit": fit, **means})

    def state(self) -> dict[str, Any]:
        """Episodes and history, for a checkpoint."""
        arrays = {"params": torch.from_numpy(self._params), "returns": torch.from_numpy(self._returns)}
        return {**arrays, "history": self.history}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._params, self._returns = state["params"].numpy(), state["returns"].numpy()
        self.history = list(state["history"])


def _regression(params: Array, returns: Array, wanted: Array) -> tuple[Array, float]:
    """Regress returns [E], oldest first, on physics [E, P] by ridge regression: expected returns of ``wanted`` [W, P].

    Linear and square terms stand for the physics. The policy gets better meanwhile, so time takes part as well, and
    the expectation is that of now.

    Returns:
        The expected returns [W], and the fraction of the variance [0, 1] that the regression explains.
    """
    mean, std = params.mean(axis=0), params.std(axis=0)
    varied = std > 1e-9 * (1.0 + np.abs(mean))

    def features(values: Array, time: Array) -> Array:
        x = np.clip((values[:, varied] - mean[varied]) / std[varied], -3.0, 3.0)
        return np.concatenate((x, x * x - 1.0, time[:, None]), axis=1)

    inputs = features(params, np.linspace(-1.7, 1.7, len(returns)))
    target = returns - returns.mean()
    square = inputs.T @ inputs + RIDGE * len(returns) * np.eye(inputs.shape[1])
    slopes = np.linalg.solve(square, inputs.T @ target)
    left, whole = float(((target - inputs @ slopes) ** 2).sum()), float((target**2).sum())
    expected = returns.mean() + features(wanted, np.full(len(wanted), 1.7)) @ slopes
    return expected, 1.0 - left / whole if whole > 0 else 0.0


class EpOpt(PolicyMethod):
    """Randomized physics, and a policy that learns from the worst of them."""

    Settings = EpOptSettings
    settings: EpOptSettings

    def hooks(self, experiment: Experiment) -> Hooks:
        """Weights of the advantages."""
        begin = round(self.settings.after * experiment.config.ppo.iterations)
        self._worst = WorstPhysics(self.settings, begin, tuple(experiment.parameters))
        return Hooks(weigh=self._worst.weigh, state=self._worst.state, load=self._worst.load)

    def train(self, experiment: Experiment, run: Run) -> Candidate:
        """Train one policy by PPO; the history says which physics were the worst."""
        candidate = super().train(experiment, run)
        candidate.history["epopt"] = self._worst.history
        return candidate

    def off(self) -> Method:
        """Give plain randomization."""
        return cast(Method, EpOpt(self.settings.model_copy(update={"epsilon": 1.0})))
