"""Simulated robots side by side, each in a namespace of its own name, all driven by one checkpoint.

``ros2 launch omnibody_ros fleet.launch.py robots:=carrier,go2,omni checkpoint:=...``
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Arguments, and what follows from them."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "robots", default_value="carrier,go2,omni", description="bodies with a file in config/"
            ),
            DeclareLaunchArgument("checkpoint", description="absolute path of a checkpoint folder or .onnx file"),
            DeclareLaunchArgument(
                "use_sim_time", default_value="true", description="take the time from the simulators"
            ),
            DeclareLaunchArgument("backend", default_value="torch", choices=["torch", "onnx"]),
            DeclareLaunchArgument("record", default_value="", description="a folder for a rosbag2 of each drive"),
            DeclareLaunchArgument("rgb", default_value="0", description="rows of the image, if the policy wants one"),
            OpaqueFunction(function=_fleet),
        ]
    )


def _fleet(context: LaunchContext) -> list[GroupAction]:
    """A simulator and a policy for each robot; a group keeps its robot's arguments to itself."""
    source = PythonLaunchDescriptionSource([FindPackageShare("omnibody_ros"), "/launch/sim.launch.py"])
    common = {name: LaunchConfiguration(name) for name in ("checkpoint", "use_sim_time", "backend", "record", "rgb")}
    robots = LaunchConfiguration("robots").perform(context).split(",")
    return [
        GroupAction([IncludeLaunchDescription(source, launch_arguments={"robot": r, "namespace": r, **common}.items())])
        for r in robots
    ]
