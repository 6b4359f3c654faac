"""``omnibody bench ros``: what ROS costs a policy, measured on a simulated robot and the node as separate processes."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import rclpy
import torch
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy

from omnibody.deploy_ros.backends import load_for
from omnibody.deploy_ros.messages import HEAD
from omnibody.deploy_ros.runner import Command, PolicyRunner
from omnibody.deploy_ros.workstation.processes import Processes, Program, own_domain
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Embodiment
from omnibody.robots.table import load_robot
from omnibody.training.bench.rows import Row, print_rows
from omnibody.training.config import parse
from omnibody.training.evaluate import picture_rows

JITTER, LATENCY, OVERHEAD, START = 20.0, 1.2, 0.5, 3.0  # targets: [ms], times the policy call, [ms] a tick, [s]
PATIENCE = 120.0  # for a process to be there [s]
STARTS = 3  # of the node; the median counts
CALLS = 50  # of the bare policy, a period apart, as the node calls it
PAUSE = 0.5  # between two looks at what has come [s]
QUEUE = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
SETTLING = 5.0  # the first seconds of the drive do not count [s]


@dataclass
class RosBenchCfg:
    """Measure the policy node beside the bare policy, with the simulator on the same cores."""

    robot: str = "go2"  # the body
    checkpoint: str = "assets/checkpoints/compass-generalist"  # the policy
    task: str = "goal_nav/office"  # where it drives
    backend: str = "torch"  # of the node
    minutes: float = 0.5  # how long it drives; memory wants 10
    json: bool = False  # print one JSON list of rows and nothing else

    def __post_init__(self) -> None:
        if self.minutes <= SETTLING / 60.0:
            raise ValueError(f"minutes: wanted more than {SETTLING / 60.0:.2f}, came {self.minutes}")


class _Clocked(Policy):
    """A policy that notes how long each of its calls took, and what it did in the ``last`` step [s]."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy, self.spec, self.last = policy, policy.spec, 0.0
        self.seconds: list[float] = []
        self.action_steps = policy.action_steps
        self.obs_keys = policy.obs_keys

    def begin(self, context: Context, batch_size: int) -> State:
        """As the policy."""
        return self.policy.begin(context, batch_size)

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[torch.Tensor, State]:
        """As the policy."""
        began = time.perf_counter()
        out = self.policy.act(obs, state, generator)
        self.last = time.perf_counter() - began
        self.seconds.append(self.last)
        return out

    def observe(self, obs: Obs, state: State) -> State:
        """As the policy."""
        began = time.perf_counter()
        out = self.policy.observe(obs, state)
        self.last = time.perf_counter() - began
        return out


