"""The simulated robot as a process of its own: what it publishes is the environment, and it stops without commands."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from omnibody.envs import make_env
from omnibody.sim_tasks.table import task_config

rclpy = pytest.importorskip("rclpy")
# ROS loads its message types through lark, which imports modules that Python 3.11 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
TASK, SEED = "goal_nav/single_rack", 1


@pytest.fixture
def ros(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    rclpy.init()
    yield rclpy.create_node("listener")
    rclpy.try_shutdown()


@pytest.fixture
def robot(ros):
    words = ["-p", "robot:=carrier", "-p", f"task:={TASK}", "-p", f"seed:={SEED}", "-p", "lockstep:=true"]
    module = "omnibody.deploy_ros.workstation.sim_node"
    process = subprocess.Popen([sys.executable, "-m", module, "--ros-args", *words])
    yield process
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def spin_until(node, condition, seconds=40.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came"
        rclpy.spin_once(node, timeout_sec=0.1)


def seconds(message):
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def test_topics_carry_the_environment(ros, robot):
    from geometry_msgs.msg import Twist, Vector3
    from nav_msgs.msg import Odometry, Path
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    heard = {}
    for kind, topic in ((Odometry, "odom"), (Image, "depth"), (Path, "plan")):
        ros.create_subscription(kind, topic, lambda m, t=topic: heard.update({t: m}), qos_profile_sensor_data)
    spin_until(ros, lambda: len(heard) == 3 and len({seconds(message) for message in heard.values()}) == 1)
    env = make_env("carrier", task_config(TASK, split="test"), num_envs=1, threads=1)
    obs = env.reset(SEED)
    for _ in range(round(seconds(heard["odom"]) / env.dt)):
        obs = env.step(torch.zeros(1, 3)).obs
    place = heard["odom"].pose.pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], env.world.position[0], atol=1e-6)
    depth = np.frombuffer(bytes(heard["depth"].data), "<f4").reshape(heard["depth"].height, heard["depth"].width)
    np.testing.assert_allclose(depth, obs["depth"][0], atol=1e-5)
    end, goal = heard["plan"].poses[-1].pose.position, env.task.goal[0]
    np.testing.assert_allclose([end.x, end.y], goal[:2], atol=1e-3)

    command = ros.create_publisher(Twist, "cmd_vel", 1)

    def turns(odometry):
        return abs(odometry.twist.twist.angular.z) > 0.2

    def drive():
        command.publish(Twist(angular=Vector3(z=0.5)))
        return turns(heard["odom"])

    spin_until(ros, drive)
    spin_until(ros, lambda: abs(heard["odom"].twist.twist.angular.z) < 0.02)  # nobody commands any more
    env.close()
