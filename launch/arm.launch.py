"""An SO-101 in simulation or in the room: its driver node and its policy node, the latter not yet configured.

ros2 launch sim2real arm.launch.py bundle:=/path/to/bundle puck:=true
ros2 lifecycle set /policy configure
ros2 service call /arm std_srvs/srv/SetBool "{data: true}"
ros2 lifecycle set /policy activate
"""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description():
    namespace = LaunchConfiguration("namespace")
    shared = PathJoinSubstitution([FindPackageShare("sim2real"), "launch", "arm.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="folder of the policy bundle"),
            DeclareLaunchArgument("driver", default_value="so101_twin", description="so101_twin or franka"),
            DeclareLaunchArgument("host", default_value="127.0.0.1", description="of a Franka's control interface"),
            DeclareLaunchArgument("condition", default_value="fresh"),
            DeclareLaunchArgument("puck", default_value="false", description="put an object to push on the table"),
            DeclareLaunchArgument("namespace", default_value=""),
            Node(
                package="sim2real",
                executable="driver_node",
                namespace=namespace,
                parameters=[
                    shared,
                    {
                        "driver": LaunchConfiguration("driver"),
                        "host": LaunchConfiguration("host"),
                        "condition": LaunchConfiguration("condition"),
                        "puck": ParameterValue(LaunchConfiguration("puck"), value_type=bool),
                    },
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
