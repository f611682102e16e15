"""A drone of one's own: a URDF and seven lines of YAML."""

import numpy as np
import pytest
import yaml

from sim2real.config import load_config
from sim2real.errors import ConfigError
from sim2real.learn.experiment import load_experiment
from sim2real.robots import load_arm, load_robot, robot_folder
from sim2real.robots.physics import PhysicsParams
from sim2real.runtime.bundle_files import parse_model
from sim2real.runtime.spec import RobotSpec
from sim2real.sim.randomization import Randomization
from sim2real.sim.simulation import Simulation

URDF = """<robot name="own">
  <link name="base"><inertial><mass value="{mass}"/>
    <inertia ixx="0.01" iyy="0.012" izz="0.02" ixy="0" ixz="0" iyz="0"/></inertial></link>{more}
</robot>
"""
SHORT = {
    "model": "multirotor",
    "urdf": "own.urdf",
    "control_rate_hz": 50,
    "max_thrust_n": 25.0,
    "max_torque": [0.5, 0.5, 0.1],
    "max_tilt_rad": 0.5,
    "max_yaw_rate": 2.0,
}
WEIGHT = 9.81


def drone_folder(folder, mass=1.0, more="", without=(), **changes):
    folder.mkdir(exist_ok=True)
    (folder / "own.urdf").write_text(URDF.format(mass=mass, more=more))
    data = {key: value for key, value in (SHORT | changes).items() if key not in without}
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))
    return folder


def test_mass_and_weight_make_the_rest(tmp_path):
    drone = load_robot(str(drone_folder(tmp_path / "own")))
    assert (drone.name, drone.spec.name, drone.spec.control_rate_hz) == ("own", "own", 50.0)
    assert drone.spec.actuators == ("m1", "m2", "m3", "m4") and drone.spec.interface == "cmd_vel_legacy"
    thrust, roll, pitch, yaw_rate = drone.spec.commands
    assert (thrust.low, thrust.high, thrust.unit) == (0.0, 25.0, "N")
    assert thrust.hold == pytest.approx(WEIGHT) and thrust.land == pytest.approx(0.94 * WEIGHT)
    assert thrust.slew_per_s == pytest.approx(110.0 * WEIGHT)
    for command in (roll, pitch):
        assert (command.low, command.high, command.hold, command.land, command.unit) == (-0.5, 0.5, 0.0, 0.0, "rad")
    assert (yaw_rate.low, yaw_rate.high, yaw_rate.slew_per_s) == (-2.0, 2.0, 120.0)
    assert drone.action_range("thrust") == (pytest.approx(0.16 * WEIGHT), 25.0)
    assert drone.action_range("roll") == pytest.approx((-0.48, 0.48))
    assert drone.action_range("yaw_rate") == pytest.approx((-1.34, 1.34))
    np.testing.assert_allclose(drone.inertia, [0.01, 0.012, 0.02])
    np.testing.assert_allclose(drone.max_torque, [0.5, 0.5, 0.1])
    assert drone.thrust_reference == pytest.approx(1.9 * WEIGHT)


@pytest.mark.parametrize("mass", [1.0, 2.5])
def test_ranges_grow_with_mass_and_weight(tmp_path, mass):
    drone = load_robot(str(drone_folder(tmp_path / "own", mass=mass, max_thrust_n=25.0 * mass)))

    def bounds(name):
        parameter = drone.parameters[name]
        return parameter.low, parameter.nominal, parameter.high

    assert bounds("mass") == pytest.approx((0.7 * mass, mass, 2.2 * mass))
    assert drone.randomization["mass"].range == pytest.approx((0.95 * mass, 1.35 * mass))
    assert bounds("drag_xy") == pytest.approx((0.0, 0.3125 * mass, 1.875 * mass))
    assert bounds("thrust_offset") == pytest.approx((-0.4778 * WEIGHT * mass, 0.0, 0.4778 * WEIGHT * mass))
    assert drone.randomization["gust_force_std"].range == pytest.approx((0.0, 0.009557 * WEIGHT * mass))
    strong = drone.disturbances["constant"]["gust_force_std"]
    assert (
        strong.range == pytest.approx((0.19113 * WEIGHT * mass,) * 2) and strong.range[1] < bounds("gust_force_std")[2]
    )
    for name in ("action_delay", "attitude_bandwidth", "thrust_scale", "roll_trim"):  # these know no mass
        assert drone.parameters[name] == load_robot("crazyflie").parameters[name]
    assert list(drone.parameters) == list(load_robot("crazyflie").parameters)
    Randomization(drone.randomization, PhysicsParams(drone.parameters, 1), np.random.default_rng(0))
    assert drone.randomization["action_delay_jitter"].kind == "step"


