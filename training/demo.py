"""`omnibody demo`: the main job from nothing to a report, small by default; the full run is an experiment file of it.

demonstrations -> imitation with a world model -> a residual specialist per body -> one generalist -> success matrix
with intervals -> report -> exported policy. Every stage keeps its result in ``out`` and is skipped when it is there, so
the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnibody.envs.randomization import RandomizationCfg
from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.compass.residual import ResidualActorCfg
from omnibody.policies.files import write_text
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNavCfg
from omnibody.training.collect import CollectCfg, record
from omnibody.training.config import parse
from omnibody.training.distill.distill import DistillCfg, distill
from omnibody.training.evaluate import REPORT_JSON, EvalCfg, evaluate_and_report
from omnibody.training.export import ExportCfg, export
from omnibody.training.fit import POLICY, FitCfg
from omnibody.training.prediction import PredictionCfg, measure_prediction
from omnibody.training.rl.train import PpoCfg, RlCfg, train_residual
from omnibody.training.run_folder import LOG
from omnibody.training.statistics import wilson
from omnibody.training.train import TrainCfg, WindowsCfg, train

SPECIALISTS = "specialists"
# 16 frames for the world model; 20 more rows of poses tell the path head where the body was 2 s later.
WINDOWS = WindowsCfg(obs_steps=16, action_steps=36, stride=8)


@dataclass
class DemoCfg:
    """The main job of Omnibody: one mobility policy for many bodies."""

    out: str = "outputs/demo"  # folder of everything; the same command goes on
    base_robot: str = "carrier"  # the only body that demonstrations come from
    robots: list[str] = field(default_factory=lambda: ["carrier", "go2", "go1"])  # bodies with a specialist
    held_out: list[str] = field(default_factory=list)  # those of robots that the generalist never sees in training
    families: str = "all"  # scenes to train in
    tasks: list[str] = field(default_factory=lambda: ["goal_nav/single_rack", "goal_nav/office"])  # measured in
    demonstrations: int = 400  # episodes
    base: CompassBaseCfg = field(default_factory=CompassBaseCfg)  # the imitation base
    imitation: FitCfg = field(default_factory=lambda: FitCfg(epochs=6, batch_size=32))  # its training
    residual: ResidualActorCfg = field(default_factory=lambda: ResidualActorCfg(initial_std=0.2))  # the specialists
    ppo: PpoCfg = field(default_factory=PpoCfg)  # their learner
    rl_steps: int = 65_536  # environment steps per specialist
    train_tier: str = "T1"  # fidelity of all training; measured is the best tier of each body
    rounds: int = 2  # of distillation
    label_steps: int = 150  # per world, body and round
    distillation: FitCfg = field(
        default_factory=lambda: FitCfg(epochs=15, batch_size=1024, held_out=0.05, warmup=0.05)
    )  # training of the generalist
    randomization: RandomizationCfg = field(default_factory=RandomizationCfg)  # of all training
    episodes: int = 20  # measured per policy, body, task and seed
    seeds: list[int] = field(default_factory=lambda: [1])  # of the start states
    seed: int = 0  # of all training

    def __post_init__(self) -> None:
        if strangers := set(self.held_out) - set(self.robots):
            raise ValueError(f"held_out: wanted some of robots={self.robots}, came {sorted(strangers)}")
        if not self.taught:
            raise ValueError("held_out: wanted at least one robot left to teach the generalist, came all of them")

    @property
    def taught(self) -> list[str]:
        """The bodies whose specialists teach the generalist."""
        return [robot for robot in self.robots if robot not in self.held_out]


def run(cfg: DemoCfg) -> Path:
    """Run all stages; returns the path of the report."""
    out = Path(cfg.out)
    for robot in cfg.robots:
        load_robot(robot)
    task = GoalNavCfg(scene=cfg.families)
    data, base = out / "demonstrations", out / "base"
    with _stage("demonstrations", f"{cfg.demonstrations} expert episodes on {cfg.base_robot}"):
        record(_demonstrations(cfg, data))
    with _stage("imitation", "world model and base policy"):
        train(TrainCfg(data=[str(data)], out=str(base), policy=cfg.base, windows=WINDOWS, fit=cfg.imitation))
    with _stage("world model", "predictions on held-out episodes"):
        foreseen = measure_prediction(_prediction(cfg, data, base))
        write_text(out / "prediction.json", json.dumps(foreseen, indent=1))
        ahead = [f"{foreseen['depth_l1_m'][step]:.2f} m of depth error {step + 1} steps ahead" for step in (0, 9)]
        print(", ".join(ahead), f"(repeating the last frame: {foreseen['depth_l1_m_repeat'][9]:.2f} m)")
    for robot in cfg.robots:
        with _stage(f"specialist {robot}", f"residual PPO, {cfg.rl_steps} steps in {cfg.train_tier}"):
            train_residual(_rl(cfg, robot, task, out))
    with _stage("generalist", f"{cfg.rounds} rounds of distillation from {len(cfg.taught)} specialists"):
        distill(_distillation(cfg, task, out))
    with _stage("measurement", f"{len(cfg.tasks)} tasks, {cfg.episodes} episodes x {len(cfg.seeds)} seeds a cell"):
        report = evaluate_and_report(_measurement(cfg, out))
    with _stage("export", "ONNX with explicit state, checked in closed loop"):
        export(ExportCfg(checkpoint=str(out / "generalist" / POLICY), out=str(out / "generalist.onnx")))
    return report


def _demonstrations(cfg: DemoCfg, data: Path) -> CollectCfg:
    return CollectCfg(
        robot=cfg.base_robot,
        task=f"goal_nav/{cfg.families}",
        tier=cfg.train_tier,
        episodes=cfg.demonstrations,
        randomization=cfg.randomization,
        num_envs=32,
        seed=cfg.seed,
        out=str(data),
    )


def _prediction(cfg: DemoCfg, data: Path, base: Path) -> PredictionCfg:
    fit = cfg.imitation
    return PredictionCfg(checkpoint=str(base / POLICY), data=str(data), held_out=fit.held_out, seed=fit.seed)


def _rl(cfg: DemoCfg, robot: str, task: GoalNavCfg, out: Path) -> RlCfg:
    return RlCfg(
        base=str(out / "base" / POLICY),
        robot=robot,
        task=task,
        tier=cfg.train_tier,
        steps=cfg.rl_steps,
        seed=cfg.seed,
        actor=cfg.residual,
        ppo=cfg.ppo,
        randomization=cfg.randomization,
        out=str(out / SPECIALISTS / robot),
    )


def _distillation(cfg: DemoCfg, task: GoalNavCfg, out: Path) -> DistillCfg:
    return DistillCfg(
        teachers={robot: str(out / SPECIALISTS / robot / POLICY) for robot in cfg.taught},
        task=task,
        tier=cfg.train_tier,
        rounds=cfg.rounds,
        steps=cfg.label_steps,
        randomization=cfg.randomization,
        fit=cfg.distillation,
        seed=cfg.seed,
        out=str(out / "generalist"),
    )


def _measurement(cfg: DemoCfg, out: Path) -> EvalCfg:
    return EvalCfg(
        out=str(out / "report"),
        robots=cfg.robots,
        tasks=cfg.tasks,
        checkpoints=[str(out / path / POLICY) for path in ("base", f"{SPECIALISTS}/@robot", "generalist")],
        episodes=cfg.episodes,
        seeds=cfg.seeds,
        num_envs=32,  # 20 episodes in one go: in 16 worlds the last four would take as long as the first 16
        curves=[str(out / SPECIALISTS / robot / LOG) for robot in cfg.robots],
    )


@contextmanager
def _stage(name: str, what: str) -> Iterator[None]:
    """Say what begins and how long it took."""
    print(f"== {name}: {what}", flush=True)
    began = time.monotonic()
    yield
    print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)


def success_table(report: dict[str, Any]) -> str:
    """Success rates per body and policy, all tasks and seeds together, with Wilson 95 % intervals."""
    cells = report["cells"]
    policies, robots = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ("policy", "robot"))
    lines = [f"{'success':12}" + "".join(f"{policy:>30}" for policy in policies)]
    for robot in robots:
        row = f"{robot:12}"
        for policy in policies:
            own = [cell for cell in cells if (cell["robot"], cell["policy"]) == (robot, policy)]
            done, played = (sum(cell[key] for cell in own) for key in ("successes", "n"))
            rate = wilson(done, played)
            row += f"{f'{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}] of {played}':>30}" if own else f"{'-':>30}"
        lines.append(row)
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody demo``."""
    report = run(parse(DemoCfg, argv))
    print(success_table(json.loads((report.parent / REPORT_JSON).read_text())))
    print(f"report: {report}")
