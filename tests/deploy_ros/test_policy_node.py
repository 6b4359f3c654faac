"""The policy node as a real process on a ROS domain of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseStamped, Twist  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

# rclpy reads its message definitions with a parser that imports deprecated modules of Python.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
CHECKPOINT = Path(__file__).parents[2] / "assets" / "checkpoints" / "compass-generalist"


class Robot:
    """A robot that stands still before open space, and what it hears."""

    def __init__(self, checkpoint: Path) -> None:
        options = ["-p", "robot:=carrier", "-p", f"checkpoint:={checkpoint}"]
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.speed, self.said, self.depth = float("nan"), "", 8.0
        self.node.create_subscription(Twist, "cmd_vel", self._heard, 1)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._told, 1)
        kinds: dict[str, tuple[Any, Any]] = {
            "odom": (Odometry, qos_profile_sensor_data),
            "depth": (Image, qos_profile_sensor_data),
            "goal_pose": (PoseStamped, 1),
        }
        self.out = {name: self.node.create_publisher(kind, name, qos) for name, (kind, qos) in kinds.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "omnibody.deploy_ros.policy_node", "--ros-args", *options]
        )

    def _heard(self, message: Any) -> None:
        self.speed = message.linear.x

    def _told(self, message: Any) -> None:
        self.said = message.status[0].message

    def until(self, done: Callable[[], bool], feed: bool = True, seconds: float = 40.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not done():
            if feed:
                self._feed()
            self.executor.spin_once(timeout_sec=0.03)
        return done()

    def _feed(self) -> None:
        now = self.node.get_clock().now().to_msg()
        odom, goal = Odometry(), PoseStamped()
        odom.header.stamp, odom.pose.pose.orientation.w = now, 1.0
        goal.pose.position.x, goal.pose.orientation.w = 4.0, 1.0
        data = np.full((16, 64), self.depth, np.float32).tobytes()
        image = Image(height=16, width=64, encoding="32FC1", step=256, data=data)
        image.header.stamp = now
        for name, message in (("odom", odom), ("depth", image), ("goal_pose", goal)):
            self.out[name].publish(message)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def robot(domain: None) -> Iterator[Robot]:
    out = Robot(CHECKPOINT)
    yield out
    out.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sends_zero_and_says_so(robot: Robot, number: int, code: int) -> None:
    assert robot.until(lambda: robot.speed > 0.0)
    robot.process.send_signal(number)
    assert robot.until(lambda: robot.process.poll() is not None)
    robot.until(lambda: robot.speed == 0.0, feed=False, seconds=2.0)
    assert robot.speed == 0.0 and robot.process.returncode == code
