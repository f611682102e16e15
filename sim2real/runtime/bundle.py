"""Policy bundles: everything a robot needs to run a policy, every file hashed, nothing executable.

A bundle is a folder::

    manifest.json    kind, format version, SHA-256 of every file
    spec.json        PolicySpec
    robot.json       RobotSpec
    provenance.json  commit, configuration, versions, seeds, figures
    policy.onnx      observation [N, O] (, parameters [N, P] or memory [N, M]) → action [N, A] (, next_memory [N, M])
    estimator.onnx   history [N, E] → mean, std [N, P]; only with online identification
    robot.urdf       kinematics; only with an arm
    golden.npz       signals, observations, actions and commands of a whole episode
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from sim2real.errors import BundleError, SpecError
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.observation import ObservationHistory, decode_action
from sim2real.runtime.policy import PolicyRunner, onnx_session
from sim2real.runtime.spec import ObservationTerm, PolicySpec, RobotSpec

KIND = "sim2real.policy_bundle"
FORMAT_VERSION = 1
REQUIRED = ("spec.json", "robot.json", "provenance.json", "policy.onnx", "golden.npz")
OPTIONAL = ("estimator.onnx", "robot.urdf")
NETWORK_TOLERANCE = 1e-5
Golden = dict[str, NDArray[Any]]


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def write_bundle(
    path: Path,
    *,
    spec: PolicySpec,
    robot: RobotSpec,
    provenance: Mapping[str, Any],
    policy_onnx: bytes,
    estimator_onnx: bytes | None,
    golden: Golden,
    urdf: bytes | None = None,
    replace: bool = False,
) -> Path:
    """Write a bundle to a temporary folder beside ``path``, check it by loading it, and rename it.

    Raises:
        BundleError: ``path`` exists and ``replace`` is not set, or the parts do not fit together.
    """
    files = {
        "spec.json": spec.model_dump_json(indent=1).encode(),
        "robot.json": robot.model_dump_json(indent=1).encode(),
        "provenance.json": json.dumps(provenance, indent=1).encode(),
        "policy.onnx": policy_onnx,
        "golden.npz": pack_arrays(golden),
    }
    if estimator_onnx is not None:
        files["estimator.onnx"] = estimator_onnx
    if urdf is not None:
        files["robot.urdf"] = urdf
    return write_files(path, KIND, FORMAT_VERSION, files, PolicyBundle.load, replace)


def pack_arrays(arrays: Golden) -> bytes:
    """Arrays as a plain archive."""
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]
    return archive.getvalue()


def write_files(
    path: Path,
    kind: str,
    version: int,
    files: Mapping[str, bytes],
    check: Callable[[Path], object],
    replace: bool,
) -> Path:
    """Write a bundle's files with their manifest to a temporary folder beside ``path``, check it, and rename it.

    Raises:
        BundleError: ``path`` exists and ``replace`` is not set, or ``check`` refuses the parts.
    """
    if path.exists() and not replace:
        raise BundleError(f"{path} exists; choose another path, or pass replace=True to write over it")
    manifest = {
        "kind": kind,
        "format_version": version,
        "files": {name: sha256(data) for name, data in files.items()},
    }
    whole = {**files, "manifest.json": json.dumps(manifest, indent=1).encode()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, data in whole.items():
            with open(temporary / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        check(temporary)
        if path.exists():
            previous = path.with_name(f".{path.name}.previous")
            shutil.rmtree(previous, ignore_errors=True)
            path.rename(previous)
            try:
                temporary.rename(path)
            except BaseException:
                previous.rename(path)
                raise
            shutil.rmtree(previous)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


class PolicyBundle:
    """A checked bundle; make one with :meth:`load`.

    Attributes:
        path: The folder.
        spec: The policy's contract.
        robot: The robot it was made for.
        provenance: Where it comes from.
    """

    def __init__(self, path: Path, files: dict[str, bytes], spec: PolicySpec, robot: RobotSpec) -> None:
        self.path, self.spec, self.robot = path, spec, robot
        self._files = files
        self.provenance = parse_provenance(files["provenance.json"])

    @classmethod
    def load(cls, path: Path | str) -> PolicyBundle:
        """Read and check a bundle; nothing in it is executed or unpickled.

        Raises:
            BundleError: What is missing, altered, unlisted, unreadable or inconsistent, and what to do.
        """
        path = Path(path)
        files = read_files(path, KIND, FORMAT_VERSION, REQUIRED, OPTIONAL)
        spec = parse_model(PolicySpec, files["spec.json"], "spec.json")
        robot = parse_model(RobotSpec, files["robot.json"], "robot.json")
        _check_commands(spec, robot)
        if ("estimator.onnx" in files) != bool(spec.parameters):
            raise BundleError("spec.json and the networks disagree about online identification; export the run again")
        inputs = {"observation": spec.observation_size}
        if spec.parameters:
            inputs["parameters"] = len(spec.parameters)
            sizes = {"mean": len(spec.parameters), "std": len(spec.parameters)}
            _check_network(files["estimator.onnx"], "estimator.onnx", {"history": spec.estimator_size}, sizes)
        if robot.ee and "robot.urdf" not in files:
            raise BundleError("robot.json describes an arm, but there is no robot.urdf; export the run again")
        outputs = {"action": len(spec.action)}
        if spec.memory:
            inputs["memory"] = outputs["next_memory"] = spec.memory
        _check_network(files["policy.onnx"], "policy.onnx", inputs, outputs)
        return cls(path, files, spec, robot)

    def runner(self, count: int = 1) -> PolicyRunner:
        """A runner for ``count`` robots."""
        return PolicyRunner.from_onnx(self.spec, self._files["policy.onnx"], self._files.get("estimator.onnx"), count)

    def chain(self) -> Chain:
        """An arm's kinematics.

        Raises:
            ConfigError: The bundle has no usable ``robot.urdf``.
        """
        return Chain(self.path / "robot.urdf", self._files.get("robot.urdf", b"").decode())

    def golden(self) -> Golden:
        """The golden trace: arrays by name, first axis time.

        Raises:
            BundleError: It is not a plain array archive, misses an array, or one has another shape or type.
        """
        golden = unpack_arrays(self._files["golden.npz"])
        wanted = self._golden_arrays()
        missing = [name for name in wanted if name not in golden]
        if missing:
            raise BundleError(f"golden.npz has no {', '.join(missing)}; export the run again")
        steps = len(golden["action"]) if golden["action"].ndim else 0
        if not steps:
            raise BundleError("golden.npz holds no steps, so nothing can be verified; export the run again")
        for name, (size, kind) in wanted.items():
            array = golden[name]
            if array.shape != (steps, size) or array.dtype != kind:
                raise BundleError(
                    f"golden.npz: '{name}' is {array.dtype} {list(array.shape)}, it must be {np.dtype(kind)} "
                    f"{[steps, size]}; export the run again"
                )
        return golden

    def _golden_arrays(self) -> dict[str, tuple[int, type[np.floating[Any]]]]:
        """Width and type of every array of the golden trace."""
        spec, actions, parameters = self.spec, len(self.spec.action), len(self.spec.parameters)
        arrays: dict[str, tuple[int, type[np.floating[Any]]]] = {
            "observation": (spec.observation_size, np.float32),
            "action": (actions, np.float32),
            "previous_command": (actions, np.float64),
            "command": (actions, np.float64),
        }
        arrays |= {f"signals.{name}": (signal.size, np.float64) for name, signal in spec.signals().items()}
        if spec.memory:
            arrays["memory"] = (spec.memory, np.float32)
        if parameters:
            arrays |= {
                "estimator_observation": (spec.estimator_size, np.float32),
                "estimate_mean": (parameters, np.float32),
                "parameters": (parameters, np.float32),
            }
        return arrays


def unpack_arrays(data: bytes, name: str = "golden.npz") -> Golden:
    """Arrays by name from a plain archive; nothing is unpickled.

    Raises:
        BundleError: It is none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {
                entry.removesuffix(".npy"): np.load(io.BytesIO(archive.read(entry)), allow_pickle=False)
                for entry in archive.namelist()
            }
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{name} is not a plain array archive ({error}); export the run again") from error


