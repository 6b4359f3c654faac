"""Steps from level s to a lower level s', token by token; tokens whose level stays keep their bits.

In the terms of x, of the clean data x0 that the network says and of fresh noise z every rule is linear, so a sampler is
a table of weights that is computed once:

    x' = keep x + pull x0 + past x0 of the step before + fresh z          (+ a corrector for Heun's rule)

DDIM (arXiv 2010.02502) with eta = 0 is Euler's method for EDM and for a flow; with eta = 1 it is DDPM's ancestral step
and, for EDM, the ancestral Euler step. DPM++ 2M: arXiv 2211.01095. Heun: arXiv 2206.00364. Jump: consistency models'
sampler, arXiv 2303.01469.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from omnibody.policies.diffusion.processes import Process, RectifiedFlow

TINY = 1e-12


class Rule(Enum):
    """How one step is made."""

    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    HEUN = "heun"
    JUMP = "jump"


@dataclass(frozen=True)
class Weights:
    """Weights (T, 1) of one step. None: the step has no such term.

    The corrector of Heun's rule replaces x' by ``keep2 x + pull2 x0 + again x' + pull_again x0'`` with the clean data
    x0' that the network says of x'.
    """

    keep: Tensor
    pull: Tensor
    past: Tensor | None = None
    fresh: Tensor | None = None
    corrector: tuple[Tensor, Tensor, Tensor, Tensor] | None = None


def step_weights(rule: Rule, process: Process, rows: Tensor, eta: float) -> list[Weights]:
    """Weights of all steps down the ``rows`` (K + 1, T) of levels."""
    levels = rows.unsqueeze(-1)
    steps = []
    for k, (s, to) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        if rule is Rule.JUMP:
            step = _jump(process, s, to)
        else:
            step = _ddim(process, s, to, eta if rule is Rule.DDIM else 0.0)
        if rule is Rule.DPMPP_2M and k > 0:
            step = _second_order(process, step, levels[k - 1], s, to)
        if rule is Rule.HEUN and bool((to > 0).any()):
            step = _corrected(process, step, s, to)
        steps.append(step)
    return steps


def _ddim(process: Process, s: Tensor, to: Tensor, eta: float) -> Weights:
    """x' = alpha' x0 + sqrt(sigma'^2 - f^2) eps + f z with eps = (x - alpha x0) / sigma."""
    alpha, sigma = process.alpha(s), process.sigma(s).clamp_min(TINY)
    alpha_to, sigma_to = process.alpha(to), process.sigma(to)
    ratio = (alpha / alpha_to) ** 2
    fresh = eta * sigma_to / sigma * (sigma**2 - ratio * sigma_to**2).clamp_min(0).sqrt()
    keep = (sigma_to**2 - fresh**2).clamp_min(0).sqrt() / sigma
    moves = to < s
    return Weights(
        keep=torch.where(moves, keep, 1.0),
        pull=torch.where(moves, alpha_to - keep * alpha, 0.0),
        fresh=torch.where(moves, fresh, 0.0) if eta else None,
    )


def _jump(process: Process, s: Tensor, to: Tensor) -> Weights:
    """x' = alpha' x0 + sigma' z."""
    moves = to < s
    zero = torch.zeros_like(to)
    return Weights(
        keep=torch.where(moves, zero, 1.0),
        pull=torch.where(moves, process.alpha(to), zero),
        fresh=torch.where(moves, process.sigma(to), zero),
    )


def _second_order(process: Process, step: Weights, before: Tensor, s: Tensor, to: Tensor) -> Weights:
    """DPM++ 2M: x0 is extrapolated from the step before, in the log of alpha / sigma; not in a step to level 0."""

    def log_ratio(level: Tensor) -> Tensor:
        return (process.alpha(level).clamp_min(TINY) / process.sigma(level).clamp_min(TINY)).log()

    share = (log_ratio(to) - log_ratio(s)) / (2 * (log_ratio(s) - log_ratio(before))).clamp_min(TINY)
    share = torch.where((to > 0) & (to < s) & (s < before), share, 0.0)
    return Weights(keep=step.keep, pull=step.pull * (1 + share), past=-step.pull * share)


def _corrected(process: Process, step: Weights, s: Tensor, to: Tensor) -> Weights:
    """Heun's rule: the mean of the slopes at both ends, d(x / alpha) / d(sigma / alpha) or, for a flow, dx / ds."""
    plain = (to <= 0) | (to >= s)
    alpha, sigma = process.alpha(s), process.sigma(s).clamp_min(TINY)
    alpha_to, sigma_to = process.alpha(to), process.sigma(to).clamp_min(TINY)
    if isinstance(process, RectifiedFlow):  # slope (x - x0) / s; alpha is 0 at its start
        scale, length = torch.ones_like(s), to - s
        alpha, alpha_to = torch.ones_like(s), torch.ones_like(s)
    else:
        scale, length = alpha_to / alpha, sigma_to - alpha_to / alpha * sigma
    half, half_to = length / (2 * sigma), length / (2 * sigma_to)
    zero = torch.zeros_like(s)
    corrector = (
        torch.where(plain, zero, scale + half),
        torch.where(plain, zero, -half * alpha),
        torch.where(plain, 1.0, half_to),
        torch.where(plain, zero, -half_to * alpha_to),
    )
    return Weights(step.keep, step.pull, corrector=corrector)
