"""PPO actor-critic for residuals: the actor is COMPASS's residual actor, the critic also sees privileged facts."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from omnibody.policies.compass.nets import mlp
from omnibody.policies.compass.residual import ResidualActor

CRITIC = (256, 128)  # hidden widths of the value network


class ActorThenPrivileged(BaseFeaturesExtractor):
    """Concatenates the observations "actor" (N, F) and "privileged" (N, P), the latter normalised, to (N, F + P)."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        widths = [int((observation_space[key].shape or (0,))[0]) for key in ("actor", "privileged")]
        super().__init__(observation_space, sum(widths))
        self.norm = nn.LayerNorm(widths[1])

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """See the class."""
        return torch.cat([observations["actor"], self.norm(observations["privileged"])], -1)


class _TwoHeads(nn.Module):
    """SB3's ``mlp_extractor``: the actor's hidden layers on the first F features, the critic's on all of them."""

    def __init__(self, actor: ResidualActor, features: int) -> None:
        super().__init__()
        self.actor = actor.hidden
        self.actor_features = actor.hidden[0].in_features
        self.critic = nn.Sequential(*mlp([features, *CRITIC]), nn.ReLU())
        self.latent_dim_pi, self.latent_dim_vf = actor.mean.in_features, CRITIC[-1]

    def forward_actor(self, features: Tensor) -> Tensor:
        return self.actor(features[..., : self.actor_features])

    def forward_critic(self, features: Tensor) -> Tensor:
        return self.critic(features)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)


class _ActiveMean(nn.Module):
    """The residual's mean on the twist dimensions that the body has, (N, latent) -> (N, active)."""

    def __init__(self, mean: nn.Linear, active: Tensor) -> None:
        super().__init__()
        self.mean = mean
        self.register_buffer("active", active)

    def forward(self, latent: Tensor) -> Tensor:
        return self.mean(latent)[:, self.active]


class AsymmetricPolicy(ActorCriticPolicy):
    """SB3 policy around a `ResidualActor`, whose weights it trains in place.

    ``active`` lists the twist dimensions that are sampled. The last layer of the actor is zero at first, so that the
    first mean action is no residual at all: nothing here initialises it again.
    """

    def __init__(self, *args: Any, actor: ResidualActor, active: list[int], **kwargs: Any) -> None:
        self._actor, self._active = [actor], torch.tensor(active)  # in a list: not a submodule of its own
        super().__init__(*args, ortho_init=False, features_extractor_class=ActorThenPrivileged, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = _TwoHeads(self._actor[0], self.features_dim)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        actor = self._actor[0]
        self.action_net = _ActiveMean(actor.mean, self._active)
        with torch.no_grad():
            self.log_std.copy_(actor.log_std[self._active])
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def write_std(self) -> None:
        """Copy the learned standard deviations into the actor (its other weights are shared)."""
        with torch.no_grad():
            self._actor[0].log_std[self._active] = self.log_std
