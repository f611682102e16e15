"""Drones from recordings: an airframe that is not ours, planted IMU flights, and real ones."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from flight_maker import FRAME, fly, planted_imu
from real_data import excerpt, real_data, whole

from sim2real.cli.main import main
from sim2real.errors import ConfigError
from sim2real.evaluate import flight_identification
from sim2real.evaluate.flight_identification import airframe, identify_flights
from sim2real.identify.flight.file import FlightParameters, read_flight_parameters
from sim2real.identify.flight.fit import FlightFit, Trim, fit_flights, multi_step, position_error, regress, starts_of
from sim2real.identify.flight.folds import trajectories
from sim2real.identify.flight.imu import fit_imu
from sim2real.identify.flight.model import Flight, resample
from sim2real.identify.flight.residual import helps, train_residual
from sim2real.recordings.flights import STANDARD_GRAVITY, read_flight_log, read_flight_logs
from sim2real.recordings.tables import LogError
from sim2real.robots import load_robot, robot_folder
from sim2real.robots.residual import Residual
from sim2real.sim.simulation import Simulation


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flights")
    for seed in range(3):
        np.savez(folder / f"f{seed}.npz", **fly(seed, 8.0))
    return folder


def silent(*_):
    return None


@pytest.mark.slow
def test_prediction_of_an_unseen_flight(flights):
    logs = read_flight_logs([flights])
    fit = fit_flights(logs[:2], silent)
    unseen = resample(logs[2])
    found = multi_step(fit.model, unseen, fit.trim)
    assert found["50"]["position_m"] < 0.05
    assert found["1"]["position_m"] < found["10"]["position_m"] < found["50"]["position_m"]
    # Lift alone, as a model without torques has it, is much worse.
    nothing = fit.model.unpack(0 * fit.model.pack())
    assert multi_step(nothing, unseen, Trim())["50"]["position_m"] > 5 * found["50"]["position_m"]
    # The airframe's own thrust coefficient, which the fit has not seen.
    from drone_models.core import load_params

    p = load_params("first_principles", "cf2x_T350")
    speed = float(np.mean(logs[2].rotor_speed))
    force = 4 * (float(p["rpm2thrust"][2]) * (speed * 9.5493) ** 2 + float(p["rpm2thrust"][1]) * speed * 9.5493)
    u = (speed / 1000.0) ** 2
    lift = (fit.model.thrust.sum() * u + fit.model.lift_offset[2]) * float(p["mass"])
    assert lift == pytest.approx(force, rel=0.02)


def test_rotor_order_does_not_matter(flights):
    log = read_flight_log(flights / "f0.npz")
    order = [2, 0, 3, 1]
    content = dict(np.load(flights / "f0.npz"))
    content["rotor_speed"] = content["rotor_speed"][:, order]
    np.savez(flights.parent / "turned.npz", **content)
    turned = read_flight_log(flights.parent / "turned.npz")
    errors = [position_error(regress([resample(entry)]), [resample(entry)], Trim()) for entry in (log, turned)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def test_residual_learns_what_is_left_out(flights, tmp_path):
    """A force only, on a flight that it has not seen; attitude and rate are as without it."""
    found = [resample(log) for log in read_flight_logs([flights])]
    model = regress(found)
    blind = replace(model, drag=0 * model.drag, lift_offset=model.lift_offset + np.array([0.0, 0.0, 0.5]))
    network = train_residual(blind, found[:2], 0)
    before, after = (multi_step(blind, found[2], Trim(), n)["50"] for n in (None, network))
    assert helps(before, after) and after["position_m"] < 0.8 * before["position_m"]
    assert after["rate_rad_s"] == before["rate_rad_s"] and after["attitude_rad"] == before["attitude_rad"]
    network.save(tmp_path / "n.npz")
    again = Residual.load(tmp_path / "n.npz")
    x = np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 3)), np.ones(2)
    np.testing.assert_array_equal(network(*x), again(*x))
    (tmp_path / "m.npz").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not a readable residual"):
        Residual.load(tmp_path / "m.npz")


def test_a_network_helps_only_where_nothing_gets_worse():
    plain = {"position_m": 0.09, "velocity_m_s": 0.37, "attitude_rad": 0.158, "rate_rad_s": 0.518}
    assert helps(plain, plain | {"position_m": 0.08})
    assert not helps(plain, plain | {"position_m": 0.05, "rate_rad_s": 1.5})
    assert not helps(plain, plain | {"position_m": 0.0899})  # nothing to speak of


def test_flights_of_one_trajectory_are_known_as_such():
    t = np.arange(0.0, 20.0, 0.01)
    ones = np.ones((len(t), 1))

    def flown(x, y):
        pos = np.stack((x, y, 1 + 0 * t), axis=1)
        return Flight("", pos, pos, np.hstack((0 * pos, ones)), pos, np.hstack((pos, ones)), ones[:, 0] > 0)

    eight = [flown(np.sin(0.7 * t + late), 0.5 * np.sin(1.4 * t + 2 * late) + 0.02) for late in (0.0, 0.5)]
    ring = flown(np.sin(0.7 * t), np.cos(0.7 * t))
    assert trajectories([eight[0], ring, eight[1]]) == [0, 1, 0]


@pytest.mark.parametrize(("after", "kept"), [(0.8, True), (1.2, False)])
def test_the_network_is_judged_on_whole_flights_that_it_has_not_seen(flights, tmp_path, monkeypatch, after, kept):
    """Every flight is predicted by a fit to others; what the network does there decides, and is what is reported."""
    logs = read_flight_logs([flights])
    seen = {}

    def fit(those, *_):
        names = frozenset(log.name for log in those)
        model = regress([resample(log) for log in those])
        seen[id(model)] = (model, names)  # held, so that no other gets its id
        return FlightFit(model, Trim(), 0.1, np.eye(len(model.pack())))

    def predicted(model, flight, trim, residual=None, count=None):
        assert count or flight.name not in seen[id(model)][1]
        row = dict.fromkeys(("position_m", "velocity_m_s", "attitude_rad", "rate_rad_s"), 0.1)
        return {
            step: {name: value * (after if residual else 1.0) for name, value in row.items()}
            for step in ("1", "10", "50")
        }

    monkeypatch.setattr(flight_identification, "fit_flights", fit)
    monkeypatch.setattr(flight_identification, "multi_step", predicted)
    monkeypatch.setattr(flight_identification, "_write_page", lambda *_: None)
    found = identify_flights("crazyflie", logs, FRAME, tmp_path / "p.yaml", 0, silent)
    assert set(found["held_out"]) == {"f0", "f1", "f2"}
    assert ("it is kept" if kept else "it is left out") in found["remarks"][-1]
    assert (read_flight_parameters(tmp_path / "p.yaml", "crazyflie").residual is not None) == kept
    assert found["held_out"]["f0"]["50"]["rate_rad_s"] == pytest.approx(0.1 * (after if kept else 1.0))


def test_ground_time_of_a_flight_with_a_pose_is_left_out(tmp_path):
    content = fly(0, 6.0)
    rows = 200
    rest = {name: np.repeat(content[name][-1:], rows, axis=0) for name in content if name != "t"}
    rest |= {"vel": np.zeros((rows, 3)), "ang_vel": np.zeros((rows, 3)), "rotor_speed": np.full((rows, 4), 300.0)}
    whole = {name: np.concatenate((content[name], rest[name])) for name in rest}
    step = content["t"][1] - content["t"][0]
    np.savez(tmp_path / "f.npz", **whole, t=step * np.arange(len(whole["pos"])))
    flight = resample(read_flight_log(tmp_path / "f.npz"))
    assert flight.air[:560].all() and not flight.air[-150:].any()
    assert starts_of(flight, None).max() + 50 < 630


def test_parameters_of_an_own_quadrotor_are_for_training(tmp_path):
    """Of a folder called otherwise than the drone in it; a rotor lag that its description rules out is refused."""
    own = tmp_path / "folder"
    shutil.copytree(robot_folder("crazyflie"), own)
    text = (own / "robot.yaml").read_text().replace("name: crazyflie", "name: my_quad")
    (own / "robot.yaml").write_text(text)
    frame = airframe(own, 0.03)
    assert frame.name == "my_quad" and frame.mass == 0.03
    np.savez(tmp_path / "f.npz", **planted_imu(10.0))
    out = tmp_path / "p.yaml"
    identify_flights(frame.name, [read_flight_log(tmp_path / "f.npz")], frame, out, 0, silent)
    low, high = load_robot(str(own)).identified_terms(out)["rotor_time_constant"].range
    assert low < 0.06 < high < 0.1
    content = yaml.safe_load(out.read_text())
    content["parameters"]["time_constant"] |= {"low": 0.8, "high": 0.9}
    out.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"time_constant was identified as 0.8 .. 0.9, outside the bounds"):
        load_robot(str(own)).identified_terms(out)


def test_planted_imu_flight(tmp_path):
    np.savez(tmp_path / "a.npz", **planted_imu())
    fit = fit_imu(read_flight_logs([tmp_path]), FRAME, 0, silent)
    for name, value, rel in (
        ("thrust_quadratic", 0.15, 0.01), ("time_constant", 0.06, 0.03), ("inertia_x", 1.5e-5, 0.05),
        ("inertia_y", 1.5e-5, 0.05), ("torque_per_thrust", 0.006, 0.1),
    ):  # fmt: skip
        assert fit.estimates[name].value == pytest.approx(value, rel=rel), name
    hover = fit.estimates["hover_command"].value
    assert 4 * 0.15 * hover**2 == pytest.approx(0.027 * STANDARD_GRAVITY, rel=0.02)


PUBLISHED = {
    "inertia_x": 1.029e-5, "inertia_y": 1.105e-5, "inertia_z": 1.955e-5, "time_constant": 0.072,
    # Their accelerometer was scaled with 9.18 m/s² for a g, so their thrust is 6.8 % low.
    "thrust_quadratic": 0.15002 * STANDARD_GRAVITY / 9.18,
}  # fmt: skip


def test_ten_seconds_of_a_real_flight_agree_with_those_who_recorded_it():
    (log,) = read_flight_logs([excerpt("crazyflie_real")])
    found = fit_imu([log], FRAME, 0, silent).estimates
    for name, value in PUBLISHED.items():
        assert found[name].value == pytest.approx(value, rel=0.1), name
    # Thrust grows about with the square of the command, and on average it lifted a little more than the weight.
    hover = log.motor.mean() / np.sqrt(log.acc[:, 2].mean() / STANDARD_GRAVITY)
    assert found["hover_command"].value == pytest.approx(hover, rel=0.02)


@pytest.mark.slow
def test_real_flights_agree_with_those_who_recorded_them():
    logs = read_flight_logs([whole("crazyflie_real")])
    both = fit_imu(logs, FRAME, 0, silent).estimates
    for name, value in PUBLISHED.items():
        assert both[name].value == pytest.approx(value, rel=0.05 if name == "thrust_quadratic" else 0.1), name
    for seen, unseen in ((0, 1), (1, 0)):
        one, other = (fit_imu([logs[i]], FRAME, 0, silent).estimates for i in (seen, unseen))
        assert one["hover_command"].value == pytest.approx(other["hover_command"].value, rel=0.025)


def damaged(**changes):
    return fly(0, 2.0) | changes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["pos"].__setitem__((5, 1), np.nan), "'pos' is nan in row 5, column 1"),
        (lambda c: c["t"].__setitem__(7, c["t"][6]), "row 7 .* repeats"),
        (lambda c: c.update(quat=np.roll(c["quat"], 1, axis=1)), "wxyz"),
        (lambda c: c.update(quat=2 * c["quat"]), "has length 2.000"),
        (lambda c: c.update(rotor_speed=9.5493 * c["rotor_speed"]), "rad/s"),
        (lambda c: c.update(vel=100 * c["vel"]), "'vel' is not the rate of 'pos'"),
        (lambda c: c.update(ang_vel=57.3 * c["ang_vel"]), "'ang_vel' is not the rate of 'quat'"),
        (lambda c: c.pop("rotor_speed"), "neither 'motor'"),
        (lambda c: c.pop("quat"), "needs acc and gyro, or pos"),
        (lambda c: c.update(pos=c["pos"][:, :2]), r"'pos' is \[200, 2\]"),
        (lambda c: c.pop("t"), "has no 't'"),
        (lambda c: c.update(t=1000 * c["t"]), "milliseconds"),
        (lambda c: c.update(motor=50 + 0 * c.pop("rotor_speed")), "divide percent by 100"),
        (lambda c: c.update(rotor_speed=c["rotor_speed"].astype(str)), "not numbers"),
    ],
)
def test_damaged_flights_are_refused(tmp_path, change, words):
    content = damaged()
    change(content)
    np.savez(tmp_path / "f.npz", **content)
    with pytest.raises(LogError, match=words):
        read_flight_log(tmp_path / "f.npz")


def imu_only(**changes):
    content = planted_imu(3.0) | changes
    return {name: values for name, values in content.items() if values is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gyro": None}, "needs acc and gyro"),
        ({"acc": STANDARD_GRAVITY * planted_imu(3.0)["acc"]}, "looks like m/s², divide by 9.80665"),
        ({"acc": 0.0 * planted_imu(3.0)["acc"]}, "must be g, near 1"),
        ({"gyro": np.deg2rad(0.5 * planted_imu(3.0)["gyro"])}, r"is it rad/s\? Multiply it by 57.2958"),
    ],
)
def test_units_of_an_imu(tmp_path, changes, words):
    np.savez(tmp_path / "f.npz", **imu_only(**changes))
    with pytest.raises(LogError, match=words):
        read_flight_log(tmp_path / "f.npz")


def test_a_flight_that_turns_too_little_for_its_torques_is_refused(tmp_path):
    """Its gyro is in rad/s and it turns so wildly that this does not show in the gyro alone."""
    content = planted_imu(inertia=0.5e-5)
    np.savez(tmp_path / "wild.npz", **content | {"gyro": np.deg2rad(content["gyro"])})
    np.savez(tmp_path / "a.npz", **planted_imu())
    with pytest.raises(LogError, match=r"'wild' has an inertia of 0.000\d* kg·m² by its gyro, .* in rad/s\?"):
        fit_imu(read_flight_logs([tmp_path]), FRAME, 0, silent)


def test_real_flights_in_radians_are_refused(tmp_path):
    for file in real_data("crazyflie_real").glob("*.npz"):
        content = dict(np.load(file))
        np.savez(tmp_path / file.name, **content | {"gyro": np.deg2rad(content["gyro"])})
        with pytest.raises(LogError, match=r"is it rad/s\?"):
            read_flight_log(tmp_path / file.name)


def test_harmless_oddities_of_flights(tmp_path):
    """Text beside the arrays, stamps as a column, an IMU in other units beside a pose, one name in two folders."""
    content = fly(0, 2.0)
    odd = content | {"source": np.array("here"), "t": content["t"][:, None], "acc": np.full((200, 3), np.nan)}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "f.npz", **odd)
    logs = read_flight_logs([tmp_path / "a", tmp_path / "b"])
    assert [log.name for log in logs] == ["a/f", "b/f"]
    np.testing.assert_array_equal(logs[0].pos, content["pos"])


def test_rotor_speeds_and_commands_are_not_mixed(flights, tmp_path):
    content = dict(np.load(flights / "f0.npz"))
    np.savez(tmp_path / "m.npz", motor=content.pop("rotor_speed") / 3000.0, **content)
    by_speed, by_command = read_flight_log(flights / "f1.npz"), read_flight_log(tmp_path / "m.npz")
    with pytest.raises(LogError, match="'f1' holds rotor speeds, 'm' motor commands"):
        identify_flights("crazyflie", [by_speed, by_command], FRAME, tmp_path / "p.yaml", 0, silent)
    model = regress([resample(by_speed)])
    known = FlightParameters({}, 0.027, model, Trim(), None, by_speed.inputs)
    known.must_fit(by_speed, tmp_path)
    with pytest.raises(ConfigError, match="fitted to 'rotor_speed', 'm' holds 'motor'"):
        known.must_fit(by_command, tmp_path)


def test_csv_flights(tmp_path):
    content = fly(0, 2.0)
    columns = {"t": content["t"]}
    for name in ("pos", "vel", "quat", "ang_vel", "rotor_speed"):
        columns |= {f"{name}.{i}": content[name][:, i] for i in range(content[name].shape[1])}
    rows = np.stack(list(columns.values()), axis=1)
    np.savetxt(tmp_path / "f.csv", rows, delimiter=",", header=",".join(columns), comments="")
    np.savez(tmp_path / "f.npz", **content)
    np.testing.assert_allclose(read_flight_log(tmp_path / "f.csv").quat, read_flight_log(tmp_path / "f.npz").quat)


@pytest.mark.slow
def test_commands(flights, tmp_path):
    out = tmp_path / "p.yaml"
    names = [str(flights / f"f{i}.npz") for i in range(2)]
    with pytest.raises(SystemExit) as caught:
        main(["identify", "crazyflie", *names, "--out", str(out), "--mass", "0.0429"])
    assert caught.value.code == 0 and out.with_suffix(".html").stat().st_size > 10_000
    with pytest.raises(SystemExit) as caught:
        main(["replay", "crazyflie", str(flights / "f2.npz"), "--params", str(out), "--json", str(tmp_path / "r.json")])
    assert caught.value.code == 0
    steps = json.loads((tmp_path / "r.json").read_text())["steps"]
    assert set(steps) == {"1", "10", "50"} and steps["50"]["position_m"] < 0.05
    with pytest.raises(ConfigError, match="no parameters of 'blimp'"):
        read_flight_parameters(out, "blimp")
    with pytest.raises(SystemExit) as caught:
        main(["replay", "crazyflie", names[0]])
    assert caught.value.code == 2


def test_the_network_joins_the_training_simulator(tmp_path):
    """A drone with a network that always pushes down by 0.5 m/s² falls by as much; one written wrongly is refused."""
    pushes = np.zeros(3)
    pushes[2] = -0.5
    layers = (np.zeros((10, 4)), np.zeros(4), np.zeros((4, 4)), np.zeros(4), np.zeros((4, 3)), pushes)
    network = tmp_path / "p.residual.npz"
    Residual(np.zeros(10), np.ones(10), layers).save(network)
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    content = {
        "kind": "sim2real_parameters", "robot": "crazyflie", "mass": 0.027,
        "parameters": {}, "flight_model": {"thrust": [5.0] * 4}, "residual": {"file": network.name, "sha256": digest},
    }  # fmt: skip
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(content))
    heights = []
    for source in (None, file):
        model = load_robot("crazyflie", source)
        sim = Simulation(model, 2, {})
        hover = np.tile([sim.params["mass"][0] * 9.81, 0.0, 0.0, 0.0], (2, 1))
        sim.reset(np.arange(2), model.nominal_state(2), hover)
        for _ in range(50):
            sim.step(hover)
        heights.append(sim.state["pos"][:, 2].mean())
        sim.close()
    assert heights[0] - heights[1] == pytest.approx(0.5 * 0.5 * 1.0**2, rel=0.15)  # a little less: drag
    network.write_bytes(b"another")
    with pytest.raises(ConfigError, match="not the network"):
        load_robot("crazyflie", file)
