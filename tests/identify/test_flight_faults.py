"""Faults of flight logs: time on the ground, axes, order of motors, clocks, and the names other recorders use."""

import struct

import numpy as np
import pytest
from flight_maker import FRAME, fly, planted_imu

from sim2real.identify.flight import imu
from sim2real.identify.flight.air import airborne, spans
from sim2real.identify.flight.fit import regress
from sim2real.identify.flight.imu import fit_imu, lift_error
from sim2real.identify.flight.model import resample
from sim2real.recordings.flights import read_flight_log
from sim2real.recordings.tables import LogError

INERTIA, LAG_S = 1.5e-5, 0.06


def silent(*_):
    return None


@pytest.fixture(autouse=True)
def few_bootstraps(monkeypatch):
    """Intervals are not what is tested here, and take most of the time."""
    monkeypatch.setattr(imu, "BOOTSTRAPS", 2)


@pytest.fixture(scope="module")
def planted():
    return planted_imu(12.0, LAG_S, inertia=INERTIA)


def log_of(folder, content, name="f"):
    np.savez(folder / f"{name}.npz", **content)
    return read_flight_log(folder / f"{name}.npz")


def identified(log):
    fit = fit_imu([log], FRAME, 0, silent)
    return {name: estimate.value for name, estimate in fit.estimates.items()}, " ".join((*log.remarks, *fit.remarks))


def late(content, names, delay_s):
    """The content with some arrays ``delay_s`` later than the others."""
    rows = round(abs(delay_s) / 0.001)
    first, last = (slice(rows, None), slice(None, -rows)) if delay_s > 0 else (slice(None, -rows), slice(rows, None))
    moved = {key: values[last if key in names else first] for key, values in content.items() if key != "t"}
    return moved | {"t": content["t"][:-rows]}


def with_rest(content, seconds):
    """Two hops: the flight, rest on the ground with idling motors, the flight again."""
    rows = round(seconds / 0.001)
    rest = {
        "acc": np.tile([0.0, 0.0, 1.0], (rows, 1)),
        "gyro": np.zeros((rows, 3)),
        "motor": np.full((rows, 4), 13000.0),
    }
    hops = {key: np.concatenate((content[key], rest[key], content[key])) for key in rest}
    return hops | {"t": 0.001 * np.arange(len(hops["acc"]))}


def test_time_on_the_ground_between_two_hops_is_left_out(planted, tmp_path):
    values, remarks = identified(log_of(tmp_path, with_rest(planted, 5.0)))
    assert values["thrust_quadratic"] == pytest.approx(0.15, rel=0.01)
    assert values["time_constant"] == pytest.approx(LAG_S, rel=0.05)
    assert "'f' is in the air for 24.0 of 29.0 s, in 2 hops" in remarks
    found = lift_error(log_of(tmp_path, with_rest(planted, 5.0)), values, FRAME.mass)
    assert abs(found["hover_lift_error"]) < 0.01 and found["in_the_air_s"] < 22.0 < found["recorded_s"]


def test_falling_is_flight_and_rest_is_not():
    """Both have slow rotors; on the ground the whole weight is felt."""
    effort, felt = np.full(1000, 1.0), np.full(1000, 1.0)
    effort[100:200] = effort[500:700] = 0.1
    felt[100:200] = 0.1
    assert spans(~airborne(effort, felt, 0.01)) == [(pytest.approx(500, abs=10), pytest.approx(700, abs=10))]


def test_axes_that_point_forward_right_down_are_turned(planted, tmp_path):
    turned = planted | {name: planted[name] * [1, -1, -1] for name in ("acc", "gyro")}
    values, remarks = identified(log_of(tmp_path, turned))
    assert "y and z of acc and gyro change sign" in remarks and "turns as if" not in remarks
    assert values["thrust_quadratic"] == pytest.approx(0.15, rel=0.01)
    assert values["inertia_y"] == pytest.approx(INERTIA, rel=0.05)


def test_an_accelerometer_that_feels_lift_along_another_axis_is_refused(planted, tmp_path):
    with pytest.raises(LogError, match="most along x; a drone that flies feels its lift along z"):
        log_of(tmp_path, planted | {"acc": planted["acc"][:, [2, 0, 1]]})


