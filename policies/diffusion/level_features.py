"""What a network is told about noise levels: the same features in every denoiser."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FREQUENCIES = 16  # pairs of sine and cosine that describe a level
FEATURES = 2 * FREQUENCIES


def level_features(s: Tensor, to: Tensor | None) -> Tensor:
    """(..., T) -> (..., T, 32): sines and cosines of the level, from half a turn over [0, 1] to 50 turns.

    (..., T, 64) with the level ``to`` (..., T) that a step is to reach, for networks that jump.
    """
    rates = torch.exp(torch.linspace(0, math.log(100), FREQUENCIES, device=s.device)) * math.pi
    angles = [(level.unsqueeze(-1) * rates) for level in ((s,) if to is None else (s, to))]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=-1)
