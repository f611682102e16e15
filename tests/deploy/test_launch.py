"""Launch files, run by ROS 2's own launch where it is installed."""

from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is not among the wheels; it comes with a system ROS 2")

from launch.actions import DeclareLaunchArgument
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch_ros.actions import LifecycleNode, Node

from launch import LaunchContext

ROOT = Path(__file__).parents[2]


def test_drone_launch_describes_both_nodes():
    description = get_launch_description_from_python_launch_file(str(ROOT / "launch" / "drone.launch.py"))
    nodes = [entity for entity in description.entities if isinstance(entity, Node)]
    assert [node.node_executable for node in nodes] == ["driver_node", "policy_node"]
    assert isinstance(nodes[1], LifecycleNode)
    arguments = {entity.name for entity in description.entities if isinstance(entity, DeclareLaunchArgument)}
    assert arguments == {"bundle", "variant", "airframe", "condition", "namespace"}


def test_exported_launch_file_loads(tiny_bundle, tmp_path):
    from sim2real.deploy.ros_package import export_ros_package

    package = export_ros_package(tiny_bundle, tmp_path, "my_drone")
    description = get_launch_description_from_python_launch_file(str(package / "launch" / "my_drone.launch.py"))
    assert any(isinstance(entity, LifecycleNode) for entity in description.entities)


@pytest.mark.parametrize("perception", ["", "/a/bundle"])
def test_arm_launch_describes_its_nodes(perception):
    description = get_launch_description_from_python_launch_file(str(ROOT / "launch" / "arm.launch.py"))
    arguments = {e.name for e in description.entities if isinstance(e, DeclareLaunchArgument)}
    assert arguments == {
        "bundle", "driver", "robot", "task", "host", "condition", "puck", "namespace", "perception", "image",
        "camera_info",
    }  # fmt: skip
    context = LaunchContext()
    context.launch_configurations["perception"] = perception
    nodes = [e for e in description.entities if isinstance(e, Node)]
    started = [node for node in nodes if node.condition is None or node.condition.evaluate(context)]
    wanted = ["driver_node", "policy_node"] + (["perception_node"] if perception else [])
    assert sorted(node.node_executable for node in started) == sorted(wanted)
