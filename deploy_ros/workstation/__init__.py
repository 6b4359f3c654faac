"""ROS 2 programs for a workstation: they may use the simulator and the training tools, unlike the robot's side."""
