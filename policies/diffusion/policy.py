"""A policy that denoises chunks of actions: Diffusion Policy, flow and Streaming Diffusion Policy by configuration.

With one chunk every call starts from noise. With more, the actions of later chunks stay in the state half denoised and
each call brings the next one to zero noise (Streaming Diffusion Policy, arXiv 2406.04806).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from omnibody.policies.batch import Batch
from omnibody.policies.diffusion.denoisers import TokenTransformer
from omnibody.policies.diffusion.levels import staircase_rows, training_levels
from omnibody.policies.diffusion.parameterisation import Prediction, target, to_x0_eps
from omnibody.policies.diffusion.processes import EDM, Process, RectifiedFlow, VPCosine, perturb
from omnibody.policies.diffusion.rules import ddim
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Field, IOSpec


class ProcessName(Enum):
    """The noise process."""

    VP = "vp"
    EDM = "edm"
    FLOW = "flow"


PROCESSES: dict[ProcessName, Process] = {
    ProcessName.VP: VPCosine(),
    ProcessName.EDM: EDM(),
    ProcessName.FLOW: RectifiedFlow(),
}


@dataclass
class DiffusionCfg:
    """Denoised action chunks on flat observations."""

    obs_keys: list[str] = field(default_factory=lambda: ["route", "goal", "velocity"])  # what the policy sees
    process: ProcessName = ProcessName.FLOW  # vp, edm or flow
    prediction: Prediction = Prediction.FLOW  # what the network says: eps, x0, v or flow
    steps: int = 4  # network evaluations per call
    eta: float = 0.0  # noise added while sampling; 0 is DDIM or Euler, 1 is DDPM's ancestral step
    chunk: int = 8  # actions per call
    chunks: int = 1  # chunks in the buffer; more than 1 streams
    staircase: float = 0.0  # share of samples trained on the staircase of a streaming buffer
    width: int = 128  # of the transformer
    layers: int = 3  # of the transformer
    heads: int = 4  # of the transformer

    def __post_init__(self) -> None:
        for key in ("steps", "chunk", "chunks", "width", "layers", "heads"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: wanted at least 1, came {getattr(self, key)}")

    @staticmethod
    def tiny() -> DiffusionCfg:
        """An instance for tests."""
        return DiffusionCfg(chunk=2, chunks=2, staircase=0.8, width=16, layers=1, heads=2)

    def build(self, spec: IOSpec) -> Diffusion:
        """The untrained policy; its weights come from torch's global generator."""
        if missing := [key for key in self.obs_keys if key not in spec.obs]:
            raise UserError(f"obs_keys: wanted some of {sorted(spec.obs)}, came {missing}; name keys of the task")
        return Diffusion(self, spec)


class Diffusion(Policy):
    """State: ``buffer`` (B, chunks * chunk, Da) of normalised actions, ``fresh`` (B, 1) bool before the first call.

    Actions and observations are normalised from the bounds of the IOSpec to [-1, 1].
    """

    def __init__(self, cfg: DiffusionCfg, spec: IOSpec) -> None:
        super().__init__()
        self.cfg, self.spec = cfg, spec
        self.obs_keys = tuple(cfg.obs_keys)
        self.process = PROCESSES[cfg.process]
        observed = [_bounds(spec.obs[key]) for key in self.obs_keys]
        self.obs_centre: Tensor
        self.obs_half: Tensor
        self.action_centre: Tensor
        self.action_half: Tensor
        self.register_buffer("obs_centre", torch.cat([centre for centre, _ in observed]))
        self.register_buffer("obs_half", torch.cat([half for _, half in observed]))
        centre, half = _bounds(spec.action)
        self.register_buffer("action_centre", centre)
        self.register_buffer("action_half", half)
        tokens = cfg.chunks * cfg.chunk
        self.net = TokenTransformer(len(centre), tokens, len(self.obs_centre), cfg.width, cfg.layers, cfg.heads)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the prediction; windows of 1 observation and chunks * chunk actions."""
        tokens = self.cfg.chunks * self.cfg.chunk
        if batch.expert.shape[1] != tokens:
            raise UserError(f"action_steps: wanted chunks * chunk = {tokens}, came {batch.expert.shape[1]}")
        x0 = (batch.expert - self.action_centre) / self.action_half
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        s = training_levels(len(x0), self.cfg.chunks, self.cfg.chunk, self.cfg.staircase, generator)
        condition = self.condition({key: batch.obs[key][:, -1] for key in self.obs_keys})
        output = self.net(perturb(self.process, x0, noise, s), s, condition)
        error = (output - target(self.cfg.prediction, self.process, x0, noise, s)) ** 2
        # Padding behind an episode's end repeats its last action and is learned with the rest.
        loss = error.mean()
        return loss, {"denoise": loss.item()}

    def begin(self, context: Context, batch_size: int) -> State:
        """An empty buffer."""
        shape = (batch_size, self.cfg.chunks * self.cfg.chunk, len(self.action_centre))
        device = self.action_centre.device
        fresh = torch.ones(batch_size, 1, dtype=torch.bool, device=device)
        return {"buffer": torch.zeros(shape, device=device), "fresh": fresh}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """The next chunk of actions (B, chunk, Da). Without a generator all noise is 0."""
        cfg, buffer = self.cfg, state["buffer"]
        rows = staircase_rows(cfg.steps, cfg.chunks, cfg.chunk).to(buffer.device)
        start = self.process.sigma(rows[0]).unsqueeze(-1) * _noise(buffer, generator)
        shifted = torch.cat([buffer[:, cfg.chunk :], start[:, -cfg.chunk :]], dim=1)
        x = torch.where(state["fresh"].unsqueeze(-1), start, shifted)
        condition = self.condition(obs)
        for row, lower in zip(rows[:-1], rows[1:], strict=True):
            s, to = row.expand(len(x), -1), lower.expand(len(x), -1)
            x0, _ = to_x0_eps(cfg.prediction, self.process, self.net(x, s, condition), x, s)
            x0 = x0.clamp(-1, 1)  # with few steps the main stabiliser; the noise follows from it
            level = s.unsqueeze(-1)
            eps = (x - self.process.alpha(level) * x0) / self.process.sigma(level).clamp_min(1e-12)
            x = ddim(self.process, x, x0, eps, s, to, _noise(x, generator) if cfg.eta else None, cfg.eta)
        action = x[:, : cfg.chunk] * self.action_half + self.action_centre
        return action, {"buffer": x, "fresh": torch.zeros_like(state["fresh"])}

    def condition(self, obs: Obs) -> Tensor:
        """Normalised observations (B, C)."""
        flat = torch.cat([obs[key].flatten(1).float() for key in self.obs_keys], dim=-1)
        return (flat - self.obs_centre) / self.obs_half


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.zeros_like(like)
    return torch.randn(like.shape, generator=generator, device=like.device)


def _bounds(part: Field) -> tuple[Tensor, Tensor]:
    """Centre and half width of a field's range, flat; half width 1 where the range is a point."""
    low = torch.tensor(part.low, dtype=torch.float32).expand(part.shape).flatten()
    high = torch.tensor(part.high, dtype=torch.float32).expand(part.shape).flatten()
    half = (high - low) / 2
    return (high + low) / 2, torch.where(half > 0, half, torch.ones_like(half))
