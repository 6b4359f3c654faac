"""``omnibody deploy sim|fleet|policy``: what the launch files start, on machines without ROS's ``launch``.

Exit codes: those of ``omnibody``, and 3, 4 or 5 when a simulator, a policy or a judge ended that should not have.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

from omegaconf import MISSING

from omnibody.deploy_ros.workstation.processes import Processes, Program, failed, signals
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.table import load_robot
from omnibody.training.config import BODY, load, parse

WHAT = {
    "sim": "omnibody.deploy_ros.workstation.fleet:run_sim",
    "fleet": "omnibody.deploy_ros.workstation.fleet:run_fleet",
    "policy": "omnibody.deploy_ros.workstation.deploy:run_policy",
}


@dataclass
class PolicyCfg:
    """Drive a robot, real or simulated, until Ctrl-C."""

    checkpoint: str = MISSING  # checkpoint folder, or .onnx file with backend=onnx
    robot: str = field(default="carrier", metadata=BODY)  # the body
    namespace: str = ""  # in front of the node and its topics
    backend: str = "torch"  # torch or onnx
    use_sim_time: bool = False  # take the time from /clock
    compressed: bool = False  # depth and image come from image_transport's compressedDepth and compressed
    remap: dict[str, str] = field(default_factory=dict)  # its names -> the robot's: remap.odom=/spot/odometry
    record: str = ""  # a folder that gets a rosbag2 of all that is heard and commanded


def run_policy(argv: list[str]) -> int:
    """``omnibody deploy policy``."""
    cfg = parse(PolicyCfg, argv)
    load_robot(cfg.robot)
    names = ("checkpoint", "backend", "use_sim_time", "compressed", "record")
    parameters = {name: getattr(cfg, name) for name in names}
    with signals(), Processes({}) as processes:
        processes.start(Program("policy_node", cfg.robot, cfg.namespace, parameters, cfg.remap))
        while not (ended := processes.ended()):
            pass
    return failed(*ended[0])


def main(argv: list[str]) -> int:
    """Run the verb."""
    names = "|".join(WHAT)
    if argv in (["--help"], ["-h"]):
        print(f"omnibody deploy {names} [key=value ...]; omnibody deploy <what> --help lists the keys")
        return 0
    if not argv or argv[0].startswith("-"):
        raise UserError(f"wanted what to start, omnibody deploy {names}, came {' '.join(argv) or 'nothing'}")
    if argv[0] not in WHAT:
        raise unknown("thing to start", argv[0], WHAT)
    if importlib.util.find_spec("rclpy") is None:
        raise UserError("wanted ROS 2, found no module rclpy; omnibody doctor says how to get it")
    run: Callable[[list[str]], int] = load(WHAT[argv[0]])
    return run(argv[1:])
