"""A simulated robot and the policy that drives it.

``ros2 launch omnibody_ros sim.launch.py robot:=go2 checkpoint:=...``
Time is the simulator's. In a namespace so is the topic of the clock, as another simulator may run beside this one.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, SetRemap
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Arguments, the simulator and the policy."""
    share, robot = FindPackageShare("omnibody_ros"), LaunchConfiguration("robot")
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource([share, "/launch/policy.launch.py"]),
        launch_arguments={
            "robot": robot,
            "checkpoint": LaunchConfiguration("checkpoint"),
            "namespace": LaunchConfiguration("namespace"),
            "use_sim_time": LaunchConfiguration("use_sim_time"),
            "backend": LaunchConfiguration("backend"),
            "record": LaunchConfiguration("record"),
        }.items(),
    )
    simulator = Node(
        package="omnibody_ros",
        executable="sim_node",
        name="sim_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            ParameterFile([share, "/config/", robot, ".yaml"]),
            {"rgb": ParameterValue(LaunchConfiguration("rgb"), value_type=int)},
        ],
        output="screen",
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("robot", default_value="carrier", description="a body with a file in config/"),
            DeclareLaunchArgument("checkpoint", description="absolute path of a checkpoint folder or .onnx file"),
            DeclareLaunchArgument("namespace", default_value="", description="in front of topics and nodes"),
            DeclareLaunchArgument("use_sim_time", default_value="true", description="take the time from the simulator"),
            DeclareLaunchArgument("backend", default_value="torch", choices=["torch", "onnx"]),
            DeclareLaunchArgument("record", default_value="", description="a folder for a rosbag2 of each drive"),
            DeclareLaunchArgument("rgb", default_value="0", description="rows of the image, if the policy wants one"),
            # A relative name is put behind the namespace of the node.
            GroupAction([SetRemap("/clock", "clock"), simulator, policy]),
        ]
    )
