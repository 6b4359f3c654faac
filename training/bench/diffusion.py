"""`omnibody bench diffusion`: what policies that play chunks score, what they cost and what latency does to them.

Every figure is `omnibody eval`'s, whose reports stay in ``out``: all policies of a task meet the same start states, and
the same command resumes. A latency that a policy's chunks are too short for is left out. The time of a call is taken at
batch 1 on one thread, apart from the evaluation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING

from omnibody.policies.batch import random_values
from omnibody.policies.checkpoint import load_policy
from omnibody.policies.executor import longest_latency
from omnibody.policies.files import write_text
from omnibody.policies.policy import Context, Policy
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_body
from omnibody.sim_tasks.figures import ESTIMATE, SHARE
from omnibody.sim_tasks.table import body_of, figures_of
from omnibody.training.config import parse
from omnibody.training.evaluate import REPORT_JSON, EvalCfg, evaluate_and_report

SCORES = {  # of a task, the figure of a latency curve
    "push_t": "mean_max_coverage",
    "push_t_two_goal": "final_iou",
    "block_push": "result",
    "desk": "result",
    "metaworld": "success_rate",
}
COSTS = {"nfe_per_action": 2, "p50_ms": 2, "p95_ms": 2, "hz": 1, "chunk_jump": 2, "jerk": 0}  # and their digits
TABLE = "diffusion.json"


@dataclass
class DiffusionBenchCfg:
    """Compare policies that play chunks: score, cost, smoothness, and score against latency."""

    checkpoints: list[str] = MISSING  # the policies, checkpoint folders
    out: str = MISSING  # folder of the reports and of diffusion.json
    tasks: list[str] = field(default_factory=lambda: ["push_t"])  # e.g. push_t, block_push, desk, metaworld/reach-v3
    latencies: list[int] = field(default_factory=lambda: [0, 1, 2, 4, 8])  # steps that a call takes
    episodes: int = 200  # per policy, latency and seed
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])  # of the start states
    num_envs: int = 50  # tables side by side
    calls: int = 200  # timed, per policy
    json: bool = False  # print one JSON list of rows and nothing else

    def __post_init__(self) -> None:
        if strangers := [task for task in self.tasks if task.partition("/")[0] not in SCORES]:
            raise ValueError(f"tasks: wanted some of {', '.join(SCORES)}, came {strangers}")
        if 0 not in self.latencies or min(self.latencies) < 0:
            raise ValueError(f"latencies: wanted 0 and more, came {self.latencies}")


def diffusion_rows(cfg: DiffusionBenchCfg) -> list[dict[str, Any]]:
    """A row for each task and policy: its figures without latency, its times, and ``latency``: {steps: score}."""
    torch.set_num_threads(1)
    rows = []
    for task in cfg.tasks:
        policies = {source: load_policy(source) for source in cfg.checkpoints}
        context = Context(load_body(body_of(task) or ""))
        reach = {source: longest_latency(policy, context) for source, policy in policies.items()}
        curves: dict[str, dict[int, dict[str, Any]]] = {source: {} for source in policies}
        for latency in sorted(cfg.latencies):
            able = [source for source in policies if reach[source] >= latency]
            for source, cell in zip(able, _cells(cfg, task, able, latency), strict=True):
                curves[source][latency] = cell
        for source, policy in policies.items():
            rows.append(_row(task, curves[source], call_times(policy, context, cfg.calls), policy.action_steps))
    write_text(Path(cfg.out) / TABLE, json.dumps(rows, indent=1))
    return rows


def _cells(cfg: DiffusionBenchCfg, task: str, sources: list[str], latency: int) -> list[dict[str, Any]]:
    """The report's cells of these policies in a task under a latency."""
    if not sources:
        return []
    out = Path(cfg.out) / task.replace("/", "-") / f"latency-{latency}"
    evaluation = EvalCfg(
        out=str(out),
        tasks=[task],
        checkpoints=sources,
        episodes=cfg.episodes,
        seeds=cfg.seeds,
        latency=latency,
        num_envs=cfg.num_envs,
        clips=0,
    )
    evaluate_and_report(evaluation)
    return json.loads((out / REPORT_JSON).read_text(encoding="utf-8"))["cells"]


def _row(task: str, curve: dict[int, dict[str, Any]], times: np.ndarray, action_steps: int) -> dict[str, Any]:
    now, score = curve[0], SCORES[task.partition("/")[0]]
    p50, p95 = np.quantile(times, [0.5, 0.95]).tolist()
    return {
        **now,
        "p50_ms": p50,
        "p95_ms": p95,
        "hz": 1e3 * action_steps / p50,
        "latency": {steps: [cell[f"{score}{end}"] for end in ("", "_lo", "_hi")] for steps, cell in curve.items()},
    }


@torch.inference_mode()
def call_times(policy: Policy, context: Context, calls: int) -> np.ndarray:
    """Times (calls,) of single calls of the policy at batch 1 [ms], on random observations within their bounds."""
    generator, state, times = torch.Generator().manual_seed(0), policy.begin(context, 1), []
    for _ in range(calls + 1):
        obs = {key: random_values(part, (1,), generator) for key, part in policy.spec.obs.items()}
        began = time.perf_counter()
        _, state = policy.act(obs, state)
        times.append(1e3 * (time.perf_counter() - began))
    return np.array(times[1:])  # the first pays for what is made once


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, a table per task: figures with their limits, costs, and the score at each latency."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    return "\n\n".join(_table(task, [row for row in rows if row["task"] == task]) for task in tasks)


def _table(task: str, rows: Sequence[dict[str, Any]]) -> str:
    steps = sorted({step for row in rows for step in row["latency"]})
    figures = [figure.name for figure in figures_of(task).figures if figure.kind in (ESTIMATE, SHARE)]
    lines = [[task, *figures, *COSTS, *(f"d={step}" for step in steps)]]
    for row in rows:
        costs = [f"{row[name]:.{digits}f}" for name, digits in COSTS.items()]
        under = [f"{row['latency'][step][0]:.3f}" if step in row["latency"] else "-" for step in steps]
        lines.append([row["policy"], *(_limits(row, name) for name in figures), *costs, *under])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _limits(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f} [{row[f'{name}_lo']:.3f}, {row[f'{name}_hi']:.3f}]"


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody bench diffusion``."""
    cfg = parse(DiffusionBenchCfg, argv)
    if not cfg.checkpoints:
        raise UserError("checkpoints: wanted at least one checkpoint folder, came none")
    rows = diffusion_rows(cfg)
    print(json.dumps(rows) if cfg.json else table(rows))
