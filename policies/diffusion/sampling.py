"""From noise to actions: a table of weights, made once, and a short loop over its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from omnibody.policies.diffusion.parameterisation import Prediction, input_scale, x0_weights
from omnibody.policies.diffusion.processes import Process
from omnibody.policies.diffusion.rules import Rule, Weights, step_weights

Network = Callable[[Tensor, int], Tensor]  # x (B, T, D) and the index of a row of levels -> output (B, T, D)

Bounds = tuple[Tensor, Tensor]  # least and largest values of data, (D,) each or for all


@dataclass(frozen=True)
class Table:
    """All weights (T, 1) of a sampler that walks down ``rows`` (K + 1, T), or (K + 1, 1) for all tokens."""

    rows: Tensor
    on_x: Tensor
    on_output: Tensor
    scale: Tensor | None
    steps: list[Weights]
    start: Tensor
    bounds: Bounds

    @staticmethod
    def of(
        rows: Tensor,
        process: Process,
        prediction: Prediction,
        sigma_data: float,
        rule: Rule,
        eta: float,
        bounds: Bounds,
    ) -> Table:
        """The table of a rule; ``rows`` fall from the level a sampler starts at, data lie within ``bounds``."""
        levels = rows.unsqueeze(-1)
        on_x, on_output = x0_weights(prediction, process, levels, sigma_data)
        scale = input_scale(prediction, process, levels, sigma_data)
        return Table(
            rows, on_x, on_output, scale, step_weights(rule, process, rows, eta), process.sigma(levels[0]), bounds
        )

    @property
    def evaluations(self) -> int:
        """Calls of the network per walk."""
        return sum(1 if step.corrector is None else 2 for step in self.steps)

    @property
    def draws(self) -> int:
        """Steps that want fresh noise."""
        return sum(step.fresh is not None for step in self.steps)

    def x0(self, network: Network, x: Tensor, row: int, fixed: Tensor | None) -> Tensor:
        """The clean data the network says, cut to the data's bounds: with few steps the main stabiliser."""
        seen = x
        if self.scale is not None:
            seen = x * (self.scale[row] if fixed is None else torch.where(fixed, self.scale[-1], self.scale[row]))
        output = network(seen, row)
        return torch.addcmul(self.on_x[row] * x, self.on_output[row], output).clamp_(*self.bounds)

    def walk(
        self, network: Network, x: Tensor, noise: Callable[[], Tensor], fixed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Bring x (B, T, D) from the first row to the last; returns it and the clean data said last.

        ``fixed`` (B, T, 1) bool marks tokens that keep their value. ``noise`` draws fresh noise (B, T, D).
        """
        x0 = before = x
        for k, step in enumerate(self.steps):
            x0 = self.x0(network, x, k, fixed)
            after = torch.addcmul(step.keep * x, step.pull, x0)
            if step.past is not None:
                after = torch.addcmul(after, step.past, before)
            if step.fresh is not None:
                after = torch.addcmul(after, step.fresh, noise())
            if step.corrector is not None:
                keep, pull, again, pull_again = step.corrector
                second = self.x0(network, after, k + 1, fixed)
                after = keep * x + pull * x0 + again * after + pull_again * second
            before = x0
            x = after if fixed is None else torch.where(fixed, x, after)
        return x, x0
