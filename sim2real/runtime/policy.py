"""The runner: one copy of the code that turns signals into commands, for a batch or for one robot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime

from sim2real.runtime.observation import (
    ActionScale,
    ObservationHistory,
    Signals,
    measured_command,
    own_signals,
)
from sim2real.runtime.spec import PolicySpec
from sim2real.types import Array, EnvIds, Float32

# Inputs by name [N, d] (observation groups, and ``memory`` where there is one) to outputs by name [N, d].
Network = Callable[[Mapping[str, Float32]], Mapping[str, Float32]]


def onnx_session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a CPU session with one thread: small networks lose more to threads than they gain."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_network(model: bytes) -> Network:
    """Make a network of ONNX bytes; its inputs and outputs are those of :class:`PolicySpec`."""
    session = onnx_session(model)
    outputs = [node.name for node in session.get_outputs()]
    return lambda inputs: dict(zip(outputs, session.run(outputs, dict(inputs)), strict=True))


class PolicyRunner:
    """Runs a policy for N robots: encode, evaluate the network, decode. One :meth:`step` a control period.

    Args:
        spec: The policy's contract.
        network: The policy's network.
        count: Number of robots N.

    Attributes:
        observation: What the network read in the last step, [N, d] by group.
        memory, next_memory: What the network carried into the last step, and out of it [N, M].
        action, command: Network output [N, A] and command [N, A] of the last step.
        report_mean, report_std: What the network reported in the last step [N, R], in the report's units.
        previous_command: The command [N, A] before that, as sent.
        frame: The signals of the last step, the policy's own included.
    """

    def __init__(self, spec: PolicySpec, network: Network, count: int = 1) -> None:
        self.spec, self.count = spec, count
        self._network = network
        self._scale = ActionScale(spec.action)
        self._histories = {name: ObservationHistory(terms, count) for name, terms in spec.observation.items()}
        self._last_action = np.zeros((count, len(spec.action)))
        self._fresh = np.ones(count, dtype=np.bool_)
        self._start: Array | None = None
        self.observation: dict[str, Float32] = {}
        self.memory = self.next_memory = np.zeros((count, spec.memory), dtype=np.float32)
        self.action = np.zeros((count, len(spec.action)), dtype=np.float32)
        self.report_mean = np.zeros((count, len(spec.report)), dtype=np.float32)
        self.report_std = np.zeros_like(self.report_mean)
        self.frame: dict[str, Array] = {}
        self.previous_command = self._last_command = np.zeros((count, len(spec.action)))
        self.command: Array = self._scale.decode(self.action, self._last_command)

    @classmethod
    def from_onnx(cls, spec: PolicySpec, model: bytes, count: int = 1) -> PolicyRunner:
        """Make a runner of an ONNX network given as bytes."""
        return cls(spec, onnx_network(model), count)

    def reset(self, env_ids: EnvIds | None = None, start: Array | None = None) -> None:
        """Forget the past of ``env_ids`` (all by default): the next step fills their history with its frame.

        Increments begin at the command ``start`` [N, A], by default at what is measured then, within limits.
        """
        self._start = start
        where = slice(None) if env_ids is None else env_ids
        self._fresh[where] = True
        self._last_action[where] = 0.0
        self.next_memory = self.next_memory.copy()
        self.next_memory[where] = 0.0

    def step(self, signals: Signals) -> Array:
        """Act on one frame.

        Args:
            signals: Measured signals [N, d] by name, without the policy's own.

        Returns:
            Command [N, A] in the action terms' units.
        """
        fresh = np.nonzero(self._fresh)[0]
        if len(fresh):
            start = measured_command(self.spec, signals) if self._start is None else self._start
            self._last_command[fresh] = start[fresh]
        frame = self.frame = own_signals(self.spec, signals, self._last_action, self._last_command)
        for history in self._histories.values():
            history.push(frame)
            if len(fresh):
                history.reset({name: value[fresh] for name, value in frame.items()}, fresh)
        self._fresh[:] = False
        self.observation = {name: history.observation() for name, history in self._histories.items()}
        self.memory = self.next_memory
        out = self._network({**self.observation, "memory": self.memory} if self.spec.memory else self.observation)
        self.action = out["action"]
        if self.spec.memory:
            self.next_memory = out["next_memory"]
        if self.spec.report:
            self.report_mean, self.report_std = out["report_mean"], out["report_std"]
        self.previous_command = self._last_command
        self.command = self._scale.decode(self.action, self.previous_command)
        self.record_sent(self.command)
        return self.command

    def record_sent(self, command: Array) -> None:
        """Tell the runner what was really sent [N, A] after limits: it is the next ``last_action``."""
        self._last_action = self._scale.encode(command, self.previous_command)
        self._last_command = command.copy()

    def report(self) -> dict[str, tuple[float, float]]:
        """Value and standard deviation of everything the network reports of the first robot."""
        return {
            term.name: (float(mean), float(std))
            for term, mean, std in zip(self.spec.report, self.report_mean[0], self.report_std[0], strict=True)
        }
