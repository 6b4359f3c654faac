"""Noise levels per token: what is drawn in training, and the rows a sampler walks down.

Levels are (B, T), or (B, 1) where all tokens have the same: networks then work out its code once and not T times.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor

from omnibody.robots.errors import UserError, unknown


class Density(Enum):
    """How the level of a training sample is spread over (0, 1)."""

    UNIFORM = "uniform"
    LOGIT_NORMAL = "logit_normal"  # logistic of N(0, 1), arXiv 2403.03206
    BETA = "beta"  # Beta(1, 1.5), more weight on little noise, as pi0's (arXiv 2410.24164) with its time reversed
    LOG_LOGISTIC = "log_logistic"  # log-logistic noise around the data's own size, cut to (0, 1): BESO's


# Of BESO's noise in levels that are exponential from .02 to 1: its median is the data's .5, its scale .5 in log sigma.
CENTRE, WIDTH = math.log(0.5 / 0.02) / math.log(1 / 0.02), 0.5 / math.log(1 / 0.02)


def uniform_rows(steps: int) -> Tensor:
    """Rows (steps + 1, 1) from 1 to 0, one level for all tokens."""
    return torch.linspace(1, 0, steps + 1).unsqueeze(-1)


def staircase_rows(steps: int, chunks: int, chunk: int) -> Tensor:
    """Rows (steps + 1, chunks * chunk) that bring chunk 0 to 0 and every other chunk to where the one before began.

    Chunk i has level clip((i + 1 - u) / chunks, 0, 1), u = 0, 1/steps, ..., 1 (Streaming Diffusion Policy, arXiv
    2406.04806, with any number of steps per call). One chunk: the uniform rows.
    """
    begin = (torch.arange(chunks) + 1).unsqueeze(0)
    done = 1 - uniform_rows(steps)
    return ((begin - done) / chunks).clamp(0, 1).repeat_interleave(chunk, dim=1)


def draw(density: Density, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Levels of a shape, in (0, 1)."""
    device = generator.device
    if density is Density.LOGIT_NORMAL:
        return torch.randn(shape, generator=generator, device=device).sigmoid()
    uniform = torch.rand(shape, generator=generator, device=device)
    if density is Density.BETA:
        return 1 - (1 - uniform) ** (1 / 1.5)  # the inverse of its distribution function
    if density is Density.LOG_LOGISTIC:
        low, high = (torch.tensor((level - CENTRE) / WIDTH).sigmoid() for level in (0.0, 1.0))
        return (CENTRE + WIDTH * (low + uniform * (high - low)).logit()).clamp(0, 1)
    return uniform


class LevelMixture:
    """Draws levels (B, T) for training; the kind is chosen per sample, by the ``shares``.

    ``constant``: one level for all tokens, and (B, 1) if there is no other kind; ``staircase``: those of a streaming
    buffer of ``chunks``; ``independent``: one for every token (Diffusion Forcing, arXiv 2407.01392); ``monotone``: the
    same in rising order; ``prefix``: constant, but 0 for the first 0 ... ``prefix`` tokens (real-time chunking,
    trained).
    """

    KINDS = ("constant", "staircase", "independent", "monotone", "prefix")

    def __init__(
        self, shares: dict[str, float], density: Density, tokens: int, chunks: int = 1, prefix: int = 0
    ) -> None:
        for kind, share in shares.items():
            if kind not in self.KINDS:
                raise unknown("kind of levels", kind, self.KINDS)
            if share <= 0:
                raise UserError(f"levels.{kind}: wanted a share above 0, came {share}; leave it out")
        if not shares:
            raise UserError(f"levels: wanted shares of {', '.join(self.KINDS)}, came none")
        if ("prefix" in shares) != (prefix > 0):
            raise UserError(f"prefix: wanted more than 0 if and only if levels has a share of prefix, came {prefix}")
        self.shares, self.density = shares, density
        self.tokens, self.chunks, self.prefix = tokens, chunks, prefix

    def __call__(self, batch: int, generator: torch.Generator) -> Tensor:
        """Levels of a batch."""
        drawn = [getattr(self, f"_{kind}")(batch, generator) for kind in self.shares]
        if len(drawn) == 1:
            return drawn[0]
        every = torch.stack([levels.expand(-1, self.tokens) for levels in drawn])
        bounds = torch.tensor(list(self.shares.values()), device=generator.device).cumsum(0)
        choice = torch.rand(batch, generator=generator, device=generator.device) * bounds[-1]
        kind = torch.searchsorted(bounds, choice).clamp(max=len(every) - 1)
        return every[kind, torch.arange(batch, device=kind.device)]

    def _constant(self, batch: int, generator: torch.Generator) -> Tensor:
        return draw(self.density, (batch, 1), generator)

    def _staircase(self, batch: int, generator: torch.Generator) -> Tensor:
        begin = torch.arange(self.chunks, device=generator.device) + 1
        done = torch.rand(batch, 1, generator=generator, device=generator.device)
        return ((begin - done) / self.chunks).repeat_interleave(self.tokens // self.chunks, dim=1)

    def _independent(self, batch: int, generator: torch.Generator) -> Tensor:
        return draw(self.density, (batch, self.tokens), generator)

    def _monotone(self, batch: int, generator: torch.Generator) -> Tensor:
        return self._independent(batch, generator).sort(dim=1).values

    def _prefix(self, batch: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        length = torch.randint(self.prefix + 1, (batch, 1), generator=generator, device=device)
        return torch.where(torch.arange(self.tokens, device=device) < length, 0.0, self._constant(batch, generator))
