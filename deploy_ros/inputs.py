"""What the message of each topic means to a `PolicyRunner`; nothing here imports ROS."""

from __future__ import annotations

from typing import Any

import numpy as np

from omnibody.deploy_ros import messages
from omnibody.deploy_ros.runner import PolicyRunner


class Inputs:
    """Hands messages to ``runner``; one that cannot be used raises `messages.MessageError`.

    ``frame`` is the odometry's: goals and plans must be in it.
    """

    def __init__(self, runner: PolicyRunner) -> None:
        self.runner, self.frame = runner, ""

    def odom(self, message: Any) -> None:
        """An ``Odometry``."""
        pose, twist = messages.odometry(message)
        self.frame = message.header.frame_id
        self.runner.observe("pose", pose, messages.stamp(message))
        self.runner.observe("velocity", twist, messages.stamp(message))

    def depth(self, message: Any) -> None:
        """A depth ``Image``."""
        depth = messages.depth(message, self.runner.embodiment.camera)
        self.runner.observe("depth", depth, messages.stamp(message))

    def scan(self, message: Any) -> None:
        """A ``LaserScan``."""
        self.runner.observe("scan", np.stack(messages.scan(message), axis=1), messages.stamp(message))

    def goal_pose(self, message: Any) -> None:
        """A ``PoseStamped``."""
        messages.check_frame("goal_pose", message.header.frame_id, self.frame)
        self.runner.set_goal(messages.goal_pose(message))

    def plan(self, message: Any) -> None:
        """A ``Path``."""
        messages.check_frame("plan", message.header.frame_id, self.frame)
        self.runner.set_route(messages.path(message))

    def serialized_plan(self, data: bytes) -> None:
        """The same ``Path``, as it travels."""
        frame, points = messages.serialized_path(data)
        messages.check_frame("plan", frame, self.frame)
        self.runner.set_route(points)
