"""A drone in simulation or in the room: its driver node and its policy node, the latter not yet configured.

ros2 launch sim2real drone.launch.py bundle:=/path/to/bundle variant:=cf2x_T350
ros2 lifecycle set /policy configure
ros2 service call /arm std_srvs/srv/SetBool "{data: true}"
ros2 lifecycle set /policy activate
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description():
    namespace = LaunchConfiguration("namespace")
    shared = PathJoinSubstitution([FindPackageShare("sim2real"), "launch", "drone.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="folder of the policy bundle"),
            DeclareLaunchArgument("variant", default_value="cf2x_L250", description="airframe of the simulated drone"),
            DeclareLaunchArgument("airframe", default_value="", description="old name of variant"),
            DeclareLaunchArgument("condition", default_value="fresh"),
            DeclareLaunchArgument("namespace", default_value=""),
            Node(
                package="sim2real",
                executable="driver_node",
                namespace=namespace,
                parameters=[
                    shared,
                    {name: LaunchConfiguration(name) for name in ("variant", "airframe", "condition")},
                ],
                output="screen",
            ),
            LifecycleNode(
                package="sim2real",
                executable="policy_node",
                name="policy",
                namespace=namespace,
                parameters=[shared, {"bundle": LaunchConfiguration("bundle")}],
                output="screen",
            ),
        ]
    )
