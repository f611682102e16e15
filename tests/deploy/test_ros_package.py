"""The exported ROS 2 package: complete, small, and really built and run without training software."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from arm_bundles import make_controller_bundle
from conftest import rehash

from sim2real.config import load_config
from sim2real.deploy.ros_package import export_ros_package, runtime_files
from sim2real.errors import ConfigError
from sim2real.learn.experiment import load_experiment
from sim2real.runtime.bundle import PolicyBundle

ROOT = Path(__file__).parents[2]
ROBOT_ENV = ROOT / ".venv-robot"
ROBOT_NEEDS = [
    "numpy",
    "onnxruntime",
    "pyyaml",
    "pydantic",
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-jazzy-common-interfaces",
    "colcon-common-extensions",
    "setuptools==69.5.1",
]


def _text(package, module_file):
    return (package / "my_drone" / "_runtime" / module_file).read_text()


def test_files_shim_and_runtime(tiny_bundle, tmp_path):
    package = export_ros_package(tiny_bundle, tmp_path, "my_drone")
    for name in (
        "package.xml",
        "setup.py",
        "setup.cfg",
        "resource/my_drone",
        "launch/my_drone.launch.py",
        "config/params.yaml",
        "bundle/manifest.json",
        "my_drone/_runtime/sim2real/deploy/policy_node.py",
        "my_drone/_runtime/sim2real/runtime/flight_signals.py",
    ):
        assert (package / name).is_file(), name
    assert len((package / "my_drone" / "policy_node.py").read_text().splitlines()) <= 20
    assert not any(
        "$name" in f.read_text() for f in package.rglob("*.*") if f.suffix in (".py", ".xml", ".cfg", ".yaml")
    ), "a template value was not filled in"
    bundle = PolicyBundle.load(tiny_bundle)
    carried = {str(f.relative_to(package / "my_drone" / "_runtime")) for f in package.rglob("_runtime/**/*.py")}
    assert carried == {str(place) for place in runtime_files(bundle).values()}
    assert {name.split("/")[1] for name in carried if name.count("/") > 1} == {"runtime", "deploy"}
    training = re.compile(r"^\s*(import|from)\s+(torch|pybullet|rsl_rl|tensordict|gymnasium)\b", re.MULTILINE)
    assert not [f for f in carried if training.search(_text(package, f))]
    robot_drivers = re.compile(r"^\s*(import|from)\s+robot_drivers\b", re.MULTILINE)
    assert not [f for f in carried if robot_drivers.search(_text(package, f))], "the robot's own driver is not ours"
    export_ros_package(tiny_bundle, tmp_path, "my_drone")
    assert [p.name for p in tmp_path.iterdir()] == ["my_drone"]


def _parameters(package):
    text = (package / "config" / "params.yaml").read_text()
    return text, yaml.safe_load(text)["/**"]["ros__parameters"]


@pytest.mark.parametrize("task", ["reach", "push"])
def test_an_arms_package_holds_a_goal_it_can_reach_and_nothing_of_a_drones(tmp_path, task):
    bundle = make_controller_bundle(tmp_path / "bundle", f"so101_{task}")
    package = export_ros_package(bundle, tmp_path / "src", "my_arm")
    text, given = _parameters(package)
    experiment = load_experiment(load_config(f"so101_{task}"))
    env = experiment.make_env(0, 1, restart=False)  # as the bundle was recorded
    env.sim.close()
    np.testing.assert_allclose(given["goal"], env.goal[0], atol=2e-3 if task == "reach" else 0.02)
    assert np.linalg.norm(given["goal"]) < experiment.robot.reach_m
    assert task == "reach" or given["goal"][2] == 0.0, "an object is pushed on the table"
    assert "frame base" in text and "state_source" not in text and "flies" not in text and "world" not in text
    assert set(given) == {"autostart", "trusted_modules", "goal"}
    needs = {item.text for item in ElementTree.parse(package / "package.xml").iterfind("exec_depend")}
    assert {"sensor_msgs", "trajectory_msgs", "geometry_msgs", "rclpy"} <= needs


def test_a_drones_package_says_how_its_state_arrives_and_where_it_may_go(tiny_bundle, tmp_path):
    text, given = _parameters(export_ros_package(tiny_bundle, tmp_path, "my_drone"))
    assert "# state_source: pose_twist" in text and "frame world" in text and "# goal: [0.0, 0.0, 1.0" in text
    assert set(given) == {"autostart", "trusted_modules"}


def test_every_ros_module_that_travels_along_is_a_dependency(tiny_bundle, tmp_path):
    package = export_ros_package(tiny_bundle, tmp_path, "my_drone")
    needs = {item.text for item in ElementTree.parse(package / "package.xml").iterfind("exec_depend")}
    code = "\n".join(file.read_text() for file in package.rglob("*.py"))
    named = re.findall(r"^\s*(?:from|import) (\w+_(?:msgs|srvs|interfaces)|rclpy|ament_index_python)\b", code, re.M)
    assert set(named) <= needs, "a robot without them cannot start the node"


def test_a_bundle_cannot_write_into_the_package_files(bundle_copy, tmp_path):
    """Its strings reach package.xml, as text; nothing of it reaches code."""
    provenance = json.loads((bundle_copy / "provenance.json").read_text())
    evil = "</description><x>&\"'\nimport os"
    (bundle_copy / "provenance.json").write_text(json.dumps({**provenance, "commit": evil}))
    rehash(bundle_copy)
    package = export_ros_package(bundle_copy, tmp_path / "src", "my_drone")
    assert ElementTree.parse(package / "package.xml").find("description").text.endswith(evil)
    for code in (package / "setup.py", package / "my_drone" / "policy_node.py", *package.glob("launch/*.py")):
        assert "import os" not in code.read_text()


def test_bad_names_and_foreign_folders_are_refused(tiny_bundle, tmp_path):
    for name in ("My-Drone", "1drone", "a__b", "sim2real", ""):
        with pytest.raises(ConfigError, match="not a ROS 2 package name"):
            export_ros_package(tiny_bundle, tmp_path, name)
    (tmp_path / "precious").mkdir()
    with pytest.raises(ConfigError, match="not an exported policy"):
        export_ros_package(tiny_bundle, tmp_path, "precious")


@pytest.fixture(scope="session")
def robot_env():
    """An environment with what a robot has, and without torch and PyBullet."""
    stamp = ROBOT_ENV / ".installed"
    if not stamp.is_file():
        shutil.rmtree(ROBOT_ENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", ROBOT_ENV], check=True)
        pip = [ROBOT_ENV / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *ROBOT_NEEDS]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip cannot install what a robot needs: {done.stderr.strip()[-200:]}")
        stamp.touch()
    return ROBOT_ENV


def in_robot_env(script):
    """Arguments and environment to run a bash script there."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {"args": ["bash", "-c", f". {ROBOT_ENV}/bin/activate && {script}"], "env": environment}


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("build", ["", "--symlink-install"])
def test_colcon_builds_it_and_its_node_configures_without_torch(robot_env, tiny_bundle, tmp_path, build):
    rclpy = pytest.importorskip("rclpy", reason="no rclpy here")
    from ros_rig import change_state

    export_ros_package(tiny_bundle, tmp_path / "src", "my_drone")
    for module in ("torch", "pybullet"):
        absent = subprocess.run(
            **in_robot_env(f"python -c 'import rclpy; import {module}'"), capture_output=True, text=True, check=False
        )
        assert f"No module named '{module}'" in absent.stderr, f"{module} must not be needed on a robot"
    built = subprocess.run(
        **in_robot_env(f"colcon build {build} --event-handlers console_direct+"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    (broken / "policy.onnx").write_bytes(b"\x80pickle")
    context = rclpy.Context()
    rclpy.init(context=context)
    client_node = rclpy.create_node("tester", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(client_node)
    run = ". install/setup.bash && exec install/my_drone/lib/my_drone/policy_node --ros-args"
    try:
        for name, extra, expected in (
            ("policy", "", True),  # the default name and the installed bundle
            ("broken", f"-r __node:=broken -p bundle:={broken}", False),
        ):
            with (tmp_path / f"{name}.log").open("w") as log:
                process = subprocess.Popen(
                    **in_robot_env(f"{run} {extra}"),
                    cwd=tmp_path,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                try:
                    configured = change_state(client_node, executor, name, 1)
                    process.terminate()
                    status = process.wait(timeout=10.0)
                finally:
                    process.kill()
            text = (tmp_path / f"{name}.log").read_text()
            assert status == 0, text
            assert configured is expected, text
            assert ("bundle verified" in text) is expected, text
            assert ("configure refused: policy.onnx is a pickle" in text) is not expected, text
    finally:
        executor.shutdown()
        client_node.destroy_node()
        rclpy.shutdown(context=context)