@pytest.mark.parametrize("order", [[1, 0, 3, 2], [3, 0, 2, 1]])
def test_motors_in_another_order(planted, tmp_path, order):
    values, remarks = identified(log_of(tmp_path, planted | {"motor": planted["motor"][:, order]}))
    names = " ".join(f"M{1 + order.index(i)}" for i in range(4))
    assert f"turns as if {names} sat at the places of M1 M2 M3 M4" in remarks
    assert values["inertia_x"] == pytest.approx(INERTIA, rel=0.05)


@pytest.mark.parametrize(("delay_s", "word"), [(0.1, "100 ms later"), (-0.06, "60 ms earlier")])
def test_a_late_gyro_is_said_and_taken_out(planted, tmp_path, delay_s, word):
    values, remarks = identified(log_of(tmp_path, late(planted, ("gyro",), delay_s)))
    assert f"the gyro of 'f' is {word}" in remarks
    assert values["time_constant"] == pytest.approx(LAG_S, rel=0.05)
    assert values["inertia_x"] == pytest.approx(INERTIA, rel=0.05)


@pytest.mark.parametrize(("delay_s", "word"), [(0.12, "later"), (-0.08, "earlier")])
def test_an_imu_on_another_clock_does_not_become_rotor_lag(planted, tmp_path, delay_s, word):
    values, remarks = identified(log_of(tmp_path, late(planted, ("acc", "gyro"), delay_s)))
    assert "the accelerometer of 'f' is" in remarks and word in remarks and "gyro" not in remarks
    assert values["time_constant"] == pytest.approx(LAG_S, abs=0.015)


def test_a_good_log_gets_no_such_remark(planted, tmp_path):
    _, remarks = identified(log_of(tmp_path, planted))
    assert not any(word in remarks for word in ("later", "earlier", "turns as if", "turned", "bound"))


def test_a_pose_with_z_down_is_turned(tmp_path):
    content = fly(0, 4.0)
    turn = np.array([1.0, -1.0, -1.0])
    down = content | {name: content[name] * turn for name in ("pos", "vel", "ang_vel")}
    log = log_of(tmp_path, down | {"quat": content["quat"] * [1, -1, -1, 1]})
    assert "y and z of pos, vel, ang_vel and quat change sign" in log.remarks[0]
    np.testing.assert_allclose(log.pos, content["pos"])
    assert regress([resample(log)]).thrust.sum() > 0
    assert log_of(tmp_path, content, "up").remarks == ()
    with pytest.raises(LogError, match="flies on its back"):
        log_of(tmp_path, content | {"quat": content["quat"][:, [3, 2, 1, 0]] * [1, 1, -1, -1],
                                    "ang_vel": content["ang_vel"] * turn})  # fmt: skip


def table(folder, columns):
    rows = np.stack(list(columns.values()), axis=1)
    np.savetxt(folder / "log.csv", rows, delimiter=",", header=",".join(columns), comments="", fmt="%.9g")
    return read_flight_log(folder / "log.csv")


def crazyflie(planted):
    columns = {"timestamp": 5000.0 + 1000.0 * planted["t"]}
    columns |= {f"{name}.{axis}": planted[name][:, i] for name in ("acc", "gyro") for i, axis in enumerate("xyz")}
    return columns | {f"motor.m{i + 1}": planted["motor"][:, i] for i in range(4)}


def test_columns_as_a_crazyflie_names_them(planted, tmp_path):
    part = {name: values[:2000] for name, values in planted.items()}
    log = table(tmp_path, crazyflie(part) | {"stateEstimate.z": 0.5 + 0 * part["t"]})
    np.testing.assert_allclose(log.time, part["t"], atol=1e-6)
    np.testing.assert_allclose(log.motor, part["motor"] / 65535, atol=1e-6)
    assert log.remarks == ("'pos' is not complete and was left out; there is only stateEstimate.z",)
    np.savez(tmp_path / "usd.npz", **crazyflie(part))
    np.testing.assert_allclose(read_flight_log(tmp_path / "usd.npz").gyro, log.gyro, atol=1e-6)
    lacking = crazyflie(part)
    del lacking["motor.m4"]
    with pytest.raises(LogError, match=r"neither 'motor' .* only motor.m1, motor.m2, motor.m3.*as a Crazyflie"):
        table(tmp_path, lacking)


