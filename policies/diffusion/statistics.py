"""Min-max normalisation to [-1, 1] with bounds from a specification or, better, from data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omnibody.robots.spec import Field


class Range(nn.Module):
    """Centre and half width (C,) of flat values, as buffers; a dimension that never changes keeps half width 1.

    Starts with the bounds of the fields, side by side; an endless one counts as [-1, 1].
    """

    centre: Tensor
    half_width: Tensor

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__()
        low = torch.cat([_flat(field.low, field) for field in fields]) if fields else torch.zeros(0)
        high = torch.cat([_flat(field.high, field) for field in fields]) if fields else torch.zeros(0)
        endless = ~(low.isfinite() & high.isfinite())
        self.register_buffer("centre", torch.zeros_like(low))
        self.register_buffer("half_width", torch.ones_like(low))
        self.set(torch.where(endless, -1.0, low), torch.where(endless, 1.0, high))

    def set(self, low: Tensor, high: Tensor) -> None:
        """Map [low, high] (C,) to [-1, 1]."""
        half = (high - low) / 2
        self.centre.copy_((high + low) / 2)
        self.half_width.copy_(torch.where(half > 1e-6 * (1 + self.centre.abs()), half, torch.ones_like(half)))

    def normalise(self, values: Tensor) -> Tensor:
        """Physical (..., C) -> [-1, 1]."""
        return (values - self.centre) / self.half_width

    def physical(self, values: Tensor) -> Tensor:
        """[-1, 1] (..., C) -> physical."""
        return torch.addcmul(self.centre, values, self.half_width)


class Extremes:
    """Smallest, largest and mean square about the middle of the values (..., C) it is shown."""

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None
        self._count, self._sum, self._square = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Take in values (..., C)."""
        flat = values.flatten(0, -2).double()
        low, high = flat.amin(0), flat.amax(0)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self._count += len(flat)
        self._sum, self._square = self._sum + flat.sum(0), self._square + (flat**2).sum(0)

    def apply(self, target: Range) -> None:
        """Give ``target`` the bounds seen; without any it keeps its own."""
        if self.low is not None and self.high is not None:
            target.set(self.low.float(), self.high.float())

    def root_mean_square(self, target: Range) -> Tensor:
        """Of the values as ``target`` normalises them, over all dimensions."""
        mean, square = self._sum / self._count, self._square / self._count
        centre = target.centre.double()
        return ((square - 2 * centre * mean + centre**2) / target.half_width.double() ** 2).mean().sqrt().float()


def _flat(bound: Sequence[float], field: Field) -> Tensor:
    return torch.tensor(bound, dtype=torch.float32).expand(field.shape).flatten()