def kind_of(path: Path) -> str:
    """What kind of bundle a folder says it is.

    Raises:
        BundleError: It is none.
    """
    return str(_manifest(path, "bundle")["kind"])


def _manifest(path: Path, kind: str) -> dict[str, Any]:
    file = path / "manifest.json"
    if not file.is_file():
        wanted = kind.removeprefix("sim2real.").replace("_", " ")
        raise BundleError(
            f"{path} is not a {wanted}: it has no manifest.json; give one that 'sim2real train' wrote, RUN/bundle"
        )
    try:
        manifest = json.loads(file.read_text())
        return {
            "kind": manifest["kind"],
            "format_version": manifest["format_version"],
            "files": dict(manifest["files"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} cannot be read ({error}); export the run again") from error


def read_files(
    path: Path, kind: str, version: int, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, bytes]:
    """All files of a bundle, each as its manifest says; nothing in them is executed or unpickled.

    Raises:
        BundleError: What is missing, altered, unlisted or of another kind or version, and what to do.
    """
    manifest = _manifest(path, kind)
    listed = manifest["files"]
    if manifest["kind"] != kind or manifest["format_version"] != version:
        raise BundleError(
            f"{path} is '{manifest['kind']}' version {manifest['format_version']}; this program reads '{kind}' version "
            f"{version} here. Install the sim2real version that wrote it, or export again"
        )
    for name in required:
        if name not in listed:
            raise BundleError(f"the manifest lists no {name}; the bundle is incomplete, export the run again")
    unknown = [name for name in listed if name not in required + optional]
    if unknown:
        raise BundleError(f"the manifest lists unknown files {unknown}; a bundle holds only {required + optional}")
    present = {entry.name for entry in path.iterdir()} - {"manifest.json"}
    if present - set(listed):
        raise BundleError(
            f"{path} holds files that its manifest does not list: {sorted(present - set(listed))}; remove them"
        )
    files = {}
    for name, digest in listed.items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"{name} is missing from {path}; copy the whole bundle again")
        data = file.read_bytes()
        if name.endswith(".onnx"):
            _refuse_pickle(name, data)
        if sha256(data) != digest:
            raise BundleError(f"{name} was altered: its SHA-256 is not the manifest's; copy or export the bundle again")
        files[name] = data
    return files


def _refuse_pickle(name: str, data: bytes) -> None:
    if data[:2] == b"PK" or data[:1] == b"\x80":
        raise BundleError(
            f"{name} is a pickle or a torch checkpoint, not an ONNX network; such files can run code and are never "
            "opened here. Export with 'sim2real export'"
        )


T = TypeVar("T", bound=BaseModel)


def parse_model(model: type[T], data: bytes, name: str) -> T:
    """Read a bundle's JSON file.

    Raises:
        BundleError: It does not hold what it must.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{name}: {where}: {first['msg']}; export the run again") from error


def parse_provenance(data: bytes) -> dict[str, Any]:
    """Read where a bundle comes from.

    Raises:
        BundleError: It is not a JSON object.
    """
    try:
        provenance = json.loads(data)
    except ValueError as error:
        raise BundleError(f"provenance.json cannot be read ({error}); export the run again") from error
    if not isinstance(provenance, dict):
        raise BundleError("provenance.json is not a JSON object; export the run again")
    return provenance


def _check_commands(spec: PolicySpec, robot: RobotSpec) -> None:
    if spec.robot != robot.name:
        raise BundleError(f"spec.json is for robot '{spec.robot}', robot.json for '{robot.name}'; export the run again")
    terms = [term.name for term in spec.action]
    commands = [command.name for command in robot.commands]
    if terms != commands:
        raise BundleError(f"the policy's actions {terms} are not the robot's commands {commands}, in this order")
    for term, limit in zip(spec.action, robot.commands, strict=True):
        if term.unit != limit.unit:
            raise BundleError(f"action '{term.name}' is in {term.unit}, the robot's command in {limit.unit}")
        low, high = term.reach
        if low < limit.low or high > limit.high:
            raise BundleError(
                f"action '{term.name}' reaches {low} .. {high} {term.unit}, the robot allows "
                f"{limit.low} .. {limit.high}"
            )


def _check_network(data: bytes, name: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    try:
        session = onnx_session(data)
    except Exception as error:
        raise BundleError(f"{name} is not a network that onnxruntime can load: {error}") from error
    for kind, have, want in (("input", session.get_inputs(), inputs), ("output", session.get_outputs(), outputs)):
        sizes = {node.name: node.shape[-1] for node in have}
        if sizes != want:
            raise BundleError(
                f"{name}: the network's {kind}s are {sizes}, spec.json asks for {want}; a term was renamed, added or "
                "removed after export, or the network belongs to another policy"
            )


def record_golden(runner: PolicyRunner, frames: Iterable[Mapping[str, NDArray[np.float64]]]) -> Golden:
    """Run ``runner`` (one robot) over frames of signals and keep every stage's inputs and outputs.

    The frames may come from a generator that uses ``runner.command`` to advance a simulator.
    """
    runner.reset()
    stages: dict[str, list[NDArray[Any]]] = {}

    def keep(name: str, value: NDArray[Any]) -> None:
        stages.setdefault(name, []).append(value[0].copy())

    for frame in frames:
        runner.step(frame)
        for name in runner.spec.signals():
            keep(f"signals.{name}", runner.frame[name])
        keep("previous_command", runner.previous_command)
        keep("observation", runner.observation)
        if runner.spec.parameters:
            keep("estimator_observation", runner.estimator_observation)
            keep("estimate_mean", runner.newest_mean)
            keep("parameters", runner.parameters)
        if runner.spec.memory:
            keep("memory", runner.memory)
        keep("action", runner.action)
        keep("command", runner.command)
    return {name: np.stack(values) for name, values in stages.items()}


@dataclass(frozen=True)
class StageReport:
    """How far one stage of the golden trace differs here."""

    name: str
    max_difference: float
    tolerance: float
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the stage does what it did."""
        return self.max_difference <= self.tolerance


@dataclass(frozen=True)
class VerifyReport:
    """All stages, in order."""

    stages: tuple[StageReport, ...]

    @property
    def ok(self) -> bool:
        """Whether every stage does what it did."""
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
    """Replay the golden trace stage by stage, each stage fed with the recorded inputs.

    Encoding and decoding must give the recorded bits; networks may differ by 1e-5.
    """
    spec, golden = bundle.spec, bundle.golden()
    steps = len(golden["action"])
    signals = [{name: golden[f"signals.{name}"][t][None] for name in spec.signals()} for t in range(steps)]
    stages = [
        _compare("encode", _encode(spec.observation, signals), golden["observation"], 0.0, _labels(spec.observation))
    ]
    policy_inputs = {"observation": golden["observation"]}
    if spec.parameters:
        history = _encode(spec.estimator_observation, signals)
        labels = _labels(spec.estimator_observation)
        stages.append(_compare("encode history", history, golden["estimator_observation"], 0.0, labels))
        mean = _run(bundle, "estimator.onnx", "mean", {"history": golden["estimator_observation"]})
        names = [term.name for term in spec.parameters]
        stages.append(_compare("estimator network", mean, golden["estimate_mean"], NETWORK_TOLERANCE, names))
        policy_inputs["parameters"] = golden["parameters"]
    if spec.memory:
        policy_inputs["memory"] = golden["memory"]
    action = _run(bundle, "policy.onnx", "action", policy_inputs)
    labels = [term.name for term in spec.action]
    stages.append(_compare("policy network", action, golden["action"], NETWORK_TOLERANCE, labels))
    command = decode_action(spec.action, golden["action"], golden["previous_command"])
    stages.append(_compare("decode", command, golden["command"], 0.0, labels))
    return VerifyReport(tuple(stages))


def _run(bundle: PolicyBundle, name: str, output: str, inputs: Golden) -> NDArray[Any]:
    try:
        return onnx_session(bundle._files[name]).run([output], inputs)[0]
    except Exception as error:
        raise BundleError(f"{name} does not run on the golden trace ({error}); export the run again") from error


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
