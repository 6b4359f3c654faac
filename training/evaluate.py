"""``omnibody eval``: measure policies on bodies and tasks, from paired start states, and report it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from safetensors.torch import save
from tqdm import tqdm

from omnibody.envs.any_task import make_task_env, tier_of
from omnibody.envs.vec_env import VecEnv
from omnibody.policies.checkpoint import load_policy
from omnibody.policies.files import write_text
from omnibody.policies.policy import Policy
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Body
from omnibody.robots.table import load_body
from omnibody.sim_tasks.table import body_of, figures_of, task_config
from omnibody.sim_tasks.task import TaskFactory
from omnibody.training.clips import Clip
from omnibody.training.config import BODY, parse
from omnibody.training.eval_folder import EvalFolder, open_folder
from omnibody.training.figures import read_log
from omnibody.training.fit import POLICY
from omnibody.training.gallery import draw_maps, make_clips
from omnibody.training.provenance import provenance
from omnibody.training.report import page
from omnibody.training.results import Cell, definitions, means, pair_means, pairs, start_states, summarize
from omnibody.training.rollout import EpisodeRecord, play, rollout

__all__ = ["EvalCfg", "evaluate", "evaluate_and_report", "main", "matrix", "rollout"]

EXPERT = "expert"
REPORT_JSON, REPORT_HTML = "report.json", "report.html"
ROBOT = "@robot"  # braces would need quotes in a Hydra list
Policies = dict[str, dict[str, Policy | None]]  # by name and robot; None: the task's expert


@dataclass
class EvalCfg:
    """Measure policies on bodies and tasks; writes report.json and report.html. The same command resumes."""

    out: str = MISSING  # folder of the report
    robots: list[str] = field(default_factory=list, metadata=BODY)  # bodies, e.g. [go2,carrier]; of push_t [pusher]
    tasks: list[str] = MISSING  # tasks, e.g. [goal_nav/office]
    checkpoint: str = ""  # a policy: checkpoint folder (@robot in it: one for each body), hf://owner/name, or "expert"
    checkpoints: list[str] = field(default_factory=list)  # several policies, compared on the same start states
    episodes: int = 20  # per policy, body, task and seed
    seed: int = 1  # of the start states
    seeds: list[int] = field(default_factory=list)  # several seeds, in place of seed
    latency: int = 0  # steps that a call of the policy takes, while its last plan is played on
    tier: str = "best"  # fidelity: T0, T1, T2, or the best each body has
    split: str = "test"  # scenes: test, or train to see how much was learned by heart
    map: str = ""  # YAML of a ROS map_server map, for the task goal_nav/map
    num_envs: int = 16  # worlds side by side; results do not depend on it, a network's rounding aside
    device: str = "cpu"  # where the policy runs
    maps: int = 4  # maps with driven paths in the report, per body and task
    clips: int = 3  # clips in the report
    curves: list[str] = field(default_factory=list)  # JSONL logs of training runs to draw in the report

    def __post_init__(self) -> None:
        if bool(self.checkpoint) == bool(self.checkpoints):
            came = "both" if self.checkpoint else "neither"
            raise ValueError(f"wanted either checkpoint=<folder> or checkpoints=[<folder>,...], came {came}")
        if not self.robots and len({body_of(task) for task in self.tasks}) == 1:
            self.robots = [robot for robot in [body_of(self.tasks[0])] if robot]
        for key in ("robots", "tasks"):
            values = getattr(self, key)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key}: wanted at least one name and none twice, came {values}")
        for key, least in {"episodes": 1, "num_envs": 1, "latency": 0, "maps": 0, "clips": 0}.items():
            if getattr(self, key) < least:
                raise ValueError(f"{key}: wanted at least {least}, came {getattr(self, key)}")
        for task in self.tasks:
            self.task(task)

    @property
    def sources(self) -> list[str]:
        """All policies asked for."""
        return self.checkpoints or [self.checkpoint]

    @property
    def all_seeds(self) -> list[int]:
        """All seeds asked for."""
        return self.seeds or [self.seed]

    @functools.cached_property
    def bodies(self) -> dict[str, Body]:
        """All bodies asked for, by the names that reports call them."""
        bodies = [load_body(robot) for robot in self.robots]
        if len({body.name for body in bodies}) < len(bodies):
            raise UserError(f"robots: wanted bodies of different names, came {', '.join(body.name for body in bodies)}")
        return {body.name: body for body in bodies}

    def env(self, robot: str, task: str, num_envs: int, rgb: int = 0) -> VecEnv:
        """The environment of a cell, with colour pictures of ``rgb`` rows if that is not 0."""
        return make_task_env(self.bodies[robot], self.task(task), num_envs, self.tier, rgb)

    def task(self, name: str) -> TaskFactory:
        """A task's configuration; of one with scenes, those of the split."""
        settings = {"split": self.split} if name.startswith("goal_nav/") else {}
        return task_config(name, **settings, **({"map": self.map} if name.endswith("/map") else {}))


