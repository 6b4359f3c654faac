"""What a network predicts, and the clean data its output stands for; all else sees only that."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from omnibody.policies.diffusion.processes import Process


class Prediction(Enum):
    """The regression target.

    Noise, clean data, v = alpha eps - sigma x0, the velocity eps - x0 of a flow, or EDM's preconditioned F (Karras et
    al., arXiv 2206.00364) with x0 = c_skip x + c_out F(c_in x), for processes with alpha = 1.
    """

    EPS = "eps"
    X0 = "x0"
    V = "v"
    FLOW = "flow"
    EDM = "edm"


def target(prediction: Prediction, process: Process, x0: Tensor, noise: Tensor, s: Tensor, sigma_data: float) -> Tensor:
    """What the network should say (B, T, D) of data x0 and ``noise`` (B, T, D) mixed at levels s (B, T).

    ``sigma_data`` is the data's root mean square, which only EDM's preconditioning asks for.
    """
    on_noise, on_x0 = _weights(prediction, process, s.unsqueeze(-1), sigma_data)
    return on_noise * noise + on_x0 * x0


def x0_weights(prediction: Prediction, process: Process, s: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """Weights of x and of the network's output in the clean data, elementwise in the levels s.

    Solves x = alpha x0 + sigma eps with output = a eps + b x0.
    """
    if prediction is Prediction.X0:
        return torch.zeros_like(s), torch.ones_like(s)  # also where the level is 0, at which the equations say nothing
    alpha, sigma = process.alpha(s), process.sigma(s)
    on_noise, on_x0 = _weights(prediction, process, s, sigma_data)
    determinant = alpha * on_noise - sigma * on_x0
    return on_noise / determinant, -sigma / determinant


def to_x0(prediction: Prediction, process: Process, output: Tensor, x: Tensor, s: Tensor, sigma_data: float) -> Tensor:
    """Clean data (B, T, D) that ``output`` means at x (B, T, D), levels s (B, T)."""
    on_x, on_output = x0_weights(prediction, process, s.unsqueeze(-1), sigma_data)
    return on_x * x + on_output * output


def input_scale(prediction: Prediction, process: Process, s: Tensor, sigma_data: float) -> Tensor | None:
    """What x is multiplied by before the network sees it; None for 1."""
    if prediction is not Prediction.EDM:
        return None
    return (process.sigma(s) ** 2 + sigma_data**2).rsqrt()


def _weights(prediction: Prediction, process: Process, level: Tensor, sigma_data: float) -> tuple[Tensor, Tensor]:
    """Factors of the noise and of the data in the target."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    if prediction is Prediction.EPS:
        return one, zero
    if prediction is Prediction.X0:
        return zero, one
    if prediction is Prediction.V:
        return process.alpha(level), -process.sigma(level)
    if prediction is Prediction.FLOW:
        return one, -one
    sigma = process.sigma(level)
    spread = (sigma**2 + sigma_data**2).sqrt()
    return -sigma_data / spread, sigma / (sigma_data * spread)
