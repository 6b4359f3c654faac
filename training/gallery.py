"""Which episodes a report shows, their maps and their clips."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.render import GraphicsError
from omnibody.envs.vec_env import VecEnv
from omnibody.policies.files import atomic_file, write_text
from omnibody.policies.policy import Policy
from omnibody.robots.spec import Body, Embodiment
from omnibody.sim_tasks.goal_nav import GoalNav
from omnibody.sim_tasks.scene import Scene
from omnibody.sim_tasks.task import TaskFactory
from omnibody.training.clips import Clip, film, sketch
from omnibody.training.figures import MARKS, colour_of, path_map
from omnibody.training.results import Cell
from omnibody.training.rollout import EpisodeRecord, Pose


@dataclass(frozen=True)
class Map:
    """A picture of one episode's scene with the paths of all policies, under its caption (HTML both)."""

    place: str
    picture: str
    caption: str


def choose_episodes(cells: Sequence[Cell], count: int) -> list[tuple[int, int]]:
    """(seed, episode) of up to ``count`` episodes of one robot and task, half of them those failed most."""
    failures: dict[tuple[int, int], int] = {}
    for record in (record for cell in cells for record in cell.records):
        key = (record.seed, record.episode)
        failures[key] = failures.get(key, 0) + (not record.success)
    failed = sorted((key for key, number in failures.items() if number), key=lambda key: (-failures[key], key))
    solved = sorted(key for key, number in failures.items() if not number)
    most = max(count - count // 2, count - len(solved))
    return (failed[:most] + solved)[:count]


def choose_clips(cells: Sequence[Cell], count: int) -> list[tuple[Cell, EpisodeRecord]]:
    """Up to ``count`` episodes: successes of the last policy in turn with failures of any, every robot before a second.

    Later policies and robots come first.
    """
    wins: list[tuple[int, Cell, EpisodeRecord]] = []
    losses: list[tuple[int, Cell, EpisodeRecord]] = []
    seen: Counter[tuple[bool, str, str]] = Counter()
    for cell in reversed(cells):
        for record in cell.records:
            if record.success and cell.policy != cells[-1].policy:
                continue
            kind = (record.success, cell.policy, cell.robot)
            (wins if record.success else losses).append((seen[kind], cell, record))
            seen[kind] += 1
    turns = itertools.zip_longest(*(sorted(kind, key=lambda choice: choice[0]) for kind in (wins, losses)))
    return [choice[1:] for turn in turns for choice in turn if choice is not None][:count]


def draw_maps(cells: Sequence[Cell], bodies: dict[str, Body], tasks: dict[str, TaskFactory], count: int) -> list[Map]:
    """Up to ``count`` maps of every robot and task, each with the paths of all policies.

    ``bodies`` and ``tasks`` are those of the cells, by name.
    """
    colours = {policy: colour_of(k) for k, policy in enumerate(dict.fromkeys(cell.policy for cell in cells))}
    maps: list[Map] = []
    for robot, task in dict.fromkeys((cell.robot, cell.task) for cell in cells):
        group = [cell for cell in cells if (cell.robot, cell.task) == (robot, task)]
        body = bodies[robot]
        bound = tasks[task].build(body, 1) if isinstance(body, Embodiment) else None
        if isinstance(bound, GoalNav):
            maps += [
                _draw_map(bound, f"{robot} in {task}", group, key, colours) for key in choose_episodes(group, count)
            ]
    return maps


def _draw_map(task: GoalNav, place: str, cells: Sequence[Cell], key: tuple[int, int], colours: dict[str, str]) -> Map:
    drives = []
    for cell in cells:
        record = next(record for record in cell.records if (record.seed, record.episode) == key)
        drives.append((colours[cell.policy], record))
    notes = [_note(colour, record) for colour, record in drives]
    picture = path_map(*_setting(task, *key), task.cfg.goal_tolerance, drives)
    return Map(place, picture, f"seed {key[0]}, episode {key[1]}<br>{' '.join(notes)}")


def _note(colour: str, record: EpisodeRecord) -> str:
    mark = f"{MARKS[record.outcome]} {record.seconds:.1f} s"
    return f'<span><i style="background:{colour}"></i>{mark}</span>'


def _setting(task: GoalNav, seed: int, episode: int) -> tuple[Scene, Pose]:
    """Scene and goal pose of an episode; it needs no simulator, as they are a pure function of the two numbers."""
    start = task.reset(np.array([0]), np.array([episode]), seed)[0]
    x, y, yaw = task.goal[0].tolist()
    return task.scene(start.scene), (x, y, yaw)


def make_clips(
    cells: Sequence[Cell],
    policies: dict[str, dict[str, Policy | None]],
    make_env: Callable[[str, str, int], VecEnv],
    folder: Path,
    count: int,
    latency: int = 0,
) -> list[tuple[str, Clip]]:
    """Up to ``count`` clips with their captions; those that ``folder`` holds are not made again."""
    clips = []
    for cell, record in tqdm(choose_clips(cells, count), desc="clips", unit="clip", disable=None):
        name = "__".join((cell.policy, cell.robot, cell.task, cell.tier, str(record.seed), str(record.episode)))
        path = folder / f"{name.replace('/', '-')}.webp"
        clip = _cached(path)
        if clip is None:
            env = make_env(cell.robot, cell.task, 1)
            clip = _clip(policies[cell.policy][cell.robot], env, record, latency)
            env.close()
            _keep(path, clip)
        caption = (
            f"{cell.policy}, {cell.robot} ({cell.tier}) in {cell.task}, seed {record.seed}, episode {record.episode}"
        )
        clips.append((caption, clip))
    return clips


def _clip(policy: Policy | None, env: VecEnv, record: EpisodeRecord, latency: int) -> Clip:
    try:
        return film(policy, env, record.seed, record.episode, latency)
    except GraphicsError:
        assert isinstance(env.task, GoalNav) and isinstance(env, MujocoEnv)
        return sketch(record, *_setting(env.task, record.seed, record.episode), env.embodiment.footprint)


def _cached(path: Path) -> Clip | None:
    notes = path.with_suffix(".json")
    if not notes.exists():
        return None
    return Clip(path.read_bytes(), **json.loads(notes.read_text(encoding="utf-8")))


def _keep(path: Path, clip: Clip) -> None:
    """Write the picture, then its notes."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(clip.webp)
    notes = {key: getattr(clip, key) for key in ("outcome", "drawn", "speed")}
    write_text(path.with_suffix(".json"), json.dumps(notes))
