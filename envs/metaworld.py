"""`VecEnv` of a Meta-World task: N of the package's own environments, stepped one after the other in this thread.

A step gives Meta-World's bits; a test compares them. Its code is made for MuJoCo 3.3.0; on later ones, where the data
of a constraint have got longer, one method has to be replaced.
"""

from __future__ import annotations

import pickle
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnibody.envs.vec_env import Step
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec
from omnibody.sim_tasks.metaworld import INSTALL, MetaWorld, MetaWorldState, package
from omnibody.sim_tasks.task import Obs

STREAM = 0x3E7A  # keeps this generator apart from others that are seeded by (seed, episode)
WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)  # Meta-World's, of hand and mocap body


class Table:
    """One of Meta-World's environments, in which every episode has a start of its own."""

    def __init__(self, scene: str) -> None:
        self._scene, self._cls = scene, _classes()[scene]
        # A class of its own leaves the package's as it is for others in this process.
        self.env = type(self._cls.__name__, (self._cls,), {"reset_mocap_welds": _reset_mocap_welds})()

    def begin(self, seed: int, episode: int) -> NDArray[np.float64]:
        """Start an episode; its state (39,).

        As Meta-World's benchmarks do it: a start is drawn first, rejected ones aside, then set as a task, and then the
        env is reset to it, as a start that is drawn by the reset itself would show objects where they were before.
        """
        env = self.env
        env.np_random = np.random.default_rng([STREAM, seed, episode])
        env.seeded_rand_vec, env._freeze_rand_vec, env._set_task_called = True, False, True
        env.reset_model()
        task = {"env_cls": self._cls, "rand_vec": env._last_rand_vec, "partially_observable": False}
        env.set_task(package("metaworld.types").Task(self._scene, pickle.dumps(task)))
        state: NDArray[np.float64] = env.reset()[0]
        return state

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool]:
        """State (39,), reward and success after an action (4,)."""
        state, reward, _, _, info = self.env.step(action)
        return state, float(reward), bool(info["success"])


def _classes() -> Any:
    classes = getattr(package(), "ALL_V3_ENVIRONMENTS", None)
    if classes is None:
        raise UserError(f"metaworld: wanted version 3, which has the v3 tasks, came an older one; {INSTALL}")
    return classes


def _reset_mocap_welds(env: Any) -> None:
    """As Meta-World's, but leaves alone what MuJoCo has added to a constraint's data."""
    for index in np.flatnonzero(env.model.eq_type == mujoco.mjtEq.mjEQ_WELD):
        env.model.eq_data[index, : len(WELD)] = WELD


class MetaWorldEnv:
    """See `omnibody.envs.vec_env.VecEnv` for the contract; an action outside its bounds is clipped."""

    def __init__(self, task: MetaWorld, num_envs: int) -> None:
        self.embodiment, self.task, self.num_envs = task.body, task, num_envs
        self.dt = 1.0 / task.body.rate_hz
        self.spec = IOSpec(task.obs_fields, task.body.action, task.body.rate_hz)
        self.tables = [Table(task.scene) for _ in range(num_envs)]
        self.episode = torch.zeros(num_envs, dtype=torch.int64)
        self.world: MetaWorldState
        self._seed, self._next_episode = 0, 0
        self._steps = np.zeros(num_envs, np.int64)
        self._state, self._reward = np.zeros((num_envs, 39)), np.zeros(num_envs)
        self._success = np.zeros(num_envs, bool)

    def reset(self, seed: int, first_episode: int = 0) -> Obs:
        """Start the episodes ``first_episode ... + N - 1`` of ``seed``."""
        self._seed, self._next_episode = seed, first_episode
        return self._begin(np.arange(self.num_envs))

    def step(self, action: Tensor) -> Step:
        """Apply actions (N, 4) for ``dt`` seconds; finished envs begin their next episode."""
        for row, (table, command) in enumerate(zip(self.tables, self._checked(action), strict=True)):
            self._state[row], self._reward[row], self._success[row] = table.step(command)
        self._steps += 1
        self.world = world = self._look()
        next_obs, measures, episode = self.task.observe(world), self.task.measures(world), self.episode
        reward, success = world.reward.float(), world.success
        truncated = torch.from_numpy(self._steps >= round(self.task.max_seconds / self.dt)) & ~success
        done = success | truncated
        obs = self._begin(np.flatnonzero(done.numpy())) if bool(done.any()) else next_obs
        return Step(obs, next_obs, reward, success, truncated, success, {"reward": reward}, measures, world, episode)

    def expert(self) -> Tensor:
        """The actions of Meta-World's scripted expert."""
        return self.task.expert(self.world)

    def close(self) -> None:
        """Nothing runs between calls."""

    def _checked(self, action: Tensor) -> NDArray[np.float32]:
        if tuple(action.shape) != (self.num_envs, 4):
            raise ValueError(f"action: wanted shape ({self.num_envs}, 4), came {tuple(action.shape)}")
        command = action.detach().cpu().numpy().astype(np.float32)
        if not np.isfinite(command).all():
            raise ValueError("action: wanted finite numbers, came NaN or inf")
        return np.clip(command, -1.0, 1.0)

    def _begin(self, rows: NDArray[np.int64]) -> Obs:
        """Start the next episodes in ``rows``; the observation of all tables."""
        episodes = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        for row, episode in zip(rows.tolist(), episodes.tolist(), strict=True):
            self._state[row] = self.tables[row].begin(self._seed, episode)
        self._steps[rows], self._reward[rows], self._success[rows] = 0, 0.0, False
        self.episode = self.episode.clone()
        self.episode[torch.from_numpy(rows)] = torch.from_numpy(episodes)
        self.world = self._look()
        return self.task.observe(self.world)

    def _look(self) -> MetaWorldState:
        time = torch.from_numpy(self._steps * self.dt).float()
        parts = (torch.from_numpy(values.copy()) for values in (self._state, self._reward, self._success))
        return MetaWorldState(time, *parts)
