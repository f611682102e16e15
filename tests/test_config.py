"""Configuration: checked, overridden, and wrong in every way a user finds."""

import pytest
import yaml

from sim2real.config import load_config
from sim2real.errors import ConfigError


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
    assert load_config(name).name == name


def test_overrides():
    config = load_config("up_osi", ["ppo.iterations=7", "task.start_m=0.5", "identify=[delay]"])
    assert config.ppo.iterations == 7
    assert config.task["start_m"] == 0.5
    assert config.identify == ("delay",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.iteration=7", "did you mean 'iterations'"),
        ("ppo.iterations=many", "ppo.iterations"),
        ("ppo.iterations", "not key=value"),
        ("name.deeper=1", "is a value, not a group"),
        ("ppo.iterations=[", "not valid YAML"),
        ("methd=nominal", "did you mean 'method'"),
    ],
)
def test_wrong_overrides_say_what_and_suggest(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("up_osi", [override])


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
        "name: x\nrobot: crazyflie\ntask: {name: waypoint}\nmethod: nominal\nrandomize: all\nppo: {iterations: 1}\n"
    )
    with pytest.raises(ConfigError, match="no randomization"):
        load_config(file)


def test_randomization_from_recordings(tmp_path):
    """Identified ranges take the place of the robot's own, and the resolved configuration says the same again."""
    from sim2real.config import validate_config
    from sim2real.learn.build import chosen_terms, robot_and_task
    from sim2real.robots import robot_folder

    source = robot_folder("so101") / "identified.yaml"
    config = load_config("so101_reach", [f"randomize={{from: {source}}}"])
    terms = chosen_terms(config, robot_and_task(config)[0])
    speed = terms["wrist_flex.no_load_speed"]
    entry = yaml.safe_load(source.read_text())["parameters"]["wrist_flex.no_load_speed"]
    assert speed.operation == "set" and speed.range == (entry["low"], entry["high"])
    assert terms["payload"].reason == robot_and_task(config)[0].randomization["payload"].reason
    assert validate_config(config.model_dump(mode="json", by_alias=True), "again") == config
    drone = tmp_path / "drone.yaml"
    entry = {"value": 0.07, "low": 0.06, "high": 0.08, "identified": True}
    drone.write_text(yaml.safe_dump({"robot": "crazyflie", "mass": 0.03, "parameters": {"time_constant": entry}}))
    config = load_config("randomized", [f"randomize={{from: {drone}, terms: [rotor_time_constant, mass]}}"])
    terms = chosen_terms(config, robot_and_task(config)[0])
    assert terms["rotor_time_constant"].range == (0.06, 0.08) and set(terms) == {"rotor_time_constant", "mass"}
    with pytest.raises(ConfigError, match="no parameters file"):
        chosen_terms(
            load_config("randomized", ["randomize={from: none.yaml}"]), robot_and_task(load_config("randomized"))[0]
        )


def test_ranges_written_in_the_configuration():
    from sim2real.learn.build import chosen_terms, robot_and_task

    own = "{operation: set, distribution: uniform, range: [0.1, 0.2], reason: mine}"
    config = load_config("so101_reach", [f"randomize={{ranges: {{payload: {own}}}, terms: [action_delay]}}"])
    terms = chosen_terms(config, robot_and_task(config)[0])
    assert set(terms) == {"payload", "action_delay"} and terms["payload"].range == (0.1, 0.2)
    own = "{operation: scale, distribution: uniform, range: [0.9, 1.1], reason: mine}"
    config = load_config("so101_reach", [f"randomize={{ranges: {{gain: {own}}}}}"])
    terms = chosen_terms(config, robot_and_task(config)[0])
    assert len(terms) == 6 and terms["elbow_flex.gain"].range == (0.9, 1.1)  # one of a quantity is every joint's
    for wrong, said in (("gian: " + own, "'gian', which this robot does not have"), ("gain: {}", "operation")):
        config = load_config("so101_reach", [f"randomize={{ranges: {{{wrong}}}}}"])
        with pytest.raises(ConfigError, match=said):
            chosen_terms(config, robot_and_task(config)[0])
