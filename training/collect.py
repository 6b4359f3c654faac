"""``omnibody collect``: the expert drives, a dataset is written, and the same command goes on where it was stopped.

Two kinds of episodes, as X-Mobility's data (specs: a random-action set for the dynamics, a teacher set for the policy),
mixed in one dataset: in most the expert drives, pushed off its way by bursts of noise; in a share ``random`` of them
random commands are executed. The expert's own command is recorded beside the executed one in all of them, so every
step is a label, also for getting back on the way. A task on a table has a player instead, whose actions are recorded as
they are.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor
from tqdm import tqdm

from omnibody.envs.any_task import make_task_env
from omnibody.envs.make import make_env
from omnibody.envs.randomization import RandomizationCfg
from omnibody.envs.vec_env import Step, VecEnv
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.spec import Limits, mobile
from omnibody.robots.table import load_body, load_robot
from omnibody.sim_tasks.push_t import PushTCfg
from omnibody.sim_tasks.table import body_of, task_config, task_names
from omnibody.sim_tasks.task import Obs
from omnibody.training.config import BODY, load, parse
from omnibody.training.data.layout import Episode, Origin
from omnibody.training.data.writer import DatasetWriter
from omnibody.training.provenance import git_revision

SOURCE = "source="
SOURCES = {
    "expert": "omnibody.training.collect:demonstrate",  # of the task, in simulation
    "bag": "omnibody.deploy_ros.workstation.bag:main",  # a robot's recording
}
OF_BASES = ("map", "tier", "rgb", "exploration", "randomization")  # keys that mean nothing to a player
STREAM = 0xC0  # keeps this generator apart from others that are seeded by (seed, episode)


@dataclass
class ExplorationCfg:
    """How the executed commands differ from the expert's."""

    random: float = 0.15  # share of the episodes that execute random commands
    hold: float = 1.0  # mean time a random command is held [s]
    bursts: float = 0.15  # bursts of noise per second while the expert drives
    burst: float = 0.8  # mean length of a burst [s]
    size: float = 0.6  # largest offset in a burst, as a share of the command's range

    def __post_init__(self) -> None:
        for key, most in {"random": 1.0, "hold": np.inf, "bursts": np.inf, "burst": np.inf, "size": 1.0}.items():
            least = 0.0 if key in ("random", "bursts", "size") else 1e-3
            if not least <= getattr(self, key) <= most:
                raise ValueError(f"{key}: wanted {least} to {most}, came {getattr(self, key)}")


