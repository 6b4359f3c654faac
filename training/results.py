"""From episode records to the figures of a report: cells, paired comparisons, means, and the words that define them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnibody.sim_tasks.figures import COUNT, ESTIMATE, MEAN, NUMBER, SHARE, Episodes, Figure
from omnibody.sim_tasks.table import figures_of
from omnibody.training.rollout import EpisodeRecord
from omnibody.training.statistics import Interval, estimate, mean_interval, paired_difference, wilson

DEFINITIONS = {
    "sr": "success rate, successes / n; lo and hi are its 95 % Wilson limits",
    "timeouts": "episodes cut by the time limit",
    "policy_ms": "mean time of a batched call of the policy on this machine [ms]",
    "ms_p50": "median time of a call, mean over episodes [ms]; ms_p95 the 95 % quantile",
    "pairs": "a minus b in success rate on the same start states, with Newcombe's paired 95 % limits; p is McNemar's"
    " exact two-sided p-value, not corrected for the number of comparisons",
    "means": "unweighted mean of the success rates of a policy's cells, square-and-add 95 % limits",
    "episode_intervals": "intervals are about new episodes of the same policies; they do not cover a new training run",
}
EXECUTION = (
    Figure(
        "nfe_per_action",
        "network evaluations per action played, mean over episodes",
        MEAN,
        lambda episodes: episodes["nfe_per_action"],
    ),
    Figure(
        "chunk_jump",
        "mean step of the action where one chunk follows another [units of the action]",
        MEAN,
        lambda episodes: episodes["chunk_jump"],
    ),
    Figure(
        "jerk",
        "mean size of the actions' third derivative [units of the action / s^3]",
        MEAN,
        lambda episodes: episodes["jerk"],
    ),
)


@dataclass(frozen=True)
class Cell:
    """The episodes of one policy on one robot at one tier in one task, all seeds together."""

    policy: str
    robot: str
    task: str
    tier: str
    records: tuple[EpisodeRecord, ...]

    @property
    def rate(self) -> Interval:
        """The success rate with its Wilson limits."""
        return wilson(sum(record.success for record in self.records), len(self.records))

    def to_json(self) -> dict[str, Any]:
        """The cell as it stands in ``report.json``; see ``definitions``."""
        labels = {"policy": self.policy, "robot": self.robot, "task": self.task, "tier": self.tier}
        return labels | summarize(self.records, self.task)


def definitions(tasks: Sequence[str]) -> dict[str, str]:
    """What the figures of cells in these tasks mean."""
    own = {figure.name: figure.meaning for task in tasks for figure in (*figures_of(task).figures, *EXECUTION)}
    return DEFINITIONS | own


def start_states(tasks: Sequence[str]) -> str:
    """What is random in episodes of these tasks, and that all policies meet the same."""
    return " ".join(dict.fromkeys(figures_of(task).start_states for task in tasks))


def summarize(records: Sequence[EpisodeRecord], task: str) -> dict[str, Any]:
    """The figures of some episodes of a task; what has no episode to be about is None."""
    won = [record for record in records if record.success]
    rate = wilson(len(won), len(records))
    seeds = sorted({record.seed for record in records})
    own: dict[str, Any] = {}
    episodes = _columns(records)
    for figure in (*figures_of(task).figures, *(EXECUTION if "nfe_per_action" in episodes else ())):
        own |= _figure(figure, episodes)
    return {
        "n": len(records),
        "successes": len(won),
        "sr": _finite(rate.value),
        "lo": rate.low,
        "hi": rate.high,
        "timeouts": sum(record.timeout for record in records),
        **own,
        "policy_ms": _mean([record.policy_ms for record in records]),
        "ms_p50": _mean([record.policy_ms_p50 for record in records if record.policy_ms_p50 is not None]),
        "ms_p95": _mean([record.policy_ms_p95 for record in records if record.policy_ms_p95 is not None]),
        "seeds": seeds,
        "per_seed": [_of_seed(records, seed) for seed in seeds],
    }


def _columns(records: Sequence[EpisodeRecord]) -> Episodes:
    columns = {name: np.array([getattr(record, name) for record in records]) for name in ("outcome", "seconds")}
    columns |= {name: np.array([getattr(r, name) for r in records], bool) for name in ("success", "timeout")}
    measured = records[0].measures if records else ()
    return columns | {name: np.array([record.measures[name] for record in records]) for name in measured}


def _figure(figure: Figure, episodes: Episodes) -> dict[str, float | int | None]:
    values, name = figure.of(episodes), figure.name
    if figure.kind == NUMBER:
        return {name: _finite(float(values))}
    known = np.asarray(values)
    if figure.kind == COUNT:
        return {name: int(known.sum())}
    if figure.kind == MEAN:
        return {name: _mean(known[~np.isnan(known)].tolist())}
    if figure.kind == ESTIMATE:
        interval = estimate(known[~np.isnan(known)])
    else:
        assert figure.kind == SHARE, figure
        interval = wilson(int(known.sum()), len(known))
    return {name: _finite(interval.value), f"{name}_lo": _finite(interval.low), f"{name}_hi": _finite(interval.high)}


def _of_seed(records: Sequence[EpisodeRecord], seed: int) -> dict[str, int]:
    own = [record.success for record in records if record.seed == seed]
    return {"seed": seed, "n": len(own), "successes": sum(own)}


def pairs(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Compare every two policies that met the same robot, task and tier."""
    return [
        _pair(a, b)
        for a, b in itertools.combinations(cells, 2)
        if (a.robot, a.task, a.tier) == (b.robot, b.task, b.tier)
    ]


def _pair(a: Cell, b: Cell) -> dict[str, Any]:
    first, second = ({(r.seed, r.episode): r for r in cell.records} for cell in (a, b))
    shared = sorted(first.keys() & second.keys())
    for key in shared:
        if first[key].path[0] != second[key].path[0]:
            raise ValueError(
                f"seed {key[0]} episode {key[1]} of {a.robot} in {a.task} is not paired:"
                f" {a.policy} starts at {first[key].path[0]}, {b.policy} at {second[key].path[0]}"
            )
    result = paired_difference([first[key].success for key in shared], [second[key].success for key in shared])
    return {
        "a": a.policy,
        "b": b.policy,
        "robot": a.robot,
        "task": a.task,
        "tier": a.tier,
        "n": result.n,
        "difference": result.difference.value,
        "lo": result.difference.low,
        "hi": result.difference.high,
        "p": result.p,
        "only_a": result.only_a,
        "only_b": result.only_b,
    }


def means(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The mean success rate of each policy over its cells."""
    rows = []
    for policy in dict.fromkeys(cell.policy for cell in cells):
        rates = [cell.rate for cell in cells if cell.policy == policy]
        mean = mean_interval(rates)
        rows.append({"policy": policy, "cells": len(rates), "sr": mean.value, "lo": mean.low, "hi": mean.high})
    return rows


def pair_means(pair_rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean difference of each two policies over the cells they share."""
    rows = []
    for a, b in dict.fromkeys((pair["a"], pair["b"]) for pair in pair_rows):
        shared = [pair for pair in pair_rows if (pair["a"], pair["b"]) == (a, b)]
        mean = mean_interval([Interval(pair["difference"], pair["lo"], pair["hi"]) for pair in shared])
        rows.append({"a": a, "b": b, "cells": len(shared), "difference": mean.value, "lo": mean.low, "hi": mean.high})
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return _finite(sum(values) / len(values)) if values else None


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
