"""The one copy of the code between measured signals and networks.

Training, evaluation and the robot's node all call :func:`encode_observation`,
:class:`ObservationHistory` and :func:`decode_action`. Only element-wise arithmetic in float64
with one rounding to float32, so a robot's single row has the same bits as the simulator's batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import SpecError
from sim2real.runtime.columns import columns, joined, larger, smaller, within
from sim2real.runtime.spec import ActionTerm, ObservationTerm, PolicySpec, SignalSpec, group_size
from sim2real.types import Float32

Signals = Mapping[str, NDArray[np.float64]]
Constant = float | NDArray[np.float64]


def encode_observation(term: ObservationTerm, signals: Signals) -> Float32:
    """Scale one frame of one signal.

    Args:
        term: What to read and how to scale it.
        signals: Measured signals by name, each [N, components].

    Returns:
        ``clip((x - offset) * scale, -clip, clip)``, shape [N, components].

    Raises:
        SpecError: The signal is missing or has another number of components.
    """
    return _scaled(_signal(term, signals), term.offset, term.scale, term.clip)


def _signal(term: ObservationTerm, signals: Signals) -> NDArray[np.float64]:
    try:
        value = signals[term.name]
    except KeyError:
        raise SpecError(
            f"observation term '{term.name}' is not among the signals {sorted(signals)}; "
            "check the names in the policy's spec against what the robot provides"
        ) from None
    if value.ndim != 2 or value.shape[1] != term.size:
        raise SpecError(
            f"observation term '{term.name}' needs shape [N, {term.size}] ({', '.join(term.components)}), "
            f"got {list(value.shape)}"
        )
    return value


def _scaled(value: NDArray[np.float64], offset: Constant, scale: Constant, clip: Constant) -> Float32:
    # Twice as fast as numpy.clip on a single row.
    return np.minimum(np.maximum((value - offset) * scale, -clip), clip).astype(np.float32)


class ObservationHistory:
    """Encoded terms of the last steps for N robots, stacked into one vector a robot.

    Args:
        terms: Terms in the order in which they are concatenated.
        count: Number of robots N.
    """

    def __init__(self, terms: tuple[ObservationTerm, ...], count: int = 1) -> None:
        self.terms = terms
        self._stacked = np.zeros((count, group_size(terms)), dtype=np.float32)
        ends = np.cumsum([term.size * term.history for term in terms]).tolist()
        # Every term's part of the vector, oldest frame first.
        self._parts = [self._stacked[:, end - t.size * t.history : end] for t, end in zip(terms, ends, strict=True)]
        newest = [np.arange(end - term.size, end) for term, end in zip(terms, ends, strict=True)]
        self._newest = np.concatenate(newest) if newest else None
        sizes = [term.size for term in terms]
        self._offset, self._scale, self._clip = (
            np.repeat([getattr(term, name) for term in terms], sizes) for name in ("offset", "scale", "clip")
        )

    def _encode(self, signals: Signals) -> Float32:
        """One frame of all terms side by side [N, sum(components)]."""
        values = [_signal(term, signals) for term in self.terms]
        return _scaled(np.concatenate(values, axis=1), self._offset, self._scale, self._clip)

    def reset(self, signals: Signals, rows: NDArray[np.int64] | None = None) -> None:
        """Fill the whole history of ``rows`` (all by default) with one frame.

        Args:
            signals: Signals of those rows only, each [len(rows), components].
            rows: Indices of the robots that start anew.
        """
        frame, start = self._encode(signals), 0
        for term, part in zip(self.terms, self._parts, strict=True):
            value = np.tile(frame[:, start : start + term.size], (1, term.history))
            part[slice(None) if rows is None else rows] = value
            start += term.size

    def push(self, signals: Signals) -> None:
        """Append one frame for every robot, dropping the oldest."""
        frame = self._encode(signals)
        for term, part in zip(self.terms, self._parts, strict=True):
            if term.history > 1:
                part[:, : -term.size] = part[:, term.size :]
        self._stacked[:, self._newest] = frame

    def observation(self) -> Float32:
        """The stacked observation, a new array of shape [N, sum(history * components)]."""
        if not self.terms:
            raise SpecError("this policy's spec has no observation terms; nothing can be encoded")
        return self._stacked.copy()


class ActionScale:
    """Network outputs to commands and back: :func:`decode_action` and :func:`encode_action` of the same terms.

    Args:
        terms: The policy's action terms.
    """

    def __init__(self, terms: tuple[ActionTerm, ...]) -> None:
        self._terms = [(term.low, term.high, term.high - term.low, term.limits) for term in terms]
        self._relative = any(term.limits for term in terms)

    def decode(self, action: Float32, previous: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """See :func:`decode_action`."""
        if self._relative and previous is None:
            raise SpecError("this policy commands increments; decoding needs the last command")
        wanted = columns(action.astype(np.float64))
        last = columns(action if previous is None else previous)
        result = []
        for (low, high, width, limits), value, before in zip(self._terms, wanted, last, strict=True):
            command = low + 0.5 * (within(value, -1.0, 1.0) + 1.0) * width
            if limits:
                # What begins outside its limits comes back by one increment a step.
                least, most = smaller(before + high, limits[0]), larger(before + low, limits[1])
                command = within(before + command, least, most)
            result.append(command)
        return joined(result, (len(action),))

    def encode(self, command: NDArray[np.float64], previous: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """See :func:`encode_action`."""
        if self._relative and previous is None:
            raise SpecError("this policy commands increments; encoding needs the last command")
        last = columns(command if previous is None else previous)
        result = []
        for (low, _, width, limits), value, before in zip(self._terms, columns(command), last, strict=True):
            result.append(within(2.0 * ((value - before if limits else value) - low) / width - 1.0, -1.0, 1.0))
        return joined(result, (len(command),))


def decode_action(
    terms: tuple[ActionTerm, ...], action: Float32, previous: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Network output [N, A] to a command [N, A] in the terms' units.

    The output is clipped to -1 .. 1 first. Non-finite output stays NaN: the safety filter holds on it.

    Args:
        terms: The policy's action terms.
        action: Network output.
        previous: The last command [N, A]; needed where a term is an increment.
    """
    return ActionScale(terms).decode(action, previous)