def evaluate(policy: Policy | None, env: VecEnv, episodes: int, seed: int) -> dict[str, Any]:
    """The figures of one cell (see ``results.definitions``); without a policy those of the expert."""
    return summarize(rollout(policy, env, episodes, seed), env.task.name)


def matrix(policies: Policies, cfg: EvalCfg, folder: EvalFolder) -> Iterator[Cell]:
    """Measure every policy on every body, task and seed of ``cfg``; episodes that ``folder`` holds are not repeated."""
    played = sum(len(by_robot) for by_robot in policies.values()) * len(cfg.tasks) * len(cfg.all_seeds)
    with tqdm(total=played * cfg.episodes, unit="episode", disable=None, smoothing=0.02) as bar:
        for robot, task in itertools.product(cfg.bodies, cfg.tasks):
            env = cfg.env(robot, task, min(cfg.num_envs, cfg.episodes), picture_rows(policies))
            for name, by_robot in policies.items():
                if robot in by_robot:
                    bar.set_description(f"{name} {robot} {task}")
                    yield _cell(name, by_robot[robot], env, (robot, task), cfg, folder, bar)
            env.close()


def _cell(
    name: str,
    policy: Policy | None,
    env: VecEnv,
    place: tuple[str, str],
    cfg: EvalCfg,
    folder: EvalFolder,
    bar: tqdm,
) -> Cell:
    if policy is not None and (difference := policy.needs.mismatch(env.spec)):
        raise UserError(f"policy {name} does not fit {place[0]} in {place[1]}: {difference}")
    records: list[EpisodeRecord] = []
    for seed in cfg.all_seeds:
        file = folder.records(name, *place, tier_of(env), f"seed{seed}")
        bar.update(len(file.episodes))
        for record in play(policy, env, cfg.episodes, seed, file.episodes, cfg.latency):
            folder.note_run()
            file.append(record)
            bar.update()
        records += file.sorted()
    return Cell(name, *place, tier_of(env), tuple(records))


def main(argv: list[str]) -> None:
    """Run the verb."""
    print(evaluate_and_report(parse(EvalCfg, argv)))


def evaluate_and_report(cfg: EvalCfg) -> Path:
    """Measure all that ``cfg`` asks for and write both reports; returns the path of report.html."""
    for log in cfg.curves:
        read_log(log)  # rather now than after hours
    torch.set_num_threads(1)  # the worlds use the cores
    policies = load_policies(cfg)
    identity = _identity(cfg, policies)
    with open_folder(Path(cfg.out), identity, provenance()) as folder:
        began = datetime.now(UTC)
        cells = []
        for cell in matrix(policies, cfg, folder):
            cells.append(cell)
            tqdm.write(_line(cell))
        report = build_report(cells, cfg, identity, began) | {"runs": folder.runs()}
        make_env = functools.partial(cfg.env, rgb=picture_rows(policies))
        clips = make_clips(cells, policies, make_env, folder.path / "clips", cfg.clips, cfg.latency)
        return write_report(folder.path, cells, cfg, report, clips)


