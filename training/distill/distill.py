"""`omnibody distill`: one generalist from the specialists of many bodies, by DAgger rounds of KL distillation.

Round 0 the teachers drive; in later rounds the student drives and the teachers label what it gets into. After each
round the student is trained anew on all labels so far. Every round's labels and student stay on disk, so that a
stopped run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING

from omnibody.envs.make import make_env
from omnibody.envs.randomization import RandomizationCfg
from omnibody.policies.checkpoint import load_policy, save_pretrained
from omnibody.policies.compass.generalist import CompassGeneralist, CompassGeneralistCfg
from omnibody.policies.compass.residual import CompassResidual
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNavCfg
from omnibody.training.config import parse
from omnibody.training.distill.labels import Labels, collect_labels
from omnibody.training.fit import POLICY, FitCfg, fit
from omnibody.training.run_folder import claim

FREE = ("rounds", "out")  # what a resumed run may change
EPISODES_PER_ROUND = 1_000_000  # episode numbers set apart for a round, so that no round plays another's episodes


@dataclass
class DistillCfg:
    """Distil specialists into one generalist; the same command goes on where it was stopped."""

    teachers: dict[str, str] = MISSING  # body -> checkpoint of its specialist
    out: str = MISSING  # run folder; the generalist will be in its folder policy
    student: CompassGeneralistCfg = field(default_factory=CompassGeneralistCfg)  # its head and what it is told
    task: GoalNavCfg = field(default_factory=lambda: GoalNavCfg(scene="all"))  # where the labels are collected
    tier: str = "T1"  # fidelity to collect them in
    rounds: int = 3  # 1: the teachers drive only; more: DAgger rounds in which the student drives
    num_envs: int = 32  # worlds in the batch
    steps: int = 300  # policy steps per world, body and round
    randomization: RandomizationCfg = field(default_factory=RandomizationCfg)  # domain randomisation
    fit: FitCfg = field(
        default_factory=lambda: FitCfg(epochs=20, batch_size=1024, held_out=0.05, warmup=0.05)
    )  # training of the student after each round
    seed: int = 0  # of the episodes and the teachers' exploration

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds: wanted at least 1, came {self.rounds}")


def distill(cfg: DistillCfg) -> CompassGeneralist:
    """Run what ``cfg`` says; the generalist is in ``cfg.out``/policy afterwards."""
    torch.set_num_threads(1)
    teachers = {name: _teacher(path) for name, path in cfg.teachers.items()}
    base = next(iter(teachers.values())).base
    for name, teacher in teachers.items():
        if not _same_weights(teacher.base, base):
            raise UserError(f"teachers: wanted specialists on one base, but that of {name} has another")
    run, parts = Path(cfg.out), []
    claim(run, cfg, FREE)
    student = _fresh(cfg, teachers)
    for number in range(cfg.rounds):
        for name, teacher in teachers.items():
            parts.append(_labels(cfg, run, number, name, teacher, student))
        student = _fresh(cfg, teachers)
        fitted = fit(student, Labels.joined(parts), cfg.fit, run / f"round-{number}")
        print(f"round {number}: {sum(map(len, parts))} labels, held-out KL {fitted.held_out['kl']:.4f} nat", flush=True)
    meta = {"stage": "distill", "config": asdict(cfg), "held_out": fitted.held_out}
    save_pretrained(student, run / POLICY, meta)
    return student


def _teacher(path: str) -> CompassResidual:
    policy = load_policy(path)
    if not isinstance(policy, CompassResidual):
        raise UserError(f"teachers: wanted compass_residual checkpoints, came a {type(policy).__name__} in {path}")
    return policy


def _same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def _fresh(cfg: DistillCfg, teachers: dict[str, CompassResidual]) -> CompassGeneralist:
    """An untrained student that knows the range of its bodies' descriptors; its weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(cfg.seed)
        student = CompassGeneralist.on(next(iter(teachers.values())).base, cfg.student)
    student.fit_descriptor([load_robot(name) for name in teachers])
    return student.eval()


def _labels(
    cfg: DistillCfg, run: Path, number: int, name: str, teacher: CompassResidual, student: CompassGeneralist
) -> Labels:
    path = run / "labels" / f"round-{number}-{load_robot(name).name}.safetensors"
    if not path.exists():
        env = make_env(name, cfg.task, cfg.num_envs, cfg.tier, randomization=cfg.randomization)
        generator = torch.Generator().manual_seed(cfg.seed + number)
        first = number * EPISODES_PER_ROUND
        collect_labels(teacher, student, env, cfg.steps, number > 0, cfg.seed, first, generator).save(path)
        env.close()
    return Labels.load(path)


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody distill``."""
    cfg = parse(DistillCfg, argv)
    distill(cfg)
    print(f"generalist: {Path(cfg.out) / POLICY}")
