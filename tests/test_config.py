"""Configuration: checked, overridden, and wrong in every way a user finds."""

import pytest

from sim2real.config import load_config
from sim2real.errors import ConfigError


@pytest.mark.parametrize("name", ["nominal", "randomized", "up_osi"])
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
