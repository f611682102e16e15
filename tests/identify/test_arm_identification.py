"""Replay and identification: planted servos are found, faults are found, and the real arm is met."""

import copy
import json

import numpy as np
import pytest
import yaml
from real_data import BOTH, excerpt, whole

from sim2real.cli.console import console, save_json
from sim2real.cli.main import main
from sim2real.errors import ConfigError
from sim2real.evaluate.identification import _kept
from sim2real.identify.arm.check import check_joints
from sim2real.identify.arm.excite import excite
from sim2real.identify.arm.fit import JointFit, find_stops, identify
from sim2real.identify.arm.mapping import apply_mapping, read_mapping
from sim2real.identify.arm.parameters import parameters_file
from sim2real.identify.arm.replay import MotionReplay, replay, stops_of, summary
from sim2real.identify.arm.search import search, simulate
from sim2real.identify.arm.segments import cut
from sim2real.identify.arm.space import Space
from sim2real.recordings.logs import JointLog, read_logs
from sim2real.recordings.tables import LogError
from sim2real.robots import robot_folder
from sim2real.robots.arm import Arm, read_parameters
from sim2real.robots.physics import PhysicsParams
from sim2real.sim.randomization import Randomization

ARM = Arm(robot_folder("so101"))
JOINTS = ARM.joints


def recorded(seed=0, seconds=40.0, changes=None):
    """What the simulated arm with other servos does with an excitation: a log."""
    motion = excite(ARM, JOINTS, duration_s=120.0, seed=seed)
    rows = slice(-round(seconds * 50), None)
    command = motion.command[rows]
    time = 0.02 * np.arange(len(command))
    blank = JointLog(f"m{seed}", JOINTS, time, command, np.tile(command[:1], (len(command), 1)))
    values = ARM.nominal()
    for name, (joint, value) in (changes or {}).items():
        values[name][joint] = value
    moved = replay(ARM, [blank], values)[0].simulated
    return JointLog(blank.name, JOINTS, time, command, np.round(moved / ARM.encoder_step) * ARM.encoder_step)


@pytest.fixture(scope="module")
def logs():
    return [recorded(seed) for seed in range(2)]


def save(log, folder, **changes):
    path = folder / f"{log.name}.npz"
    np.savez(path, **({"t": log.time, "q_cmd": log.command, "q": log.position} | changes))
    return path


def test_replay_of_its_own_simulation_is_exact_up_to_the_encoder(logs):
    motions = replay(ARM, logs, ARM.nominal())
    figures = summary(ARM, motions)
    assert figures["mean_joint_rmse_rad"] < 1.5e-3
    assert figures["measured_is_commanded_rad"] > 10 * figures["mean_joint_rmse_rad"]
    assert set(figures["per_motion"]) == {"m0", "m1"} and set(figures["per_joint"]) == set(JOINTS)
    worse = ARM.nominal()
    worse["gain"] *= 0.5
    assert summary(ARM, replay(ARM, logs, worse))["mean_joint_rmse_rad"] > 5e-3


@pytest.mark.slow
def test_planted_servo_is_identified():
    """Another speed limit, gain and dead band on one joint: found from motions alone, and good on one not seen."""
    joint, planted = 4, {"no_load_speed": 0.9, "gain": 22.0, "dead_band": 0.016}
    logs = [recorded(seed, 30.0, {name: (4, value) for name, value in planted.items()}) for seed in range(3)]
    described = {name: float(values[joint]) for name, values in ARM.described().items()}
    stops = {name: described[name] for name in ("low_stop", "high_stop", "stall_torque")}
    space = Space.of(ARM.servo, stops)
    pieces = cut(ARM, logs, joint)
    found = search(space, pieces.of(np.array([0, 1])), space.encode(described), 60, 0)
    values = {name: np.array([found[name]]) for name in found if name != "rmse"}
    unseen = pieces.of(np.array([2]))
    error = np.sqrt(simulate(values, unseen)[1].sum() / unseen.counts.sum())
    assert error < 6e-3
    before = {name: np.array([value]) for name, value in described.items()}
    assert np.sqrt(simulate(before, unseen)[1].sum() / unseen.counts.sum()) > 3 * error
    assert found["no_load_speed"] == pytest.approx(0.9, rel=0.15)


