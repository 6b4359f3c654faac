"""Noise processes x_s = alpha(s) x0 + sigma(s) eps, s in [0, 1]; s = 0 is clean, at s = 1 sampling starts.

Every function is elementwise in s, so that each token of a sequence can have a level of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

COSINE_OFFSET = 0.008  # of Nichol and Dhariwal's schedule, arXiv 2102.09672


class Process(Protocol):
    """What the rules and the loss need to know of a noise process."""

    def alpha(self, s: Tensor) -> Tensor:
        """Share of the signal at level s."""

    def sigma(self, s: Tensor) -> Tensor:
        """Standard deviation of the noise at level s."""


@dataclass(frozen=True)
class VPCosine:
    """Variance preserving: alpha^2 + sigma^2 = 1 with a cosine schedule.

    s is cut at ``last``: at s = 1 the signal would vanish, and dividing by alpha with it.
    """

    last: float = 0.995

    def alpha(self, s: Tensor) -> Tensor:
        """Share of the signal; exactly 1 at s = 0."""
        return torch.cos(self._angle(s)) / math.cos(self._start)

    def sigma(self, s: Tensor) -> Tensor:
        """Standard deviation of the noise; exactly 0 at s = 0."""
        return (1 - self.alpha(s) ** 2).clamp_min(0).sqrt()

    @property
    def _start(self) -> float:
        return COSINE_OFFSET / (1 + COSINE_OFFSET) * math.pi / 2

    def _angle(self, s: Tensor) -> Tensor:
        return (s * self.last + COSINE_OFFSET) / (1 + COSINE_OFFSET) * (math.pi / 2)


@dataclass(frozen=True)
class EDM:
    """Variance exploding (Karras et al., arXiv 2206.00364).

    Levels are exponential from ``sigma_min`` at s -> 0 to ``sigma_max`` at s = 1; s = 0 itself is clean.
    """

    sigma_min: float = 0.005
    sigma_max: float = 1.0

    def alpha(self, s: Tensor) -> Tensor:
        """1 at every level."""
        return torch.ones_like(s)

    def sigma(self, s: Tensor) -> Tensor:
        """Standard deviation of the noise."""
        ratio = math.log(self.sigma_max / self.sigma_min)
        return torch.where(s > 0, self.sigma_min * torch.exp(s * ratio), torch.zeros_like(s))


@dataclass(frozen=True)
class RectifiedFlow:
    """A straight line from the data to the noise."""

    def alpha(self, s: Tensor) -> Tensor:
        """1 - s."""
        return 1 - s

    def sigma(self, s: Tensor) -> Tensor:
        """The level itself."""
        return s


def perturb(process: Process, x0: Tensor, noise: Tensor, s: Tensor) -> Tensor:
    """x0 (B, T, D) with ``noise`` of the same shape at levels s (B, T)."""
    level = s.unsqueeze(-1)
    return process.alpha(level) * x0 + process.sigma(level) * noise