class _Ear:
    """Hears a robot's odometry and its commands: times of arrival [s] as the middleware notes them, and twists."""

    def __init__(self, body: Embodiment) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("bench", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.odometry: list[float] = []
        self.commands: list[tuple[float, bool]] = []  # and whether it drives
        # Its types know no callback that is told the arrival. Messages stay serialized and wait for a pause: to read
        # them as they come would take time from those that are measured.
        for kind, topic, hear in (
            (Odometry, body.ros.odom, self._hear_odometry),
            (Twist, body.ros.cmd_vel, self._hear_command),
        ):
            self.node.create_subscription(kind, topic, cast(Any, hear), QUEUE, raw=True)

    def _hear_odometry(self, data: bytes, info: dict[str, int]) -> None:
        self.odometry.append(1e-9 * info["received_timestamp"])

    def _hear_command(self, data: bytes, info: dict[str, int]) -> None:
        drives = bool(np.frombuffer(data, offset=HEAD).any())
        self.commands.append((1e-9 * info["received_timestamp"], drives))

    def until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Listen until ``done``, ``seconds`` at most."""
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            time.sleep(PAUSE)
            heard = -1
            while heard != (heard := len(self.odometry) + len(self.commands)):
                self.executor.spin_once(timeout_sec=0.01)
        return done()

    def close(self) -> None:
        """Leave ROS."""
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def ros_rows(cfg: RosBenchCfg) -> list[Row]:
    """All rows; see ``RosBenchCfg``."""
    torch.set_num_threads(1)
    body, environment = load_robot(cfg.robot), own_domain()
    os.environ.update(environment)
    checkpoint = {"checkpoint": cfg.checkpoint, "backend": cfg.backend}
    policy = load_for(cfg.backend, Path(cfg.checkpoint))
    scene = {"task": cfg.task, "rgb": picture_rows({cfg.checkpoint: {body.name: policy}})}
    node = Program("policy_node", cfg.robot, parameters=checkpoint | {"use_sim_time": True})
    with tempfile.TemporaryDirectory() as logs, Processes(environment, Path(logs)) as processes:
        start = sorted(_start(processes, node, stop=True) for _ in range(STARTS))[STARTS // 2]
        ear = _Ear(body)
        try:
            processes.start(Program("sim_node", cfg.robot, parameters=scene))
            _wanted(ear.until(lambda: bool(ear.odometry), PATIENCE), "a simulator", logs)
            call, own = _bare(policy, body)
            _start(processes, node)
            _wanted(ear.until(lambda: any(drives for _, drives in ear.commands), PATIENCE), "a command", logs)
            growth = _drive(ear, processes.pid(node), 60.0 * cfg.minutes)
        finally:
            ear.close()
    latency, jitter, pace = _intervals(ear, 1e3 / body.rate_hz)
    return [
        Row("node: import, load, configure", start, "s", START),
        Row("runner's own time a tick", own, "ms", OVERHEAD),
        Row("policy call, once a period", call, "ms"),
        Row("odometry to command, median", float(np.median(latency)), "ms", LATENCY * call, call),
        Row("tick jitter, median", float(np.median(jitter)), "ms"),
        Row(f"tick jitter, p99 of {len(jitter)}", float(np.percentile(jitter, 99)), "ms", JITTER),
        Row("simulator's own jitter, p99", float(np.percentile(pace, 99)), "ms"),
        Row(f"node's memory, growth in {cfg.minutes:g} min", growth, "MB"),
    ]


def _start(processes: Processes, node: Program, stop: bool = False) -> float:
    """Start the node and wait until it is configured; returns how long that took [s]."""
    log = processes.log(node)
    log.unlink(missing_ok=True)
    began = time.perf_counter()
    processes.start(node)
    while '"inactive"' not in (words := log.read_text()):
        _wanted("unconfigured" not in words and time.perf_counter() - began < PATIENCE, "a node", log.parent)
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    if stop:
        processes.stop(node)
    return seconds


def _wanted(came: bool, what: str, logs: Path | str) -> None:
    if not came:
        words = " ".join(file.read_text() for file in Path(logs).glob("*.log")).split("\n")
        raise UserError(f"wanted {what}, none came; the last words of the nodes: {' '.join(words[-5:])}")


def _bare(policy: Policy, body: Embodiment) -> tuple[float, float]:
    """Median times of a policy call and of all else that the runner does in a tick [ms], a call each period."""
    clocked = _Clocked(policy)
    runner = PolicyRunner(clocked, body)
    runner.set_goal((5.0, 1.0, 0.0))
    depth = np.full((body.camera.height, body.camera.width), 4.0, np.float32)
    scan = np.stack([np.full(180, 4.0), np.linspace(-3.1, 3.1, 180)], 1)
    readings: dict[str, np.ndarray] = {"pose": np.zeros(3), "velocity": np.zeros(3), "depth": depth, "scan": scan}
    if "image" in runner.needed:
        readings["image"] = np.zeros(policy.spec.obs["image"].shape, np.uint8)
    own = []
    for n in range(CALLS):
        now = n * runner.period
        began = time.perf_counter()
        for key, value in readings.items():
            runner.observe(key, value, now)
        if not runner.due(now) or not isinstance(runner.tick(now), Command):
            raise UserError(f"checkpoint: wanted one that drives {body.name}, the runner held still")
        took = time.perf_counter() - began
        own.append(took - clocked.last)
        time.sleep(max(runner.period - took, 0.0))
    return 1e3 * float(np.median(clocked.seconds[-CALLS:])), 1e3 * float(np.median(own))


def _drive(ear: _Ear, pid: int, seconds: float) -> float:
    """Listen for ``seconds`` after settling; returns by how much the node's memory grew [MB]."""
    ear.until(lambda: False, SETTLING)
    ear.odometry.clear()
    ear.commands.clear()
    before = _memory(pid)
    ear.until(lambda: False, seconds - SETTLING)
    return _memory(pid) - before


def _memory(pid: int) -> float:
    """Resident memory of a process [MB]."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return float(found[1]) / 1024.0


def _intervals(ear: _Ear, period: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the ticks at which the body was driven [ms]: from the reading to the command that answers it; by how much the
    time between two commands differs from that between their readings; and that from the period."""
    times = np.array([at for at, _ in ear.commands])
    drives = np.array([drives for _, drives in ear.commands])
    readings = np.array(ear.odometry)
    answer = np.searchsorted(times, readings)
    readings, answer = readings[answer < len(times)], answer[answer < len(times)]
    waits, driven = 1e3 * (times[answer] - readings), drives[answer]
    both, between = driven[1:] & driven[:-1], 1e3 * np.diff(readings)
    return waits[driven], np.abs(np.diff(waits))[both], np.abs(between - period)[both]


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody bench ros``."""
    cfg = parse(RosBenchCfg, argv)
    print_rows(ros_rows(cfg), cfg.json)
