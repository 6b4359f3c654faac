"""`VecEnv` of a task on a table in MuJoCo: N worlds of one model, stepped one after the other in this thread."""

from __future__ import annotations

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibody.envs.vec_env import Step
from omnibody.robots.spec import IOSpec
from omnibody.sim_tasks.tabletop import TabletopTask, TabletopWorld
from omnibody.sim_tasks.task import Obs

PARTS = ("qpos", "qvel", "ctrl", "mocap_pos", "eq_active")  # of `TabletopWorld`, by their names in ``MjData``


class TabletopEnv:
    """See `omnibody.envs.vec_env.VecEnv` for the contract; an action outside its bounds is clipped."""

    def __init__(self, task: TabletopTask, num_envs: int) -> None:
        self.embodiment, self.task, self.num_envs = task.body, task, num_envs
        self.dt = 1.0 / task.body.rate_hz
        self.spec = IOSpec(task.obs_fields, task.body.action, task.body.rate_hz)
        self.model = task.model()
        self.datas = [mujoco.MjData(self.model) for _ in range(num_envs)]
        self.episode = torch.zeros(num_envs, dtype=torch.int64)
        self.world: TabletopWorld
        self._substeps = round(self.dt / self.model.opt.timestep)
        self._views = {part: [getattr(data, part) for data in self.datas] for part in PARTS}
        self._low, self._high = (np.array(bound) for bound in (self.spec.action.low, self.spec.action.high))
        self._seed, self._next_episode = 0, 0
        self._steps = np.zeros(num_envs, np.int64)

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Start the episodes ``first_episode ... + N - 1`` of ``seed``."""
        self._seed, self._next_episode = seed, first_episode
        return self._begin(np.arange(self.num_envs))

    def step(self, action: Tensor) -> Step:
        """Apply actions (N, Da) for ``dt`` seconds; finished envs begin their next episode."""
        for row, (data, command) in enumerate(zip(self.datas, self._checked(action), strict=True)):
            self.task.drive(data, row, command)
            mujoco.mj_step(self.model, data, self._substeps)
        self._steps += 1
        task, episode = self.task, self.episode
        self.world = world = self._look()
        next_obs, reward, measures = task.observe(world), task.reward(world), task.measures(world)
        success = task.success(world)
        terminated = success | task.failure(world)
        truncated = torch.from_numpy(self._steps >= round(task.max_seconds / self.dt)) & ~terminated
        done = terminated | truncated
        obs = self._begin(np.flatnonzero(done.numpy())) if bool(done.any()) else next_obs
        terms = {"reward": reward}
        return Step(obs, next_obs, reward, terminated, truncated, success, terms, measures, world, episode)

    def expert(self) -> Tensor:
        """The task's player, to be asked once in every step."""
        return self.task.expert(self.world)

    def close(self) -> None:
        """Nothing runs between calls."""

    def _checked(self, action: Tensor) -> NDArray[np.float64]:
        if tuple(action.shape) != (wanted := (self.num_envs, *self.spec.action.shape)):
            raise ValueError(f"action: wanted shape {wanted}, came {tuple(action.shape)}")
        command = action.detach().cpu().numpy().astype(np.float64)
        if not np.isfinite(command).all():
            raise ValueError("action: wanted finite numbers, came NaN or inf")
        return np.clip(command, self._low, self._high)

    def _begin(self, rows: NDArray[np.int64]) -> Obs:
        """Start the next episodes in ``rows``; the observation of all tables."""
        episodes = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        for row, qpos in zip(rows, self.task.start(rows, episodes, self._seed), strict=True):
            data = self.datas[row]
            mujoco.mj_resetData(self.model, data)
            self.task.place(data, qpos)
            mujoco.mj_forward(self.model, data)
        self._steps[rows] = 0
        self.episode = self.episode.clone()
        self.episode[torch.from_numpy(rows)] = torch.from_numpy(episodes)
        self.world = self._look()
        return self.task.observe(self.world)

    def _look(self) -> TabletopWorld:
        time = torch.from_numpy(self._steps * self.dt).float()
        parts = {part: torch.from_numpy(np.stack(views)) for part, views in self._views.items()}
        return TabletopWorld(time, **{**parts, "eq_active": parts["eq_active"].bool()})
