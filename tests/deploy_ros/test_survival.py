"""The policy node outlives what drives it mad: a simulator killed in the act, and a flood of messages."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

# rclpy reads its message definitions with a parser that imports deprecated modules of Python.
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
FLOOD = Path(__file__).parent / "flood.py"


@pytest.fixture
def start_process() -> Iterator[Callable[..., Any]]:
    """Starts Python processes, in the domain of the robot started last; they end with the test."""
    running = []

    def start(*words: str) -> Any:
        running.append(subprocess.Popen([sys.executable, *words]))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_a_killed_simulator_holds_it_and_a_new_one_sets_it_going(
    start_robot: Callable[..., Any], start_process: Callable[..., Any]
) -> None:
    simulator = ("-m", "omnibody.deploy_ros.workstation.sim_node", "--ros-args", "-p", "tier:=T0")
    robot = start_robot("-p", "use_sim_time:=true")
    robot.silent = set(robot.kinds)  # the simulator is the robot
    sim = start_process(*simulator)
    assert robot.until(lambda: robot.speed > 0.0, 180.0)
    sim.send_signal(signal.SIGKILL)
    sim.wait()
    assert robot.stops(2.0) and robot.says("stale: clock")  # a simulated clock may stand for 1 s
    sim = start_process(*simulator)  # its clock begins at zero again
    robot.heard.clear()
    assert robot.until(lambda: robot.speed > 0.0, 180.0)
    robot.without("halt,stale")
    assert robot.drives()
    sim.send_signal(signal.SIGKILL)
    sim.wait()
    assert not robot.stops(2.0)  # the control: the last command stands


def memory(robot: Any) -> float:
    """What the node holds in memory [MB]."""
    status = Path(f"/proc/{robot.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without"])
def test_a_flood_neither_fills_the_memory_nor_shakes_the_rate(
    start_robot: Callable[..., Any], start_process: Callable[..., Any], guarded: bool
) -> None:
    robot = start_robot()
    robot.drive()
    if not guarded:
        robot.without("trim")
    robot.silent = set(robot.kinds)
    start_process(str(FLOOD))
    robot.until(lambda: False, 20.0)
    before, first = memory(robot), len(robot.heard)
    robot.until(lambda: False, 60.0)
    assert (memory(robot) - before < 4.0) is guarded
    if guarded:
        stamps = np.array([stamp for _, stamp, *_ in robot.heard[first:]])
        jitter = np.abs(np.diff(stamps) - 0.1)
        print(f"jitter p50 {np.median(jitter):.4f} s, p99 {np.percentile(jitter, 99):.4f} s of {len(jitter)} ticks")
        assert len(stamps) > 500 and np.percentile(jitter, 99) <= 0.02
