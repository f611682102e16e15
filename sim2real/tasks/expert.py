"""A task's scripted expert as a runner: for comparisons, and to show a task without any training."""

from __future__ import annotations

import numpy as np

from sim2real.errors import ConfigError
from sim2real.runtime.observation import Signals, decode_action, encode_action, measured_command, own_signals
from sim2real.runtime.spec import PolicySpec
from sim2real.tasks.base import Task
from sim2real.tasks.hover_controller import HoverController
from sim2real.types import Array


def expert_runner(spec: PolicySpec, task: Task, count: int = 1) -> ExpertRunner | HoverController:
    """Make a task's own controller for N robots: its ``controller`` where it has one, or else its expert.

    Raises:
        ConfigError: The task has neither.
    """
    own = getattr(task, "controller", None)
    return own(spec, count) if own else ExpertRunner(spec, task, count)


class ExpertRunner:
    """Runs a task's expert for N robots, as :class:`sim2real.runtime.policy.PolicyRunner` runs a policy.

    Args:
        spec: Contract of the task's policies.
        task: The task.
        count: Number of robots N.

    Raises:
        ConfigError: The task has no expert.
    """

    def __init__(self, spec: PolicySpec, task: Task, count: int = 1) -> None:
        if task.expert is None:
            raise ConfigError(f"task '{task.name}' has no scripted expert; train a policy and give its run")
        self.spec, self.count, self._expert = spec, count, task.expert
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next command starts from what is measured."""
        self._last_command: Array | None = None
        self._last_action = np.zeros((self.count, len(self.spec.action)))

    def step(self, signals: Signals) -> Array:
        """Command [N, A] for measured signals [N, d]."""
        last = measured_command(self.spec, signals) if self._last_command is None else self._last_command
        frame = own_signals(self.spec, signals, self._last_action, last)
        action = np.clip(self._expert(frame), -1.0, 1.0).astype(np.float32)
        command = decode_action(self.spec.action, action, last)
        self._last_action, self._last_command = encode_action(self.spec.action, command, last), command
        return command
