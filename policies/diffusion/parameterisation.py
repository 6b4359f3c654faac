"""What a network predicts, and the clean data and the noise its output stands for; all else sees only these two."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from omnibody.policies.diffusion.processes import Process


class Prediction(Enum):
    """The regression target: noise, clean data, v = alpha eps - sigma x0, or the velocity eps - x0 of a flow."""

    EPS = "eps"
    X0 = "x0"
    V = "v"
    FLOW = "flow"


def target(prediction: Prediction, process: Process, x0: Tensor, noise: Tensor, s: Tensor) -> Tensor:
    """What the network should say (B, T, D) of data x0 and ``noise`` (B, T, D) mixed at levels s (B, T)."""
    on_noise, on_x0 = _weights(prediction, process, s.unsqueeze(-1))
    return on_noise * noise + on_x0 * x0


def to_x0_eps(prediction: Prediction, process: Process, output: Tensor, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Clean data and noise (B, T, D) that ``output`` means at x (B, T, D), levels s (B, T) > 0.

    Solves x = alpha x0 + sigma eps with output = a eps + b x0.
    """
    level = s.unsqueeze(-1)
    alpha, sigma = process.alpha(level), process.sigma(level)
    on_noise, on_x0 = _weights(prediction, process, level)
    determinant = alpha * on_noise - sigma * on_x0
    return (on_noise * x - sigma * output) / determinant, (alpha * output - on_x0 * x) / determinant


def _weights(prediction: Prediction, process: Process, level: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the noise and of the data in the target."""
    one, zero = level.new_ones(()), level.new_zeros(())
    if prediction is Prediction.EPS:
        return one, zero
    if prediction is Prediction.X0:
        return zero, one
    if prediction is Prediction.V:
        return process.alpha(level), -process.sigma(level)
    return one, -one
