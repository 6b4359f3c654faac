"""A ROS domain of its own for every test that starts ROS, and a robot for the policy node."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHECKPOINT = Path(__file__).parents[2] / "assets" / "checkpoints" / "compass-generalist"
MEDDLED = Path(__file__).parent / "meddled_node.py"
START = 180.0  # of a node, on a busy computer [s]


def own_domain() -> dict[str, str]:
    """Keeps discovery on this machine, in a domain that no other test or robot is likely to use."""
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(random.randint(1, 100))}


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in own_domain().items():
        monkeypatch.setenv(name, value)


class Robot:
    """A carrier that stands still before open space, the policy node as a process, and what that says.

    Tests spoil what is fed: ``pose``, ``velocity``, ``fields`` of the images by topic, ``late`` [s] of the stamps,
    ``silent`` topics. ``heard`` holds (arrival, stamp, vx, wz) of the commands, times [s].
    """

    def __init__(self, *words: str) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PoseStamped, TwistStamped
        from nav_msgs.msg import Odometry
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image
        from std_msgs.msg import Bool

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("robot", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        sensors = {"odom": Odometry, "depth": Image, "image": Image}
        self.kinds = {**sensors, "goal_pose": PoseStamped, "estop": Bool}
        self.out = {
            topic: self.node.create_publisher(kind, topic, qos_profile_sensor_data if topic in sensors else 1)
            for topic, kind in self.kinds.items()
        }
        self.node.create_subscription(TwistStamped, "cmd_vel_stamped", self._hear, 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._read, 1)
        self.heard: list[tuple[float, float, float, float]] = []
        self.said, self.level, self.counts = "", b"", dict[str, int]()
        self.clients: dict[str, Any] = {}
        self.goal, self._fed = 4.0, 0.0
        self.restore()
        options = ["--ros-args", "-p", "robot:=carrier", "-p", f"checkpoint:={CHECKPOINT}", *words]
        self.process = subprocess.Popen([sys.executable, str(MEDDLED), *options])

    def restore(self) -> None:
        """Feed good readings again."""
        self.pose, self.velocity = [0.0, 0.0, 0.0], 0.0
        self.depth, self.image = np.full((16, 64), 8.0, np.float32), np.zeros((32, 92, 3), np.uint8)
        self.fields = dict[str, dict[str, Any]]()
        self.late, self.silent = 0.0, set[str]()

    def drive(self) -> None:
        """Until it drives to a new goal, undisturbed."""
        self.restore()
        self.without("")
        self.send("estop", data=False)
        self.goal = 4.0 + 0.1 * random.random()
        self.heard.clear()
        assert self.until(lambda: self.speed > 0.1, START), f"does not drive: {self.said}"

    @property
    def speed(self) -> float:
        """The last command's [m/s]."""
        return self.heard[-1][2] if self.heard else float("nan")

    def until(self, done: Callable[[], bool], seconds: float, feed: bool = True) -> bool:
        """Feed and listen until ``done``, or in vain for so long."""
        spent, last = 0.0, time.monotonic()
        while not done() and spent < seconds:
            if feed and time.monotonic() - self._fed > 0.05:
                self.feed()
            self.executor.spin_once(timeout_sec=0.01)
            now = time.monotonic()
            spent, last = spent + min(now - last, 0.1), now  # a computer that stood still does not count
        return done()

    def stops(self, seconds: float = 0.9, feed: bool = True) -> bool:
        """Whether a zero command comes within so long and nothing else in the half second after it."""
        if not self.until(lambda: self.speed == 0.0, seconds, feed):
            return False
        first = len(self.heard)
        self.until(lambda: False, 0.5, feed)
        return all(speed == turn == 0.0 for _, _, speed, turn in self.heard[first:])

    def says(self, words: str) -> bool:
        """Whether the diagnostics come to hold ``words``."""
        return self.until(lambda: words in self.said, 3.0)

    def without(self, names: str) -> None:
        """Let the node run without guards, or with faults, of ``meddled_node.py``; "" ends them."""
        self.set(without=names)

    def drives(self, speed: float = 0.1) -> bool:
        """Whether it comes to drive faster than ``speed`` [m/s]."""
        return self.until(lambda: self.speed > speed, 10.0)

    def set(self, node: str = "policy_node", **values: Any) -> None:
        from rclpy.parameter import Parameter
        from rclpy.parameter_client import AsyncParameterClient

        client = self.clients.setdefault(node, AsyncParameterClient(self.node, node))
        assert self.until(client.services_are_ready, START)
        future = client.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        assert self.until(future.done, 20.0) and future.result().results[0].successful

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.clients.setdefault(name, self.node.create_client(kind, name))
        assert self.until(client.service_is_ready, 20.0)
        future = client.call_async(request)
        assert self.until(future.done, 20.0)
        return future.result()

    def feed(self) -> None:
        self._fed = time.monotonic()
        x, y, yaw = self.pose
        now = self.node.get_clock().now().nanoseconds - round(self.late * 1e9)
        stamp = {"sec": now // 10**9, "nanosec": now % 10**9}
        turn = {"z": float(np.sin(yaw / 2)), "w": float(np.cos(yaw / 2))}
        place = {"pose.position.x": x, "pose.position.y": y}
        odom = {f"pose.{key}": value for key, value in place.items()}
        self.send("odom", stamp, **odom, **{f"pose.pose.orientation.{k}": v for k, v in turn.items()},
                  **{"twist.twist.linear.x": self.velocity})  # fmt: skip
        for topic, pixels, encoding in (("image", self.image, "rgb8"), ("depth", self.depth, "32FC1")):
            shape = {"height": len(pixels), "width": pixels.shape[1], "step": pixels[0].nbytes}
            fields = {**shape, "encoding": encoding, "data": pixels.tobytes()}
            self.send(topic, stamp, **fields | self.fields.get(topic, {}))
        self.send("goal_pose", stamp, **{"pose.position.x": self.goal, "pose.orientation.w": 1.0})

    def send(self, topic: str, stamp: dict[str, int] | None = None, **fields: Any) -> None:
        """Publish a message, given by its fields' dotted names."""
        if topic in self.silent:
            return
        message = self.kinds[topic]()
        for name, value in {**fields, **{f"header.stamp.{k}": v for k, v in (stamp or {}).items()}}.items():
            *way, last = name.split(".")
            target = message
            for step in way:
                target = getattr(target, step)
            setattr(target, last, value)
        self.out[topic].publish(message)

    def _hear(self, message: Any) -> None:
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        self.heard.append((time.monotonic(), stamp, message.twist.linear.x, message.twist.angular.z))

    def _read(self, message: Any) -> None:
        status = message.status[0]
        self.said, self.level = status.message, status.level
        self.counts = {value.key: int(value.value) for value in status.values}

    def end(self, number: int) -> int:
        """Signal the node; its exit code."""
        self.process.send_signal(number)
        self.until(lambda: self.process.poll() is not None, 20.0)
        self.until(lambda: False, 0.3, feed=False)
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture(scope="module")
def start_robot() -> Iterator[Callable[..., Robot]]:
    """Starts robots in a domain each; they end with the module."""
    robots = []

    def start(*words: str) -> Robot:
        os.environ.update(own_domain())
        robots.append(Robot(*words))
        return robots[-1]

    before = dict(os.environ)
    yield start
    for robot in robots:
        robot.close()
    os.environ.clear()
    os.environ.update(before)
