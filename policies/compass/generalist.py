"""The generalist: one student of all specialists, on the frozen base, told about its body.

After COMPASS (arXiv 2502.16372). The original tells bodies apart by a one-hot code, which says nothing about a new one;
the default here is the body's descriptor: its size, limits, lags and camera.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from omnibody.policies.compass.base import CompassBase, CompassBaseCfg, head_input
from omnibody.policies.compass.commands import clip_twist
from omnibody.policies.compass.nets import mlp
from omnibody.policies.compass.world_model import ACTION
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import unknown
from omnibody.robots.spec import DESCRIPTOR_NAMES, Body, Embodiment, IOSpec, mobile


class DistilBatch(Protocol):
    """B labelled moments: ``features`` (B, F) from ``CompassResidual.distribution`` or ``head_input``,
    ``code`` (B, C) from ``CompassGeneralist.code``, ``mean`` and ``std`` (B, 3) of the teacher's normalised command,
    ``active`` (B, 3) bool: the axes this row's body has.
    """

    features: Tensor
    code: Tensor
    mean: Tensor
    std: Tensor
    active: Tensor


@dataclass
class CompassGeneralistCfg:
    """Student of all specialists."""

    base: CompassBaseCfg = field(default_factory=CompassBaseCfg)  # the base it stands on
    hidden: list[int] = field(default_factory=lambda: [512, 256, 128])  # widths of the hidden layers
    code: str = "descriptor"  # what it is told about its body: descriptor or onehot
    bodies: list[str] = field(default_factory=list)  # for onehot: the bodies, in the order of the code
    divergence: str = "kl"  # what it minimises: kl or mse
    initial_std: float = 0.1  # of the normalised command

    def __post_init__(self) -> None:
        if self.code not in ("descriptor", "onehot"):
            raise ValueError(f"code: wanted descriptor or onehot, came {self.code!r}")
        if (self.code == "onehot") != bool(self.bodies):
            raise ValueError(f"bodies: wanted names with code=onehot and none otherwise, came {self.bodies}")
        if self.divergence not in ("kl", "mse"):
            raise ValueError(f"divergence: wanted kl or mse, came {self.divergence!r}")

    @staticmethod
    def tiny() -> CompassGeneralistCfg:
        """An instance for tests."""
        return CompassGeneralistCfg(CompassBaseCfg.tiny(), hidden=[16])

    def build(self, spec: IOSpec) -> CompassGeneralist:
        """The untrained student; load the base's weights into ``policy.base``, then call ``fit_descriptor``."""
        return CompassGeneralist(self, spec)


class CompassGeneralist(Policy):
    """Frozen base and student head. State: the base's and the body's ``code`` (B, C)."""

    obs_keys = CompassBase.obs_keys
    code_mean: Tensor
    code_std: Tensor

    def __init__(self, cfg: CompassGeneralistCfg, spec: IOSpec) -> None:
        super().__init__()
        self.cfg, self.spec = cfg, spec
        self.base = cfg.base.build(spec).requires_grad_(False)
        width = len(cfg.bodies) or len(DESCRIPTOR_NAMES)
        self.student = mlp([self.base.feature_width + width, *cfg.hidden, ACTION])
        self.log_std = nn.Parameter(torch.tensor(cfg.initial_std).log())
        self.register_buffer("code_mean", torch.zeros(width))
        self.register_buffer("code_std", torch.ones(width))

    @staticmethod
    def on(base: CompassBase, cfg: CompassGeneralistCfg) -> CompassGeneralist:
        """A fresh student on a copy of ``base``, whose own configuration stands in for ``cfg.base``."""
        policy = dataclasses.replace(cfg, base=base.cfg).build(base.spec)
        policy.base.load_state_dict(base.state_dict())
        return policy

    def fit_descriptor(self, bodies: list[Embodiment]) -> None:
        """Set the statistics that descriptors are normalised by; no effect on a one-hot code.

        A fact that varies little among the bodies is divided by at least 0.1, so that an unseen body stays in range.
        """
        if self.cfg.code == "descriptor":
            facts = torch.stack([self.code(body) for body in bodies])
            self.code_mean.copy_(facts.mean(0))
            self.code_std.copy_(facts.std(0, unbiased=False).clamp_min(0.1))

    def code(self, body: Body) -> Tensor:
        """What the student is told about a body (C,), not yet normalised."""
        return body_code(body, self.cfg.bodies)

    def begin(self, context: Context, batch_size: int) -> State:
        """The base's state and the code of the body."""
        code = self.code(context.embodiment).to(self.code_mean.device).expand(batch_size, -1).clone()
        return self.base.begin(context, batch_size) | {"code": code}

    def executed(self, state: State, action: Tensor) -> State:
        """As the base."""
        return self.base.executed(state, action)

    def student_mean(self, features: Tensor, code: Tensor) -> Tensor:
        """Mean of the normalised command (B, 3) from features (B, F) and body codes (B, C)."""
        scaled = ((code - self.code_mean) / self.code_std).clamp(-3.0, 3.0)
        return self.student(torch.cat([features, scaled], dim=-1))

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """Commands (B, 1, 3): the mean, or a sample with a generator; within the body's limits."""
        policy_state, _, state = self.base.features(obs, state)
        command = self.student_mean(head_input(policy_state, obs), state["code"])
        if generator is not None:
            command = command + self.log_std.exp() * torch.empty_like(command).normal_(generator=generator)
        action = clip_twist(command * state["velocity_high"], state)
        return action.unsqueeze(1), self.executed(state, action)

    def loss(self, batch: DistilBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Divergence from the teachers, mean over rows and the axes their bodies have; draws no random numbers."""
        mean = self.student_mean(batch.features, batch.code)
        kl = kl_loss(batch.mean, batch.std, mean, self.log_std.exp(), batch.active)
        mse = mse_loss(batch.mean, mean, batch.active)
        chosen = kl if self.cfg.divergence == "kl" else mse
        return chosen, {"kl": kl.item(), "mse": mse.item(), "std": self.log_std.exp().item()}


def body_code(body: Body, bodies: list[str]) -> Tensor:
    """One-hot position (C,) of the body among ``bodies``; its descriptor (K,) when there are none."""
    if not bodies:
        return torch.from_numpy(mobile(body).descriptor())
    if body.name not in bodies:
        raise unknown("robot", body.name, bodies)
    return torch.tensor([float(name == body.name) for name in bodies])


def kl_loss(teacher_mean: Tensor, teacher_std: Tensor, mean: Tensor, std: Tensor, active: Tensor) -> Tensor:
    """KL(teacher || student) of Gaussians (B, 3) [nat], mean over the active axes."""
    ratio = teacher_std / std
    kl = 0.5 * (ratio**2 + ((teacher_mean - mean) / std) ** 2 - 1.0) - ratio.log()
    return (kl * active).sum() / active.sum().clamp_min(1)


def mse_loss(teacher_mean: Tensor, mean: Tensor, active: Tensor) -> Tensor:
    """Squared error of the means (B, 3), mean over the active axes."""
    return ((teacher_mean - mean) ** 2 * active).sum() / active.sum().clamp_min(1)
