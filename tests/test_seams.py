"""A user's own task, scene, signals, drone, method, target and driver: each used without editing the package."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robot_drivers import load_driver
from sim2real.cli.main import main
from sim2real.config import validate_config
from sim2real.deploy.ros_package import export_ros_package
from sim2real.errors import SpecError
from sim2real.evaluate.table import evaluate_in_process
from sim2real.methods import load_method
from sim2real.methods.train import train
from sim2real.runtime.bundle import PolicyBundle
from sim2real.runtime.golden import verify
from sim2real.runtime.signals import load_signals

PROJECT = Path(__file__).parent / "user_project"
PPO = {"iterations": 2, "steps": 8, "epochs": 1, "hidden": [8], "critic_hidden": [8]}


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """As a user would: the project's folder is the current one, nothing of it is installed."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.syspath_prepend(str(PROJECT))


def trained(tmp_path, **settings):
    """A training of two iterations; its checked bundle."""
    base = {"name": "own", "method": "nominal", "sim": {"robots": 4, "workers": 1}, "ppo": PPO}
    bundle = train(validate_config(base | settings, "test"), tmp_path / "run", lambda *_: None)
    report = verify(PolicyBundle.load(bundle))
    assert report.ok, report.message
    return PolicyBundle.load(bundle)


def test_own_task_with_its_own_object_and_signals(tmp_path):
    task = {"name": "my_lab.task:AboveBox", "episode_s": 1.0}
    bundle = trained(tmp_path, robot="so101", task=task, method="randomized", randomize="all")
    assert bundle.spec.signals == "my_lab.signals:BoxSignals" and bundle.spec.goal.components == ("height",)
    assert "box_error" in bundle.spec.measured_signals()
    assert bundle.provenance["config"]["task"]["name"] == "my_lab.task:AboveBox"
    # On a robot a bundle alone must not choose what is imported.
    with pytest.raises(SpecError, match=r"trusted_modules:=\"\['my_lab.signals'\]\""):
        load_signals(bundle.spec.signals, bundle.robot, bundle.chain(), trusted=())
    # The exported package brings the module along, and runs without anything of the project or of training.
    package = export_ros_package(bundle.path, tmp_path / "src", "above_box")
    runtime = package / "above_box" / "_runtime"
    assert (runtime / "my_lab" / "signals.py").is_file()
    assert "my_lab.signals" in (package / "config" / "params.yaml").read_text()
    script = (
        "import sys; from sim2real.runtime.bundle import PolicyBundle; "
        "from sim2real.runtime.signals import load_signals; "
        f"b = PolicyBundle.load({str(package / 'bundle')!r}); "
        "s = load_signals(b.spec.signals, b.robot, b.chain(), ['my_lab.signals']); "
        "assert not {'torch', 'pybullet'} & set(sys.modules); print(sorted(s.specs))"
    )
    alone = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(runtime), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "box_error" in alone.stdout, alone.stderr


def test_own_drone_is_a_folder(tmp_path):
    robot = str(PROJECT / "my_drone")
    bundle = trained(tmp_path, robot=robot, task="hover", method="randomized", randomize="all")
    thrust = next(command for command in bundle.robot.commands if command.name == "thrust")
    assert thrust.hold == pytest.approx(1.2 * 9.81) and thrust.high == 26.0
    low, high = bundle.spec.action[0].low, bundle.spec.action[0].high
    assert low < 1.2 * 9.81 < high, "a policy can hover"


def test_own_drone_hovers_by_its_own_numbers():
    """A hand-made controller holds the 1.2 kg drone: limits, inertia and attitude loop fit together."""
    from sim2real.robots import load_robot
    from sim2real.sim.simulation import Simulation

    sim = Simulation(load_robot(str(PROJECT / "my_drone")), 1, {})
    start = {**sim.robot.nominal_state(1), "lin_vel": np.zeros((1, 3))}
    hover = np.array([[1.2 * 9.81, 0.0, 0.0, 0.0]])
    sim.reset(np.array([0]), start, hover)
    for _ in range(100):
        sim.step(hover + np.array([[0.0, 0.1, 0.0, 0.0]]))
    roll = 2.0 * np.arcsin(sim.state["quat"][0, 0])
    assert roll == pytest.approx(0.1, abs=0.01)
    assert abs(sim.state["pos"][0, 2] - 5.0) < 0.2
    sim.close()


def test_own_method_trains_and_has_an_off_switch(tmp_path):
    method = {"name": "my_lab.rfi:RandomForceInjection", "force_n": 0.05}
    bundle = trained(tmp_path, robot="crazyflie", task="hover", method=method)
    assert bundle.provenance["config"]["method"] == method
    assert load_method(method).off().settings.force_n == 0.0
    lines = (PROJECT / "my_lab" / "rfi.py").read_text().splitlines()
    assert len(lines) <= 70, "a method of one's own stays small"


def test_forces_of_the_own_method_really_push():
    from my_lab.rfi import RandomForceInjection, RfiSettings

    from sim2real.config import load_config
    from sim2real.learn.experiment import load_experiment

    experiment = load_experiment(load_config("nominal"))
    spread = []
    for force in (0.0, 0.1):
        env = RandomForceInjection(RfiSettings(force_n=force)).prepare(experiment).make_env(0, 16, restart=False)
        start = experiment.task.start(np.random.default_rng(0), 1)
        env.reset(start={name: np.repeat(value, 16, axis=0) for name, value in start.items()})
        for _ in range(25):
            env.step(np.zeros((16, 4), np.float32))
        spread.append(float(env.sim.state["pos"].std(axis=0).max()))
        env.sim.close()
    assert spread[0] < 1e-9 and spread[1] > 1e-3


def test_own_target_judges_a_policy(tmp_path):
    bundle = trained(tmp_path, robot="crazyflie", task="hover")
    results = evaluate_in_process({"own": bundle.path}, 5, 0, lambda *_: None, 1, target="my_lab.target:PointDrone")
    assert set(results["own"]) == {"point"} and set(results["own"]["point"]) == {"light", "heavy"}
    assert results["own"]["point"]["light"]["n"] == 5


def test_own_driver_is_driven(tmp_path, capsys):
    driver = load_driver("my_lab.driver:ObedientArm", port="/dev/ttyACM0")
    assert driver.port == "/dev/ttyACM0"
    log = tmp_path / "log.csv"
    arguments = ["excite", "so101", "--duration", "20", "--joint", "shoulder_pan", "--speed", "3"]
    arguments += ["--driver", "my_lab.driver:ObedientArm", "--log", str(log), "--yes", "--out", str(tmp_path / "m.csv")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (0, None), capsys.readouterr()
    assert len(log.read_text().splitlines()) > 500


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("robot", {"robot": "nowhere:Robot"}),
        ("task", {"task": "my_lab.task:Nothing"}),
        ("method", {"method": "my_lab.nothing:Method"}),
    ],
)
def test_what_is_not_there_is_one_clear_error(kind, settings, tmp_path, capsys):
    base = {"name": "own", "robot": "crazyflie", "task": "hover", "method": "nominal", "ppo": PPO}
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(base | settings))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(file), "--run", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert kind in capsys.readouterr().err.replace("\n", " ")
