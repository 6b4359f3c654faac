"""The environment contract: N worlds stepped together, with the true successor observation always returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from omnibody.robots.spec import Body, IOSpec
from omnibody.sim_tasks.task import Judged, Obs


@dataclass(frozen=True)
class Step:
    """The result of one step of N environments.

    ``next_obs`` is the true successor of the observation acted on; ``obs`` is what to act on next: the same tensors,
    but with the rows of finished episodes replaced by the first observation of their next episode.
    ``reward`` (N,) float32; ``terminated``, ``truncated``, ``success`` (N,) bool; ``terms``: reward summands (N,).
    ``measures``: what the task measured at the successor state (N,) each; ``world``: that state itself, so that the
    last pose of an episode is known; its type is the task's own, as `World`. ``episode`` (N,) int64: which episode the
    step belonged to.
    """

    obs: Obs
    next_obs: Obs
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    success: Tensor
    terms: dict[str, Tensor]
    measures: dict[str, Tensor]
    world: Any
    episode: Tensor

    @property
    def done(self) -> Tensor:
        """(N,) bool: the episode ended, for whichever reason."""
        return self.terminated | self.truncated


class VecEnv(Protocol):
    """N worlds of one body in one task.

    Env ``i`` plays the episodes ``i, i + N, i + 2N, ...`` (or takes the next unplayed number, see ``reset``), each a
    pure function of (seed, episode number): scene, start, goal and domain randomisation.
    """

    num_envs: int
    spec: IOSpec
    dt: float
    episode: Tensor  # (N,) int64, the episodes now running
    world: Any  # the state ``obs`` was computed from, as the task knows it

    @property
    def embodiment(self) -> Body:
        """The body of all worlds."""

    @property
    def task(self) -> Judged:
        """What is done in all worlds."""

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Start episodes ``first_episode ... + N - 1`` under ``seed``; finished envs take the next number in turn."""

    def step(self, action: Tensor) -> Step:
        """Apply actions (N, Da) (of a base twists) for ``dt`` seconds; finished envs begin their next episode."""

    def expert(self) -> Tensor:
        """The task's expert actions (N, Da) for the current state."""

    def close(self) -> None:
        """Stop the worker threads."""
