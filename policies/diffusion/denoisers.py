"""The network of the diffusion family: a transformer over action tokens, each with a noise level of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 16  # pairs of sine and cosine that describe a level


class TokenTransformer(nn.Module):
    """Tokens x (B, T, D) at levels s (B, T) under a condition (B, C) -> (B, T, D).

    Level and condition enter every block by adaLN-zero per token (DiT, arXiv 2212.09748), so a fresh network says 0.
    """

    def __init__(self, dim: int, tokens: int, condition: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.level = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.modulate = _zero(nn.Linear(width, 2 * width))
        self.head = _zero(nn.Linear(width, dim))

    def forward(self, x: Tensor, s: Tensor, condition: Tensor) -> Tensor:
        """The output in the units of the prediction."""
        control = F.silu(self.level(level_features(s)) + self.condition(condition).unsqueeze(1))
        h = self.embed(x) + self.position
        for block in self.blocks:
            h = block(h, control)
        shift, scale = self.modulate(control).chunk(2, dim=-1)
        return self.head(_norm(h) * (1 + scale) + shift)


class _Block(nn.Module):
    """Attention over all tokens and an MLP, both scaled, shifted and gated per token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulate = _zero(nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, control: Tensor) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulate(control).chunk(6, dim=-1)
        seen = _norm(h) * (1 + scale) + shift
        h = h + gate * self.attention(seen, seen, seen, need_weights=False)[0]
        return h + gate_mlp * self.mlp(_norm(h) * (1 + scale_mlp) + shift_mlp)


def level_features(s: Tensor) -> Tensor:
    """(B, T) -> (B, T, 32): sines and cosines of the level, from half a turn over [0, 1] to 50 turns."""
    rates = torch.exp(torch.linspace(0, math.log(100), FREQUENCIES, device=s.device)) * math.pi
    angle = s.unsqueeze(-1) * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
