"""Steps from level s to a lower level s', token by token; tokens whose level stays are returned untouched.

One rule in (alpha, sigma) form serves every process: x' = alpha' x0 + sigma' eps. It is DDIM for a variance preserving
process and Euler's method for the other two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnibody.policies.diffusion.processes import Process


def ddim(
    process: Process,
    x: Tensor,
    x0: Tensor,
    eps: Tensor,
    s: Tensor,
    to: Tensor,
    noise: Tensor | None = None,
    eta: float = 0.0,
) -> Tensor:
    """x (B, T, D) at levels s (B, T) brought to levels ``to``; ``eta`` 1 with ``noise`` is DDPM's ancestral step."""
    level, lower = s.unsqueeze(-1), to.unsqueeze(-1)
    alpha, sigma = process.alpha(level), process.sigma(level)
    alpha_to, sigma_to = process.alpha(lower), process.sigma(lower)
    if noise is None:
        step = alpha_to * x0 + sigma_to * eps
    else:
        ratio = (alpha / alpha_to) ** 2
        fresh = eta * sigma_to / sigma.clamp_min(1e-12) * (sigma**2 - ratio * sigma_to**2).clamp_min(0).sqrt()
        step = alpha_to * x0 + (sigma_to**2 - fresh**2).clamp_min(0).sqrt() * eps + fresh * noise
    return torch.where(lower < level, step, x)
