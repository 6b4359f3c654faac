"""An Omnibody `VecEnv` as a stable-baselines3 `VecEnv`: terminal observations and time-limit truncation are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from omnibody.envs.gym_adapter import Arrays, arrays, box, observation_space
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.vec_env import Step
from omnibody.sim_tasks.task import Obs


class Sb3VecEnv(VecEnv):
    """Twist actions (N, 3) in, dict observations out.

    SB3 bootstraps from ``infos[i]["terminal_observation"]`` where ``infos[i]["TimeLimit.truncated"]`` is set.
    """

    def __init__(self, env: MujocoEnv, seed: int = 0) -> None:
        self.env, self.render_mode = env, None
        super().__init__(env.num_envs, observation_space(env.spec), box(env.spec.action))
        self._batch_seed, self._first_episode = seed, 0
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)

    def reset(self) -> Arrays:
        """Begin the first episodes of the seed."""
        return arrays(self._begin(), self.env.spec)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the next reset."""
        self._batch_seed = self._batch_seed if seed is None else seed
        return [self._batch_seed] * self.num_envs

    def start_at(self, episode: int) -> None:
        """Let the next reset begin at this episode number, so that a resumed run goes on with new episodes."""
        self._first_episode = episode

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Remember the actions."""
        self._actions = torch.as_tensor(np.asarray(actions, np.float32))

    def step_wait(self) -> tuple[Arrays, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step all worlds."""
        step = self.env.step(self._actions)
        infos = self._infos(step, arrays(step.next_obs, self.env.spec))
        return arrays(step.obs, self.env.spec), step.reward.numpy(), step.done.numpy(), infos

    def _begin(self) -> Obs:
        self._returns[:], self._lengths[:] = 0.0, 0
        return self.env.reset(self._batch_seed, self._first_episode)

    def _infos(self, step: Step, successor: Arrays) -> list[dict[str, Any]]:
        """SB3's info dicts; ``successor`` is the true next observation of every env."""
        self._returns += step.reward.numpy()
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        done = step.done.numpy()
        for i in np.nonzero(done)[0]:
            infos[i] = {
                "terminal_observation": {key: value[i] for key, value in successor.items()},
                "TimeLimit.truncated": bool(step.truncated[i]),
                "is_success": bool(step.success[i]),
                "episode": {"r": self._returns[i], "l": int(self._lengths[i]), "t": 0.0},
            }
        self._returns[done], self._lengths[done] = 0.0, 0
        return infos

    def close(self) -> None:
        """Stop the worker threads."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: None | int | Sequence[int] = None) -> list[Any]:
        """An attribute of the batch, once per asked env."""
        return [getattr(self.env, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: None | int | Sequence[int] = None) -> None:
        """Refused: the worlds of a batch share one configuration."""
        raise AttributeError(f"cannot set {attr_name!r}: configure the environment when it is made (make_env)")

    def env_method(
        self, method_name: str, *method_args: Any, indices: None | int | Sequence[int] = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: the worlds of a batch have no methods of their own."""
        raise AttributeError(f"cannot call {method_name!r} on single worlds of a batch")

    def env_is_wrapped(self, wrapper_class: type, indices: None | int | Sequence[int] = None) -> list[bool]:
        """No world is wrapped."""
        return [False for _ in self._get_indices(indices)]
