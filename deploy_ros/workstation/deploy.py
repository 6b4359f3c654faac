"""``omnibody deploy policy``: what the launch files start, on machines without ROS's ``launch``."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from omegaconf import MISSING

from omnibody.deploy_ros.workstation.processes import Processes, Program
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.table import load_robot
from omnibody.training.config import parse

CODES = {"sim_node": 3, "policy_node": 4}  # exit code when one ends that should not have


@dataclass
class PolicyCfg:
    """Drive a robot, real or simulated, until Ctrl-C."""

    checkpoint: str = MISSING  # checkpoint folder, or .onnx file with backend=onnx
    robot: str = "carrier"  # the body, a name or a file
    namespace: str = ""  # in front of the node and its topics
    backend: str = "torch"  # torch or onnx
    use_sim_time: bool = False  # take the time from /clock


def run_policy(argv: list[str]) -> int:
    """``omnibody deploy policy``."""
    cfg = parse(PolicyCfg, argv)
    load_robot(cfg.robot)
    parameters = {key: getattr(cfg, key) for key in ("checkpoint", "backend", "use_sim_time")}
    with signals(), Processes({}) as processes:
        processes.start(Program("policy_node", cfg.robot, cfg.namespace, parameters))
        return failed(*processes.wait())


def failed(program: Program, code: int) -> int:
    """Say that ``program`` ended by itself; returns the exit code."""
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    print(f"omnibody: {program.name} ended {how}", file=sys.stderr)
    return CODES[program.executable]


@contextmanager
def signals() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does, but with exit code 143."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


WHAT: dict[str, Callable[[list[str]], int]] = {"policy": run_policy}


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
    return WHAT[argv[0]](argv[1:])
