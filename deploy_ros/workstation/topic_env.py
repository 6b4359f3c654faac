"""A robot behind ROS topics, driven by another process, as a `VecEnv` of one: its judge is the task itself.

``expert`` is the command that the other process gave; what ``step`` is given goes nowhere.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, Header
from std_srvs.srv import Trigger
from torch import Tensor

from omnibody.deploy_ros import messages
from omnibody.envs.mujoco_env import TWIST_WINDOW, mean_twist
from omnibody.envs.vec_env import Step
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Embodiment, IOSpec
from omnibody.sim_tasks.goal_nav import GoalNav, Pose
from omnibody.sim_tasks.task import Obs, World

PATIENCE = 300.0  # for a robot, a policy or a simulator to appear or answer [s]
SILENCE = 0.5  # without a command for so long the last one counts [s]
NEAR = 0.1  # a start is met up to this [m], [rad]
QUEUE = 1000  # no message is passed over while a record is written
ODOM = QoSProfile(depth=QUEUE, reliability=ReliabilityPolicy.BEST_EFFORT)


class TopicEnv:
    """Plays numbered episodes of ``task`` with ``sim_node``, or ``goals`` one after the other from where it stands.

    It listens to the body's odometry, its commands and ``collision``.
    """

    num_envs = 1

    def __init__(self, node: Node, embodiment: Embodiment, task: GoalNav, goals: Sequence[Pose]) -> None:
        self.embodiment, self.task, self.goals = embodiment, task, goals
        self.spec, self.dt = IOSpec({}, embodiment.action, embodiment.rate_hz), 1.0 / embodiment.rate_hz
        self.episode = torch.zeros(1, dtype=torch.int64)
        self.world: World
        self._seed, self._began = 0, 0.0
        self._used = -np.inf  # stamp of the last odometry used [s]
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._poses = np.zeros((1, round(TWIST_WINDOW / self.dt) + 1, 3))
        self._heard: deque[tuple[Odometry, bool]] = deque()
        self._touched, self._command, self._commands = False, np.zeros(3), 0
        # Messages that wait together are taken in this order: a contact belongs to the odometry that follows.
        node.create_subscription(Bool, "collision", self._take_contact, QUEUE)
        node.create_subscription(Odometry, embodiment.ros.odom, self._take_odometry, ODOM)
        node.create_subscription(Twist, embodiment.ros.cmd_vel, self._take_command, QUEUE)
        self._goal = node.create_publisher(PoseStamped, "goal_pose", 1)
        self._restart = node.create_client(Trigger, "reset")
        self._settings = AsyncParameterClient(node, "sim_node")

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Begin an episode once a robot and its policy are there; there is nothing to observe here."""
        self._seed = seed
        self._until(lambda: bool(self._heard), f"odometry on {self.embodiment.ros.odom}")
        self._until(lambda: self._commands > 0, f"commands on {self.embodiment.ros.cmd_vel}")
        self._arrange(first_episode)
        return {}

    def step(self, action: Tensor) -> Step:
        """Wait for the odometry that follows ``dt`` later, and judge it."""
        self.world = self._look(self._next())
        world, task = self.world, self.task
        failure = task.failure(world)
        success = task.success(world) & ~failure
        terminated = success | failure
        truncated = (world.time > task.max_seconds - 0.5 * self.dt) & ~terminated
        measures, episode = task.measures(world), self.episode
        if bool(terminated | truncated):
            self._go_on(int(episode[0]) + 1)
        return Step({}, {}, torch.zeros(1), terminated, truncated, success, {}, measures, world, episode)

    def expert(self) -> Tensor:
        """The command (1, 3) that answers the last odometry, as soon as it is there."""
        known = self._commands
        end = time.monotonic() + SILENCE
        while self._commands == known and not self._heard and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=SILENCE)
        return torch.from_numpy(self._command[None]).float()

    def close(self) -> None:
        """Listen no more."""
        self._executor.shutdown()

    def _go_on(self, episode: int) -> None:
        """A simulator begins the next episode by itself; else ask for it."""
        if self.goals:
            if episode < len(self.goals):
                self._arrange(episode)
            return
        start = self.task.reset(np.array([0]), np.array([episode]), self._seed)[0]
        odometry = self._next()[0]
        if _apart(odometry, start.pose) < NEAR:
            self._begin(episode, odometry)
        else:
            self._arrange(episode)

    def _arrange(self, episode: int) -> None:
        if self.goals:
            odometry = self._next()[0]
            x, y, yaw = messages.odometry(odometry)[0].tolist()
            self.task.place(0, 0, (x, y, yaw), self.goals[episode])
            self._begin(episode, odometry)
            return
        start = self.task.reset(np.array([0]), np.array([episode]), self._seed)[0]
        if not self._restart.wait_for_service(timeout_sec=PATIENCE):
            raise UserError("reset: no simulator offers it; start sim_node, or give goals:=<file> for another robot")
        self._call(self._settings.set_parameters([Parameter("first_episode", value=episode)]))
        self._heard.clear()  # not after the call: the start itself may come before the answer
        self._call(self._restart.call_async(Trigger.Request()))
        self._until(lambda: any(_apart(m, start.pose) < NEAR for m, _ in self._heard), f"the start {start.pose}")
        while _apart(self._heard[0][0], start.pose) >= NEAR:
            self._heard.popleft()
        self._begin(episode, self._heard.popleft()[0])

    def _begin(self, episode: int, odometry: Odometry) -> None:
        self.episode = torch.tensor([episode])
        self._began, self._touched = messages.stamp(odometry), False
        self._poses[:] = messages.odometry(odometry)[0]
        self.world = self._look((odometry, False))

    def _next(self) -> tuple[Odometry, bool]:
        """The first odometry at least a period after the last used one, and whether anything was touched till then."""
        touched = False
        while True:
            self._until(lambda: bool(self._heard), f"odometry on {self.embodiment.ros.odom}")
            odometry, contact = self._heard.popleft()
            touched = touched or contact
            if not 0.0 <= messages.stamp(odometry) - self._used < 0.9 * self.dt:
                return odometry, touched

    def _look(self, reading: tuple[Odometry, bool]) -> World:
        odometry, contact = reading
        pose, twist = messages.odometry(odometry)
        self._used = messages.stamp(odometry)
        if np.linalg.norm(pose[:2] - self._poses[0, -1, :2]) > 1.0:
            raise UserError("odom: jumped by more than 1 m, so messages were lost; repeat the command, it resumes")
        self._poses[:, :-1], self._poses[:, -1] = self._poses[:, 1:].copy(), pose
        place, turn = odometry.pose.pose.position, odometry.pose.pose.orientation
        return World(
            time=_row(self._used - self._began),
            position=_row([place.x, place.y, place.z]),
            quaternion=_row([turn.w, turn.x, turn.y, turn.z]),
            yaw=_row(pose[2]),
            linear=_row([twist[0], twist[1], 0.0]),
            angular=_row([0.0, 0.0, twist[2]]),
            twist=torch.from_numpy(mean_twist(self._poses, self.dt)).float(),
            contact=torch.tensor([contact]),
        )

    def _take_contact(self, message: Bool) -> None:
        self._touched = self._touched or message.data

    def _take_odometry(self, message: Odometry) -> None:
        self._heard.append((message, self._touched))
        self._touched = False
        if self.goals:
            self._goal.publish(self._goal_message(message.header))

    def _take_command(self, message: Twist) -> None:
        self._command = np.array([message.linear.x, message.linear.y, message.angular.z])
        self._commands += 1

    def _goal_message(self, header: Header) -> PoseStamped:
        goal = PoseStamped(header=header)
        messages.fill_pose(goal.pose, *self.goals[int(self.episode[0])])
        return goal

    def _call(self, future: Any) -> None:
        self._until(future.done, "an answer of sim_node")

    def _until(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > end:
                raise UserError(f"wanted {what}, came nothing for {PATIENCE:.0f} s")
            self._executor.spin_once(timeout_sec=0.1)


def _apart(odometry: Odometry, pose: Pose) -> float:
    """Distance [m] or turn [rad] between an odometry's pose and another, whichever is larger."""
    apart = messages.odometry(odometry)[0] - np.array(pose)
    return max(float(np.linalg.norm(apart[:2])), abs(float(np.angle(np.exp(1j * apart[2])))))


def _row(values: Any) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)
