"""What the message of each topic means to a `PolicyRunner`; nothing here imports ROS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omnibody.deploy_ros import messages
from omnibody.deploy_ros.runner import PolicyRunner
from omnibody.robots.errors import UserError

# Topic -> what a runner calls it.
READINGS = {"odom": "pose", "depth": "depth", "image": "image", "scan": "scan", "points": "points"}


class Inputs:
    """Hands messages to ``runner``; ``refused`` is told of those that cannot be used.

    ``frame`` is the odometry's: goals and plans must be in it. Those that come before it wait for it.
    """

    def __init__(self, runner: PolicyRunner, refused: Callable[[str], Any]) -> None:
        self.runner, self.refused, self.frame = runner, refused, ""
        self._early: dict[str, Any] | None = {}  # topic -> message; None once odometry has come

    def take(self, topic: str, message: Any) -> None:
        """A message of one of the topics below; an unusable reading is a fault until a good one comes."""
        try:
            getattr(self, topic)(message)
        except UserError as error:
            if topic in READINGS:
                self.runner.fault(READINGS[topic], str(error))
            self.refused(str(error))

    def odom(self, message: Any) -> None:
        """An ``Odometry``."""
        pose, twist = messages.odometry(message)
        stamp = messages.stamp(message)
        self.frame = message.header.frame_id
        self.runner.observe("pose", pose, stamp)
        self.runner.observe("velocity", twist, stamp)
        if self._early is not None:
            early, self._early = self._early, None
            for topic, waiting in early.items():
                self.take(topic, waiting)

    def depth(self, message: Any) -> None:
        """A depth ``Image`` or ``CompressedImage``."""
        depth = messages.depth(message, self.runner.embodiment.camera)
        self.runner.observe("depth", depth, messages.stamp(message))

    def image(self, message: Any) -> None:
        """A colour ``Image`` or ``CompressedImage``, for a policy that sees them."""
        height, width, _ = self.runner.policy.spec.obs["image"].shape
        self.runner.observe("image", messages.image(message, height, width), messages.stamp(message))

    def scan(self, message: Any) -> None:
        """A ``LaserScan``."""
        scan = messages.scan(message, self.runner.embodiment.ros.base_frame)
        self.runner.observe("scan", scan, messages.stamp(message))

    def points(self, message: Any) -> None:
        """A ``PointCloud2``."""
        points = messages.points(message, self.runner.embodiment.ros.base_frame)
        self.runner.observe("points", points, messages.stamp(message))

    def goal_pose(self, message: Any) -> None:
        """A ``PoseStamped``."""
        if self._early is not None:
            self._early["goal_pose"] = message
            return
        messages.check_frame("goal_pose", message.header.frame_id, self.frame)
        self.runner.set_goal(messages.goal_pose(message))

    def plan(self, message: Any) -> None:
        """A ``Path``, as a message or, in bytes, as it travels."""
        if self._early is not None:
            self._early["plan"] = message
            return
        travels = isinstance(message, bytes)
        frame, points = messages.serialized_path(message) if travels else messages.path(message)
        messages.check_frame("plan", frame, self.frame)
        self.runner.set_route(points)
