"""A simulated body in a task scene that looks like a robot to anything that speaks ROS 2.

Topics out, once per policy step: ``/clock``, ``odom`` (pose in frame odom, which is the scene's map; twist in the
heading frame), ``depth`` (32FC1 [m]), with ``rgb`` the colour picture ``image`` (rgb8), ``scan`` (level, all around, at
the base's height), ``joint_states``, ``collision``, ``goal_pose`` and ``plan`` (the corners of the planned way, from
where the body is). In: ``cmd_vel``.
Episodes have the start states of ``omnibody eval`` under the same seed. The last state of one is published like the
others (without goal, plan, scan and joints), then the next one begins. Service ``reset``: begin anew with the episode
that the parameter ``first_episode`` names now.

Pacing: in real time times ``real_time_factor``, or, with ``lockstep``, each step waits for a command given after its
observation was published, `COMMAND_TIMEOUT` at most, so that results do not hang on the machine's load.
Start: ``python -m omnibody.deploy_ros.workstation.sim_node --ros-args -p robot:=go2 -p task:=goal_nav/office``.
"""

from __future__ import annotations

import math
import sys
import time

import mujoco
import numpy as np
import rclpy
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry, Path
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState, LaserScan
from std_msgs.msg import Bool, Header
from std_srvs.srv import Trigger

from omnibody.deploy_ros import diagnostics, messages
from omnibody.envs.camera import SEEN_GROUPS
from omnibody.envs.make import make_env
from omnibody.robots.errors import UserError
from omnibody.sim_tasks.table import task_config
from omnibody.sim_tasks.task import Obs

COMMAND_TIMEOUT = 0.5  # without a command for so long the body is stopped [s]
CAMERA = "camera"  # the frame of its images
PICTURES = {"image": ("u1", "rgb8"), "depth": ("<f4", "32FC1")}  # observation -> its bytes and ROS's name for them
SINGLE_AXIS = [int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)]  # joints of one number
SCAN_RAYS, SCAN_RANGE = 180, (0.05, 10.0)  # the first ray points back; [m]
SCAN_HEIGHT = 0.1  # at least, as the base of a flat body may be on the floor [m]
PARAMETERS = {
    "robot": "carrier",
    "task": "goal_nav/single_rack",
    "split": "test",
    "map": "",  # YAML of a ROS map_server map, for the task goal_nav/map
    "tier": "best",
    "rgb": 0,  # rows of the colour picture; 0: none
    "seed": 1,
    "first_episode": 0,
    "real_time_factor": 1.0,
    "lockstep": False,
}


