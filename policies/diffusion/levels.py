"""Noise levels per token: what is drawn in training, and the rows a sampler walks down."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform_rows(steps: int, tokens: int) -> Tensor:
    """Rows (steps + 1, T) from 1 to 0, all tokens alike."""
    return torch.linspace(1, 0, steps + 1).unsqueeze(-1).expand(-1, tokens).contiguous()


def staircase_rows(steps: int, chunks: int, chunk: int) -> Tensor:
    """Rows (steps + 1, chunks * chunk) that bring chunk 0 to 0 and every other chunk to where the one before began.

    Chunk i has level clip((i + 1 - u) / chunks, 0, 1), u = 0, 1/steps, ..., 1 (Streaming Diffusion Policy, arXiv
    2406.04806, with any number of steps per call). One chunk: the uniform rows.
    """
    begin = (torch.arange(chunks) + 1).unsqueeze(0)
    done = 1 - uniform_rows(steps, 1)
    return ((begin - done) / chunks).clamp(0, 1).repeat_interleave(chunk, dim=1)


def training_levels(batch: int, chunks: int, chunk: int, staircase_share: float, generator: torch.Generator) -> Tensor:
    """Levels (B, chunks * chunk): a share of the samples on the staircase, the others with one level for all tokens.

    The choice is made per sample.
    """
    device = generator.device
    draw, choice = torch.rand(2, batch, 1, generator=generator, device=device)
    begin = torch.arange(chunks, device=device) + 1
    stairs = ((begin - draw) / chunks).repeat_interleave(chunk, dim=1)
    return torch.where(choice < staircase_share, stairs, draw.expand(-1, chunks * chunk))
