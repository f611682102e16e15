"""Configuration: checked, overridden, and wrong in every way a user finds."""

import warnings

import pytest
import yaml

from sim2real.config import load_config, validate_config
from sim2real.errors import ConfigError
from sim2real.learn.experiment import load_experiment
from sim2real.robots import load_robot, robot_folder
from sim2real.tasks import load_task


@pytest.mark.parametrize(
    "name",
    [
        "nominal",
        "randomized",
        "up_osi",
        "so101_reach",
        "so101_push",
        "so101_push_peng",
        "fr3_reach",
        "so101_reach_up_osi",
    ],
)
def test_shipped_configurations_load(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none is written as it was before
        assert load_config(name).name == name


def test_overrides():
    config = load_config("up_osi", ["ppo.iterations=7", "task.start_m=0.5", "method.identify=[delay]"])
    assert config.ppo.iterations == 7
    assert config.task["start_m"] == 0.5
    assert config.method["identify"] == ["delay"] and config.method["rounds"] == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.iteration=7", "did you mean 'iterations'"),
        ("ppo.iterations=many", "ppo.iterations"),
        ("ppo.iterations", "not key=value"),
        ("name.deeper=1", "is a value, not a group"),
        ("ppo.iterations=[", "not valid YAML"),
        ("methd=nominal", "did you mean 'method'"),
        ("ppo.hidden=[]", "ppo.hidden: Tuple should have at least 1 item"),
        ("ppo.critic_hidden=[64, 0]", "ppo.critic_hidden.1: Input should be greater than 0"),
        ("ppo.least_std=1.5", "ppo.least_std: Input should be less than or equal to 1"),
        ("ppo.mini_batches=100000", "'ppo.mini_batches' is 100000, there are only 12288 samples of a rollout"),
        ("ppo={iterations: 1, lstm: 8, mini_batches: 600}", "there are only 512 robots .an LSTM learns whole"),
        ("randomize={ranges: {}, term: all}", r"randomize.{ranges: …}.term: unknown key; did you mean 'terms'"),
        ("randomize={form: params.yaml}", r"randomize.{ranges: …}.form: unknown key"),
        ("randomize={from: params.yaml, termz: all}", r"randomize.{from: …}.termz: unknown key; did you mean 'terms'"),
        ("randomize=al", r"randomize.all: Input should be 'all'"),
    ],
)
def test_wrong_overrides_say_what_and_suggest(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("up_osi", [override])


def test_only_what_is_wrong_with_the_form_that_is_meant_is_said():
    with pytest.raises(ConfigError) as caught:
        load_config("up_osi", ["randomize={from: params.yaml, termz: all}"])
    assert len(str(caught.value).splitlines()) == 2


def test_wrong_files(tmp_path):
    with pytest.raises(ConfigError, match=r"no configuration at nothing.*up_osi"):
        load_config("nothing")
    file = tmp_path / "x.yaml"
    file.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(file)
    file.write_text("- 1")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        load_config(file)
    file.write_text(
        "name: x\nrobot: crazyflie\ntask: {hold_s: 1.0}\nmethod: nominal\nrandomize: all\nppo: {iterations: 1}\n"
    )
    with pytest.raises(ConfigError, match="'task' needs a 'name'"):
        load_config(file)


def test_randomization_from_recordings(tmp_path):
    """Identified ranges take the place of the robot's own, and the resolved configuration says the same again."""
    source = robot_folder("so101") / "identified.yaml"
    config = load_config("so101_reach", [f"randomize={{from: {source}}}"])
    experiment = load_experiment(config)
    terms = experiment.terms
    speed = terms["wrist_flex.no_load_speed"]
    entry = yaml.safe_load(source.read_text())["parameters"]["wrist_flex.no_load_speed"]
    assert speed.operation == "set" and speed.range == (entry["low"], entry["high"])
    assert terms["payload"].reason == experiment.robot.randomization["payload"].reason
    assert validate_config(config.model_dump(mode="json", by_alias=True), "again") == config
    drone = tmp_path / "drone.yaml"
    entry = {"value": 0.07, "low": 0.06, "high": 0.08, "identified": True}
    content = {"kind": "sim2real_parameters", "robot": "crazyflie", "mass": 0.03}
    drone.write_text(yaml.safe_dump({**content, "parameters": {"time_constant": entry}}))
    config = load_config("randomized", [f"randomize={{from: {drone}, terms: [rotor_time_constant, mass]}}"])
    terms = load_experiment(config).terms
    assert terms["rotor_time_constant"].range == (0.06, 0.08) and set(terms) == {"rotor_time_constant", "mass"}
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load_experiment(load_config("randomized", ["randomize={from: none.yaml}"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "other"}, "is not a parameters file; 'sim2real identify crazyflie LOG … --out' writes one"),
        ({"robot": "so101"}, "holds parameters of 'so101', not of 'crazyflie'"),
        ({"parameters": {"time_constant": {"value": 0.07, "identified": True}}}, "no number as its value, low or high"),
        ({"parameters": {"time_constant": {"value": 0.07, "low": 0.08, "high": 0.06}}}, "above its high"),
        ({"parameters": {"drag_x": {"value": float("nan")}}}, "drag_x is not finite"),
        ({"mass": "heavy"}, "has no number as its 'mass'"),
        ({"residual": "network.npz"}, "is damaged at 'residual'"),
    ],
)
def test_a_drones_parameters_file_is_checked_as_an_arms(tmp_path, change, words):
    file = tmp_path / "drone.yaml"
    content = {"kind": "sim2real_parameters", "robot": "crazyflie", "mass": 0.03, "parameters": {}}
    file.write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(ConfigError, match=words):
        load_experiment(load_config("randomized", [f"randomize={{from: {file}}}"]))


