"""Starting the command line: help, lists and the check of a bundle bring none of the heavy libraries along."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "pybullet", "scipy", "matplotlib", "cv2", "gymnasium", "onnx", "tensordict", "mujoco", "rclpy")
RUN = """
import json, sys
from sim2real.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print(json.dumps([name for name in sys.modules if "." not in name]), file=sys.stderr)
"""


def loaded(*arguments):
    run = [sys.executable, "-c", RUN, *arguments]
    result = subprocess.run(run, capture_output=True, text=True, check=True)
    return result.stdout, set(json.loads(result.stderr.splitlines()[-1]))


@pytest.mark.parametrize("command", ["--help", "verify --help", "calibrate --help", "train --help"])
def test_help_needs_neither_numbers_nor_files(command):
    text, modules = loaded(*command.split())
    assert "Usage" in text
    assert not modules & {*HEAVY, "numpy", "yaml", "onnxruntime"}


@pytest.mark.parametrize("kind", ["robots", "tasks", "methods", "targets", "drivers", "configs"])
def test_lists_bring_nothing_heavy(kind):
    text, modules = loaded("list", kind)
    assert {"robots": "crazyflie", "methods": "up_osi", "configs": "up_osi"}.get(kind, "") in text
    assert not modules & {*HEAVY, "onnxruntime"}


def test_a_bundle_is_verified_with_onnxruntime_alone(tiny_bundle):
    text, modules = loaded("verify", str(tiny_bundle))
    assert "The bundle is whole" in text
    assert not modules & set(HEAVY)
