"""Simulated bodies that one policy drives over ROS topics, in turn or at once, and a report of their ways."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import MISSING
from tqdm import tqdm

from omnibody.deploy_ros.workstation.processes import Processes, Program, failed, own_domain, signals
from omnibody.robots.table import load_robot
from omnibody.training.config import BODY, parse
from omnibody.training.eval_folder import RECORDS, RecordFile
from omnibody.training.evaluate import REPORT_JSON, EvalCfg, build_report, load_policies, picture_rows, write_report
from omnibody.training.results import Cell

Drive = tuple[Program, ...]  # simulator, policy and judge of one body


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
    record: str = ""  # a folder that gets a rosbag2 of what each policy hears and commands

    def __post_init__(self) -> None:
        self.measured()
        if not self.real_time_factor > 0.0:
            raise ValueError(f"real_time_factor: wanted more than 0, came {self.real_time_factor}")

    def measured(self) -> EvalCfg:
        """What is measured."""
        names = ("out", "checkpoint", "robots", "episodes", "seed", "maps")
        return EvalCfg(tasks=[self.task], clips=0, **{name: getattr(self, name) for name in names})

    def drive(self, robot: str, namespace: str, rgb: int = 0) -> Drive:
        """The processes for one body, whose camera takes pictures of ``rgb`` rows if that is not 0."""
        name = load_robot(robot).name
        place = {"task": self.task, "seed": self.seed}
        pace = {"real_time_factor": self.real_time_factor, "lockstep": self.lockstep}
        policy = {"checkpoint": self.checkpoint, "use_sim_time": True, "record": self.record}
        episodes = {"episodes": self.episodes, "checkpoint": self.checkpoint, "out": f"{self.out}/{name}"}
        return (
            Program("sim_node", robot, namespace, place | pace | {"rgb": rgb}),
            Program("policy_node", robot, namespace, policy),
            Program("eval_node", robot, namespace, place | episodes),
        )


def run_sim(argv: list[str]) -> int:
    """``omnibody deploy sim``: one body after the other, without namespaces."""
    cfg = parse(SimCfg, argv)
    return drive_all(cfg, [[(robot, "")] for robot in cfg.robots])


def run_fleet(argv: list[str]) -> int:
    """``omnibody deploy fleet``: all bodies at once, each in a namespace of its name."""
    cfg = parse(SimCfg, argv)
    return drive_all(cfg, [[(robot, re.sub(r"\W", "_", load_robot(robot).name)) for robot in cfg.robots]])


def drive_all(cfg: SimCfg, groups: Sequence[Sequence[tuple[str, str]]]) -> int:
    """Drive groups of (robot, namespace), one after the other, each at once, and report; returns the exit code."""
    measured, began, out = cfg.measured(), datetime.now(UTC), Path(cfg.out)
    rgb = picture_rows(load_policies(measured))  # a bad checkpoint is told here, not by a node that holds still
    environment = own_domain()
    print("to listen in:", *(f"{name}={value}" for name, value in environment.items()))
    with signals(), tqdm(total=cfg.episodes * len(cfg.robots), unit="episode", disable=None) as bar:
        for group in groups:
            drives = [cfg.drive(robot, namespace, rgb) for robot, namespace in group]
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
