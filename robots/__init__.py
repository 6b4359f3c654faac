"""Bodies: geometry, joints, limits, sensors, low-level control and ROS topics."""
