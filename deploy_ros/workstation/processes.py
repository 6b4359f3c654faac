"""ROS nodes as processes that live and die together: what launch does where launch is installed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from omnibody.robots.table import ROBOTS

CONFIG = Path(__file__).resolve().parents[1] / "config"  # one parameter file per robot
MODULES = {
    "policy_node": "omnibody.deploy_ros.policy_node",
    "sim_node": "omnibody.deploy_ros.workstation.sim_node",
    "eval_node": "omnibody.deploy_ros.workstation.eval_node",
}
CODES = {"sim_node": 3, "policy_node": 4, "eval_node": 5}  # exit code when one ends that should not have
PATIENCE = 5.0  # for a node to stop by itself [s]
POLL = 0.1  # [s]
# Linux sends SIGTERM to a child when its parent dies, in whatever way.
FOLLOW = ("setpriv", "--pdeathsig", "TERM")


@dataclass(frozen=True)
class Program:
    """One node: ``executable`` of `MODULES` for the body ``robot``.

    It gets ``parameters`` beyond those of the body's file, and ``remap``, its names of topics -> others.
    """

    executable: str
    robot: str
    namespace: str = ""
    parameters: dict[str, Any] = field(default_factory=dict, hash=False)
    remap: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Its full name in ROS."""
        return f"{self.namespace and '/' + self.namespace}/{self.executable}"

    def command(self) -> list[str]:
        """The words that start it."""
        words = [sys.executable, "-m", MODULES[self.executable], "--ros-args"]
        parameters = dict(self.parameters)
        if self.robot in ROBOTS:
            words += ["--params-file", str(CONFIG / f"{self.robot}.yaml")]
        else:  # a body of one's own has no parameter file
            parameters["robot"] = self.robot
        for key, value in parameters.items():
            if value == "":  # -p has no word for it, and it is the default
                continue
            words += ["-p", f"{key}:={_yaml(value)}"]
        for name, other in self.remap.items():
            words += ["-r", f"{name}:={other}"]
        if self.namespace:
            # Every simulated body has a time of its own; a relative name is put behind the namespace.
            words += ["-r", f"__ns:=/{self.namespace}", "-r", "/clock:=clock"]
        return words


def _yaml(value: Any) -> str:
    """A parameter's value as ROS reads it; text is quoted, or some of it would be taken for something else."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else json.dumps(value)


def own_domain() -> dict[str, str]:
    """Environment that keeps nodes on this machine and in a ROS domain of their own; what is set already stays."""
    defaults = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_DOMAIN_ID": str(random.randint(1, 100))}
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


class Processes:
    """Starts programs; leaving the ``with`` block stops them, the latest first. None outlives this process.

    With a folder ``logs`` their words go to ``<logs>/<name>.log``.
    """

    def __init__(self, environment: Mapping[str, str], logs: Path | None = None) -> None:
        self._environment = {**os.environ, **environment}
        self._logs = logs
        self._running: dict[Program, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for program in reversed(list(self._running)):
            self.stop(program)

    def start(self, program: Program) -> None:
        """Start one more."""
        log = self.log(program).open("ab") if self._logs else None
        # In a session of its own a node does not hear Ctrl-C itself, so that all are stopped in order.
        process = subprocess.Popen(
            [*FOLLOW, *program.command()],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        if log is not None:
            log.close()
        self._running[program] = process

    def log(self, program: Program) -> Path:
        """Where its words go."""
        assert self._logs is not None
        self._logs.mkdir(parents=True, exist_ok=True)
        return self._logs / f"{program.name[1:].replace('/', '-')}.log"

    def pid(self, program: Program) -> int:
        """The process that runs it."""
        return self._running[program].pid

    def ended(self) -> list[tuple[Program, int]]:
        """Those that ended by themselves since the last call, after a moment; a signal's exit code is negative."""
        time.sleep(POLL)
        ended = [
            (program, process.returncode) for program, process in self._running.items() if process.poll() is not None
        ]
        for program, _ in ended:
            del self._running[program]
        return ended

    def stop(self, program: Program) -> None:
        """Ask it twice to stop, then kill it."""
        process = self._running.pop(program)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            process.send_signal(number)
            try:
                process.wait(PATIENCE)
                return
            except subprocess.TimeoutExpired:
                continue


def failed(program: Program, code: int, log: Path | None = None) -> int:
    """Say that ``program`` ended and should not have; returns the exit code."""
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    words = f"; its last words are in {log}" if log else ""
    print(f"omnibody: {program.name} ended {how}{words}", file=sys.stderr)
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
