"""The topics on which a policy node commands and shows what it does."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Path
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from omnibody.deploy_ros import diagnostics, messages
from omnibody.deploy_ros.runner import PolicyRunner

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class Outputs:
    """Publishers of rclpy's ``node`` under the names of the body that ``runner`` drives."""

    def __init__(self, node: Any, runner: PolicyRunner) -> None:
        self._node, self._runner, ros = node, runner, runner.embodiment.ros
        self._twist = node.create_publisher(Twist, ros.cmd_vel, COMMAND)
        self._stamped = node.create_publisher(TwistStamped, f"{ros.cmd_vel}_stamped", COMMAND)
        self._route = node.create_publisher(Path, "route", COMMAND)
        self._markers = node.create_publisher(MarkerArray, "markers", COMMAND)
        self._command = TwistStamped(header=Header(frame_id=ros.base_frame))  # made once, as that takes time

    def send(self, twist: np.ndarray) -> None:
        """Command (vx, vy, wz) [m/s, m/s, rad/s]."""
        messages.fill_twist(self._command.twist, twist)
        self._twist.publish(self._command.twist)
        self._command.header.stamp = self._node.get_clock().now().to_msg()
        self._stamped.publish(self._command)

    def show(self, odom_frame: str) -> None:
        """The way ahead, for those who look."""
        base = Header(stamp=self._command.header.stamp, frame_id=self._command.header.frame_id)
        if self._route.get_subscription_count():
            self._route.publish(diagnostics.path(base, self._runner.route()[:, 2:]))
        if self._markers.get_subscription_count():
            odom = Header(stamp=base.stamp, frame_id=odom_frame)
            self._markers.publish(diagnostics.markers(self._runner, base, odom))

    def close(self) -> None:
        """Take the topics back."""
        for publisher in (self._twist, self._stamped, self._route, self._markers):
            self._node.destroy_publisher(publisher)