class SimNode(Node):
    """One world behind topics; ``run`` steps it until ROS shuts down."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        self._log = self.get_logger()  # type: ignore[no-untyped-call]
        cfg = {name: self.declare_parameter(name, default).value for name, default in PARAMETERS.items()}
        if not cfg["real_time_factor"] > 0.0:
            raise UserError(f"real_time_factor: wanted more than 0, came {cfg['real_time_factor']}")
        task = task_config(cfg["task"], split=cfg["split"], map=cfg["map"])
        self.env = make_env(cfg["robot"], task, num_envs=1, tier=cfg["tier"], threads=1, rgb=cfg["rgb"])
        self._seed, self._lockstep, self._factor = cfg["seed"], cfg["lockstep"], cfg["real_time_factor"]
        self._steps = 0
        self._begin(self.env.reset(self._seed, cfg["first_episode"]))
        self._command, self._command_step, self._answered = np.zeros(3), -math.inf, False
        reliable = QoSProfile(depth=1)
        self._frames = ros = self.env.embodiment.ros
        self._ticker = self.create_publisher(Clock, "/clock", reliable)
        self._odom = self.create_publisher(Odometry, ros.odom, qos_profile_sensor_data)
        self._cameras = {
            key: self.create_publisher(Image, getattr(ros, key), qos_profile_sensor_data)
            for key in PICTURES
            if key in self.env.spec.obs
        }
        self._scan = self.create_publisher(LaserScan, "scan", qos_profile_sensor_data)
        self._joints = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._hit = self.create_publisher(Bool, "collision", reliable)
        self._goal = self.create_publisher(PoseStamped, "goal_pose", reliable)
        self._plan = self.create_publisher(Path, "plan", reliable)
        self.create_subscription(Twist, ros.cmd_vel, self._take_command, reliable)
        self.create_service(Trigger, "reset", self._reset)

    def run(self) -> None:
        """Publish, wait for the step's end or its command, step; for ever."""
        period, end = self.env.dt / self._factor, time.monotonic()
        while True:
            self._publish()
            self._answered = False
            # Stepping is part of the period; a busy computer still leaves half of it to those who answer.
            end = max(end + period, time.monotonic() + 0.5 * period)
            end = time.monotonic() + COMMAND_TIMEOUT if self._lockstep else end
            while (left := end - time.monotonic()) > 0.0 and not (self._lockstep and self._answered):
                rclpy.spin_once(self, timeout_sec=left)
            self._step()

    def _begin(self, obs: Obs) -> None:
        """Show the first state of an episode next; a command for the old place no longer counts."""
        self._obs, self._world = obs, self.env.world
        self._next: Obs | None = None
        self._command_step, self._collision = -math.inf, False
        self._first_step, self._began = self._steps, time.monotonic()

    def _step(self) -> None:
        self._steps += 1
        if self._next is not None:
            self._begin(self._next)
            return
        fresh = (self._steps - 1 - self._command_step) * self.env.dt < COMMAND_TIMEOUT
        action = self._command if fresh else np.zeros(3)
        step = self.env.step(torch.from_numpy(action[None]).float())
        self._obs, self._world, self._collision = step.next_obs, step.world, bool(step.world.contact[0])
        if bool(step.done[0]):
            outcome = "success" if bool(step.success[0]) else "collision" if self._collision else "failure or time-out"
            pace = (self._steps - self._first_step) * self.env.dt / (time.monotonic() - self._began)
            self._log.info(f"episode {int(step.episode[0])}: {outcome}, {pace:.2f} times real time")
            self._next = step.obs

    def _take_command(self, message: Twist) -> None:
        try:
            command = messages.twist(message, "cmd_vel")
        except messages.MessageError as error:
            self._log.error(f"{error}; ignored")
            return
        self._command, self._command_step, self._answered = command, self._steps, True

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        episode = self.get_parameter("first_episode").value
        self._begin(self.env.reset(self._seed, episode))
        response.success, response.message = True, f"episode {episode}"
        return response

    def _publish(self) -> None:
        nanoseconds = round(self._steps * self.env.dt * 1e9)
        stamp = Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        self._ticker.publish(Clock(clock=stamp))
        odom = Header(stamp=stamp, frame_id=self._frames.odom_frame)
        if self._next is None:  # else the simulator is in the next episode already
            x, y = self._world.position[0, :2].double().numpy()
            way = self.env.task.way(0, np.array([x, y]))  # type: ignore[attr-defined]
            goal = PoseStamped(header=odom)
            messages.fill_pose(goal.pose, *self.env.task.goal[0])  # type: ignore[attr-defined]
            self._goal.publish(goal)
            self._plan.publish(diagnostics.path(odom, way))
            self._scan.publish(self._laser(stamp))
            self._joints.publish(self._joint_state(stamp))
        self._hit.publish(Bool(data=self._collision))
        for key, publisher in self._cameras.items():
            publisher.publish(self._picture(key, stamp))
        self._odom.publish(self._odometry(odom))

    def _picture(self, key: str, stamp: Time) -> Image:
        kind, encoding = PICTURES[key]
        pixels = self._obs[key][0].numpy().astype(kind)
        height, width = pixels.shape[:2]
        image = Image(header=Header(stamp=stamp, frame_id=CAMERA), height=height, width=width, encoding=encoding)
        image.step, image.data = pixels[0].nbytes, pixels.tobytes()
        return image

    def _odometry(self, header: Header) -> Odometry:
        world, message = self._world, Odometry(header=header, child_frame_id=self._frames.base_frame)
        pose, twist = message.pose.pose, message.twist.twist
        pose.position.x, pose.position.y, pose.position.z = world.position[0].tolist()
        turn = pose.orientation
        turn.w, turn.x, turn.y, turn.z = world.quaternion[0].tolist()
        twist.linear.x, twist.linear.y, twist.angular.z = self._obs["velocity"][0].tolist()
        return message

    def _laser(self, stamp: Time) -> LaserScan:
        """Level rays in the heading frame against scene and objects; inf where nothing is in range."""
        step = 2.0 * math.pi / SCAN_RAYS
        angles = float(self.env.world.yaw[0]) - math.pi + step * np.arange(SCAN_RAYS)
        rays = np.stack([np.cos(angles), np.sin(angles), np.zeros(SCAN_RAYS)], 1)
        origin = self.env.world.position[0].double().numpy().copy()
        origin[2] = max(origin[2], SCAN_HEIGHT)
        hit, distance = np.full(SCAN_RAYS, -1, np.int32), np.zeros(SCAN_RAYS)
        model, data = self.env.model(0), self.env.data(0)
        mujoco.mj_multiRay(
            model, data, origin, rays.ravel(), SEEN_GROUPS, True, -1, hit, distance, None, SCAN_RAYS, SCAN_RANGE[1]
        )
        scan = LaserScan(
            header=Header(stamp=stamp, frame_id=self._frames.base_frame), angle_min=-math.pi, angle_max=math.pi - step
        )
        scan.angle_increment, scan.range_min, scan.range_max = step, *SCAN_RANGE
        scan.ranges = np.where(hit >= 0, distance, math.inf).tolist()
        return scan

    def _joint_state(self, stamp: Time) -> JointState:
        model, data = self.env.model(0), self.env.data(0)
        joints = np.flatnonzero(np.isin(model.jnt_type, SINGLE_AXIS))
        return JointState(
            header=Header(stamp=stamp),
            name=[model.joint(j).name for j in joints],
            position=data.qpos[model.jnt_qposadr[joints]].tolist(),
            velocity=data.qvel[model.jnt_dofadr[joints]].tolist(),
        )


def main() -> int:
    """Run the node; exit codes as those of ``omnibody``."""
    rclpy.init()
    try:
        SimNode().run()
    except UserError as error:
        print(f"sim_node: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except RuntimeError:
        if rclpy.ok():
            raise
        return 0  # the signal came between two waits, where rclpy has no exception of its own for it
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
