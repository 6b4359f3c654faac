"""From episode records to the figures of a report: cells, paired comparisons, means, and the words that define them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omnibody.training.rollout import STUCK_METRES, STUCK_SECONDS, EpisodeRecord
from omnibody.training.statistics import Interval, mean_interval, paired_difference, wilson

DEFINITIONS = {
    "sr": "success rate, successes / n; lo and hi are its 95 % Wilson limits",
    "spl": "success weighted by path length: mean of success * shortest / max(shortest, driven)",
    "collisions": "episodes ended by touching the scene; collisions_per_km divides them by all kilometres driven",
    "falls": "episodes that failed without a contact (tilted or sank)",
    "timeouts": "episodes cut by the time limit, the stuck ones included",
    "stuck": f"time-outs that stayed within {STUCK_METRES} m for their last {STUCK_SECONDS:.0f} s",
    "min_clearance": "mean over episodes of the least distance between footprint and scene [m]",
    "travel_time": "mean time of the successful episodes [s]",
    "wtt": "COMPASS's weighted travel time: SUM of the successful episodes' times / SR [s]; it grows with n, so compare"
    " it at equal n only, or use travel_time",
    "heading_error": "mean heading error of the successful episodes at their end [rad]",
    "goal_distance": "mean distance to the goal of all episodes at their end [m]",
    "policy_ms": "mean time of a batched call of the policy on this machine [ms]",
    "pairs": "a minus b in success rate on the same start states, with Newcombe's paired 95 % limits; p is McNemar's"
    " exact two-sided p-value, not corrected for the number of comparisons",
    "means": "unweighted mean of the success rates of a policy's cells, square-and-add 95 % limits",
    "episode_intervals": "intervals are about new episodes of the same policies; they do not cover a new training run",
}
START_STATES = (
    "Scene, start pose and goal pose of episode k under seed s are a pure function of (s, k), the task and the body;"
    " all policies of a robot and task meet the same ones. Scenes come from the split named in the config."
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
        """The cell as it stands in ``report.json``; see DEFINITIONS."""
        labels = {"policy": self.policy, "robot": self.robot, "task": self.task, "tier": self.tier}
        return labels | summarize(self.records)


def summarize(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """The figures of DEFINITIONS for some episodes; what has no episode to be about is None."""
    won = [record for record in records if record.success]
    rate = wilson(len(won), len(records))
    kilometres = sum(record.path_length for record in records) / 1000.0
    collisions = sum(record.collision for record in records)
    times = [record.travel_time for record in won]
    seeds = sorted({record.seed for record in records})
    return {
        "n": len(records),
        "successes": len(won),
        "sr": _finite(rate.value),
        "lo": rate.low,
        "hi": rate.high,
        "spl": _mean([record.spl for record in records]),
        "collisions": collisions,
        "collisions_per_km": collisions / kilometres if kilometres > 0 else None,
        "kilometres": kilometres,
        "falls": sum(record.fall for record in records),
        "timeouts": sum(record.timeout for record in records),
        "stuck": sum(record.stuck for record in records),
        "min_clearance": _mean([record.min_clearance for record in records]),
        "travel_time": _mean(times),
        "wtt": sum(times) / rate.value if won else None,
        "heading_error": _mean([record.heading_error for record in won]),
        "goal_distance": _mean([record.goal_distance for record in records]),
        "policy_ms": _mean([record.policy_ms for record in records]),
        "seeds": seeds,
        "per_seed": [_of_seed(records, seed) for seed in seeds],
    }


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
