"""The policy on one robot, real or simulated.

``ros2 launch omnibody_ros policy.launch.py robot:=go2 checkpoint:=...``
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Arguments and the node."""
    robot = LaunchConfiguration("robot")
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", default_value="carrier", description="a body with a file in config/"),
            DeclareLaunchArgument("checkpoint", description="absolute path of a checkpoint folder or .onnx file"),
            DeclareLaunchArgument("namespace", default_value="", description="in front of topics and node"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
            DeclareLaunchArgument("backend", default_value="torch", choices=["torch", "onnx"]),
            DeclareLaunchArgument("record", default_value="", description="a folder for a rosbag2 of each drive"),
            Node(
                package="omnibody_ros",
                executable="policy_node",
                name="policy_node",
                namespace=LaunchConfiguration("namespace"),
                parameters=[
                    ParameterFile([FindPackageShare("omnibody_ros"), "/config/", robot, ".yaml"]),
                    {
                        "checkpoint": ParameterValue(LaunchConfiguration("checkpoint"), value_type=str),
                        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
                        "backend": ParameterValue(LaunchConfiguration("backend"), value_type=str),
                        "record": ParameterValue(LaunchConfiguration("record"), value_type=str),
                    },
                ],
                output="screen",
            ),
        ]
    )