def test_ranges_written_in_the_configuration():
    own = "{operation: set, distribution: uniform, range: [0.1, 0.2], reason: mine}"
    config = load_config("so101_reach", [f"randomize={{ranges: {{payload: {own}}}, terms: [action_delay]}}"])
    terms = load_experiment(config).terms
    assert set(terms) == {"payload", "action_delay"} and terms["payload"].range == (0.1, 0.2)
    own = "{operation: scale, distribution: uniform, range: [0.9, 1.1], reason: mine}"
    config = load_config("so101_reach", [f"randomize={{ranges: {{gain: {own}}}}}"])
    terms = load_experiment(config).terms
    assert len(terms) == 6 and terms["elbow_flex.gain"].range == (0.9, 1.1)  # one of a quantity is every joint's
    for wrong, said in (("gian: " + own, "'gian', which this robot does not have"), ("gain: {}", "operation")):
        config = load_config("so101_reach", [f"randomize={{ranges: {{{wrong}}}}}"])
        with pytest.raises(ConfigError, match=said):
            load_experiment(config)


@pytest.mark.parametrize(
    ("task", "robot", "misspelt", "meant"),
    [
        ("hover", "crazyflie", "tolerence_m", "tolerance_m"),
        ("reach", "so101", "azimuth", "azimuth_rad"),
        ("push", "so101", "shortest", "shortest_m"),
    ],
)
def test_a_misspelt_setting_of_a_task_is_one_error_with_a_suggestion(task, robot, misspelt, meant):
    with pytest.raises(ConfigError) as caught:
        load_task({"name": task, misspelt: 0.1}, load_robot(robot))
    assert str(caught.value) == f"task '{task}':\n  {misspelt}: unknown key; did you mean '{meant}'?"
    with pytest.raises(ConfigError, match=r"tolerance_m: Input should be greater than 0") as caught:
        load_task({"name": task, "tolerance_m": -1.0}, load_robot(robot))
    assert "pydantic" not in str(caught.value)


def test_a_misspelt_name_of_a_task_or_method_is_suggested():
    with pytest.raises(ConfigError, match="unknown task 'hovr'; did you mean 'hover'"):
        load_task({"name": "hovr"}, load_robot("crazyflie"))
    with pytest.raises(ConfigError, match=r"task 'hover' commands .* robot 'so101' takes"):
        load_task({"name": "hover"}, load_robot("so101"))
    with pytest.raises(ConfigError, match="task 'reach' is for arms; 'crazyflie' is none"):
        load_task({"name": "reach"}, load_robot("crazyflie"))


OLD = """
name: old
robot: crazyflie
task: {name: waypoint, tolerance_m: 0.05}
method: up_osi
identify: [mass_thrust_ratio, delay]
osi: {rounds: 6, robots: 64}
randomize: all
ppo: {iterations: 1}
"""


def test_configurations_of_the_last_release_still_load(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text(OLD)
    with pytest.warns(FutureWarning, match="'identify' and 'osi' are settings of the method now"):
        config = load_config(file)
    identify = ["mass_thrust_ratio", "delay"]
    assert config.method == {"name": "up_osi", "rounds": 6, "robots": 64, "identify": identify}
    with pytest.warns(FutureWarning, match="task 'waypoint' is called 'hover' now"):
        experiment = load_experiment(config)
    assert experiment.task.name == "hover" and experiment.task.tolerance_m == 0.05
    # What was left empty, because the method had no use for it, says nothing.
    data = yaml.safe_load(OLD) | {"method": "randomized", "identify": [], "osi": None, "task": "hover"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert validate_config(data, "old").method == {"name": "randomized"}