@pytest.mark.slow
def test_finished_searches_are_not_done_again(logs):
    """Nor does a fold know of a stop that only its held-out motion shows."""
    stop = min(float(log.position[:, 0].min()) for log in logs) - 0.01
    logs = [stopped(logs[0], stop), logs[1]]
    finished: dict = {}
    settings = {"folds": 2, "generations": 1, "seed": 0}
    fits = identify(ARM, logs, on_progress=lambda *_: None, finished=finished, **settings)
    assert [fit.joint for fit in fits] == list(JOINTS) and set(fits[0].held_out) == {"m0", "m1"}
    calls = []
    again = identify(ARM, logs, on_progress=lambda *a: calls.append(a), finished=finished, **settings)
    assert calls == [(18, 18, {})] and again[4].values == fits[4].values
    assert finished["shoulder_pan/all"]["low_stop"] == pytest.approx(stop)
    described = float(ARM.described()["low_stop"][0])
    folds = sorted(finished[f"shoulder_pan/{fold}"]["low_stop"] for fold in range(2))
    assert folds == [pytest.approx(described), pytest.approx(stop)]
    assert fits[0].stops_seen == (1, 0) and fits[1].stops_seen == (0, 0)
    entry = parameters_file(ARM, fits, {})["parameters"]["shoulder_pan.low_stop"]
    assert entry["seen_in_motions"] == 1


def test_too_few_motions(logs):
    with pytest.raises(LogError, match="cannot be divided into 5 folds"):
        identify(ARM, logs, folds=5, generations=1, seed=0, on_progress=lambda *_: None, finished={})


def test_motions_that_are_too_short_are_refused_before_the_search(logs):
    short = [
        JointLog(f"s{i}", JOINTS, log.time[:100], log.command[:100], log.position[:100]) for i, log in enumerate(logs)
    ]
    with pytest.raises(LogError, match="0 of 2 motions last 5 s or more"):
        identify(ARM, short, folds=2, generations=1, seed=0, on_progress=lambda *_: None, finished={})


def stopped(log, low, rows=200):
    """The log, with the first joint held at ``low`` for some rows though more is asked of it."""
    command, position = log.command.copy(), log.position.copy()
    position[:, 0] = np.clip(position[:, 0], low, None)
    command[-rows:, 0], position[-rows:, 0] = low - 0.5, low
    return JointLog(log.name, JOINTS, log.time, command, position)


def test_stops_are_seen(logs):
    (first, *others) = find_stops(ARM, [stopped(logs[0], -0.1)])
    assert first.low == pytest.approx(-0.1) and first.low_seen == 1
    assert {(stop.low_seen, stop.high_seen) for stop in others} == {(0, 0)}
    # A motion that goes beyond shows that it was none.
    assert find_stops(ARM, [stopped(logs[0], -0.1), logs[1]])[0].low_seen == 0


def test_a_stop_is_disproved_by_a_motion_that_begins_beyond_it(logs):
    low, high = np.full(6, -0.5), np.full(6, 0.5)
    beyond = logs[0].position.copy()
    beyond[0] = [-1.3, 0.0, 1.1, -0.53, 4.0, 0.0]
    log = JointLog("beyond", JOINTS, logs[0].time, logs[0].command, beyond)
    low, high = stops_of(ARM, log, low, high)
    described = ARM.described()
    np.testing.assert_allclose(low, [described["low_stop"][0], -0.5, -0.5, -0.5, -0.5, -0.5])
    np.testing.assert_allclose(high, [0.5, 0.5, described["high_stop"][2], 0.5, 4.0, 0.5])


