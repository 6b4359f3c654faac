"""PPO actor-critic whose mean action and value respect the robot's left-right symmetry."""

from __future__ import annotations

import torch
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from omnibody.robots.g1_walk import MIRROR_LEG, MIRROR_LEG_INDEX, MIRROR_OBS, MIRROR_OBS_INDEX


class MirrorPolicy(ActorCriticPolicy):
    """mean(o) = (net(o) + M net(M o)) / 2 and value(o) = (v(o) + v(M o)) / 2, as ``g1_walk.ResidualNetwork``."""

    obs_index: Tensor
    obs_sign: Tensor
    action_index: Tensor
    action_sign: Tensor

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        for name, value in (
            ("obs_index", MIRROR_OBS_INDEX),
            ("obs_sign", MIRROR_OBS.astype("float32")),
            ("action_index", MIRROR_LEG_INDEX),
            ("action_sign", MIRROR_LEG.astype("float32")),
        ):
            self.register_buffer(name, torch.as_tensor(value))

    def _mean_and_value(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        assert isinstance(obs, Tensor)
        both = torch.cat([obs, obs[:, self.obs_index] * self.obs_sign])
        latent_action, latent_value = self.mlp_extractor(both)
        plain, mirrored = self.action_net(latent_action).chunk(2)
        value = self.value_net(latent_value).view(2, -1, 1).mean(0)
        return 0.5 * (plain + mirrored[:, self.action_index] * self.action_sign), value

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """See ``ActorCriticPolicy.forward``."""
        mean, value = self._mean_and_value(obs)
        distribution = self.action_dist.proba_distribution(mean, self.log_std)
        action = distribution.get_actions(deterministic=deterministic)
        return action, value, distribution.log_prob(action)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See ``ActorCriticPolicy.evaluate_actions``."""
        mean, value = self._mean_and_value(obs)
        distribution = self.action_dist.proba_distribution(mean, self.log_std)
        return value, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """See ``ActorCriticPolicy.get_distribution``."""
        return self.action_dist.proba_distribution(self._mean_and_value(obs)[0], self.log_std)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """See ``ActorCriticPolicy.predict_values``."""
        return self._mean_and_value(obs)[1]
