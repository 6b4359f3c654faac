"""``omnibody import``: recordings made elsewhere become a dataset like one that ``omnibody collect`` wrote.

With ``task`` the recording is seen through the task: its observations, reward and success, as in the simulator; one of
Push-T can also be moved to the task's goal and be mirrored. Without a task, every column is an observation with the
bounds that the data have. No recording says what its last step led to, so its last observation stands for that; and the
recorded actions are the expert's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from omegaconf import MISSING
from tqdm import tqdm

from omnibody.robots.errors import UserError
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import load_body
from omnibody.sim_tasks.push_t import PushT, PushTCfg
from omnibody.sim_tasks.push_t_motion import mirror, moved, to_goal
from omnibody.sim_tasks.table import task_config
from omnibody.training.config import parse
from omnibody.training.data.layout import Episode, Origin
from omnibody.training.data.sources import ACTION, Columns, Source, read_source
from omnibody.training.data.writer import DatasetWriter
from omnibody.training.provenance import git_revision

OUTCOME = {"next.reward": "reward", "next.success": "success"}  # LeRobot's names


@dataclass
class ImportCfg:
    """Turn recordings made elsewhere into a dataset; the same command goes on where it was stopped."""

    source: str = MISSING  # an .npz or zarr replay buffer, a LeRobot dataset folder, or hf://owner/name
    out: str = MISSING  # folder of the dataset
    task: str = ""  # whose recording it is, e.g. push_t; empty: columns are taken as they are
    recorded_for: str = ""  # the task it was recorded for if that had another goal, e.g. push_t/shifted
    mirror: bool = False  # also every episode's mirror image; of push_t
    rate_hz: float | None = None  # steps per second, where neither the source nor the task says


def import_source(cfg: ImportCfg) -> int:
    """Run what ``cfg`` says; returns how many episodes ``cfg.out`` holds."""
    source = read_source(cfg.source)
    task = _task(cfg.task)
    seen = [_through(task, columns) for columns in _moved(cfg, task, source.episodes)]
    with DatasetWriter(cfg.out, _origin(cfg, source, task, seen), git_revision() or "unknown") as writer:
        for columns in tqdm(seen[writer.num_episodes :], desc="import", unit="episode", delay=2):
            writer.append(_episode(columns))
        return writer.num_episodes


def _task(name: str) -> PushT | None:
    if not name:
        return None
    task = task_config(name)
    if not isinstance(task, PushTCfg) or len(task.goals) > 1:
        raise UserError(f"task: wanted one that can read recordings, push_t or push_t/shifted, came {name}")
    return task.build(load_body("pusher"), 1)


def _moved(cfg: ImportCfg, task: PushT | None, episodes: list[Columns]) -> list[Columns]:
    """The episodes at the task's goal and, if asked for, behind them their mirror images."""
    if not cfg.recorded_for and not cfg.mirror:
        return episodes
    if task is None:
        raise UserError("recorded_for, mirror: wanted task=push_t with them, came no task")
    goal, before = task.goals[0], _task(cfg.recorded_for) or task
    to_ours, to_mirror = to_goal(before.goals[0], goal), mirror(goal)
    episodes = [moved(columns, to_ours, task.body.size) for columns in episodes]
    if cfg.mirror:
        episodes += [moved(columns, to_mirror, task.body.size) for columns in episodes]
    return [columns for columns in episodes if len(columns[ACTION])]


def _through(task: PushT | None, columns: Columns) -> Columns:
    """Observations, ``action``, ``reward`` and ``success`` of an episode."""
    if task is not None:
        return {**task.recorded(columns), ACTION: columns[ACTION].astype(np.float32)}
    named = {OUTCOME.get(key, key): values for key, values in columns.items() if not _is_ours(key)}
    steps = len(named[ACTION])
    named = {"success": np.zeros(steps, bool), **named}
    return {key: values.astype(np.float32) if values.dtype.kind == "f" else values for key, values in named.items()}


def _is_ours(key: str) -> bool:
    return key.startswith("next.") and key not in OUTCOME


def _origin(cfg: ImportCfg, source: Source, task: PushT | None, seen: Sequence[Columns]) -> Origin:
    rates = {"task": task.body.rate_hz if task else None, "source": source.rate_hz, "rate_hz": cfg.rate_hz}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    if len(set(known.values())) != 1:
        raise UserError(f"rate_hz: wanted one rate, came {known or 'none; add rate_hz=<steps per second>'}")
    rate = next(iter(known.values()))
    if task is not None:
        spec, robot = IOSpec(task.obs_fields, task.body.action, rate), task.body.name
    else:
        keys = [key for key in seen[0] if key not in (ACTION, "reward", "success")]
        spec, robot = IOSpec({key: _field(key, seen) for key in keys}, _field(ACTION, seen), rate), "recorded"
    words = task.instruction if task else source.name
    parts = ("reward",) if all("reward" in columns for columns in seen) else ()
    return Origin(spec, cfg.task or "recorded", words, robot, "recorded", (), 0, {"source": source.name}, parts)


def _field(key: str, seen: Sequence[Columns]) -> Field:
    """The field of a column, with the bounds of the data for each element of the last axis."""
    shape, dtype = seen[0][key].shape[1:], seen[0][key].dtype.name
    values = np.concatenate([columns[key] for columns in seen]).reshape(-1, *shape[-1:])
    low, high = (tuple(np.atleast_1d(bound).tolist()) for bound in (values.min(0), values.max(0)))
    return Field(shape, dtype, "", low, high)


def _episode(columns: Columns) -> Episode:
    obs = {key: values for key, values in columns.items() if key not in (ACTION, "reward", "success")}
    ends = np.arange(len(columns[ACTION])) == len(columns[ACTION]) - 1
    success = columns["success"].astype(bool)
    return Episode(
        obs={key: np.concatenate([values, values[-1:]]) for key, values in obs.items()},
        action=columns[ACTION],
        reward=columns["reward"].astype(np.float32) if "reward" in columns else None,
        terminated=ends & success,
        truncated=ends & ~success,
        success=success,
    )


def main(argv: Sequence[str]) -> None:
    """``omnibody import source=<recording> out=<folder> task=<task>``."""
    cfg = parse(ImportCfg, argv)
    print(f"{cfg.out}: {import_source(cfg)} episodes")


if __name__ == "__main__":
    main(sys.argv[1:])