def test_it_hovers_on_its_weight_and_is_the_hover_tasks(tmp_path):
    drone = load_robot(str(drone_folder(tmp_path / "own")))
    sim = Simulation(drone, 2, {}, 2, 0)
    state = {name: value.copy() for name, value in drone.nominal_state(2).items()}
    state["lin_vel"][:] = 0.0
    hold = np.tile([command.hold for command in drone.spec.commands], (2, 1))
    sim.reset(np.arange(2), state, hold)
    for _ in range(100):
        sim.step(hold)
    np.testing.assert_allclose(sim.state["pos"], state["pos"], atol=1e-6)
    sim.step(hold + np.array([1.0, 0.1, 0.0, 0.0]))
    for _ in range(10):
        sim.step(hold + np.array([1.0, 0.1, 0.0, 0.0]))
    assert (sim.state["lin_vel"][:, 2] > 0.05).all() and (sim.state["lin_vel"][:, 1] < -0.01).all()
    sim.close()
    env = load_experiment(load_config("randomized", [f"robot={tmp_path / 'own'}"])).make_env(0, 4)
    assert (env.spec.action[0].low, env.spec.action[0].high) == (pytest.approx(0.16 * WEIGHT), 25.0)
    for _ in range(5):
        reward, *_ = env.step(np.zeros((4, 4), np.float32))
    assert np.isfinite(reward).all() and env.spec.robot == "own"
    env.sim.close()


def test_what_the_file_says_wins(tmp_path):
    own = {"unit": "kg", "nominal": 1.1, "low": 1.0, "high": 1.2}
    term = {"operation": "set", "distribution": "uniform", "range": [1.05, 1.15], "reason": "weighed"}
    rotors = [[0.1, -0.1], [-0.1, -0.1], [-0.1, 0.1], [0.1, 0.1], [0.0, 0.2], [0.0, -0.2]]
    folder = drone_folder(
        tmp_path / "own",
        parameters={"mass": own},
        randomization={"mass": term},
        rotors=rotors,
        turns=[1, -1, 1, -1, 1, -1],
        action_ranges={"roll": [-0.2, 0.2]},
        interface="my_package:Adapter",
    )
    drone = load_robot(str(folder))
    assert drone.parameters["mass"].nominal == 1.1 and drone.randomization["mass"].reason == "weighed"
    assert len(drone.parameters) == len(load_robot("crazyflie").parameters)
    assert drone.action_range("roll") == (-0.2, 0.2) and drone.action_range("pitch") == pytest.approx((-0.48, 0.48))
    assert len(drone.spec.actuators) == 6 and drone.spec.interface == "my_package:Adapter"
    assert parse_model(RobotSpec, drone.spec.model_dump_json().encode(), "robot.json") == drone.spec


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"without": ["max_tilt_rad", "max_torque"]},
            "robot.yaml lacks max_torque, max_tilt_rad; a drone needs urdf, con",
        ),
        ({"without": ["urdf"]}, "robot.yaml lacks urdf"),
        (
            {"max_thrust_n": 1.2 * WEIGHT},
            "max_thrust_n is 11.772 N, the drone weighs 9.81 N; it needs at least 1.2 times",
        ),
        ({"max_thrust_n": "strong"}, "max_thrust_n is 'strong', not a number"),
        ({"max_torque": [0.5, 0.5]}, "robot.yaml: body.max_torque"),
        ({"more": '<link name="battery"><inertial><mass value="0.2"/></inertial></link>'}, "has 2 links with a mass"),
        ({"mass": 0.0}, r"mass 0.0 kg and inertia .* are not those of a body"),
        ({"mass": "heavy"}, "its <inertial> needs a mass and ixx, iyy, izz as numbers"),
        ({"urdf": "none.urdf"}, "none.urdf cannot be read"),
        ({"control_rate_hz": -5}, "robot.yaml: spec.control_rate_hz: Input should be greater than 0"),
        ({"max_yawrate": 3.0}, "robot.yaml: max_yawrate: Extra inputs are not permitted"),
        ({"parameters": [1]}, "'parameters' must hold names and values"),
    ],
)
def test_a_fault_in_a_description_is_one_line(tmp_path, changes, words):
    folder = drone_folder(tmp_path / "own", **changes)
    with pytest.raises(ConfigError, match=words) as caught:
        load_robot(str(folder))
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_other_folders(tmp_path):
    folder = drone_folder(tmp_path / "own", model="multirotr")
    with pytest.raises(ConfigError, match=r"unknown model of robot .* 'multirotr'; did you mean 'multirotor'"):
        load_robot(str(folder))
    with pytest.raises(ConfigError, match="is not an arm"):
        load_arm(str(drone_folder(tmp_path / "own")))
    (folder / "robot.yaml").write_text("model: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_robot(str(folder))
    with pytest.raises(ConfigError, match="no robot 'crazyfly'; there are crazyflie, fr3, so101"):
        load_robot("crazyfly")


def test_a_drone_without_a_model_is_told_what_it_lacks(tmp_path):
    (tmp_path / "quad.urdf").write_text(URDF.format(mass=0.75, more=""))
    (tmp_path / "robot.yaml").write_text("urdf: quad.urdf\nname: my_quad\nmass: 0.75\ncontrol_rate_hz: 50\n")
    with pytest.raises(
        ConfigError, match=r"lacks max_thrust_n, .*max_torque \(\[x, y, z\] N·m\).*'name', 'mass' must go"
    ):
        load_robot(str(tmp_path))


def test_the_crazyflies_file_of_an_earlier_release_loads(tmp_path):
    crazyflie = robot_folder("crazyflie")
    data = yaml.safe_load((crazyflie / "robot.yaml").read_text())
    data["body"]["urdf"] = data.pop("urdf")
    del data["model"], data["spec"]["interface"]
    (tmp_path / "crazyflie.urdf").write_text((crazyflie / "crazyflie.urdf").read_text())
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    drone = load_robot(str(tmp_path))
    assert drone.spec == load_robot("crazyflie").spec and drone.urdf == tmp_path / "crazyflie.urdf"
