"""The runner: one copy of the code that turns signals into commands, for a batch or for one robot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime

from sim2real.runtime.observation import (
    EstimateFilter,
    ObservationHistory,
    Signals,
    decode_action,
    encode_action,
    measured_command,
    own_signals,
)
from sim2real.runtime.spec import PolicySpec, denormalise_parameters
from sim2real.types import Array, EnvIds, Float32

# (observation [N, O], parameters [N, P], memory [N, M]) → action [N, A], memory [N, M]
Policy = Callable[[Float32, Float32, Float32], tuple[Float32, Float32]]
# history [N, E] → mean [N, P], standard deviation [N, P]
Estimator = Callable[[Float32], tuple[Float32, Float32]]


def onnx_session(model: bytes) -> onnxruntime.InferenceSession:
    """A CPU session with one thread: small networks lose more to threads than they gain."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_policy(model: bytes) -> Policy:
    """π from ONNX bytes: ``observation`` and, where it has them, ``parameters`` or ``memory`` in; ``action`` out."""
    session = onnx_session(model)
    inputs = {node.name for node in session.get_inputs()}
    if "memory" in inputs:

        def recurrent(observation: Float32, parameters: Float32, memory: Float32) -> tuple[Float32, Float32]:
            action, kept = session.run(["action", "next_memory"], {"observation": observation, "memory": memory})
            return action, kept

        return recurrent
    if "parameters" in inputs:
        return lambda observation, parameters, memory: (
            session.run(["action"], {"observation": observation, "parameters": parameters})[0],
            memory,
        )
    return lambda observation, parameters, memory: (session.run(["action"], {"observation": observation})[0], memory)


def onnx_estimator(model: bytes) -> Estimator:
    """φ from ONNX bytes with input ``history`` and outputs ``mean`` and ``std``."""
    session = onnx_session(model)

    def estimate(history: Float32) -> tuple[Float32, Float32]:
        mean, std = session.run(["mean", "std"], {"history": history})
        return mean, std

    return estimate


class PolicyRunner:
    """Runs a policy for N robots: encode, estimate, act, decode. One :meth:`step` a control period.

    Args:
        spec: The policy's contract.
        policy: π.
        estimator: φ, for a spec with parameters.
        count: Number of robots N.

    Attributes:
        observation, estimator_observation: What the networks read in the last step.
        newest_mean: The estimator's own newest output [N, P], before filtering.
        memory: What the policy network carried into the last step [N, M].
        action, command: Network output [N, A] and command [N, A] of the last step.
        previous_command: The command [N, A] before that, as sent.
        frame: The signals of the last step, the policy's own included.
    """

    def __init__(self, spec: PolicySpec, policy: Policy, estimator: Estimator | None = None, count: int = 1) -> None:
        if bool(spec.parameters) != (estimator is not None):
            raise ValueError("a spec with parameters needs an estimator, and one without must not have any")
        self.spec, self.count = spec, count
        self._policy, self._estimator = policy, estimator
        self._history = ObservationHistory(spec.observation, count)
        self._estimator_history = ObservationHistory(spec.estimator_observation, count) if estimator else None
        self._filter = EstimateFilter(spec, count)
        self._last_action = np.zeros((count, len(spec.action)))
        self._fresh = np.ones(count, dtype=np.bool_)
        self.observation = np.zeros((count, spec.observation_size), dtype=np.float32)
        self.estimator_observation = np.zeros((count, spec.estimator_size), dtype=np.float32)
        self.newest_mean = np.zeros((count, len(spec.parameters)), dtype=np.float32)
        self.memory = self._next_memory = np.zeros((count, spec.memory), dtype=np.float32)
        self.action = np.zeros((count, len(spec.action)), dtype=np.float32)
        self.frame: dict[str, Array] = {}
        self.previous_command = self._last_command = np.zeros((count, len(spec.action)))
        self.command: Array = decode_action(spec.action, self.action, self._last_command)

    @classmethod
    def from_onnx(cls, spec: PolicySpec, policy: bytes, estimator: bytes | None, count: int = 1) -> PolicyRunner:
        """A runner of ONNX networks given as bytes."""
        return cls(spec, onnx_policy(policy), onnx_estimator(estimator) if estimator else None, count)

    @property
    def parameters(self) -> Float32:
        """Filtered estimate [N, P], normalised."""
        return self._filter.mean

    @property
    def parameters_std(self) -> Float32:
        """Standard deviation of the newest estimate [N, P], normalised."""
        return self._filter.std

    def reset(self, rows: EnvIds | None = None) -> None:
        """Forget the past of ``rows`` (all by default): the next step fills their history with its frame."""
        where = slice(None) if rows is None else rows
        self._fresh[where] = True
        self._last_action[where] = 0.0
        self._next_memory = self._next_memory.copy()
        self._next_memory[where] = 0.0
        self._filter.reset(rows)

    def step(self, signals: Signals) -> Array:
        """Act on one frame.

        Args:
            signals: Measured signals [N, d] by name, without the policy's own.

        Returns:
            Command [N, A] in the action terms' units.
        """
        fresh = np.nonzero(self._fresh)[0]
        if len(fresh):
            self._last_command[fresh] = measured_command(self.spec, signals)[fresh]
        frame = self.frame = own_signals(self.spec, signals, self._last_action, self._last_command)
        for history in (self._history, self._estimator_history):
            if history is None:
                continue
            history.push(frame)
            if len(fresh):
                history.reset({name: value[fresh] for name, value in frame.items()}, fresh)
        self._fresh[:] = False
        self.observation = self._history.observation()
        if self._estimator is not None and self._estimator_history is not None:
            self.estimator_observation = self._estimator_history.observation()
            self.newest_mean, std = self._estimator(self.estimator_observation)
            self._filter.update(self.newest_mean, std)
        self.memory = self._next_memory
        self.action, self._next_memory = self._policy(self.observation, self._filter.mean, self.memory)
        self.previous_command = self._last_command
        self.command = decode_action(self.spec.action, self.action, self.previous_command)
        self.record_sent(self.command)
        return self.command

    def record_sent(self, command: Array) -> None:
        """Tell the runner what was really sent [N, A] after limits: it is the next ``last_action``."""
        self._last_action = encode_action(self.spec.action, command, self.previous_command)
        self._last_command = command.copy()

    def estimate(self) -> dict[str, tuple[float, float]]:
        """Value and standard deviation of every parameter of the first robot, in physical units."""
        values = denormalise_parameters(self.spec.parameters, self._filter.mean[:1])[0]
        return {
            term.name: (float(value), float(std) * 0.5 * (term.high - term.low))
            for term, value, std in zip(self.spec.parameters, values, self._filter.std[0], strict=True)
        }
