"""Policy bundles: everything a robot needs to run a policy, every file hashed, nothing executable.

A bundle is a folder::

    manifest.json    kind, format version, SHA-256 of every file
    spec.json        PolicySpec
    robot.json       RobotSpec
    provenance.json  commit, configuration, versions, seeds, metrics
    policy.onnx      observation groups (, memory) [N, d] → action (, next_memory, report_mean, report_std) [N, d]
    robot.urdf       kinematics; only with an arm
    golden.npz       signals, observations, network outputs and commands of a whole episode
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.errors import BundleError
from sim2real.runtime.bundle_files import (
    Golden,
    pack_arrays,
    parse_model,
    parse_provenance,
    read_files,
    unpack_arrays,
    write_files,
)
from sim2real.runtime.kinematics import Chain
from sim2real.runtime.policy import PolicyRunner, onnx_session
from sim2real.runtime.spec import PolicySpec, RobotSpec

KIND = "sim2real.policy_bundle"
FORMAT_VERSION = 2
REQUIRED = ("spec.json", "robot.json", "provenance.json", "policy.onnx", "golden.npz")
OPTIONAL = ("robot.urdf",)


def write_bundle(
    path: Path,
    *,
    spec: PolicySpec,
    robot: RobotSpec,
    provenance: Mapping[str, Any],
    policy_onnx: bytes,
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
    if urdf is not None:
        files["robot.urdf"] = urdf
    return write_files(path, KIND, FORMAT_VERSION, files, PolicyBundle.load, replace)


class PolicyBundle:
    """A checked bundle; make one with :meth:`load`.

    Attributes:
        path: The folder.
        spec: The policy's contract.
        robot: The robot it was made for.
        provenance: Where it comes from.
        network: The policy's network, ONNX.
    """

    def __init__(self, path: Path, files: dict[str, bytes], spec: PolicySpec, robot: RobotSpec) -> None:
        self.path, self.spec, self.robot = path, spec, robot
        self._files = files
        self.network = files["policy.onnx"]
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
        if robot.ee and "robot.urdf" not in files:
            raise BundleError("robot.json describes an arm, but there is no robot.urdf; export the run again")
        _check_network(files["policy.onnx"], "policy.onnx", spec.inputs(), spec.outputs())
        return cls(path, files, spec, robot)

    def runner(self, count: int = 1) -> PolicyRunner:
        """Make a runner for ``count`` robots."""
        return PolicyRunner.from_onnx(self.spec, self.network, count)

    def chain(self) -> Chain | None:
        """Read an arm's kinematics; None for a robot without an end effector.

        Raises:
            ConfigError: The bundle has no usable ``robot.urdf``.
        """
        if not self.robot.ee:
            return None
        return Chain(self.path / "robot.urdf", self._files["robot.urdf"].decode())

    def golden(self) -> Golden:
        """Read the golden trace: arrays by name, first axis time.

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
        spec, actions = self.spec, len(self.spec.action)
        signals = {f"signals.{name}": signal.size for name, signal in spec.needed_signals().items()}
        inputs = {name if name == "memory" else f"observation.{name}": size for name, size in spec.inputs().items()}
        return {
            **{name: (size, np.float64) for name, size in signals.items()},
            **{name: (size, np.float32) for name, size in (inputs | spec.outputs()).items()},
            "previous_command": (actions, np.float64),
            "command": (actions, np.float64),
        }


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
