"""A ROS 2 middleware that is not installed is said, before rcl ends the process without a word of ours."""

import os
import subprocess
import sys

import pytest

from sim2real.deploy.middleware import check_middleware
from sim2real.errors import ConfigError


@pytest.fixture
def without_rclpy(monkeypatch):
    """As in a process that has not imported rclpy yet."""
    monkeypatch.delitem(sys.modules, "rclpy", raising=False)


def test_nothing_is_tried_where_nothing_is_asked_for(without_rclpy, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    check_middleware({})


def test_a_library_that_is_there_is_not_tried(without_rclpy, monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "run", None)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "librmw_mine_cpp.so").touch()
    check_middleware({"RMW_IMPLEMENTATION": "rmw_mine_cpp", "AMENT_PREFIX_PATH": f"/nowhere{os.pathsep}{tmp_path}"})


@pytest.mark.ros
def test_a_middleware_that_is_missing_is_named(without_rclpy):
    pytest.importorskip("rclpy", reason="needs ROS 2; see `sim2real doctor`")
    sys.modules.pop("rclpy")
    with pytest.raises(ConfigError, match=r"RMW_IMPLEMENTATION=rmw_nobody_cpp, but ROS 2 does not start .*unset RMW"):
        check_middleware({**os.environ, "RMW_IMPLEMENTATION": "rmw_nobody_cpp"})
