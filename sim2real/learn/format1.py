"""Conversion of policy bundles of format 1, which kept estimator and policy apart, to format 2.

Readable for one release; 'sim2real export BUNDLE --bundle NEW' converts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim2real.errors import BundleError
from sim2real.runtime.bundle import KIND, PolicyBundle, write_bundle
from sim2real.runtime.bundle_files import parse_model, parse_provenance, read_files, unpack_arrays
from sim2real.runtime.golden import record_golden
from sim2real.runtime.policy import PolicyRunner
from sim2real.runtime.spec import PolicySpec, RobotSpec

_REQUIRED = ("spec.json", "robot.json", "provenance.json", "policy.onnx", "golden.npz")
_OPTIONAL = ("estimator.onnx", "robot.urdf")
_CLIP = 1.2
_SAME = 1e-4  # actions that may differ from the old trace's: the filter runs in the network now
_TASKS = {"waypoint": "hover"}
_SIGNALS = {"waypoint": ("flight", "world"), "reach": ("arm", "base"), "push": ("arm_push", "base")}


def is_format1(path: Path) -> bool:
    """Tell whether a folder is a policy bundle of format 1."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        return bool(manifest["kind"] == KIND and manifest["format_version"] == 1)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def convert(path: Path, out: Path) -> PolicyBundle:
    """Write a bundle of format 1 as one of format 2, and check that it acts as before.

    Raises:
        BundleError: The bundle is broken, of a task nobody knows, or acts differently after conversion.
    """
    files = read_files(path, KIND, 1, _REQUIRED, _OPTIONAL)
    old, golden = json.loads(files["spec.json"]), unpack_arrays(files["golden.npz"])
    robot_data = json.loads(files["robot.json"])
    robot_data.setdefault("interface", "joint_trajectory" if robot_data.get("ee") else "cmd_vel_legacy")
    robot = parse_model(RobotSpec, json.dumps(robot_data).encode(), "robot.json")
    spec = parse_model(PolicySpec, json.dumps(_spec(old)).encode(), "spec.json")
    network = _merged(files, old, spec) if old["parameters"] else files["policy.onnx"]
    runner = PolicyRunner.from_onnx(spec, network)
    names = list(spec.measured_signals())
    steps = len(golden["action"])
    trace = record_golden(runner, ({name: golden[f"signals.{name}"][t][None] for name in names} for t in range(steps)))
    worst = float(np.abs(trace["action"] - golden["action"]).max())
    if not worst <= _SAME:
        raise BundleError(f"after conversion {path} acts differently, by {worst:.1e}; export its run again")
    return PolicyBundle.load(
        write_bundle(
            out,
            spec=spec,
            robot=robot,
            provenance=_provenance(files["provenance.json"]),
            policy_onnx=network,
            golden=trace,
            urdf=files.get("robot.urdf"),
            replace=True,
        )
    )


def _spec(old: Mapping[str, Any]) -> dict[str, Any]:
    task = old["task"]
    if task not in _SIGNALS:
        raise BundleError(f"the bundle's task '{task}' is none that format 1 had; export its run again")
    signals, frame = _SIGNALS[task]
    groups = {"observation": old["observation"]}
    parameters = old["parameters"]
    if parameters:
        groups["history"] = old["estimator_observation"]
    text = json.dumps(
        {
            "format_version": 2,
            "robot": old["robot"],
            "task": _TASKS.get(task, task),
            "control_rate_hz": old["control_rate_hz"],
            "signals": signals,
            "goal": {"name": "goal", "components": ["x", "y", "z"], "unit": "m", "frame": frame},
            "observation": groups,
            "memory": len(parameters) + 1 if parameters else old["memory"],
            "report": [{"name": term["name"], "unit": term["unit"]} for term in parameters],
            "action": old["action"],
        }
    )
    return dict(json.loads(text.replace('"command_lead"', '"tracking_error"')))


def _provenance(data: bytes) -> dict[str, Any]:
    provenance = parse_provenance(data)
    return {**provenance, "converted_from_format": 1}


def _merged(files: Mapping[str, bytes], old: Mapping[str, Any], spec: PolicySpec) -> bytes:
    """Estimator, filter and policy as one graph; its memory: filtered minus nominal parameters, and the updates."""
    # Here, because telling the formats apart needs none of it.
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, compose, helper, numpy_helper  # noqa: PLC0415

    terms = old["parameters"]
    low, high, nominal = (np.array([[term[key] for term in terms]]) for key in ("low", "high", "nominal"))
    middle = np.clip(2.0 * (nominal - low) / (high - low) - 1.0, -_CLIP, _CLIP)
    constant_s = old["estimate_time_constant_s"]
    least = min(1.0, 1.0 / old["control_rate_hz"] / constant_s) if constant_s > 0 else 1.0
    size = len(terms)
    constants = {
        "nominal": middle,
        "least": np.array(least),
        "one": np.array(1.0),
        "floor": np.array(-_CLIP),
        "ceiling": np.array(_CLIP),
        "low": low,
        "half_range": 0.5 * (high - low),
    }
    nodes = [
        helper.make_node("Split", ["memory", "split"], ["kept", "count"], axis=1),
        helper.make_node("Add", ["count", "one"], ["updates"]),
        helper.make_node("Div", ["one", "updates"], ["share"]),
        helper.make_node("Max", ["share", "least"], ["gain"]),
        helper.make_node("Clip", ["mean", "floor", "ceiling"], ["clipped"]),
        helper.make_node("Add", ["nominal", "kept"], ["before"]),
        helper.make_node("Sub", ["clipped", "before"], ["change"]),
        helper.make_node("Mul", ["gain", "change"], ["moved"]),
        helper.make_node("Add", ["before", "moved"], ["parameters"]),
        helper.make_node("Sub", ["parameters", "nominal"], ["offset"]),
        helper.make_node("Concat", ["offset", "updates"], ["next_memory"], axis=1),
        helper.make_node("Add", ["parameters", "one"], ["raised"]),
        helper.make_node("Mul", ["raised", "half_range"], ["scaled"]),
        helper.make_node("Add", ["low", "scaled"], ["report_mean"]),
        helper.make_node("Mul", ["std", "half_range"], ["report_std"]),
    ]

    def info(name: str, width: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])

    initial = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    initial.append(numpy_helper.from_array(np.array([size, 1], dtype=np.int64), "split"))
    policy = onnx.load_from_string(files["policy.onnx"])
    outputs = {"next_memory": size + 1, "report_mean": size, "report_std": size, "parameters": size}
    graph = helper.make_graph(
        nodes,
        "filter",
        [info("mean", size), info("std", size), info("memory", size + 1)],
        [info(name, width) for name, width in outputs.items()],
        initial,
    )
    middle_model = helper.make_model(graph, opset_imports=policy.opset_import, ir_version=policy.ir_version)
    estimator = compose.add_prefix(onnx.load_from_string(files["estimator.onnx"]), "phi_", rename_inputs=False)
    policy = compose.add_prefix(policy, "pi_", rename_inputs=False, rename_outputs=False)
    names = [("phi_mean", "mean"), ("phi_std", "std")]
    first = compose.merge_models(estimator, middle_model, io_map=names)
    whole = compose.merge_models(first, policy, io_map=[("parameters", "parameters")], outputs=list(spec.outputs()))
    onnx.checker.check_model(whole)
    return whole.SerializeToString()
