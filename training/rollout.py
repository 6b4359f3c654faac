"""Play numbered episodes in a batch that never waits, and record what each one showed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnibody.envs.vec_env import Step, VecEnv
from omnibody.policies.policy import Context, Obs, Policy, where_state
from omnibody.sim_tasks.task import World

STUCK_SECONDS, STUCK_METRES = 10.0, 0.5  # an episode that timed out, having kept within so far for so long, was stuck
PATH_SECONDS = 0.5  # spacing of the recorded path's points
Pose = tuple[float, float, float]


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode showed.

    Exactly one of ``success``, ``collision``, ``fall`` (the episode failed without a contact) and ``timeout`` holds;
    ``stuck`` is a timeout that stood still at its end. ``travel_time`` until the episode ended [s]; ``path_length``
    driven and ``shortest`` possible from the start to the goal around obstacles [m]; ``min_clearance`` the least
    distance between footprint and scene [m]; ``goal_distance`` [m] and ``heading_error`` [rad] at the end. ``path``
    holds ground poses (x [m], y [m], yaw [rad]), the first and the last included. ``policy_ms`` is the mean time of a
    batched call of the policy, which no two runs share, so equality leaves it out.
    """

    seed: int
    episode: int
    success: bool
    collision: bool
    fall: bool
    timeout: bool
    stuck: bool
    travel_time: float
    path_length: float
    shortest: float
    min_clearance: float
    goal_distance: float
    heading_error: float
    path: tuple[Pose, ...]
    policy_ms: float = field(compare=False)

    @property
    def spl(self) -> float:
        """Success weighted by path length (Anderson et al., arXiv 1807.06757), in [0, 1]."""
        return self.shortest / max(self.shortest, self.path_length, 1e-9) if self.success else 0.0

    @property
    def outcome(self) -> str:
        """The one word for how it ended."""
        return next(name for name in ("success", "collision", "fall", "timeout") if getattr(self, name))

    def to_json(self) -> dict[str, Any]:
        """All fields; ``from_json`` gives back an equal record."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(raw: dict[str, Any]) -> EpisodeRecord:
        """Read what ``to_json`` gave."""
        return EpisodeRecord(**{**raw, "path": tuple(tuple(pose) for pose in raw["path"])})


def rollout(policy: Policy | None, env: VecEnv, episodes: int, seed: int) -> list[EpisodeRecord]:
    """Records of the episodes 0 ... ``episodes`` - 1 of ``seed``, in this order; without a policy the expert acts."""
    return sorted(play(policy, env, episodes, seed), key=lambda record: record.episode)


def play(
    policy: Policy | None, env: VecEnv, episodes: int, seed: int, known: Set[int] = frozenset()
) -> Iterator[EpisodeRecord]:
    """Like ``rollout``, but yields each record when its episode ends, and leaves out the ``known`` episodes.

    Finished envs go on with the next episode number at once. Exactly the numbers asked for are counted, however many
    later ones end before them: taking the first that finish would favour short episodes.
    The task must measure ``clearance``, ``goal_distance``, ``heading_error`` and ``shortest_way``.
    """
    missing = set(range(episodes)) - known
    if not missing:
        return
    obs = env.reset(seed, first_episode=min(missing))
    actor = _Actor(policy, env)
    traces = _Traces(env)
    while missing:
        action, milliseconds = actor.act(obs)
        step = env.step(action)
        traces.extend(step, milliseconds)
        for row in torch.nonzero(step.done).flatten().tolist():
            if int(step.episode[row]) in missing:
                missing.remove(int(step.episode[row]))
                yield traces.record(row, step, seed)
        if bool(step.done.any()):
            actor.restart(step.done)
            traces.restart(step.done)
        obs = step.obs


class _Actor:
    """A policy with its state, or the expert."""

    def __init__(self, policy: Policy | None, env: VecEnv) -> None:
        self.policy, self.env = policy, env
        if policy is not None:
            self._device = next(policy.parameters()).device
            self._fresh = policy.begin(Context(env.embodiment), env.num_envs)
            self._state = self._fresh

    @torch.inference_mode()
    def act(self, obs: Obs) -> tuple[Tensor, float]:
        """Commands (N, 3) and how long they took [ms]. Of a chunk of actions the first is used: replan every step."""
        began = time.perf_counter()
        if self.policy is None:
            action = self.env.expert()
        else:
            obs = {key: value.to(self._device) for key, value in obs.items()}
            chunk, self._state = self.policy.act(obs, self._state)
            action = chunk[:, 0].cpu()
        return action, 1e3 * (time.perf_counter() - began)

    def restart(self, done: Tensor) -> None:
        """Begin anew where ``done`` (N,)."""
        if self.policy is not None:
            self._state = where_state(done.to(self._device), self._fresh, self._state)


class _Traces:
    """What the running episodes have shown so far, by env."""

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self._clearance = np.full(env.num_envs, np.inf)
        self._milliseconds: list[list[float]] = [[] for _ in range(env.num_envs)]
        self._path: list[list[Pose]] = [[] for _ in range(env.num_envs)]
        self.restart(torch.ones(env.num_envs, dtype=torch.bool))

    def restart(self, done: Tensor) -> None:
        """Start new traces where ``done`` (N,), from the state the envs are in."""
        poses = _poses(self.env.world)
        self._clearance[done.numpy()] = np.inf
        for row in torch.nonzero(done).flatten().tolist():
            self._path[row], self._milliseconds[row] = [poses[row]], []

    def extend(self, step: Step, milliseconds: float) -> None:
        """Add a step of all envs."""
        self._clearance = np.minimum(self._clearance, step.measures["clearance"].numpy())
        for row, pose in enumerate(_poses(step.world)):
            self._path[row].append(pose)
            self._milliseconds[row].append(milliseconds)

    def record(self, row: int, step: Step, seed: int) -> EpisodeRecord:
        """The record of the episode that ``step`` ended in env ``row``."""
        path = np.asarray(self._path[row])
        success = bool(step.success[row])
        failure = bool(step.terminated[row]) and not success
        collision = failure and bool(step.world.contact[row])
        timeout = not success and not failure
        every = max(1, round(PATH_SECONDS / self.env.dt))
        kept = [*range(0, len(path) - 1, every), len(path) - 1]
        return EpisodeRecord(
            seed=seed,
            episode=int(step.episode[row]),
            success=success,
            collision=collision,
            fall=failure and not collision,
            timeout=timeout,
            stuck=timeout and _stood_still(path[:, :2], self.env.dt),
            travel_time=round((len(path) - 1) * self.env.dt, 6),
            path_length=float(np.linalg.norm(np.diff(path[:, :2], axis=0), axis=1).sum()),
            shortest=float(step.measures["shortest_way"][row]),
            min_clearance=float(self._clearance[row]),
            goal_distance=float(step.measures["goal_distance"][row]),
            heading_error=float(step.measures["heading_error"][row]),
            path=tuple((round(x, 3), round(y, 3), round(yaw, 3)) for x, y, yaw in path[kept].tolist()),
            policy_ms=float(np.mean(self._milliseconds[row])),
        )


def _stood_still(positions: np.ndarray, dt: float) -> bool:
    """Whether the last STUCK_SECONDS of a path (T, 2) stayed within STUCK_METRES of its end."""
    last = positions[-round(STUCK_SECONDS / dt) :]
    return bool((np.linalg.norm(last - last[-1], axis=1) < STUCK_METRES).all())


def _poses(world: World) -> list[Pose]:
    return torch.cat([world.position[:, :2], world.yaw[:, None]], 1).tolist()
