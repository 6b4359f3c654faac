"""The simulated robot as a process of its own: what it publishes is the environment, and it stops without commands."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from omnibody.deploy_ros.messages import scan
from omnibody.envs import make_env
from omnibody.sim_tasks.planner import sample
from omnibody.sim_tasks.table import task_config

rclpy = pytest.importorskip("rclpy")
# ROS loads its message types through lark, which imports modules that Python 3.11 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
TASK, SEED, ROWS = "goal_nav/single_rack", 1, 96


@pytest.fixture
def ros(domain):
    rclpy.init()
    yield rclpy.create_node("listener")
    rclpy.try_shutdown()


@pytest.fixture
def robot(ros):
    values = {"robot": "go2", "task": TASK, "seed": SEED, "rgb": ROWS, "lockstep": "true"}
    words = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
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


def picture(message):
    assert message.encoding == "rgb8" and message.step == 3 * message.width
    return np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.width, 3)


def end_of(plan):
    return plan.poses[-1].pose.position.x, plan.poses[-1].pose.position.y


def test_topics_carry_the_environment(ros, robot):
    from geometry_msgs.msg import Twist, Vector3
    from nav_msgs.msg import Odometry, Path
    from rclpy.parameter import Parameter
    from rclpy.parameter_client import AsyncParameterClient
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image, JointState, LaserScan
    from std_srvs.srv import Trigger

    heard = {}
    kinds = {
        "odom": Odometry,
        "depth": Image,
        "image": Image,
        "plan": Path,
        "joint_states": JointState,
        "scan": LaserScan,
    }
    for topic, kind in kinds.items():
        ros.create_subscription(kind, topic, lambda m, t=topic: heard.update({t: m}), qos_profile_sensor_data)
    spin_until(ros, lambda: len(heard) == len(kinds) and len({seconds(message) for message in heard.values()}) == 1)
    env = make_env("go2", task_config(TASK, split="test"), num_envs=1, threads=1, rgb=ROWS)
    obs = env.reset(SEED)
    for _ in range(round(seconds(heard["odom"]) / env.dt)):
        obs = env.step(torch.zeros(1, 3)).obs
    place = heard["odom"].pose.pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], env.world.position[0], atol=1e-6)
    depth = np.frombuffer(bytes(heard["depth"].data), "<f4").reshape(heard["depth"].height, heard["depth"].width)
    np.testing.assert_allclose(depth, obs["depth"][0], atol=1e-5)
    view = picture(heard["image"])
    np.testing.assert_array_equal(view, obs["image"][0])
    assert heard["image"].header.frame_id == heard["depth"].header.frame_id
    ranges, angles = scan(heard["scan"], "base_link").T
    seen = np.isfinite(ranges)
    assert seen.sum() > 20
    beams = np.stack([np.cos(angles + float(env.world.yaw[0])), np.sin(angles + float(env.world.yaw[0]))], 1)
    ends = env.world.position[0, :2].numpy() + ranges[seen, None] * beams[seen]
    scene = env.task.scene(0)
    free = sample(scene.distance[None], ends[None], scene.grid.origin, scene.grid.resolution)[0]
    assert free.max() < 2 * scene.grid.resolution  # beams end on obstacles
    joints = heard["joint_states"]
    qpos = [env.data(0).joint(name).qpos[0] for name in joints.name]
    assert len(qpos) == env.model(0).nu == 12
    np.testing.assert_allclose(joints.position, qpos, atol=1e-9)
    np.testing.assert_allclose(end_of(heard["plan"]), env.task.goal[0, :2], atol=1e-3)

    command = ros.create_publisher(Twist, "cmd_vel", 1)

    def turns(odometry):
        return abs(odometry.twist.twist.angular.z) > 0.2

    def drive():
        command.publish(Twist(angular=Vector3(z=0.5)))
        return turns(heard["odom"])

    spin_until(ros, drive)
    spin_until(ros, lambda: (picture(heard["image"]) != view).mean() > 0.1)  # it shows another view by now
    spin_until(ros, lambda: abs(heard["odom"].twist.twist.angular.z) < 0.02)  # nobody commands any more

    change = AsyncParameterClient(ros, "sim_node").set_parameters([Parameter("first_episode", value=3)])
    spin_until(ros, change.done)
    call = ros.create_client(Trigger, "reset").call_async(Trigger.Request())
    spin_until(ros, call.done)
    assert call.result().success and call.result().message == "episode 3"
    env.reset(SEED, 3)
    goal = env.task.goal[0]
    spin_until(ros, lambda: np.allclose(end_of(heard["plan"]), goal[:2], atol=1e-3))
    env.close()
