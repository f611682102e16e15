"""Friction, gains and masses from torques and currents; the recordings are made with Pinocchio, not our simulator."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sim2real.cli.main import app
from sim2real.identify.arm.dynamics import bodies_of, consistent, factor_of, parameters_of, pseudo_of, regressor
from sim2real.robots.arm import Arm

pin = pytest.importorskip("pinocchio", reason="recordings are made with it: pip install pin")

JOINTS = ("pan", "lift", "elbow")
LINK = """<link name="{name}"><inertial><origin xyz="{com}" rpy="0.1 0.2 0.3"/><mass value="{mass}"/>
<inertia ixx="{i}" iyy="{i2}" izz="{i3}" ixy="0" ixz="0" iyz="0"/></inertial></link>"""
JOINT = """<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/><origin xyz="{at}"/>
<axis xyz="{axis}"/><limit lower="-3" upper="3" effort="80" velocity="3"/></joint>"""
CONSTANTS = np.array([12.0, 10.0, 6.0])
TRUE = {
    "coulomb": np.array([1.0, 1.5, 0.6]),
    "viscous": np.array([0.5, 0.4, 0.2]),
    "torque_offset": np.array([0.1, 0.0, -0.05]),
    "rotor_inertia": np.array([0.3, 0.3, 0.1]),
}


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    """An arm of three joints; a bracket and a tool are fixed to its last link."""
    folder = tmp_path_factory.mktemp("arm")
    links = [("turret", "0 0 0.1", 3.0, 0.02), ("upper", "0.15 0.01 0.02", 2.5, 0.03), ("fore", "0.1 0 0", 1.5, 0.01),
             ("bracket", "0 0.02 0.01", 0.3, 0.001)]  # fmt: skip
    joints = [("pan", "revolute", "base", "turret", "0 0 0.1", "0 0 1"),
              ("lift", "revolute", "turret", "upper", "0 0 0.2", "0 1 0"),
              ("elbow", "revolute", "upper", "fore", "0.35 0 0", "0 1 0.1"),
              ("mount", "fixed", "fore", "bracket", "0.2 0 0", "1 0 0"),
              ("tip", "fixed", "bracket", "tool", "0.05 0 0", "1 0 0")]  # fmt: skip
    text = "".join(LINK.format(name=n, com=c, mass=m, i=i, i2=1.2 * i, i3=1.3 * i) for n, c, m, i in links)
    keys = ("name", "kind", "parent", "child", "at", "axis")
    text += "".join(JOINT.format(**dict(zip(keys, joint, strict=True))) for joint in joints)
    (folder / "arm.urdf").write_text(f'<robot name="a"><link name="base"/><link name="tool"/>{text}</robot>')
    (folder / "robot.yaml").write_text("urdf: arm.urdf\nee: tool\ncontrol_rate_hz: 50\n")
    return Arm(folder)


def motion(arm, seed, *, payload=None, seconds=16.0, rate=125.0, noise=0.03, moving=(1.0, 1.0, 1.0)):
    """Time, positions, velocities and torques [N·m] of an arm whose links are not quite those of its description."""
    rng, t = np.random.default_rng(seed), np.arange(0.0, seconds, 1.0 / rate)
    model = pin.buildModelFromUrdf(str(arm.urdf))
    for index, factor in enumerate((1.1, 0.9, 1.15), start=1):
        own = model.inertias[index]
        model.inertias[index] = pin.Inertia(own.mass * factor, own.lever * 1.03, own.inertia * factor)
    if payload:
        frame = model.frames[model.getFrameId(arm.ee)]
        load = pin.Inertia(payload, np.array([0.02, 0.0, 0.05]), 0.002 * np.eye(3))
        model.appendBodyToJoint(frame.parentJoint, load, frame.placement)
    q, dq, ddq = np.zeros((3, len(t), 3))
    for joint in range(3):
        for k in range(1, 6):
            w, (a, b) = 2.0 * np.pi * 0.12 * k, moving[joint] * 0.5 * rng.normal(size=2) / k
            q[:, joint] += a * np.sin(w * t) + b * np.cos(w * t)
            dq[:, joint] += w * (a * np.cos(w * t) - b * np.sin(w * t))
            ddq[:, joint] -= w * w * (a * np.sin(w * t) + b * np.cos(w * t))
    data = model.createData()
    torque = np.array([pin.rnea(model, data, *row) for row in zip(q, dq, ddq, strict=True)])
    torque += TRUE["viscous"] * dq + TRUE["coulomb"] * np.sign(dq) + TRUE["torque_offset"] + TRUE["rotor_inertia"] * ddq
    torque += noise * rng.normal(size=torque.shape)
    return {"t": t, "q": q + 1e-5 * rng.normal(size=q.shape), "dq": dq, "tau": torque}


@pytest.fixture(scope="module")
def made(arm):
    """Motions without and with a payload of 1.2 kg."""
    return [motion(arm, seed) for seed in range(3)] + [motion(arm, seed, payload=1.2) for seed in (3, 4)]


def write(folder, motions, *, velocity=False, effort="tau", **changes):
    """One .npz a motion, its torques called ``effort``; ``changes`` are functions of arrays, by name."""
    folder.mkdir(exist_ok=True)
    for index, content in enumerate(motions):
        kept = {k: v for k, v in content.items() if velocity or k != "dq"}
        kept |= {name: change(content[name]) for name, change in changes.items()}
        kept[effort] = kept.pop("tau")
        np.savez(folder / f"m{index}.npz", **kept)
    return folder


def identify(arm, folder, out, *options):
    """Run the command; its result and its figures."""
    ran = CliRunner().invoke(app, ["identify", str(arm.folder), str(folder), "--out", str(out / "p.yaml"), "--folds",
                                   "3", "--json", str(out / "p.json"), *map(str, options)])  # fmt: skip
    return ran, json.loads((out / "p.json").read_text()) if ran.exit_code == 0 else {}


def refused(arm, folder, out, *options):
    """The error of a command that has to fail, in one line."""
    ran, _ = identify(arm, folder, out, *options)
    assert ran.exit_code != 0 and not (out / "p.yaml").exists()
    return " ".join(str(ran.exception or ran.output).split())


def inside(entry, true, wider=1.5):
    """Whether a true value is inside an interval; of twelve at once some are a little beyond their two sigma."""
    middle, half = entry["value"], wider * 0.5 * (entry["high"] - entry["low"])
    return abs(true - middle) <= half


def test_regressor_and_parameters_are_pinocchios(arm):
    rng, bodies = np.random.default_rng(0), bodies_of(arm.chain)
    model = pin.buildModelFromUrdf(str(arm.urdf))
    q, dq, ddq = rng.normal(size=(3, 4, 3))
    own = regressor(arm.chain, bodies, q, dq, ddq)
    for index in range(4):
        other = pin.computeJointTorqueRegressor(model, model.createData(), q[index], dq[index], ddq[index])
        np.testing.assert_allclose(own[index], other, atol=1e-12)
    whole = np.concatenate([model.inertias[i].toDynamicParameters() for i in range(1, model.njoints)])
    np.testing.assert_allclose(np.concatenate([b.parameters for b in bodies]), whole, atol=1e-12)
    assert bodies[-1].parts == ("fore", "bracket")


def test_any_coordinates_are_a_body_that_can_be(arm):
    factors = np.array([factor_of(pseudo_of(b.parameters)) for b in bodies_of(arm.chain)])
    np.testing.assert_allclose(consistent(factors, np.zeros((3, 10)))[1], bodies_of(arm.chain)[1].parameters, atol=1e-9)
    for row in consistent(factors, np.random.default_rng(1).normal(size=(3, 10))):
        assert row[0] > 0.0 and np.linalg.eigvalsh(pseudo_of(row)).min() > 0.0
        np.testing.assert_allclose(parameters_of(pseudo_of(row)), row, atol=1e-12)


def test_torques_give_friction_and_payload_within_their_intervals(arm, made, tmp_path):
    folder = write(tmp_path / "logs", made)
    loaded = [arg for i in (3, 4) for arg in ("--loaded", folder / f"m{i}.npz")]
    ran, figures = identify(arm, folder, tmp_path, "--effort-unit", "N·m", *loaded)
    assert ran.exit_code == 0, ran.output
    found = figures["quantities"]
    for name, values in TRUE.items():
        for joint, true in zip(JOINTS, values, strict=True):
            assert inside(found[f"{joint}.{name}"], true), (joint, name, found[f"{joint}.{name}"])
    for joint, true in zip(JOINTS, TRUE["coulomb"], strict=True):
        assert found[f"{joint}.coulomb"]["std"] < 0.02 and found[f"{joint}.coulomb"]["identified"], true
    assert inside(found["payload"], 1.2) and found["payload"]["std"] < 0.03
    for axis, true in zip("xyz", (0.02, 0.0, 0.05), strict=True):
        assert inside(found[f"payload_{axis}"], true)
    for row in figures["held_out"]["per_joint"].values():
        assert row["rmse"] < 0.03 and row["rmse"] < 0.1 * row["description_rmse"]
    # One mass is not told from its neighbours: it stays the description's, and is said to.
    assert not found["upper.mass_scale"]["identified"] and "do not determine" in found["upper.mass_scale"]["why"]
    fitted = Arm(arm.folder, tmp_path / "p.yaml")
    assert fitted.parameters["payload"].nominal == pytest.approx(1.2, abs=0.05)
    assert fitted.nominal()["coulomb"] == pytest.approx(TRUE["coulomb"], abs=0.05)
    terms = fitted.identified_terms(tmp_path / "p.yaml")
    assert terms["payload"].range[0] < 1.2 < terms["payload"].range[1]
    assert terms["lift.coulomb"].operation == "set"


def test_currents_need_a_payload_or_a_constant_for_their_scale(arm, made, tmp_path):
    folder = write(tmp_path / "logs", made, effort="current", tau=lambda tau: tau / CONSTANTS)
    loaded = [arg for i in (3, 4) for arg in ("--loaded", folder / f"m{i}.npz")]
    ran, weighed = identify(arm, folder, tmp_path, "--effort-unit", "A", *loaded, "--payload-kg", "1.2")
    assert ran.exit_code == 0, ran.output
    for joint, gain, rubs in zip(JOINTS, CONSTANTS, TRUE["coulomb"], strict=True):
        entry = weighed["quantities"][f"{joint}.drive_gain"]
        assert entry["identified"] and inside(entry, gain) and entry["std"] < 0.03 * gain
        assert inside(weighed["quantities"][f"{joint}.coulomb"], rubs)
    ran, alone = identify(arm, folder, tmp_path, "--effort-unit", "A", *loaded)
    assert ran.exit_code == 0, ran.output
    assert not alone["quantities"]["lift.drive_gain"]["identified"]
    assert all(name.endswith(("com_scale", "payload_offset")) for name in alone["for_training"])
    assert any("common factor" in remark for remark in alone["remarks"])


def test_wrong_sign_order_and_unit_are_named(arm, made, tmp_path):
    free = made[:3]
    turned = write(tmp_path / "turned", free, tau=lambda tau: tau * [1.0, -1.0, 1.0])
    assert "wrong sign: 'lift'" in refused(arm, turned, tmp_path, "--effort-unit", "N·m")
    other = write(tmp_path / "other", free, tau=lambda tau: tau[:, [0, 2, 1]])
    assert "'elbow' follows the motion of 'lift'" in refused(arm, other, tmp_path, "--effort-unit", "N·m")
    motor = write(tmp_path / "motor", free, tau=lambda tau: tau / 100.0)
    assert "before the gear" in refused(arm, motor, tmp_path, "--effort-unit", "N·m")
    milli = write(tmp_path / "milli", free, effort="current", tau=lambda tau: 1e3 * tau / CONSTANTS)
    assert "is --effort-unit another one" in refused(arm, milli, tmp_path, "--effort-unit", "A")
    fast = write(tmp_path / "fast", free, velocity=True, dq=np.degrees)
    assert "degrees per second" in refused(arm, fast, tmp_path, "--effort-unit", "N·m")


def test_what_says_nothing_is_refused_with_the_reason(arm, made, tmp_path):
    still = write(tmp_path / "still", [*made[:2], motion(arm, 7, moving=(0.0, 0.0, 0.0))])
    assert "m2 stands still: the fastest joint" in refused(arm, still, tmp_path, "--effort-unit", "N·m")
    assert "two or more" in refused(arm, write(tmp_path / "one", made[:1]), tmp_path, "--effort-unit", "N·m")
    bare = write(tmp_path / "bare", made[:2])
    for index, content in enumerate(made[:2]):
        np.savez(bare / f"m{index}.npz", t=content["t"], q=content["q"])
    assert "has no array 'dof_torque'" in refused(arm, bare, tmp_path, "--effort-unit", "N·m")

    def damaged(tau):
        tau = tau.copy()
        tau[5, 1] = np.nan
        return tau

    broken = write(tmp_path / "broken", made[:2], tau=damaged)
    assert "effort of 'lift' is nan in row 5" in refused(arm, broken, tmp_path, "--effort-unit", "N·m")
    good = write(tmp_path / "good", made[:2])
    assert "'sim2real identify --effort-unit UNIT' takes torques" in refused(arm, good, tmp_path)
    assert "are known" in refused(arm, good, tmp_path, "--effort-unit", "kg")


def test_a_joint_that_never_moves_is_not_identified(arm, tmp_path):
    folder = write(tmp_path / "logs", [motion(arm, seed, moving=(0.0, 1.0, 1.0)) for seed in range(3)], velocity=True)
    ran, figures = identify(arm, folder, tmp_path, "--effort-unit", "N·m")
    assert ran.exit_code == 0, ran.output
    assert figures["quantities"]["pan.coulomb"]["why"] == "the joint does not move"
    assert inside(figures["quantities"]["lift.coulomb"], 1.5)


def test_columns_of_a_universal_robot_are_read(arm, made, tmp_path):
    """Numbered, separated by spaces, and the same values as by name in another order."""
    from sim2real.recordings.logs import EFFORTS, read_log

    content = made[0]
    table = np.column_stack([content["t"], content["q"], content["dq"], content["tau"]])
    names = [f"{what}_{j}" for what in ("actual_q", "actual_qd", "actual_current") for j in range(3)]
    np.savetxt(tmp_path / "ur.csv", table, header=" ".join(["timestamp", *names]), comments="", fmt="%.8f")
    log = read_log(tmp_path / "ur.csv", JOINTS, effort=EFFORTS["mA"])
    np.testing.assert_allclose(log.effort, 1e-3 * content["tau"], atol=1e-8)
    np.testing.assert_allclose(log.velocity, content["dq"], atol=1e-7)
    named = [f"{what}.{j}" for what in ("q", "dq", "tau") for j in ("elbow", "pan", "lift")]
    table = np.column_stack([content["t"], *(content[n][:, [2, 0, 1]] for n in ("q", "dq", "tau"))])
    np.savetxt(tmp_path / "named.csv", table, header=",".join(["time", *named]), comments="", delimiter=",")
    np.testing.assert_allclose(read_log(tmp_path / "named.csv", JOINTS, effort=EFFORTS["N·m"]).effort, content["tau"])
