"""What environments of tools share whose worlds step one after the other in this thread: episodes and a step's form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibody.envs.vec_env import Step
from omnibody.robots.spec import IOSpec
from omnibody.sim_tasks.task import Obs, ToolTask


class SerialEnv(ABC):
    """See `omnibody.envs.vec_env.VecEnv` for the contract; an action outside its bounds is clipped."""

    task: ToolTask
    term = "reward"  # the name of the reward's one summand

    def __init__(self, task: ToolTask, num_envs: int) -> None:
        self.embodiment, self.task, self.num_envs = task.body, task, num_envs
        self.dt = 1.0 / task.body.rate_hz
        self.spec = IOSpec(task.obs_fields, task.body.action, task.body.rate_hz)
        self.episode = torch.zeros(num_envs, dtype=torch.int64)
        self.world: Any = None
        self._low, self._high = (np.array(bound) for bound in (self.spec.action.low, self.spec.action.high))
        self._seed, self._next_episode = 0, 0
        self._steps = np.zeros(num_envs, np.int64)

    @abstractmethod
    def _advance(self, actions: NDArray[np.float64]) -> None:
        """Let actions (N, Da), within their bounds, act for ``dt`` seconds."""

    @abstractmethod
    def _start(self, rows: NDArray[np.int64], episodes: NDArray[np.int64], seed: int) -> None:
        """Put the worlds ``rows`` to the starts of ``episodes``."""

    @abstractmethod
    def _look(self) -> Any:
        """The state of all worlds as the task knows it."""

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Start the episodes ``first_episode ... + N - 1`` of ``seed``."""
        self._seed, self._next_episode = seed, first_episode
        return self._begin(np.arange(self.num_envs))

    def step(self, action: Tensor) -> Step:
        """Apply actions (N, Da) for ``dt`` seconds; finished envs begin their next episode."""
        self._advance(self._checked(action))
        self._steps += 1
        self.world = world = self._look()
        task, episode = self.task, self.episode
        next_obs, reward, success = task.observe(world), task.reward(world), task.success(world)
        measures = task.measures(world)
        terminated = success | task.failure(world)
        truncated = torch.from_numpy(self._steps >= round(task.max_seconds / self.dt)) & ~terminated
        done = terminated | truncated
        obs = self._begin(np.flatnonzero(done.numpy())) if bool(done.any()) else next_obs
        terms = {self.term: reward}
        return Step(obs, next_obs, reward, terminated, truncated, success, terms, measures, world, episode)

    def expert(self) -> Tensor:
        """The task's expert actions (N, Da), to be asked once in every step."""
        return self.task.expert(self.world)

    def close(self) -> None:  # noqa: B027
        """Nothing runs between calls."""

    def _checked(self, action: Tensor) -> NDArray[np.float64]:
        if tuple(action.shape) != (wanted := (self.num_envs, *self.spec.action.shape)):
            raise ValueError(f"action: wanted shape {wanted}, came {tuple(action.shape)}")
        command = action.detach().cpu().numpy().astype(np.float64)
        if not np.isfinite(command).all():
            raise ValueError("action: wanted finite numbers, came NaN or inf")
        return np.clip(command, self._low, self._high)

    def _begin(self, rows: NDArray[np.int64]) -> Obs:
        """Start the next episodes in ``rows``; the observation of all worlds."""
        episodes = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        self._start(rows, episodes, self._seed)
        self._steps[rows] = 0
        self.episode = self.episode.clone()
        self.episode[torch.from_numpy(rows)] = torch.from_numpy(episodes)
        self.world = self._look()
        return self.task.observe(self.world)

    def _time(self) -> Tensor:
        """Since the episodes began, (N,) float32 [s]."""
        return torch.from_numpy(self._steps * self.dt).float()
