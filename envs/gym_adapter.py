"""Omnibody environments as `gymnasium.Env` and `gymnasium.vector.VectorEnv`, registered under ``omnibody/``.

``gymnasium.make("omnibody/goal_nav-go2-v0", scene="office", tier="T1")`` and ``gymnasium.make_vec`` take the same
keyword arguments: ``scene`` a family of the task, ``tier``, ``randomization``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from omnibody.envs.make import make_env
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.randomization import RandomizationCfg
from omnibody.robots.spec import Field, IOSpec
from omnibody.robots.table import ROBOTS
from omnibody.sim_tasks.table import TASKS
from omnibody.sim_tasks.task import Obs

Arrays = dict[str, NDArray[Any]]


def box(field: Field) -> spaces.Box:
    """The gymnasium space of a field."""
    dtype = np.dtype(field.dtype).type
    low = np.broadcast_to(np.asarray(field.low, field.dtype), field.shape)
    high = np.broadcast_to(np.asarray(field.high, field.dtype), field.shape)
    return spaces.Box(low, high, field.shape, dtype)


def observation_space(spec: IOSpec) -> spaces.Dict:
    """The gymnasium space of a spec's observations."""
    return spaces.Dict({key: box(field) for key, field in spec.obs.items()})


def arrays(obs: Obs, spec: IOSpec) -> Arrays:
    """Observations as numpy arrays within their spaces (a reading beyond its range is clipped to it)."""
    out = {}
    for key, field in spec.obs.items():
        value = obs[key].numpy()
        out[key] = np.clip(value, np.asarray(field.low), np.asarray(field.high)).astype(field.dtype)
    return out


class OmnibodyEnv(gymnasium.Env[Arrays, NDArray[np.float32]]):
    """A single environment; the action is the twist (vx, vy, wz) [m/s, m/s, rad/s]."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self,
        task: str,
        robot: str,
        tier: str = "best",
        randomization: RandomizationCfg | None = None,
        rgb: int = 0,
    ) -> None:
        self._env = make_env(robot, task, num_envs=1, tier=tier, threads=1, randomization=randomization, rgb=rgb)
        self.observation_space = observation_space(self._env.spec)
        self.action_space = box(self._env.spec.action)
        self._seed = 0
        self._played = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Begin the next episode, or episode 0 of ``seed``."""
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._played = seed, 0
        obs = self._env.reset(self._seed, self._played)
        self._played += 1
        return self._row(obs), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """Apply a twist command for one period."""
        step = self._env.step(torch.as_tensor(np.asarray(action, np.float32))[None])
        info = {"is_success": bool(step.success[0])}
        ended, cut = bool(step.terminated[0]), bool(step.truncated[0])
        return self._row(step.next_obs), float(step.reward[0]), ended, cut, info

    def close(self) -> None:
        """Stop the worker thread."""
        self._env.close()

    def _row(self, obs: Obs) -> Arrays:
        return {key: value[0] for key, value in arrays(obs, self._env.spec).items()}


class OmnibodyVectorEnv(VectorEnv[Arrays, NDArray[np.float32], NDArray[Any]]):
    """N environments in one batch with same-step autoreset: ``infos["final_obs"]`` holds the true successors."""

    def __init__(
        self,
        task: str,
        robot: str,
        num_envs: int = 1,
        tier: str = "best",
        randomization: RandomizationCfg | None = None,
        rgb: int = 0,
    ) -> None:
        self._env: MujocoEnv = make_env(robot, task, num_envs, tier, randomization=randomization, rgb=rgb)
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = observation_space(self._env.spec)
        self.single_action_space = box(self._env.spec.action)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Begin the first ``num_envs`` episodes of ``seed``; the batch takes one seed."""
        if isinstance(seed, list):
            raise TypeError(f"seed: wanted one int for the whole batch, came a list of {len(seed)}")
        return arrays(self._env.reset(seed or 0), self._env.spec), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Arrays, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Apply twist commands (N, 3) for one period."""
        step = self._env.step(torch.as_tensor(np.asarray(actions, np.float32)))
        infos: dict[str, Any] = {"is_success": step.success.numpy()}
        if bool(step.done.any()):
            infos |= {"final_obs": arrays(step.next_obs, self._env.spec), "_final_obs": step.done.numpy()}
        obs = arrays(step.obs, self._env.spec)
        return obs, step.reward.numpy(), step.terminated.numpy(), step.truncated.numpy(), infos

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the worker threads."""
        self._env.close()


def _make_single(task: str, robot: str, scene: str = "mixed", **options: Any) -> OmnibodyEnv:
    return OmnibodyEnv(f"{task}/{scene}", robot, **options)


def _make_vector(task: str, robot: str, scene: str = "mixed", **options: Any) -> OmnibodyVectorEnv:
    return OmnibodyVectorEnv(f"{task}/{scene}", robot, **options)


def env_id(task: str, robot: str) -> str:
    """The gymnasium id of a task and a robot."""
    return f"omnibody/{task}-{robot}-v0"


def register() -> None:
    """Register every task and robot with gymnasium; called by its plug-in entry point."""
    for task in TASKS:
        for robot in ROBOTS:
            gymnasium.register(
                id=env_id(task, robot),
                entry_point=_make_single,
                vector_entry_point=_make_vector,
                kwargs={"task": task, "robot": robot},
                order_enforce=True,
            )