def encode_action(
    terms: tuple[ActionTerm, ...], command: NDArray[np.float64], previous: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Command [N, A] back to -1 .. 1: what was really sent, as the policy's ``last_action`` signal."""
    return ActionScale(terms).encode(command, previous)


def measured_command(spec: PolicySpec, signals: Signals, within_limits: bool = True) -> NDArray[np.float64]:
    """The command [N, A] that would keep the robot where ``signals`` say it is; the middle where none would."""
    count = len(next(iter(signals.values())))
    middle = np.array([0.5 * (term.low + term.high) for term in spec.action])
    result = np.tile(middle, (count, 1))
    components = {term.name: term.components for term in spec.terms()}
    for column, term in enumerate(spec.action):
        if term.measured and term.limits:
            value = signals[term.measured][:, components[term.measured].index(term.name)]
            result[:, column] = np.clip(value, *term.limits) if within_limits else value
    return result


def own_signals(
    spec: PolicySpec, signals: Signals, last_action: NDArray[np.float64], last_command: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """``signals`` with what the policy knows without measuring (``sim2real.runtime.spec.OWN_SIGNALS``).

    Args:
        spec: The policy's contract.
        signals: Measured, [N, d] by name.
        last_action: [N, A], -1 .. 1.
        last_command: [N, A] in the action terms' units.
    """
    frame = {**signals, "last_action": last_action}
    if any(term.measured for term in spec.action):
        frame["tracking_error"] = last_command - measured_command(spec, signals)
    return frame


def check_signals(needed: Mapping[str, SignalSpec], provided: Mapping[str, SignalSpec]) -> None:
    """Compare what a policy reads with what a robot provides, by name, components, unit and frame.

    Raises:
        SpecError: Names the first term that differs, and how.
    """
    for name, want in needed.items():
        have = provided.get(name)
        if have is None:
            raise SpecError(
                f"the policy reads '{name}', which this robot does not provide; it provides {sorted(provided)}"
            )
        for field in ("components", "unit", "frame"):
            if getattr(want, field) != getattr(have, field):
                raise SpecError(
                    f"the policy reads '{name}' with {field} {getattr(want, field)!r}, this robot provides "
                    f"{getattr(have, field)!r}; use a bundle exported for this robot"
                )
