"""A stable-baselines3 `VecEnv` that keeps a frozen base policy in the loop and exposes the residual as the action."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from omnibody.envs.gym_adapter import Arrays
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.sb3_adapter import Sb3VecEnv
from omnibody.policies.compass.base import CompassBase
from omnibody.policies.compass.residual import combine, head_input
from omnibody.policies.policy import Context, where_state
from omnibody.sim_tasks.task import Obs


class ResidualEnv(Sb3VecEnv):
    """N worlds with the base inside.

    Observations: ``actor`` (N, F), the base's policy state with goal and velocity; ``privileged`` (N, P), what only
    the critic may see. Actions: the residual (N, active) in [-1, 1] on the twist dimensions the body has (a
    differential drive has no vy; COMPASS samples dead dimensions and feeds them back into its recurrent state).
    With ``from_scratch`` the base's latent is kept but its command is dropped, the ablation of the paper.
    The base's recurrent state is fed with the command that was executed.
    """

    def __init__(self, env: MujocoEnv, base: CompassBase, scale: float, seed: int, from_scratch: bool) -> None:
        super().__init__(env, seed)
        self._base, self._scale, self._from_scratch = base.eval(), scale, from_scratch
        self._fresh = base.begin(Context(env.embodiment), env.num_envs)
        self.active = np.nonzero(np.asarray(env.embodiment.limits.velocity_high) > 0.0)[0]
        shapes = {key: value.shape[1:] for key, value in self.reset().items()}
        self.observation_space = spaces.Dict({k: spaces.Box(-np.inf, np.inf, s, np.float32) for k, s in shapes.items()})
        self.action_space = spaces.Box(-1.0, 1.0, (len(self.active),), np.float32)

    def reset(self) -> Arrays:
        """Begin the first episodes of the seed."""
        self._state = self._fresh
        return self._perceive(self._begin())

    @torch.no_grad()
    def _perceive(self, obs: Obs) -> Arrays:
        """Run the base on ``obs``; remembers its command and its next recurrent state."""
        features, self._command, self._next_state = self._base.features(obs, self._state)
        return {"actor": head_input(features, obs).numpy(), "privileged": obs["privileged"].numpy()}

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Remember the residuals."""
        self._residual = torch.zeros(self.num_envs, 3)
        self._residual[:, self.active] = torch.as_tensor(actions, dtype=torch.float32)

    def step_wait(self) -> tuple[Arrays, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Add the residual to the base's command, step, and let the base perceive the successor."""
        base = torch.zeros_like(self._command) if self._from_scratch else self._command
        action = combine(base, self._residual, self._scale, self._next_state)
        step = self.env.step(action)
        self._state = self._base.executed(self._next_state, action)
        perceived = self._perceive(step.next_obs)
        infos = self._infos(step, perceived)
        if bool(step.done.any()):
            # The successor above was perceived with the old episode's memory; the next one starts without it.
            self._state = where_state(step.done, self._fresh, self._state)
            perceived = self._perceive(step.obs)
        return perceived, step.reward.numpy(), step.done.numpy(), infos