def test_a_motion_beyond_a_learned_stop_is_replayed_where_it_is(logs):
    values = ARM.nominal()
    values["low_stop"][0] = -0.2
    still = np.tile([-0.8, *ARM.rest[1:]], (200, 1))
    log = JointLog("beyond", JOINTS, 0.02 * np.arange(200), still, still)
    assert abs(replay(ARM, [log], values)[0].simulated[-1, 0] + 0.8) < 0.05


def test_replay_of_a_motion_does_not_depend_on_the_others(logs):
    def part(count):
        return JointLog(f"p{count}", JOINTS, logs[0].time[:count], logs[0].command[:count], logs[0].position[:count])

    many = [part(100 + 7 * i) for i in range(18)]  # more than there are lanes
    together = {motion.name: motion.simulated for motion in replay(ARM, many, ARM.nominal())}
    for log in (many[0], many[1]):  # the shortest ones wait for a lane
        np.testing.assert_array_equal(replay(ARM, [log], ARM.nominal())[0].simulated, together[log.name])


def test_the_worst_second_is_one_of_time_not_of_rows():
    time = np.concatenate((np.arange(0.0, 2.0, 0.1), 2.0 + 0.001 * np.arange(200), np.arange(2.2, 5.0, 0.1)))
    error = np.where((time >= 3.0) & (time < 4.0), 0.1, 0.0)[:, None]
    blank = np.zeros((len(time), 1))
    at, rmse = MotionReplay("bursts", time, error, blank, blank).worst_window()
    assert at == pytest.approx(3.0, abs=0.11) and rmse == pytest.approx(0.1, rel=0.06)


def fault(log, kind, joint, value):
    position, time = log.position.copy(), log.time
    if kind == "sign":
        position[:, joint] *= -1
    elif kind == "scale":
        position[:, joint] *= value
    elif kind == "offset":
        position[:, joint] += value
    elif kind == "swap":
        position[:, [joint, value]] = position[:, [value, joint]]
    else:
        time = time * value
    return JointLog(log.name, log.joint_names, time, log.command, position)


WORDS = {"sign": "other way", "scale": "scaled by", "offset": "zero off", "swap": "column of", "rate": "rows are"}
PLANTED = [
    ("sign", 1, 0), ("sign", 5, 0), ("scale", 0, 1.1), ("scale", 2, 0.5), ("scale", 3, 180 / np.pi), ("offset", 2, 0.1),
    ("offset", 4, -0.1), ("swap", 0, 4), ("swap", 1, 2), ("rate", 0, 2.0), ("rate", 0, 0.5),
]  # fmt: skip


@BOTH
def test_doctor_finds_nothing_in_recordings_that_are_in_order(recordings):
    clean = check_joints(ARM, read_logs([recordings("so101_real")], JOINTS, ARM.aliases))
    assert clean.faults == () and all(joint.judged for joint in clean.joints)


@pytest.mark.parametrize(
    ("recordings", "kind", "joint", "value"),
    [
        *(pytest.param(whole, *planted, marks=pytest.mark.slow) for planted in PLANTED),
        *((excerpt, *planted) for planted in PLANTED[::2]),
    ],
)
def test_doctor_on_real_recordings_finds_what_was_planted_and_nothing_else(recordings, kind, joint, value):
    logs = read_logs([recordings("so101_real")], JOINTS, ARM.aliases)
    broken = [fault(log, kind, joint, value) for log in logs]
    found = check_joints(ARM, broken)
    told = found.clock if kind == "rate" else "; ".join(found.joints[joint].faults)
    assert WORDS[kind] in told, told
    mended = check_joints(ARM, [apply_mapping(log, found.mapping()) for log in broken])
    assert mended.faults == ()