def write_report(
    folder: Path, cells: list[Cell], cfg: EvalCfg, report: dict[str, Any], clips: Sequence[tuple[str, Clip]] = ()
) -> Path:
    """Write both reports into ``folder``, with the driven paths on maps; returns the path of report.html."""
    write_text(folder / REPORT_JSON, json.dumps(report, indent=1))
    maps = draw_maps(cells, cfg.bodies, {task: cfg.task(task) for task in cfg.tasks}, cfg.maps)
    write_text(folder / REPORT_HTML, page(report, maps, clips, cfg.curves))
    return folder / REPORT_HTML


def load_policies(cfg: EvalCfg) -> Policies:
    """The policies of a configuration under short names; a source with ``@robot`` may lack some of the robots."""
    policies: Policies = {}
    for name, source in zip(_names(cfg.sources), cfg.sources, strict=True):
        if ROBOT in source:
            folders = {robot: source.replace(ROBOT, robot) for robot in cfg.bodies}
            present = {robot: folder for robot, folder in folders.items() if Path(folder).exists()}
            if not present:
                raise UserError(f"checkpoints: wanted {source} for at least one of {', '.join(cfg.bodies)}, found none")
            policies[name] = {robot: load_policy(folder).to(cfg.device) for robot, folder in present.items()}
            for robot in folders.keys() - present.keys():
                tqdm.write(f"{name}: left out for {robot}, as there is no {folders[robot]}")
        else:
            policy = None if source == EXPERT else load_policy(source).to(cfg.device)
            policies[name] = dict.fromkeys(cfg.bodies, policy)
    return policies


def picture_rows(policies: Policies) -> int:
    """Rows of the colour picture that policies need to act; 0 if none needs one."""
    needed = [policy.needs.obs for by_robot in policies.values() for policy in by_robot.values() if policy is not None]
    return max((obs["image"].shape[0] for obs in needed if "image" in obs), default=0)


def _names(sources: list[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart, without what all policies' paths have in them."""
    paths = []
    for source in sources:
        parts = [part.replace(ROBOT, "").strip("-_") for part in source.rstrip("/").split("/")]
        parts = [part for part in parts if part]
        paths.append(parts[:-1] if parts[-1] == POLICY and len(parts) > 1 else parts)
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"checkpoints: wanted each policy once, came {sources}")


def fingerprint(policy: Policy | None) -> str:
    """What tells a policy from another: a hash of its configuration and weights."""
    if policy is None:
        return EXPERT
    weights = save({key: value.cpu().contiguous() for key, value in policy.state_dict().items()})
    return hashlib.sha256(repr(policy.cfg).encode() + weights).hexdigest()


def _identity(cfg: EvalCfg, policies: Policies) -> dict[str, Any]:
    """What two runs must share to go on with each other's records."""
    keys = ("robots", "tasks", "episodes", "latency", "tier", "split", "map")
    return {
        "policies": {name: {robot: fingerprint(p) for robot, p in own.items()} for name, own in policies.items()},
        "seeds": cfg.all_seeds,
        **{key: getattr(cfg, key) for key in keys},
    }


def build_report(cells: list[Cell], cfg: EvalCfg, identity: dict[str, Any], began: datetime) -> dict[str, Any]:
    """What report.json holds."""
    pair_rows = pairs(cells)
    return {
        "cells": [cell.to_json() for cell in cells],
        "means": means(cells),
        "pairs": pair_rows,
        "pair_means": pair_means(pair_rows),
        "definitions": definitions(cfg.tasks),
        "start_states": start_states(cfg.tasks),
        "config": dataclasses.asdict(cfg),
        "policies": identity["policies"],
        **provenance(),
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _line(cell: Cell) -> str:
    figures, rate = cell.to_json(), cell.rate
    named = [(column.title, *column.figures[0]) for column in figures_of(cell.task).columns]
    own = [
        f"{title} {factor * figures[name]:.{digits}f}"
        for title, name, factor, digits in named[:4]
        if figures.get(name) is not None  # an expert has none of a network
    ]
    return (
        f"{cell.policy:24} {cell.robot:10} {cell.task:22} {cell.tier}  {figures['successes']:4}/{figures['n']:<4}"
        f" SR {rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]  {'  '.join(own)}"
    )
