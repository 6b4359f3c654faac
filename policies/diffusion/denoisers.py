"""The networks of the diffusion family: actions x (B, T, D), each token at a noise level of its own -> (B, T, D).

Levels (B, 1) are those of all tokens. Then their code is made once, and where it is local, blocks use it once.

All have the same three parts, so that a sampler does once what does not change: ``level_code`` of a level per token (of
all steps in one call), ``condition_code`` of an observation (once per call), and ``denoise`` with both (once per step).
``forward`` joins them. A fresh network says 0. With ``jump`` the level to be reached is told as well.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibody.policies.diffusion.level_features import FEATURES, level_features


class Denoiser(Protocol):
    """What the loss and the samplers need of a network."""

    def level_code(self, s: Tensor, to: Tensor | None = None) -> Tensor:
        """Levels (N, T) or (N, 1), and those to be reached -> codes (N, ...)."""

    def condition_code(self, condition: Tensor) -> Tensor:
        """Conditions (B, C) -> codes (B, ...)."""

    def denoise(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, D) with the codes of its levels (B or 1, ...) and conditions (B, ...) -> (B, T, D)."""

    def __call__(self, x: Tensor, s: Tensor, condition: Tensor, to: Tensor | None = None) -> Tensor:
        """All three parts."""


class ResMLP(nn.Module):
    """Residual blocks over all tokens at once: the most learning per second on a CPU.

    The codes of level and condition scale and shift the hidden layer of every block.
    """

    def __init__(self, dim: int, tokens: int, condition: int, width: int, layers: int, jump: bool = False) -> None:
        super().__init__()
        self.dim, self.tokens = dim, tokens
        self.embed = nn.Linear(tokens * dim, width)
        self.level = nn.Linear(tokens * FEATURES * (1 + jump), width)
        self.condition = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, 2 * width))
        self.blocks = nn.ModuleList(_MLPBlock(width) for _ in range(layers))
        self.head = zero(nn.Linear(width, tokens * dim))

    def level_code(self, s: Tensor, to: Tensor | None = None) -> Tensor:
        """(N, T) or (N, 1) -> (N, width)."""
        return self.level(level_features(s, to).expand(-1, self.tokens, -1).flatten(1))

    def condition_code(self, condition: Tensor) -> Tensor:
        """(B, C) -> (B, 2 * width): half for the control of the blocks, half for their input."""
        return self.condition(condition)

    def denoise(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """The output in the units of the prediction."""
        control, seen = condition.chunk(2, dim=-1)
        control = F.silu(control + level)
        h = self.embed(x.flatten(1)) + seen
        for block in self.blocks:
            h = block(h, control)
        return self.head(F.silu(norm(h))).view(-1, self.tokens, self.dim)

    def forward(self, x: Tensor, s: Tensor, condition: Tensor, to: Tensor | None = None) -> Tensor:
        """All three parts."""
        return self.denoise(x, self.level_code(s, to), self.condition_code(condition))


class _MLPBlock(nn.Module):
    """A hidden layer that is scaled and shifted by the control."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulate = zero(nn.Linear(width, 2 * width))
        self.up = nn.Linear(width, width)
        self.down = zero(nn.Linear(width, width))

    def forward(self, h: Tensor, control: Tensor) -> Tensor:
        scale, shift = self.modulate(control).chunk(2, dim=-1)
        hidden = torch.addcmul(shift, self.up(norm(h)), 1 + scale)
        return h + self.down(F.silu(hidden))


class TokenTransformer(nn.Module):
    """Attention over all tokens; level and condition enter blocks by adaLN-zero per token (DiT, arXiv 2212.09748)."""

    def __init__(
        self, dim: int, tokens: int, condition: int, width: int, layers: int, heads: int, jump: bool = False
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.level = nn.Sequential(nn.Linear(FEATURES * (1 + jump), width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_AttentionBlock(width, heads) for _ in range(layers))
        self.modulate = zero(nn.Linear(width, 2 * width))
        self.head = zero(nn.Linear(width, dim))

    def level_code(self, s: Tensor, to: Tensor | None = None) -> Tensor:
        """(N, T) -> (N, T, width), as many levels as came."""
        return self.level(level_features(s, to))

    def condition_code(self, condition: Tensor) -> Tensor:
        """(B, C) -> (B, 1, width)."""
        return self.condition(condition).unsqueeze(1)

    def denoise(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """The output in the units of the prediction."""
        control = F.silu(level + condition)
        h = self.embed(x) + self.position
        for block in self.blocks:
            h = block(h, control)
        shift, scale = self.modulate(control).chunk(2, dim=-1)
        return self.head(norm(h) * (1 + scale) + shift)

    def forward(self, x: Tensor, s: Tensor, condition: Tensor, to: Tensor | None = None) -> Tensor:
        """All three parts."""
        return self.denoise(x, self.level_code(s, to), self.condition_code(condition))


class _AttentionBlock(nn.Module):
    """Attention over all tokens and an MLP, both scaled, shifted and gated per token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulate = zero(nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, control: Tensor) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulate(control).chunk(6, dim=-1)
        seen = norm(h) * (1 + scale) + shift
        h = h + gate * self.attention(seen, seen, seen, need_weights=False)[0]
        return h + gate_mlp * self.mlp(norm(h) * (1 + scale_mlp) + shift_mlp)


def norm(h: Tensor) -> Tensor:
    """Layer norm without gain and bias, which the modulation brings."""
    return F.layer_norm(h, h.shape[-1:])


def zero(layer: nn.Linear) -> nn.Linear:
    """The layer with all weights 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
