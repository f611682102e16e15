"""Every wrong bundle is refused, each with its own message."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_frames, rehash

from sim2real.errors import BundleError, SpecError
from sim2real.learn.torch_io import to_onnx
from sim2real.robots import load_robot
from sim2real.runtime import bundle_files
from sim2real.runtime.bundle import PolicyBundle, write_bundle
from sim2real.runtime.flight_signals import SPECS
from sim2real.runtime.golden import comparable, record_golden, verify
from sim2real.runtime.observation import check_signals
from sim2real.runtime.spec import PolicySpec


def edit_json(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_golden(path, change):
    with np.load(path / "golden.npz") as archive:
        golden = {name: archive[name] for name in archive.files}
    change(golden)
    np.savez(path / "golden.npz", **golden)
    rehash(path)


def refused(path, message):
    with pytest.raises(BundleError, match=message):
        PolicyBundle.load(path)


def test_a_whole_bundle_loads_and_verifies(tiny_bundle):
    report = verify(PolicyBundle.load(tiny_bundle))
    assert report.ok and report.message == ""
    assert [stage.name for stage in report.stages] == ["encode", "network", "decode"]


@pytest.mark.parametrize("name", ["policy.onnx", "spec.json", "robot.json", "golden.npz"])
def test_one_changed_byte(bundle_copy, name):
    data = bytearray((bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle_copy / name).write_bytes(data)
    refused(bundle_copy, f"{name} was altered")


def test_missing_extra_and_linked_files(bundle_copy, tmp_path):
    (bundle_copy / "notes.txt").write_text("hello")
    refused(bundle_copy, r"does not list: \['notes.txt'\]")
    (bundle_copy / "notes.txt").unlink()
    data = (bundle_copy / "policy.onnx").read_bytes()
    (bundle_copy / "policy.onnx").unlink()
    refused(bundle_copy, r"policy.onnx is missing")
    (tmp_path / "elsewhere").write_bytes(data)
    (bundle_copy / "policy.onnx").symlink_to(tmp_path / "elsewhere")
    PolicyBundle.load(bundle_copy)  # as 'colcon build --symlink-install' leaves it
    (tmp_path / "elsewhere").write_bytes(data + b"0")
    refused(bundle_copy, "policy.onnx was altered")
    refused(tmp_path, "not a policy bundle")


def test_manifest_that_reaches_outside(bundle_copy):
    edit_json(bundle_copy / "manifest.json", lambda m: m["files"].update({"../../evil": "0"}))
    refused(bundle_copy, "unknown files")


@pytest.mark.parametrize("change", [{"kind": "other"}, {"format_version": 1}])
def test_other_kinds_and_versions(bundle_copy, change):
    edit_json(bundle_copy / "manifest.json", lambda m: m.update(change))
    refused(bundle_copy, "this program reads")


def test_pickles_are_never_opened(bundle_copy):
    torch.save({"weights": torch.zeros(2)}, bundle_copy / "policy.onnx")
    rehash(bundle_copy)
    refused(bundle_copy, "policy.onnx is a pickle or a torch checkpoint")


def test_object_arrays_in_the_golden_trace(bundle_copy):
    edit_golden(bundle_copy, lambda golden: golden.update(action=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(BundleError, match="not a plain array archive"):
        PolicyBundle.load(bundle_copy).golden()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.update({"signals.up": g["signals.up"][:3]}), r"'signals.up' is float64 \[3, 3\]"),
        (
            lambda g: g.update({"observation.observation": g["observation.observation"][:, :5]}),
            r"'observation.observation' is float32 \[30, 5\]",
        ),
        (lambda g: g.update(command=g["command"].astype(np.float32)), r"'command' is float32 .* must be float64"),
        (lambda g: g.update({name: value[:0] for name, value in g.items()}), "holds no steps"),
        (lambda g: g.update(action=np.array(0.0)), "holds no steps"),
    ],
)
def test_misshapen_golden_traces(bundle_copy, change, message):
    edit_golden(bundle_copy, change)
    with pytest.raises(BundleError, match=message):
        verify(PolicyBundle.load(bundle_copy))


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_cut_off_golden_trace(bundle_copy, keep):
    data = (bundle_copy / "golden.npz").read_bytes()
    (bundle_copy / "golden.npz").write_bytes(data[: int(keep * len(data))])
    rehash(bundle_copy)
    with pytest.raises(BundleError, match="not a plain array archive"):
        PolicyBundle.load(bundle_copy).golden()


def test_a_damaged_golden_trace_raises_nothing_else(tiny_bundle):
    """Callers catch BundleError; no other error may come from a broken archive."""
    bundle = PolicyBundle.load(tiny_bundle)
    whole = bundle._files["golden.npz"]
    refusals = 0
    # Every header is reached: the local ones at the start of each array, the directory at the end.
    for offset in {*range(0, len(whole), 37), *range(120), *range(len(whole) - 1000, len(whole))}:
        data = bytearray(whole)
        data[offset] ^= 0xFF
        bundle._files["golden.npz"] = bytes(data)
        try:
            bundle.golden()
        except BundleError:
            refusals += 1
    assert refusals > 100


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read"), ("[1]", "is not a JSON object")])
def test_provenance_that_is_no_json_object(bundle_copy, text, message):
    (bundle_copy / "provenance.json").write_text(text)
    rehash(bundle_copy)
    refused(bundle_copy, f"provenance.json {message}")


def test_a_network_of_another_policy(bundle_copy):
    other = to_onnx(torch.nn.Linear(44, 4).eval(), {"observation": torch.zeros(2, 44)}, ["action"])
    (bundle_copy / "policy.onnx").write_bytes(other)
    rehash(bundle_copy)
    refused(bundle_copy, "policy.onnx: the network's inputs")
    (bundle_copy / "policy.onnx").write_bytes(b"nonsense")
    rehash(bundle_copy)
    refused(bundle_copy, "not a network that onnxruntime can load")


def test_a_removed_term(bundle_copy):
    edit_json(bundle_copy / "spec.json", lambda s: s["observation"]["observation"].pop())
    rehash(bundle_copy)
    refused(bundle_copy, "a term was renamed, added or removed")


def test_a_renamed_command(bundle_copy):
    edit_json(bundle_copy / "robot.json", lambda r: r["commands"][1].update(name="rol"))
    rehash(bundle_copy)
    refused(bundle_copy, "are not the robot's commands")


def test_commands_in_another_order_unit_or_range(bundle_copy):
    original = (bundle_copy / "robot.json").read_text()
    edit_json(bundle_copy / "robot.json", lambda r: r["commands"].reverse())
    rehash(bundle_copy)
    refused(bundle_copy, "in this order")
    (bundle_copy / "robot.json").write_text(original)
    edit_json(bundle_copy / "robot.json", lambda r: r["commands"][1].update(unit="deg"))
    rehash(bundle_copy)
    refused(bundle_copy, "action 'roll' is in rad, the robot's command in deg")
    (bundle_copy / "robot.json").write_text(original)
    for end, value in (("high", 0.3), ("low", -0.3)):
        (bundle_copy / "robot.json").write_text(original)
        edit_json(bundle_copy / "robot.json", lambda r, end=end, value=value: r["commands"][1].update({end: value}))
        rehash(bundle_copy)
        refused(bundle_copy, "action 'roll' reaches")


def test_wrong_values_in_the_specification(bundle_copy):
    edit_json(bundle_copy / "spec.json", lambda s: s.update(control_rate_hz=-50))
    rehash(bundle_copy)
    refused(bundle_copy, "spec.json: control_rate_hz")


def test_swapped_terms_are_named_by_the_golden_trace(bundle_copy):
    def swap(spec):
        first, second, *rest = spec["observation"]["observation"]
        spec["observation"]["observation"] = [second, first, *rest]

    edit_json(bundle_copy / "spec.json", swap)
    rehash(bundle_copy)
    report = verify(PolicyBundle.load(bundle_copy))
    assert not report.ok
    assert report.message.startswith("encode differs first at step 0 in 'linear_velocity.x'")


@pytest.mark.parametrize(
    ("array", "column", "message"),
    [
        ("signals.up", 2, "encode differs first at step 7 in 'up.z'"),
        ("observation.history", 0, "encode differs first at step 7 in 'position_error.x, 39 steps ago'"),
        ("report_mean", 0, "network differs first at step 7 in 'report_mean.mass_thrust_ratio'"),
        ("report_std", 2, "network differs first at step 7 in 'report_std.delay'"),
        ("memory", 1, "network differs first at step 7"),
        ("next_memory", 1, "network differs first at step 7 in 'next_memory.1'"),
        ("action", 3, "network differs first at step 7 in 'action.yaw_rate'"),
        ("command", 0, "decode differs first at step 7 in 'thrust'"),
    ],
)
def test_verify_names_the_first_stage_and_term(bundle_copy, array, column, message):
    def change(golden):
        golden[array][7, column] += 0.01

    edit_golden(bundle_copy, change)
    assert verify(PolicyBundle.load(bundle_copy)).message.startswith(message)


def test_a_trace_of_nothing_but_nan_verifies_nothing(bundle_copy, tiny_parts, tiny_bundle):
    """NaN is equal to nothing, not to itself either: a policy that gives none everywhere is not what it was."""
    runner = PolicyBundle.load(tiny_bundle).runner()
    frames = ({name: np.full_like(value, np.nan) for name, value in frame.items()} for frame in random_frames(5, 1))
    nan = record_golden(runner, frames)
    assert np.isnan(nan["action"]).all() and np.isnan(nan["observation.history"]).any()
    edit_golden(bundle_copy, lambda golden: golden.update(nan))
    report = verify(PolicyBundle.load(bundle_copy))
    assert [stage.ok for stage in report.stages] == [False, False, False]
    assert report.message.startswith("encode differs first at step 0")


def test_an_action_counts_as_far_as_it_reaches_the_command():
    """Beyond ±1 nobody sees its last digits; any other output counts relative to its value."""
    got, expected = (np.array([[3.0, -7.0, 0.5]]) * factor for factor in (1.001, 1.0))
    here, recorded = comparable("action", got, expected)
    np.testing.assert_allclose(here - recorded, [[0.0, 0.0, 0.0005]], atol=1e-12)
    here, recorded = comparable("report_mean", got, expected)
    np.testing.assert_allclose(here - recorded, [[0.001, -0.001, 0.0005]], atol=1e-12)


def test_a_golden_trace_without_an_array(bundle_copy):
    edit_golden(bundle_copy, lambda golden: golden.pop("command"))
    with pytest.raises(BundleError, match=r"golden.npz has no command"):
        verify(PolicyBundle.load(bundle_copy))


def test_wrong_units_names_and_frames_against_the_robot(tiny_parts):
    spec = tiny_parts[0]
    check_signals(spec.measured_signals(), SPECS)
    first, *rest = spec.observation["observation"]
    for field, value, message in (
        ("unit", "cm", "with unit 'cm', this robot provides 'm'"),
        ("frame", "camera", "with frame 'camera'"),
        ("components", ("y", "x", "z"), "with components"),
        ("name", "pos_err", "reads 'pos_err', which this robot does not provide"),
    ):
        changed = first.model_copy(update={field: value})
        wrong = PolicySpec(**{**dict(spec), "observation": {"observation": (changed, *rest)}})
        with pytest.raises(SpecError, match=message):
            check_signals(wrong.measured_signals(), SPECS)


def rewrite(path, tiny_bundle, tiny_parts, replace):
    spec, _, policy_onnx = tiny_parts
    loaded = PolicyBundle.load(tiny_bundle)
    return write_bundle(
        path,
        spec=spec,
        robot=load_robot("crazyflie").spec,
        provenance={"commit": "second"},
        policy_onnx=policy_onnx,
        golden=record_golden(loaded.runner(), random_frames(5, 1)),
        replace=replace,
    )


def test_overwriting_is_asked_for_and_atomic(bundle_copy, tiny_bundle, tiny_parts, monkeypatch):
    with pytest.raises(BundleError, match="exists; choose another path"):
        rewrite(bundle_copy, tiny_bundle, tiny_parts, replace=False)
    with monkeypatch.context() as patch:
        patch.setattr(bundle_files.os, "fsync", lambda fd: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            rewrite(bundle_copy, tiny_bundle, tiny_parts, replace=True)
    assert PolicyBundle.load(bundle_copy).provenance["commit"] == "test"
    rename = Path.rename

    def fail_into_place(source, target):
        if target == bundle_copy and not source.name.endswith(".previous"):
            raise OSError("disk gone")
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_into_place)
        with pytest.raises(OSError, match="disk gone"):
            rewrite(bundle_copy, tiny_bundle, tiny_parts, replace=True)
    assert PolicyBundle.load(bundle_copy).provenance["commit"] == "test", "the old bundle is back in its place"
    rewrite(bundle_copy, tiny_bundle, tiny_parts, replace=True)
    assert PolicyBundle.load(bundle_copy).provenance["commit"] == "second"
    assert [p.name for p in bundle_copy.parent.iterdir()] == [bundle_copy.name], "nothing temporary is left"
