"""The ROS 2 middleware that ``RMW_IMPLEMENTATION`` asks for: rcl ends the whole process where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from sim2real.errors import ConfigError

VARIABLE = "RMW_IMPLEMENTATION"
_TIMEOUT_S = 60.0


def check_middleware(environment: Mapping[str, str] = os.environ) -> None:
    """Find out before rclpy is imported whether that would end this process.

    Args:
        environment: Variables that rcl will read.

    Raises:
        ConfigError: The middleware that is asked for is not installed; rclpy was tried in a process of its own.
    """
    name = environment.get(VARIABLE, "")
    if not name or "rclpy" in sys.modules or _library(name, environment):
        return
    tried = subprocess.run(
        [sys.executable, "-c", "import rclpy"],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if tried.returncode and "No module named 'rclpy'" not in tried.stderr:
        raise ConfigError(
            f"{VARIABLE}={name}, but ROS 2 does not start with this middleware (exit code {tried.returncode}); install "
            f"it (for example ros-jazzy-{name.replace('_', '-')}), or unset {VARIABLE}"
        )


def _library(name: str, environment: Mapping[str, str]) -> bool:
    """Tell whether the middleware's library lies where libraries of ROS 2 are: of a system's, or of a wheel."""
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    folders = [*environment.get("LD_LIBRARY_PATH", "").split(os.pathsep), *(f"{prefix}/lib" for prefix in prefixes)]
    folders += [f"{sys.prefix}/lib", sysconfig.get_path("platlib")]
    return any((Path(folder) / f"lib{name}.so").is_file() for folder in folders if folder)