@pytest.mark.parametrize(
    ("recordings", "rel"),
    [pytest.param(whole, 0.03, marks=pytest.mark.slow), (excerpt, 0.08)],
    ids=["whole", "excerpt"],
)
@pytest.mark.parametrize(("joint", "scale"), [(2, 180 / np.pi), (1, 0.3), (5, np.pi / 180)], ids=["57", "0.3", "0.017"])
def test_far_scales_are_measured_as_well_as_near_ones(recordings, rel, joint, scale):
    logs = read_logs([recordings("so101_real")], JOINTS, ARM.aliases)
    check = check_joints(ARM, [fault(log, "scale", joint, scale) for log in logs])
    found = check.joints[joint]
    assert found.slope == pytest.approx(scale, rel=rel) and abs(found.slope - scale) <= found.within
    assert [fault for fault in check.faults if "scaled by" not in fault] == [] and len(check.faults) == 1
    unit = scale in (180 / np.pi, np.pi / 180)
    assert ("degrees" in check.faults[0]) == unit
    corrected = check.mapping()["joints"][JOINTS[joint]]["slope"]
    assert corrected == pytest.approx(scale, rel=1e-5 if unit else rel)


@BOTH
def test_a_scaled_joint_has_the_zero_it_has_without_its_scale(recordings):
    logs = read_logs([recordings("so101_real")], JOINTS, ARM.aliases)
    scaled = [fault(log, "scale", 2, 1.18) for log in logs]
    assert [joint.has("zero") for joint in check_joints(ARM, scaled).joints] == 6 * [False]
    shifted = [fault(fault(log, "offset", 2, 0.2), "scale", 2, 180 / np.pi) for log in logs]
    entry = check_joints(ARM, shifted).mapping()["joints"]["elbow_flex"]
    assert entry["offset"] == pytest.approx(np.degrees(0.2), rel=0.25)
    for scale in (0.3, np.pi / 180):
        shifted = [fault(fault(log, "offset", 2, 0.2), "scale", 2, scale) for log in logs]
        entry = check_joints(ARM, shifted).mapping()["joints"]["elbow_flex"]
        assert entry["offset"] == pytest.approx(0.2 * scale, rel=0.25)


def test_doctor_does_not_judge_what_stands_still(logs):
    still = logs[0].command.copy(), logs[0].position.copy()
    for values in still:
        values[:, 3] = values[0, 3]
    found = check_joints(ARM, [JointLog("still", JOINTS, logs[0].time, *still)])
    assert not found.joints[3].judged and found.joints[3].faults == ()


def at_rate(log, hertz):
    """The same motion, recorded more often."""
    time = np.arange(0.0, log.time[-1], 1.0 / hertz)
    held = np.searchsorted(log.time, time + 1e-9, side="right") - 1
    position = np.stack([np.interp(time, log.time, column) for column in log.position.T], axis=1)
    return JointLog(log.name, JOINTS, time, log.command[held], position)


def test_a_clock_is_judged_by_the_servos(logs):
    fine = check_joints(ARM, [at_rate(log, 100.0) for log in logs])
    assert fine.faults == () and fine.time_scale == 1.0 and "in order" in fine.clock
    fast = check_joints(ARM, [fault(log, "rate", 0, 0.5) for log in logs])
    assert fast.time_scale == pytest.approx(2.0) and "2 times too fast" in fast.clock and fast.faults == (fast.clock,)
    slow = check_joints(ARM, [fault(log, "rate", 0, 2.0) for log in logs])
    assert slow.time_scale == pytest.approx(0.5) and "2 times too slow" in slow.clock


