"""A moving average of a policy's weights, which acts better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

POWER = 0.75  # of the decay's rise, as in Diffusion Policy
EVERY = 4  # steps between updates, each with the decay of that many: a pass over all weights costs a small net 6 %


class Average:
    """Averages of the trainable parameters, by name; after step k the decay is 1 - (1 + k)^-0.75, ``largest`` at most.

    With ``largest`` 0 they are the weights themselves. ``values`` must be kept to resume.
    """

    def __init__(self, module: nn.Module, largest: float) -> None:
        self.largest = largest
        self._of = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.values = {name: value.detach().clone() for name, value in self._of.items()}

    def decay(self, step: int) -> float:
        """Weight of the past at ``step``, which counts from 0, for a single step."""
        return min(self.largest, 1 - (1 + step) ** -POWER)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step``, if it is one of every ``EVERY``."""
        if step % EVERY == 0:
            weight = 1 - self.decay(step) ** EVERY
            torch._foreach_lerp_([self.values[name] for name in self._of], list(self._of.values()), weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the module has the averages as its weights."""
        kept = {name: value.detach().clone() for name, value in self._of.items()}
        self._copy(self.values)
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, value in self._of.items():
            value.copy_(values[name])
