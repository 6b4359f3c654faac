"""A specialist: the frozen base plus a learned correction of its command for one body.

After COMPASS (arXiv 2502.16372): the residual's last layer starts at zero, so the policy starts as the base. Unlike
the original, the sum is limited to what the body may do, and only the three twist axes are sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from omnibody.policies.compass.base import CompassBase, CompassBaseCfg, head_input
from omnibody.policies.compass.commands import clip_twist, normalise
from omnibody.policies.compass.nets import mlp
from omnibody.policies.compass.world_model import ACTION
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.spec import IOSpec


@dataclass
class ResidualActorCfg:
    """Sizes of the residual actor."""

    hidden: list[int] = field(default_factory=lambda: [256, 256, 128])  # widths of the hidden layers
    initial_std: float = 0.1  # of the residual, in units of scale * velocity limit
    scale: float = 1.0  # largest residual, as a fraction of the velocity limits


class ResidualActor(nn.Module):
    """Features (B, F) -> mean residual u (B, 3): ``mean(hidden(features))``, exactly 0 at first.

    ``log_std`` (3) of u is learned and does not depend on the state.
    """

    def __init__(self, cfg: ResidualActorCfg, feature_width: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*mlp([feature_width, *cfg.hidden]), nn.ReLU())
        self.mean = nn.Linear(cfg.hidden[-1], ACTION)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        self.log_std = nn.Parameter(torch.full((ACTION,), cfg.initial_std).log())

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, 3)."""
        return self.mean(self.hidden(features))


def combine(base_action: Tensor, residual: Tensor, scale: float, state: State) -> Tensor:
    """The command base + scale * velocity_high * clip(u, -1, 1), limited to what the body may do.

    base_action (B, 3) [m/s, m/s, rad/s], residual u (B, 3), ``state`` for the limits -> (B, 3).
    """
    return clip_twist(base_action + scale * state["velocity_high"] * residual.clamp(-1.0, 1.0), state)


@dataclass
class CompassResidualCfg:
    """Specialist: frozen base plus residual."""

    base: CompassBaseCfg = field(default_factory=CompassBaseCfg)  # the base it corrects
    actor: ResidualActorCfg = field(default_factory=ResidualActorCfg)  # the residual
    from_scratch: bool = False  # ablation: read the base's latent, drop its command

    @staticmethod
    def tiny() -> CompassResidualCfg:
        """An instance for tests."""
        return CompassResidualCfg(CompassBaseCfg.tiny(), ResidualActorCfg(hidden=[16, 16]))

    def build(self, spec: IOSpec) -> CompassResidual:
        """The untrained policy; load the base's weights into ``policy.base``."""
        return CompassResidual(self, spec)


class CompassResidual(Policy):
    """Frozen base and residual actor. State: the base's. There is no ``loss``: PPO trains the actor (training/rl)."""

    obs_keys = CompassBase.obs_keys

    def __init__(self, cfg: CompassResidualCfg, spec: IOSpec) -> None:
        super().__init__()
        self.cfg, self.spec = cfg, spec
        self.base = cfg.base.build(spec).requires_grad_(False)
        self.actor = ResidualActor(cfg.actor, self.base.feature_width)

    @staticmethod
    def on(base: CompassBase, actor: ResidualActorCfg, from_scratch: bool = False) -> CompassResidual:
        """A fresh residual on a copy of ``base``: acts exactly as the base does, unless it is to start from scratch."""
        policy = CompassResidualCfg(base.cfg, actor, from_scratch).build(base.spec)
        policy.base.load_state_dict(base.state_dict())
        return policy

    def begin(self, context: Context, batch_size: int) -> State:
        """As the base."""
        return self.base.begin(context, batch_size)

    def executed(self, state: State, action: Tensor) -> State:
        """As the base."""
        return self.base.executed(state, action)

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """Commands (B, 1, 3): base plus mean residual, or plus a sampled one with a generator."""
        features, base_action, state = self._perceive(obs, state)
        residual = self.actor(features)
        if generator is not None:
            noise = torch.empty_like(residual).normal_(generator=generator)
            residual = residual + self.actor.log_std.exp() * noise
        action = combine(base_action, residual, self.cfg.actor.scale, state)
        return action.unsqueeze(1), self.executed(state, action)

    def distribution(self, obs: Obs, state: State) -> tuple[Tensor, Tensor, Tensor, State]:
        """Features (B, F), mean and standard deviation (B, 3) of the normalised command, and the next state.

        The mean is the command ``act`` sends. Missing axes have mean 0 and must be left out of a divergence. The next
        state holds no new command yet: call ``executed`` with what was sent, which may be a student's.
        """
        features, base_action, state = self._perceive(obs, state)
        action = combine(base_action, self.actor(features), self.cfg.actor.scale, state)
        mean = normalise(action, state["velocity_high"])
        std = (self.cfg.actor.scale * self.actor.log_std.exp()).expand_as(mean)
        return features, mean, std, state

    def _perceive(self, obs: Obs, state: State) -> tuple[Tensor, Tensor, State]:
        policy_state, base_action, state = self.base.features(obs, state)
        if self.cfg.from_scratch:
            base_action = torch.zeros_like(base_action)
        return head_input(policy_state, obs), base_action, state
