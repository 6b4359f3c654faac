"""Play numbered episodes in a batch that never waits, and record what each one showed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnibody.envs.vec_env import Step, VecEnv
from omnibody.policies.executor import Executor
from omnibody.policies.policy import Context, Policy

SUCCESS, TIMEOUT = "success", "timeout"
PATH_SECONDS = 0.5  # spacing of the recorded path's points
FOLDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "min": np.fmin,
    "max": np.fmax,
    "last": lambda before, now: now.astype(np.float64),
}
Pose = tuple[float, ...]


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode showed.

    ``outcome``: "success", "timeout" or the task's word for how it failed; ``seconds`` until it ended; ``path``: the
    task's poses at spaced times, the first and the last included; ``measures``: the rest, by the task's names.
    ``policy_ms`` is the mean time of a batched call of the policy and ``policy_ms_p50`` and ``policy_ms_p95`` its
    quantiles; no two runs share them, so equality leaves them out.
    """

    seed: int
    episode: int
    outcome: str
    seconds: float
    path: tuple[Pose, ...]
    measures: dict[str, float]
    policy_ms: float = field(compare=False)
    policy_ms_p50: float | None = field(default=None, compare=False)
    policy_ms_p95: float | None = field(default=None, compare=False)

    @property
    def success(self) -> bool:
        """Whether the task was solved."""
        return self.outcome == SUCCESS

    @property
    def timeout(self) -> bool:
        """Whether the time limit cut it."""
        return self.outcome == TIMEOUT

    def to_json(self) -> dict[str, Any]:
        """All fields; ``from_json`` gives back an equal record."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(raw: dict[str, Any]) -> EpisodeRecord:
        """Read what ``to_json`` gave."""
        return EpisodeRecord(**{**raw, "path": tuple(tuple(pose) for pose in raw["path"])})


def rollout(policy: Policy | None, env: VecEnv, episodes: int, seed: int, latency: int = 0) -> list[EpisodeRecord]:
    """Records of the episodes 0 ... ``episodes`` - 1 of ``seed``, in this order; without a policy the expert acts.

    ``latency``: steps that a call of the policy takes, as `Executor` plays them.
    """
    return sorted(play(policy, env, episodes, seed, latency=latency), key=lambda record: record.episode)


def play(
    policy: Policy | None, env: VecEnv, episodes: int, seed: int, known: Set[int] = frozenset(), latency: int = 0
) -> Iterator[EpisodeRecord]:
    """Like ``rollout``, but yields each record when its episode ends, and leaves out the ``known`` episodes.

    Finished envs go on with the next episode number at once. Exactly the numbers asked for are counted, however many
    later ones end before them: taking the first that finish would favour short episodes.
    """
    missing = set(range(episodes)) - known
    if not missing:
        return
    obs = env.reset(seed, first_episode=min(missing))
    executor = None if policy is None else Executor(policy, Context(env.embodiment), env.num_envs, latency)
    traces = _Traces(env)
    while missing:
        began = time.perf_counter()
        action = env.expert() if executor is None else executor.act(obs)
        milliseconds = 1e3 * (time.perf_counter() - began)
        step = env.step(action)
        traces.extend(step, milliseconds)
        for row in torch.nonzero(step.done).flatten().tolist():
            if int(step.episode[row]) in missing:
                missing.remove(int(step.episode[row]))
                record = traces.record(row, step, seed)
                yield record if executor is None else _executed(record, executor, row)
        if bool(step.done.any()):
            traces.restart(step.done)
            if executor is not None:
                executor.restart(step.done)
        obs = step.obs


def _executed(record: EpisodeRecord, executor: Executor, row: int) -> EpisodeRecord:
    """The record with what the executor noted of its episode."""
    times = executor.log.milliseconds(row)
    p50, p95 = np.quantile(times, [0.5, 0.95]).tolist()
    measures = record.measures | executor.log.measures(row, executor.policy.evaluations)
    mean = float(np.mean(times))
    return dataclasses.replace(record, measures=measures, policy_ms=mean, policy_ms_p50=p50, policy_ms_p95=p95)


class _Traces:
    """What the running episodes have shown so far, by env."""

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        # NaN: nothing measured yet; fmin and fmax pass it over.
        self._folded = {name: np.full(env.num_envs, np.nan) for name in env.task.folds}
        self._milliseconds: list[list[float]] = [[] for _ in range(env.num_envs)]
        self._path: list[list[list[float]]] = [[] for _ in range(env.num_envs)]
        self.restart(torch.ones(env.num_envs, dtype=torch.bool))

    def restart(self, done: Tensor) -> None:
        """Start new traces where ``done`` (N,), from the state the envs are in."""
        poses = self.env.task.path(self.env.world).tolist()
        for values in self._folded.values():
            values[done.numpy()] = np.nan
        for row in torch.nonzero(done).flatten().tolist():
            self._path[row], self._milliseconds[row] = [poses[row]], []

    def extend(self, step: Step, milliseconds: float) -> None:
        """Add a step of all envs."""
        for name, (measure, fold) in self.env.task.folds.items():
            self._folded[name] = FOLDS[fold](self._folded[name], step.measures[measure].numpy())
        for row, pose in enumerate(self.env.task.path(step.world).tolist()):
            self._path[row].append(pose)
            self._milliseconds[row].append(milliseconds)

    def record(self, row: int, step: Step, seed: int) -> EpisodeRecord:
        """The record of the episode that ``step`` ended in env ``row``."""
        task, dt, path = self.env.task, self.env.dt, self._path[row]
        if bool(step.success[row]):
            outcome = SUCCESS
        else:
            outcome = task.failures(step.world)[row] if bool(step.terminated[row]) else TIMEOUT
        every = max(1, round(PATH_SECONDS / dt))
        kept = [*range(0, len(path) - 1, every), len(path) - 1]
        folded = {name: float(values[row]) for name, values in self._folded.items()}
        return EpisodeRecord(
            seed=seed,
            episode=int(step.episode[row]),
            outcome=outcome,
            seconds=round((len(path) - 1) * dt, 6),
            path=tuple(tuple(round(value, 3) for value in path[index]) for index in kept),
            measures=folded | task.conclude(outcome, np.asarray(path), dt),
            policy_ms=float(np.mean(self._milliseconds[row])),
        )
