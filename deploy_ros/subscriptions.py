"""The topics that a policy node listens to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Bool

from omnibody.deploy_ros.outputs import COMMAND
from omnibody.deploy_ros.runner import PolicyRunner

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class Subscription:
    """Messages of class ``kind`` on ``topic``, which `Inputs` calls ``key``."""

    key: str
    kind: Any
    topic: str
    qos: QoSProfile


def subscriptions(node: Any, runner: PolicyRunner, compressed: bool) -> list[Subscription]:
    """What rclpy's ``node`` hears for ``runner``; ``compressed``: its cameras by image_transport's compressed topics.

    Messages that wait together come in this order with an executor that waits: what makes a tick is the last.
    """
    ros = runner.embodiment.ros
    kind, image, depth = Image, ros.image, ros.depth
    if compressed:  # as image_transport does: the name of the uncompressed topic is what is remapped
        kind = CompressedImage
        image = f"{node.resolve_topic_name(image)}/compressed"
        depth = f"{node.resolve_topic_name(depth)}/compressedDepth"
    heard = [
        Subscription("estop", Bool, "estop", COMMAND),
        Subscription("goal_pose", PoseStamped, "goal_pose", COMMAND),
        Subscription("plan", Path, "plan", COMMAND),
        Subscription("scan", LaserScan, "scan", SENSOR),
        Subscription("points", PointCloud2, "points", SENSOR),
        Subscription("image", kind, image, SENSOR),
        Subscription("depth", kind, depth, SENSOR),
        Subscription("odom", Odometry, ros.odom, SENSOR),
    ]
    return [one for one in heard if one.key != "image" or "image" in runner.needed]