def test_damaged_mappings_are_refused(tmp_path):
    entry = {"source": "gripper", "slope": 1.0, "offset": 0.0}
    for content, words in (
        ({}, "time_scale"),
        ({"time_scale": 1.0}, "joints"),
        ({"time_scale": 1.0, "joints": [1]}, "joints"),
        ({"time_scale": 0.0, "joints": {"gripper": entry}}, "time_scale"),
        ({"time_scale": 1.0, "joints": {"gripper": entry | {"slope": 0.0}}}, "joints.gripper.slope"),
        ({"time_scale": 1.0, "joints": {"gripper": {"source": "gripper"}}}, "joints.gripper.slope"),
    ):
        (tmp_path / "m.yaml").write_text(yaml.safe_dump({"kind": "sim2real_joint_mapping"} | content))
        with pytest.raises(ConfigError, match=f"damaged joint mapping: {words}"):
            read_mapping(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text("a: [1,\nb: {")
    with pytest.raises(ConfigError, match=r"m\.yaml cannot be read: line 2: expected the node content[^\n]*$"):
        read_mapping(tmp_path / "m.yaml")


def test_a_damaged_partial_file_counts_as_none(tmp_path):
    out = tmp_path / "p.yaml"
    for text, kept in (
        ('{"finger', {}),
        ('{"fingerprint": "x"}', {}),
        ('{"fingerprint": "x", "finished": [1]}', {}),
        ('{"fingerprint": "x", "finished": {"a/0": {"gain": 2}}}', {"a/0": {"gain": 2.0}}),
    ):
        (tmp_path / ".p.yaml.partial.json").write_text(text)
        with _kept(out, "x") as (finished, _):
            assert finished == kept


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check-joints", "crazyflie", "x.npz"], "is not an arm"),
        (["excite", "crazyflie"], "is not an arm"),
        (["excite", "so101", "--plot", "x.xyz"], "pictures are"),
        (["replay", "so101", "x.npz", "--json", "{file}/x.json"], "cannot be written"),
        (["identify", "so101", "x.npz", "--out", "{folder}"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    places = {"file": tmp_path / "file", "folder": tmp_path}
    with pytest.raises(SystemExit) as caught:
        main([argument.format(**places) for argument in arguments])
    assert caught.value.code == 2 and words in " ".join(capsys.readouterr().err.split())


def test_figures_that_are_not_finite_become_null(tmp_path):
    save_json(tmp_path / "deep" / "f.json", {"a": float("nan"), "b": (1, [np.float64(np.inf)]), "c": "x"})
    assert json.loads((tmp_path / "deep" / "f.json").read_text()) == {"a": None, "b": [1, [None]], "c": "x"}


def in_degrees(log, size=1.0, at=0.0):
    command, position = (np.degrees(at + size * values) for values in (log.command, log.position))
    return JointLog("d", JOINTS, log.time, command, position)


def test_small_degrees_get_a_word(tmp_path, logs):
    path = save(in_degrees(logs[0], 0.01, 0.06), tmp_path)
    with console.capture() as shown:
        main_ok(["replay", "so101", str(path)], {0})
    assert "are these degrees" in " ".join(shown.get().split())


@pytest.mark.parametrize(("size", "at"), [(1.0, 0.0), (0.01, 0.06)])
@pytest.mark.parametrize("both", [True, False])
def test_commands_in_degrees_are_not_judged(tmp_path, capsys, logs, size, at, both):
    """A mapping corrects measurements; with commands in degrees it would make degrees of radians."""
    degrees = in_degrees(logs[0], size, at)
    measured = {} if both else {"q": np.radians(degrees.position)}
    path, out = save(degrees, tmp_path, **measured), tmp_path / "m.yaml"
    main_ok(["check-joints", "so101", str(path), "--out", str(out)], {2})
    told = " ".join(capsys.readouterr().err.split())
    assert "convert degrees first" in told and not out.exists()


def main_ok(arguments, codes):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code in codes


def test_doctor_command(tmp_path, logs):
    path = save(fault(logs[0], "sign", 1, 0), tmp_path)
    mapping = tmp_path / "mapping.yaml"
    with pytest.raises(SystemExit) as caught:
        main(["check-joints", "so101", str(path), "--out", str(mapping), "--json", str(tmp_path / "f.json")])
    assert caught.value.code == 1
    assert any("other way" in line for line in json.loads((tmp_path / "f.json").read_text())["faults"])
    with pytest.raises(SystemExit) as caught:
        main(["check-joints", "so101", str(path), "--mapping", str(mapping)])
    assert caught.value.code == 0
    with pytest.raises(SystemExit) as caught:
        main(["replay", "so101", str(path), "--mapping", str(mapping), "--json", str(tmp_path / "r.json")])
    assert caught.value.code == 0
    assert json.loads((tmp_path / "r.json").read_text())["mean_joint_rmse_rad"] < 0.01


@pytest.mark.parametrize("clearance", [0.03, 0.08])
def test_excitation_keeps_every_limit(clearance):
    motion = excite(ARM, JOINTS, duration_s=240.0, speed=1.2, acceleration=6.0, clearance_m=clearance, seed=3)
    dt = 0.02
    velocity = np.diff(motion.command, axis=0) / dt
    assert np.abs(velocity).max() <= 1.2 + 1e-9
    assert np.abs(np.diff(velocity, axis=0) / dt).max() <= 6.0 + 1e-6
    low, high = np.array([(c.low, c.high) for c in ARM.spec.commands]).T
    assert (motion.command >= low).all() and (motion.command <= high).all()
    frames = ARM.chain.frames(motion.command)
    for link in ARM.chain.link_names[2:]:
        assert frames[link][0][:, 2].min() >= clearance - 1e-9
    reach = motion.command.max(axis=0) - motion.command.min(axis=0)
    assert (reach >= 0.6 * (motion.high - motion.low)).all()
    np.testing.assert_allclose(motion.command[-1], ARM.rest, atol=1e-6)
    np.testing.assert_array_equal(excite(ARM, JOINTS, duration_s=240.0, seed=5).command,
                                  excite(ARM, JOINTS, duration_s=240.0, seed=5).command)  # fmt: skip


def test_excitation_knows_other_names_of_joints():
    by_alias, own = (excite(ARM, [name], duration_s=30.0).command for name in ("Jaw", "gripper"))
    np.testing.assert_array_equal(by_alias, own)


def test_excitation_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="no joints"):
        excite(ARM, ["nose"])
    with pytest.raises(ConfigError, match="clearance is -1"):
        excite(ARM, JOINTS, clearance_m=-1.0)
    with pytest.raises(ConfigError, match="speed is nan"):
        excite(ARM, JOINTS, speed=np.nan)
    with pytest.raises(ConfigError, match="above the table"):
        excite(ARM, JOINTS, clearance_m=0.5)
    with pytest.raises(ConfigError, match="start pose: 'shoulder_pan'"):
        excite(ARM, JOINTS, start=np.array([3.0, 0, 0, 0, 0, 0]))


def test_parameters_files_are_checked(tmp_path):
    good = yaml.safe_load((ARM.folder / "identified.yaml").read_text())
    for change, words in (
        ({"robot": "panda"}, "parameters of 'panda'"),
        ({"kind": "x"}, "not a parameters file"),
        ({"parameters": {"nose.gain": {"value": 1}}}, "no parameter of"),
        ({"parameters": {"gripper.gain": {"value": 1e9}}}, "outside"),
        ({"parameters": {"gripper.gain": {"value": "x"}}}, "no number"),
        ({"parameters": {"gripper.gain": {"value": 9.0, "identified": True, "low": 8.0}}}, "no number .* low or high"),
        ({"parameters": {"gripper.gain": {"value": 9.0, "low": "x"}}}, "no number"),
        ({"parameters": {"gripper.gain": {"value": 9.0, "high": float("nan")}}}, "not finite"),
        ({"parameters": {"gripper.gain": {"value": 9.0, "low": 9.5, "high": 8.5}}}, "above its high"),
        ({"correlation": [1]}, "is damaged"),
        ({"correlation": {"gripper": {"names": ["gain", "gain"], "matrix": [[1.0, 0.0], [0.0, 1.0]]}}}, "is damaged"),
        ({"correlation": {"gripper": {"names": ["gain"], "matrix": [[float("nan")]]}}}, "is damaged"),
        ({"correlation": {"gripper": {"names": ["gain"]}}}, "correlation of 'gripper' is damaged"),
        ({"correlation": {"gripper": {"names": ["gain"], "matrix": [[1.0]]}}}, "before servos had acceleration"),
        ({"parameters": [1]}, "is damaged"),
        ({"parameters": {"gripper.gain": 1}}, "is damaged"),
        ({"parameters": None}, "is damaged"),
    ):
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(good | change))
        with pytest.raises(ConfigError, match=words):
            read_parameters(tmp_path / "p.yaml", ARM)
    terms = ARM.identified_terms(ARM.folder / "identified.yaml")
    assert terms["shoulder_pan.no_load_speed"].operation == "set"
    assert "payload" in terms


def test_what_was_identified_together_is_drawn_together():
    """Gain and speed of shoulder_pan hold only together: drawn apart, they move the arm as no recording allows."""
    terms = ARM.identified_terms(ARM.folder / "identified.yaml")
    params = PhysicsParams(ARM.parameters, 1)
    drawn = Randomization(terms, params, np.random.default_rng(0)).sample(4000)
    gain, speed, other = (
        drawn[:, params.column(name)]
        for name in ("shoulder_pan.gain", "shoulder_pan.no_load_speed", "elbow_flex.no_load_speed")
    )
    told = terms["shoulder_pan.gain"].correlated["shoulder_pan.no_load_speed"]
    assert told < -0.95 and np.corrcoef(gain, speed)[0, 1] < -0.9
    # What was not identified keeps the robot's own range, and is drawn by itself.
    loose = [name for name, term in terms.items() if not term.reason.startswith("identified")]
    assert "gripper.gravity_scale" in loose
    assert not {other for term in terms.values() for other in term.correlated} & set(loose)
    assert abs(np.corrcoef(gain, other)[0, 1]) < 0.06
    low, high = terms["shoulder_pan.gain"].range
    quarters = np.array([0.25, 0.5, 0.75])
    assert np.quantile(gain, quarters) == pytest.approx(low + (high - low) * quarters, rel=0.05)


def test_what_identification_writes_can_be_read(tmp_path):
    """Bounds with more digits than the file keeps, and a value that lies on one."""
    arm = copy.copy(ARM)
    arm.servo = ARM.servo | {"gain": ARM.servo["gain"].model_copy(update={"low": 1.23456789})}
    names = tuple(n for n, q in arm.servo.items() if not q.fixed and n != "stall_torque")
    values = {n: float(v[0]) for n, v in ARM.described().items()} | {"gain": 1.23456789}
    fits = [JointFit(joint, names, values, 1e-6 * np.eye(len(names)), 0.0) for joint in JOINTS]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(parameters_file(arm, fits, {})))
    assert read_parameters(tmp_path / "p.yaml", arm)["gain"] == pytest.approx(1.23456789)


@pytest.mark.parametrize(
    ("recordings", "highest"), [pytest.param(whole, 0.008, marks=pytest.mark.slow), (excerpt, 0.0045)],
    ids=["whole", "excerpt"],
)  # fmt: skip
def test_shipped_parameters_meet_the_real_arm(recordings, highest):
    logs = read_logs([recordings("so101_real")], JOINTS, ARM.aliases)
    figures = summary(ARM, replay(ARM, logs, ARM.nominal()))
    assert figures["mean_joint_rmse_rad"] < highest
    every = [row["mean_joint_rmse_rad"] for row in figures["per_motion"].values()]
    assert figures["mean_over_motions_rad"] == pytest.approx(np.mean(every))
    for name, row in figures["per_motion"].items():
        assert row["mean_joint_rmse_rad"] < row["measured_is_commanded_rad"], name
