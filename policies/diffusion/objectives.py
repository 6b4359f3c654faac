"""What the network learns: to denoise at levels of each token's own and, for one-step policies, to jump.

A jumping network is told the level it is to reach; told the level it is at, it denoises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from omnibody.policies.diffusion.processes import Process, perturb

SELF_SHARE = 0.25  # of a batch that learns from the network's own steps (shortcut models, arXiv 2410.12557)
FINEST = 6  # the shortest step of shortcut models that is learned from two shorter ones is 2 ** -6
CONSISTENCY_STEPS = 10  # of the network's own solver between noise and data
HUBER = 0.03  # width of the pseudo-Huber distance's parabola

Jump = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (x, s, to, condition) -> output or clean data (B, T, D)


def shortcut_targets(
    velocity: Jump, x0: Tensor, noise: Tensor, condition: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For a flow: (x, s, to, target) of steps of 2^-k, k = 0 ... 6, whose velocity is the mean of two half steps'.

    Levels are (B, 1).
    """
    batch, device = len(x0), x0.device
    exponent = torch.randint(FINEST + 1, (batch, 1), generator=generator, device=device)
    count = 2.0**exponent
    index = (torch.rand(batch, 1, generator=generator, device=device) * count).floor()  # of the step, 0 is the last
    s, to = ((index + one) / count for one in (1, 0))
    middle = (s + to) / 2
    x = (1 - s).unsqueeze(-1) * x0 + s.unsqueeze(-1) * noise
    finest = exponent == FINEST  # its halves are steps of no length: plain denoising
    half = (s - middle).unsqueeze(-1)
    with torch.no_grad():
        first = velocity(x, s, torch.where(finest, s, middle), condition)
        second = velocity(x - half * first, middle, torch.where(finest, middle, to), condition)
    return x, s, to, (first + second) / 2


def consistency_loss(
    clean: Jump, process: Process, x0: Tensor, noise: Tensor, condition: Tensor, generator: torch.Generator
) -> Tensor:
    """Pseudo-Huber distance (B,) of jumps to 0 from two neighbours on the network's own path; the lower one teaches.

    ``clean`` gives the data a network says. The path is one DDIM step of its denoiser.
    """
    batch, device = len(x0), x0.device
    index = torch.randint(CONSISTENCY_STEPS, (batch, 1), generator=generator, device=device)
    s, to = ((index + one) / CONSISTENCY_STEPS for one in (1, 0))
    x, zero = perturb(process, x0, noise, s), torch.zeros_like(s)
    with torch.no_grad():
        guess = clean(x, s, s, condition)
        level, lower = s.unsqueeze(-1), to.unsqueeze(-1)
        eps = (x - process.alpha(level) * guess) / process.sigma(level)
        stepped = process.alpha(lower) * guess + process.sigma(lower) * eps
        wanted = torch.where(lower > 0, clean(stepped, to, zero, condition), guess)
    distance = (clean(x, s, zero, condition) - wanted).square().mean(dim=(1, 2))
    return (distance + HUBER**2).sqrt() - HUBER
