"""What is judged behind topics is what is judged in the simulator itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

rclpy = pytest.importorskip("rclpy")
from geometry_msgs.msg import Twist  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402

from omnibody.deploy_ros.workstation.eval_node import read_goals  # noqa: E402
from omnibody.deploy_ros.workstation.topic_env import ODOM, TopicEnv  # noqa: E402
from omnibody.envs.make import make_env  # noqa: E402
from omnibody.robots.errors import UserError  # noqa: E402
from omnibody.robots.table import load_robot  # noqa: E402
from omnibody.sim_tasks.table import task_config  # noqa: E402
from omnibody.training.rollout import play, rollout  # noqa: E402

# rclpy reads its message definitions with a parser that imports deprecated modules of Python.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
TASK, SEED = task_config("goal_nav/single_rack", split="test"), 1


class Followed(TopicEnv):
    """The task's expert drives the robot behind the topics, by what they say of it."""

    def __init__(self, node: Any, goals: Any) -> None:
        body = load_robot("carrier")
        self._drive = node.create_publisher(Twist, "cmd_vel", 1)
        super().__init__(node, body, TASK.build(body, 1), goals)
        self._waking = node.create_subscription(Odometry, "odom", lambda message: self._drive.publish(Twist()), ODOM)
        self._node = node

    def reset(self, seed: int, first_episode: int = 0) -> Any:
        obs = super().reset(seed, first_episode)
        self._node.destroy_subscription(self._waking)
        return obs

    def expert(self) -> torch.Tensor:
        action = self.task.expert(self.world, np.random.default_rng(0))
        message = Twist()
        message.linear.x, message.angular.z = float(action[0, 0]), float(action[0, 2])
        self._drive.publish(message)
        return action


@pytest.fixture
def node(domain: None) -> Iterator[Any]:
    rclpy.init()
    words = ["-p", "tier:=T0", "-p", "lockstep:=true", "-p", f"seed:={SEED}"]
    module = "omnibody.deploy_ros.workstation.sim_node"
    process = subprocess.Popen([sys.executable, "-m", module, "--ros-args", *words])
    yield rclpy.create_node("judge")
    process.send_signal(signal.SIGINT)
    process.wait(60)
    rclpy.try_shutdown()


def test_records_are_those_of_the_simulator(node: Any, tmp_path: Path) -> None:
    env = make_env("carrier", TASK, num_envs=1, tier="T0", threads=1)
    wanted = rollout(None, env, 3, SEED)
    behind = Followed(node, ())
    came = [*play(None, behind, 3, SEED, known={0})]  # as if resumed
    assert node.count_publishers("depth") and not node.count_publishers("image")  # pictures are for who asks
    assert [(record.episode, record.outcome) for record in came] == [(r.episode, r.outcome) for r in wanted[1:]]
    for ours, theirs in zip(came, wanted[1:], strict=True):
        assert abs(ours.seconds - theirs.seconds) <= 0.2
        np.testing.assert_allclose(ours.path[0], theirs.path[0], atol=2e-3)
        np.testing.assert_allclose(ours.path[-1], theirs.path[-1], atol=0.1)
    assert not np.allclose(came[0].path[0], came[1].path[0], atol=0.5)  # they are different episodes
    behind.close()


def test_goals_are_driven_to_from_where_it_stands(node: Any) -> None:
    task = TASK.build(load_robot("carrier"), 1)
    start = task.reset(np.array([0]), np.array([0]), SEED)[0]
    goal = tuple(task.goal[0].tolist())
    behind = Followed(node, [goal])
    [record] = play(None, behind, 1, SEED)
    assert record.success and record.measures["goal_distance"] < 0.5
    assert np.linalg.norm(np.array(record.path[0]) - np.array(start.pose)) < 0.5
    behind.close()


def test_goals_are_read_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "goals.yaml"
    file.write_text("- [1, 2.5, 0]\n- [0, 0, 3.1]\n")
    assert read_goals(file) == [(1.0, 2.5, 0.0), (0.0, 0.0, 3.1)]
    file.write_text("- [1, 2]\n")
    with pytest.raises(UserError, match=r"goals: wanted a YAML list of \[x, y, yaw\]"):
        read_goals(file)