def test_the_pose_of_a_crazyflies_own_estimator(tmp_path):
    content = fly(0, 2.0)
    columns = {"timestamp": 1000.0 * content["t"]}
    for name, parts in (("pos", ("x", "y", "z")), ("vel", ("vx", "vy", "vz")), ("quat", ("qx", "qy", "qz", "qw"))):
        columns |= {f"stateEstimate.{part}": content[name][:, i] for i, part in enumerate(parts)}
    columns |= {f"gyro.{axis}": np.rad2deg(content["ang_vel"][:, i]) for i, axis in enumerate("xyz")}
    columns |= {f"rpm.m{i + 1}": content["rotor_speed"][:, i] * 30 / np.pi for i in range(4)}
    log = table(tmp_path, columns)
    assert log.has_pose and log.inputs == "rotor_speed"
    np.testing.assert_allclose(log.ang_vel, content["ang_vel"], atol=1e-6)
    np.testing.assert_allclose(log.rotor_speed, content["rotor_speed"], rtol=1e-6)


def test_columns_of_blackbox_decode(planted, tmp_path):
    part = {name: values[:2000] for name, values in planted.items()}
    columns = {"loopIteration": np.arange(2000.0), "time (us)": 1e6 * part["t"]}
    columns |= {f"gyroADC[{i}] (deg/s)": part["gyro"][:, i] for i in range(3)}
    columns |= {f"accSmooth[{i}]": 2048 * part["acc"][:, i] for i in range(3)}
    columns |= {f"motor[{i}]": 48 + 1999 * part["motor"][:, i] / 65535 for i in range(4)}
    columns["motor[0]"][0] = 158  # idle: a digital protocol, not pulses of 1000 .. 2000 µs
    log = table(tmp_path, columns)
    np.testing.assert_allclose(log.motor[1:], part["motor"][1:] / 65535, atol=1e-6)
    np.testing.assert_allclose(log.time, part["t"], atol=1e-6)
    assert np.median(log.acc[:, 2]) == pytest.approx(9.80665 * np.median(part["acc"][:, 2]), rel=1e-5)
    assert "2048 counts a g" in log.remarks[0] and "48 .. 2047" in log.remarks[1]
    (tmp_path / "LOG00001.BFL").write_bytes(b"H Product:Blackbox flight data recorder\n")
    with pytest.raises(LogError, match=r"Betaflight blackbox log; export it with 'blackbox_decode LOG00001.BFL'"):
        read_flight_log(tmp_path / "LOG00001.BFL")


def ulog(messages):
    """A PX4 log of messages: name to fields (type, name) and rows; by the published file format."""

    def record(kind, body):
        return struct.pack("<HB", len(body), ord(kind)) + body

    data = b"ULog\x01\x12\x35\x01" + struct.pack("<Q", 0) + record("B", bytes(40))
    for name, (fields, _) in messages.items():
        data += record("F", f"{name}:uint64_t timestamp;{fields}".encode())
    for number, name in enumerate(messages):
        data += record("A", struct.pack("<BH", 0, number) + name.encode())
    for number, (_, rows) in enumerate(messages.values()):
        for stamp, *values in rows:
            data += record("D", struct.pack(f"<HQ{len(values)}f", number, round(stamp), *values))
    return data


def px4(planted, every):
    t = 1e6 * planted["t"]
    down = [1, -1, -1]
    imu = np.hstack((t[:, None], np.deg2rad(planted["gyro"]) * down, 9.80665 * planted["acc"] * down))
    motors = np.hstack((t[:, None], planted["motor"] / 65535))[::every]
    return ulog({
        "sensor_combined": ("float[3] gyro_rad;float[3] accelerometer_m_s2;", imu[::4]),
        "actuator_motors": ("float[4] control;", motors),
    })  # fmt: skip


def test_a_px4_log(planted, tmp_path):
    pytest.importorskip("pyulog", reason="needs pyulog (pip install sim2real[logs])")
    (tmp_path / "f.ulg").write_bytes(px4(planted, 4))
    values, remarks = identified(read_flight_log(tmp_path / "f.ulg"))
    assert "y and z of acc and gyro change sign" in remarks
    assert values["thrust_quadratic"] == pytest.approx(0.15, rel=0.01)
    assert values["inertia_x"] == pytest.approx(INERTIA, rel=0.05)
    (tmp_path / "slow.ulg").write_bytes(px4(planted, 100))
    with pytest.raises(LogError, match="'actuator_motors' comes at 10 Hz"):
        read_flight_log(tmp_path / "slow.ulg")


def test_a_px4_log_that_says_nothing_names_what_to_log(tmp_path):
    (tmp_path / "f.ulg").write_bytes(ulog({})[:100])
    with pytest.raises(LogError, match=r"PX4 log.*actuator_motors, vehicle_angular_velocity, sensor_combined"):
        read_flight_log(tmp_path / "f.ulg")
