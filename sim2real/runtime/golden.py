"""The golden trace: an episode recorded stage by stage at export, replayed wherever the bundle goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim2real.errors import BundleError, SpecError
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.bundle_files import Golden
from sim2real.runtime.observation import ObservationHistory, decode_action
from sim2real.runtime.policy import PolicyRunner, onnx_network
from sim2real.runtime.signals import KnowsGoals, Signals
from sim2real.runtime.spec import ObservationTerm, PolicySpec
from sim2real.types import Array, Float32

NETWORK_TOLERANCE = 1e-5


def record_golden(runner: PolicyRunner, frames: Iterable[Mapping[str, Array]]) -> Golden:
    """Run ``runner`` (one robot) over frames of signals and keep every stage's inputs and outputs.

    The frames may come from a generator that uses ``runner.command`` to advance a simulator.
    """
    runner.reset()
    spec = runner.spec
    stages: dict[str, list[NDArray[Any]]] = {}
    for frame in frames:
        runner.step(frame)
        kept: dict[str, NDArray[Any]] = {f"signals.{name}": runner.frame[name] for name in spec.needed_signals()}
        kept |= {f"observation.{name}": value for name, value in runner.observation.items()}
        kept |= {"previous_command": runner.previous_command, "command": runner.command, "memory": runner.memory}
        kept |= {name: getattr(runner, name) for name in spec.outputs()}
        for name, value in kept.items():
            stages.setdefault(name, []).append(value[0].copy())
    golden = {name: np.stack(values) for name, values in stages.items()}
    if not spec.memory:
        golden.pop("memory", None)
    return golden


def recorded_goal(bundle: PolicyBundle, signals: Signals) -> Array | None:
    """The goal [G] of the recorded episode, rounded to 1e-3; None where the bundle's ``signals`` do not tell it."""
    if not isinstance(signals, KnowsGoals):
        return None
    golden = bundle.golden()
    first = {name: golden[f"signals.{name}"][:1] for name in bundle.spec.measured_signals()}
    return np.round(signals.goal(first)[0], 3) + 0.0  # no -0.0


@dataclass(frozen=True)
class StageReport:
    """Difference of one stage of the golden trace here."""

    name: str
    max_difference: float
    tolerance: float
    message: str = ""

    @property
    def ok(self) -> bool:
        """Tell whether the stage does what it did."""
        return self.max_difference <= self.tolerance


@dataclass(frozen=True)
class VerifyReport:
    """All stages, in order."""

    stages: tuple[StageReport, ...]

    @property
    def ok(self) -> bool:
        """Tell whether every stage does what it did."""
        return all(stage.ok for stage in self.stages)

    @property
    def message(self) -> str:
        """The first difference, in words; empty when there is none."""
        return next((stage.message for stage in self.stages if not stage.ok), "")

    def summary(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "ok": self.ok,
            "message": self.message,
            "stages": {s.name: {"max_difference": s.max_difference, "tolerance": s.tolerance} for s in self.stages},
        }


def verify(bundle: PolicyBundle) -> VerifyReport:
    """Replay the golden trace in three stages (encode, network, decode), each fed with the recorded inputs.

    Encoding and decoding must give the recorded bits; the network may differ by 1e-5, see :func:`comparable`.
    """
    spec, golden = bundle.spec, bundle.golden()
    steps = len(golden["action"])
    signals = [{name: golden[f"signals.{name}"][t][None] for name in spec.needed_signals()} for t in range(steps)]
    encoded = np.concatenate([_encode(terms, signals) for terms in spec.observation.values()], axis=1)
    recorded = np.concatenate([golden[f"observation.{name}"] for name in spec.observation], axis=1)
    labels = [label for terms in spec.observation.values() for label in _labels(terms)]
    stages = [_compare("encode", encoded, recorded, 0.0, labels)]
    got = _run(bundle, recorded_inputs(spec, golden))
    pairs = [comparable(name, got[name], golden[name]) for name in spec.outputs()]
    here, recorded = (np.concatenate(side, axis=1) for side in zip(*pairs, strict=True))
    stages.append(_compare("network", here, recorded, NETWORK_TOLERANCE, _outputs(spec)))
    command = decode_action(spec.action, golden["action"], golden["previous_command"])
    actions = [term.name for term in spec.action]
    stages.append(_compare("decode", command, golden["command"], 0.0, actions))
    return VerifyReport(tuple(stages))


def recorded_inputs(spec: PolicySpec, golden: Golden) -> dict[str, Float32]:
    """Inputs of the network [T, d] by name, as a golden trace holds them."""
    return {name: golden[name if name == "memory" else f"observation.{name}"] for name in spec.inputs()}


def comparable(output: str, got: NDArray[Any], expected: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values of a network's output and what they should be, both so that 1 is much.

    An action counts as far as it reaches the command, -1 .. 1. All else is divided by its value where that is above 1:
    rounding grows with the value, and a report may be in any unit.
    """
    if output == "action":
        return np.clip(got, -1.0, 1.0), np.clip(expected, -1.0, 1.0)
    scale = np.maximum(1.0, np.abs(expected))
    return got / scale, expected / scale


def _outputs(spec: PolicySpec) -> list[str]:
    names = {"action": [t.name for t in spec.action], "next_memory": [str(i) for i in range(spec.memory)]}
    names["report_mean"] = names["report_std"] = [term.name for term in spec.report]
    return [f"{output}.{name}" for output in spec.outputs() for name in names[output]]


def _run(bundle: PolicyBundle, inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
    try:
        return onnx_network(bundle.network)(inputs)
    except Exception as error:
        raise BundleError(f"policy.onnx does not run on the golden trace ({error}); export the run again") from error


def _encode(terms: tuple[ObservationTerm, ...], signals: list[dict[str, Any]]) -> NDArray[np.float32]:
    history = ObservationHistory(terms)
    rows = []
    for step, frame in enumerate(signals):
        try:
            history.push(frame) if step else history.reset(frame)
        except SpecError as error:
            raise BundleError(f"golden trace, step {step}: {error}") from error
        rows.append(history.observation()[0])
    return np.stack(rows)


def _labels(terms: tuple[ObservationTerm, ...]) -> list[str]:
    return [
        f"{term.name}.{component}" + (f", {term.history - 1 - age} steps ago" if term.history > 1 else "")
        for term in terms
        for age in range(term.history)
        for component in term.components
    ]


def _compare(stage: str, got: NDArray[Any], expected: NDArray[Any], tolerance: float, labels: list[str]) -> StageReport:
    if got.shape != expected.shape:
        return StageReport(
            stage,
            float("inf"),
            tolerance,
            f"{stage}: shape {list(got.shape)} here, {list(expected.shape)} in the trace",
        )
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    difference[~np.isfinite(difference)] = np.inf
    worst = float(difference.max())
    if worst <= tolerance:
        return StageReport(stage, worst, tolerance)
    step, column = (int(i) for i in np.argwhere(difference > tolerance)[0])
    return StageReport(
        stage,
        worst,
        tolerance,
        f"{stage} differs first at step {step} in '{labels[column]}': {got[step, column]!r} here, "
        f"{expected[step, column]!r} in the trace",
    )
