"""``omnibody deploy sim|fleet|policy``: what the launch files start, on machines without ROS's ``launch``.

Exit codes: those of ``omnibody``, and 3, 4 or 5 when a simulator, a policy or a judge ended that should not have.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from omegaconf import MISSING
from tqdm import tqdm

from omnibody.deploy_ros.workstation.processes import Processes, Program, own_domain
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.table import load_robot
from omnibody.training.config import BODY, parse
from omnibody.training.eval_folder import RECORDS, RecordFile
from omnibody.training.evaluate import REPORT_JSON, EvalCfg, build_report, load_policies, write_report
from omnibody.training.results import Cell

CODES = {"sim_node": 3, "policy_node": 4, "eval_node": 5}
Drive = tuple[Program, ...]  # simulator, policy and judge of one body


@dataclass
class PolicyCfg:
    """Drive a robot, real or simulated, until Ctrl-C."""

    checkpoint: str = MISSING  # checkpoint folder, or .onnx file with backend=onnx
    robot: str = field(default="carrier", metadata=BODY)  # the body
    namespace: str = ""  # in front of the node and its topics
    backend: str = "torch"  # torch or onnx
    use_sim_time: bool = False  # take the time from /clock
    remap: dict[str, str] = field(default_factory=dict)  # its names -> the robot's: remap.odom=/spot/odometry
    record: str = ""  # a folder that gets a rosbag2 of all that is heard and commanded


@dataclass
class SimCfg:
    """Let one policy drive simulated bodies over ROS topics, and report their ways. The same command resumes."""

    out: str = MISSING  # folder of the report
    checkpoint: str = MISSING  # checkpoint folder
    robots: list[str] = field(default_factory=lambda: ["carrier", "go2", "omni"], metadata=BODY)  # bodies
    task: str = "goal_nav/single_rack"  # the scenes and goals
    episodes: int = 1  # per body, with the start states of omnibody eval
    seed: int = 1  # of the start states
    real_time_factor: float = 1.0  # simulated seconds a second, if the computer is fast enough
    lockstep: bool = False  # wait for the command to every observation instead: results do not hang on the load
    maps: int = 4  # maps with driven paths in the report, per body

    def __post_init__(self) -> None:
        self.measured()
        if not self.real_time_factor > 0.0:
            raise ValueError(f"real_time_factor: wanted more than 0, came {self.real_time_factor}")

    def measured(self) -> EvalCfg:
        """What is measured."""
        names = ("out", "checkpoint", "robots", "episodes", "seed", "maps")
        return EvalCfg(tasks=[self.task], clips=0, **{name: getattr(self, name) for name in names})

    def drive(self, robot: str, namespace: str) -> Drive:
        """The processes for one body."""
        name = load_robot(robot).name
        place = {"task": self.task, "seed": self.seed}
        pace = {"real_time_factor": self.real_time_factor, "lockstep": self.lockstep}
        episodes = {"episodes": self.episodes, "checkpoint": self.checkpoint, "out": f"{self.out}/{name}"}
        return (
            Program("sim_node", robot, namespace, place | pace),
            Program("policy_node", robot, namespace, {"checkpoint": self.checkpoint, "use_sim_time": True}),
            Program("eval_node", robot, namespace, place | episodes),
        )


def run_policy(argv: list[str]) -> int:
    """``omnibody deploy policy``."""
    cfg = parse(PolicyCfg, argv)
    load_robot(cfg.robot)
    names = ("checkpoint", "backend", "use_sim_time", "record")
    parameters = {name: getattr(cfg, name) for name in names if getattr(cfg, name)}  # ROS has no word for an empty text
    with signals(), Processes({}) as processes:
        processes.start(Program("policy_node", cfg.robot, cfg.namespace, parameters, cfg.remap))
        while not (ended := processes.ended()):
            pass
    return failed(*ended[0])


def run_sim(argv: list[str]) -> int:
    """``omnibody deploy sim``: one body after the other, without namespaces."""
    cfg = parse(SimCfg, argv)
    return drive_all(cfg, [[cfg.drive(robot, "")] for robot in cfg.robots])


def run_fleet(argv: list[str]) -> int:
    """``omnibody deploy fleet``: all bodies at once, each in a namespace of its name."""
    cfg = parse(SimCfg, argv)
    return drive_all(cfg, [[cfg.drive(robot, re.sub(r"\W", "_", load_robot(robot).name)) for robot in cfg.robots]])


def drive_all(cfg: SimCfg, groups: Sequence[Sequence[Drive]]) -> int:
    """Run group after group, the drives of one at the same time, and report; returns the exit code."""
    measured, began, out = cfg.measured(), datetime.now(UTC), Path(cfg.out)
    load_policies(measured)  # a bad checkpoint is told here, not by a node that holds still
    environment = own_domain()
    print("to listen in:", *(f"{name}={value}" for name, value in environment.items()))
    with signals(), tqdm(total=cfg.episodes * len(cfg.robots), unit="episode", disable=None) as bar:
        for drives in groups:
            with Processes(environment, out / "log") as processes:
                if code := _run(processes, drives, lambda: _progress(bar, out)):
                    return code
    print(_report(measured, began))
    return 0


def _run(processes: Processes, drives: Sequence[Drive], look: Callable[[], None]) -> int:
    """Run drives until all their judges are done or something else ends; returns the exit code."""
    for program in itertools.chain(*drives):
        processes.start(program)
    unfinished = {drive[-1]: drive for drive in drives}
    while unfinished:
        look()
        for program, code in processes.ended():
            if program not in unfinished or code:
                return failed(program, code, processes.log(program))
            for mate in reversed(unfinished.pop(program)[:-1]):
                processes.stop(mate)
    look()
    return 0


def _progress(bar: tqdm, out: Path) -> None:
    bar.update(sum(len(file.read_bytes().splitlines()) for file in out.glob(f"*/{RECORDS}/*.jsonl")) - bar.n)


def _report(cfg: EvalCfg, began: datetime) -> Path:
    """One report of what the judges wrote, each into the folder of its body."""
    folders = [Path(cfg.out) / name for name in cfg.bodies]
    own = [json.loads((folder / REPORT_JSON).read_text(encoding="utf-8")) for folder in folders]
    cells = []
    for folder, report in zip(folders, own, strict=True):
        [file], [cell] = (folder / RECORDS).iterdir(), report["cells"]
        records = tuple(RecordFile(file).sorted())
        cells.append(Cell(cell["policy"], cell["robot"], cell["task"], cell["tier"], records))
    policies = {name: {k: v for r in own for k, v in r["policies"][name].items()} for name in own[0]["policies"]}
    runs = [run for report in own for run in report["runs"]]
    report = build_report(cells, cfg, {"policies": policies}, began) | {"runs": runs}
    return write_report(Path(cfg.out), cells, cfg, report)


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


WHAT: dict[str, Callable[[list[str]], int]] = {"sim": run_sim, "fleet": run_fleet, "policy": run_policy}


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