@dataclass
class CollectCfg:
    """Record demonstrations of the expert; the same command goes on where it was stopped."""

    robot: str = field(default="", metadata=BODY)  # the body; of block_push tip
    out: str = MISSING  # folder of the dataset
    task: str = "goal_nav/office"  # what to demonstrate, e.g. block_push
    map: str = ""  # YAML of a ROS map_server map, for the task goal_nav/map
    episodes: int = 200  # in all, those already there included
    tier: str = "best"  # fidelity: T0, T1, T2, or the best the body has
    rgb: int = 0  # rows of a colour picture from the body's camera, kept as video; 0: none
    num_envs: int = 16  # worlds side by side; the data do not depend on it
    seed: int = 0  # of scenes, starts, goals and noise
    exploration: ExplorationCfg = field(default_factory=ExplorationCfg)  # noise on the commands
    randomization: RandomizationCfg = field(default_factory=RandomizationCfg)  # of the body and its sensors

    def __post_init__(self) -> None:
        for key in ("episodes", "num_envs"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: wanted at least 1, came {getattr(self, key)}")
        if self.task not in task_names():
            raise unknown("task", self.task, task_names())
        self.robot = self.robot or body_of(self.task) or ""
        if not self.robot:
            raise ValueError("robot: wanted a body, nothing came; add robot=<body>")
        if body_of(self.task):
            self._refuse(OF_BASES)

    def _refuse(self, keys: Sequence[str]) -> None:
        """See that none of these is set."""
        for part in dataclasses.fields(self):
            default = part.default if part.default_factory is dataclasses.MISSING else part.default_factory()
            if part.name in keys and getattr(self, part.name) != default:
                raise ValueError(f"{part.name}: wanted nothing for {self.task}, came {getattr(self, part.name)}")


@dataclass(frozen=True)
class Collected:
    """What one call added: ``successes`` of the ``driven`` episodes, in which not chance but the expert drove."""

    episodes: int
    frames: int
    driven: int
    successes: int


class Explorer:
    """The executed commands of one episode: a function of (seed, episode number) and of the expert's commands."""

    def __init__(self, cfg: ExplorationCfg, limits: Limits, dt: float, seed: int, episode: int) -> None:
        self.cfg, self.limits, self.dt = cfg, limits, dt
        self.low, self.high = np.array(limits.velocity_low), np.array(limits.velocity_high)
        self._rng = np.random.default_rng([STREAM, seed, episode])
        self.is_random = bool(self._rng.random() < cfg.random)
        self._left = 0  # steps that the present command or offset still holds
        self._held = np.zeros(3)

    def execute(self, expert: np.ndarray) -> np.ndarray:
        """The command (3,) to execute where the expert wants ``expert`` (3,) [m/s, m/s, rad/s]."""
        if self._left == 0:
            self._draw()
        self._left = max(self._left - 1, 0)
        wanted = self._held if self.is_random else expert + self._held
        return self.limits.clip(wanted)

    def _draw(self) -> None:
        cfg, rng = self.cfg, self._rng
        self._held = np.zeros(3)
        if self.is_random:
            self._held, self._left = rng.uniform(self.low, self.high), self._steps(cfg.hold)
        elif rng.random() < cfg.bursts * self.dt:
            reach = cfg.size * (self.high - self.low)
            self._held, self._left = rng.uniform(-reach, reach), self._steps(cfg.burst)

    def _steps(self, seconds: float) -> int:
        """A random number of steps, at least one, that last ``seconds`` on average."""
        return int(self._rng.geometric(min(1.0, self.dt / seconds)))


def collect(env: VecEnv, writer: DatasetWriter, episodes: int, cfg: ExplorationCfg | None) -> Collected:
    """Bring the dataset of ``writer`` to ``episodes`` episodes, the first of its seed, in the order of their numbers.

    Without a ``cfg`` the expert's actions are executed and are all that is recorded of them.

    An episode is appended when it and all before it have ended; a kill loses those not appended, and they are played
    again.
    """
    start, frames, driven, successes = writer.num_episodes, 0, 0, 0
    if start >= episodes:
        return Collected(0, 0, 0, 0)
    seed = writer.origin.seed
    obs = env.reset(seed, first_episode=start)
    traces = [_Trace(env, row, cfg, seed) for row in range(env.num_envs)]
    finished: dict[int, _Trace] = {}
    with tqdm(desc="collect", total=episodes, initial=start, unit="episode", delay=2) as bar:
        while writer.num_episodes < episodes:
            expert = env.expert()
            action = torch.stack([trace.command(expert[row]) for row, trace in enumerate(traces)])
            own = {"action": action} if cfg is None else {"action": action, "expert": expert, "pose": _pose(env)}
            step = env.step(action)
            for row, trace in enumerate(traces):
                trace.extend(row, obs, own, step)
            for row in torch.nonzero(step.done).flatten().tolist():
                finished[int(step.episode[row])] = traces[row]
                traces[row] = _Trace(env, row, cfg, seed)
            while writer.num_episodes in finished and writer.num_episodes < episodes:
                trace = finished.pop(writer.num_episodes)
                writer.append(episode := trace.episode())
                frames += len(episode.action)
                driven += trace.is_driven
                successes += bool(episode.success[-1]) and trace.is_driven
                bar.update()
            obs = step.obs
    return Collected(writer.num_episodes - start, frames, driven, successes)


def _pose(env: VecEnv) -> Tensor:
    """Ground poses (N, 3) of the bases."""
    return torch.cat([env.world.position[:, :2], env.world.yaw[:, None]], 1)


class _Trace:
    """The steps so far of the episode that runs in one env."""

    def __init__(self, env: VecEnv, row: int, cfg: ExplorationCfg | None, seed: int) -> None:
        self._explorer: Explorer | None = None
        if cfg is not None:
            self._explorer = Explorer(cfg, mobile(env.embodiment).limits, env.dt, seed, int(env.episode[row]))
        self.obs: dict[str, list[np.ndarray]] = {key: [] for key in env.spec.obs}
        self.steps: dict[str, list[np.ndarray]] = {}
        self.last: dict[str, np.ndarray] = {}

    @property
    def is_driven(self) -> bool:
        """Whether the expert drives, and not chance."""
        return self._explorer is None or not self._explorer.is_random

    def command(self, expert: Tensor) -> Tensor:
        """What to execute (Da,) where the expert wants ``expert`` (Da,)."""
        if self._explorer is None:
            return expert
        return torch.from_numpy(self._explorer.execute(expert.numpy().astype(np.float64))).float()

    def extend(self, row: int, obs: Obs, own: dict[str, Tensor], step: Step) -> None:
        """Note what env ``row`` saw, got, and of its ``own`` doing (N, ...) each."""
        for key, values in self.obs.items():
            values.append(obs[key][row].numpy().copy())
            self.last[key] = step.next_obs[key][row].numpy().copy()
        ends = {"terminated": step.terminated, "truncated": step.truncated, "success": step.success}
        for name, tensor in {**own, "reward": step.reward, **ends}.items():
            self.steps.setdefault(name, []).append(tensor[row].numpy().copy())

    def episode(self) -> Episode:
        """All of it, once it has ended."""
        obs = {key: np.stack([*values, self.last[key]]) for key, values in self.obs.items()}
        return Episode(obs=obs, **{name: np.stack(values) for name, values in self.steps.items()})


def origin(cfg: CollectCfg, env: VecEnv, instruction: str) -> Origin:
    """Everything that decides what the episodes look like."""
    recipe: dict[str, Any] = {name: dataclasses.asdict(getattr(cfg, name)) for name in ("exploration", "randomization")}
    body = mobile(env.embodiment)
    tier = body.best_tier if cfg.tier == "best" else cfg.tier
    recipe |= {"map": cfg.map} if cfg.map else {}
    return Origin.of(body, env.spec, cfg.task, instruction, tier, cfg.seed, recipe)


def record(cfg: CollectCfg) -> Collected:
    """Run what ``cfg`` says; the dataset is in ``cfg.out`` afterwards."""
    torch.set_num_threads(1)  # the worlds use the cores
    if body_of(cfg.task):
        return record_play(cfg)
    task = task_config(cfg.task, **({"map": cfg.map} if cfg.map else {}))
    env = make_env(load_robot(cfg.robot), task, cfg.num_envs, cfg.tier, randomization=cfg.randomization, rgb=cfg.rgb)
    try:
        source = origin(cfg, env, env.task.instruction)
        with DatasetWriter(cfg.out, source, git_revision() or "unknown") as writer:
            return collect(env, writer, cfg.episodes, cfg.exploration)
    finally:
        env.close()


def record_play(cfg: CollectCfg) -> Collected:
    """The same for the player of a task on a table."""
    task, body = task_config(cfg.task), load_body(cfg.robot)
    if isinstance(task, PushTCfg):
        raise UserError(f"task: wanted one with an expert, came {cfg.task}, which people show; see omnibody import")
    env = make_task_env(body, task, min(cfg.num_envs, cfg.episodes))
    words = env.task.instruction
    source = Origin(env.spec, cfg.task, words, body.name, body.best_tier, (), cfg.seed, {}, ("reward",))
    with DatasetWriter(cfg.out, source, git_revision() or "unknown") as writer:
        return collect(env, writer, cfg.episodes, None)


def main(argv: Sequence[str]) -> None:
    """``omnibody collect [source=expert|bag] <keys of the source>``."""
    source = next((word.removeprefix(SOURCE) for word in argv if word.startswith(SOURCE)), "expert")
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)
    if "--help" in argv or "-h" in argv:
        print(f"{SOURCE}{'|'.join(SOURCES)}: who drives; these are the keys of {SOURCE}{source}")
    load(SOURCES[source])([word for word in argv if not word.startswith(SOURCE)])


def demonstrate(argv: Sequence[str]) -> None:
    """``omnibody collect robot=<body> task=<task> episodes=<n> out=<folder> ...``."""
    cfg = parse(CollectCfg, argv)
    new = record(cfg)
    print(
        f"{cfg.out}: {new.episodes} new episodes, {new.frames} steps; the expert solved {new.successes} of {new.driven}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
