"""An SO-101 in simulation or in the room: its driver node and its policy node, the latter not yet configured.

ros2 launch sim2real arm.launch.py bundle:=/path/to/bundle task:=push
ros2 lifecycle set /policy configure
ros2 service call /arm std_srvs/srv/SetBool "{data: true}"
ros2 lifecycle set /policy activate

With perception:=/path/to/a/perception/bundle an object's place comes from a camera's images (topics image and
camera_info, or image:= and camera_info:=) in place of the simulated camera's.
"""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition, UnlessCondition
from launch.substitutions import EqualsSubstitution, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description():
    namespace = LaunchConfiguration("namespace")
    shared = PathJoinSubstitution([FindPackageShare("sim2real"), "launch", "arm.yaml"])
    blind = EqualsSubstitution(LaunchConfiguration("perception"), "")

    def driver(condition, remappings):
        return Node(
            package="sim2real",
            executable="driver_node",
            namespace=namespace,
            parameters=[
                shared,
                {
                    "driver": LaunchConfiguration("driver"),
                    "host": LaunchConfiguration("host"),
                    "robot": LaunchConfiguration("robot"),
                    "task": LaunchConfiguration("task"),
                    "condition": LaunchConfiguration("condition"),
                    "puck": ParameterValue(LaunchConfiguration("puck"), value_type=bool),
                },
            ],
            remappings=remappings,
            condition=condition,
            output="screen",
        )

    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="folder of the policy bundle"),
            DeclareLaunchArgument("driver", default_value="target", description="target (simulated) or franka"),
            DeclareLaunchArgument("robot", default_value="so101", description="simulated arm: its name or folder"),
            DeclareLaunchArgument("task", default_value="reach", description="push puts an object on the table"),
            DeclareLaunchArgument("host", default_value="127.0.0.1", description="of a Franka's control interface"),
            DeclareLaunchArgument("condition", default_value="fresh"),
            DeclareLaunchArgument("puck", default_value="false", description="old name of task:=push"),
            DeclareLaunchArgument("namespace", default_value=""),
            DeclareLaunchArgument("perception", default_value="", description="folder of a perception bundle"),
            DeclareLaunchArgument("image", default_value="image", description="topic of the camera's images"),
            DeclareLaunchArgument("camera_info", default_value="camera_info", description="topic of its calibration"),
            driver(IfCondition(blind), []),
            # Two must not tell where the object is: the simulated arm's own camera goes to another topic.
            driver(UnlessCondition(blind), [("object_pose", "ground_truth/object_pose")]),
            Node(
                package="sim2real",
                executable="perception_node",
                namespace=namespace,
                parameters=[{"bundle": LaunchConfiguration("perception")}],
                remappings=[
                    ("image", LaunchConfiguration("image")),
                    ("camera_info", LaunchConfiguration("camera_info")),
                ],
                condition=UnlessCondition(blind),
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
