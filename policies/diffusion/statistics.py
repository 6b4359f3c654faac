"""Normalisation, with bounds from a specification or better from data: observations by extremes, actions by spread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omnibody.robots.spec import Field

SIGMA_DATA = 0.5  # root mean square of normalised actions, as EDM supposes (arXiv 2206.00364, table 1)


class Range(nn.Module):
    """Centre and half width (C,) of flat values, as buffers; a dimension that never changes keeps half width 1.

    Starts with the bounds of the fields, side by side; an endless one counts as [-1, 1].
    """

    centre: Tensor
    half_width: Tensor

    def __init__(self, fields: Sequence[Field]) -> None:
        super().__init__()
        low = torch.cat([flat_bound(field.low, field) for field in fields]) if fields else torch.zeros(0)
        high = torch.cat([flat_bound(field.high, field) for field in fields]) if fields else torch.zeros(0)
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


class Spread(nn.Module):
    """Centre and scale (C,) of actions, as buffers: in their units data have mean 0 and root mean square `SIGMA_DATA`.

    So noise of unit variance hides actions that barely change as well as ones that jump. ``low`` and ``high`` (C,)
    are the data's extremes in these units. Starts with the bounds of the field as -1 and 1.
    """

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, field: Field) -> None:
        super().__init__()
        bounds = Range([field])
        one = torch.ones_like(bounds.centre)
        for name, value in (("centre", bounds.centre), ("scale", bounds.half_width), ("low", -one), ("high", one)):
            self.register_buffer(name, value.clone())

    def set(self, seen: Extremes) -> None:
        """Take the statistics of ``seen``; a dimension that never changes keeps scale 1."""
        mean, deviation, low, high = seen.moments()
        scale = deviation / SIGMA_DATA
        scale = torch.where(deviation > 1e-6 * (1 + mean.abs()), scale, torch.ones_like(scale))
        for name, value in (("centre", mean), ("scale", scale), ("low", (low - mean) / scale)):
            getattr(self, name).copy_(value)
        self.high.copy_((high - mean) / scale)

    def normalise(self, values: Tensor) -> Tensor:
        """Physical (..., C) -> units of the data's spread."""
        return (values - self.centre) / self.scale

    def physical(self, values: Tensor) -> Tensor:
        """The reverse."""
        return torch.addcmul(self.centre, values, self.scale)


class Extremes:
    """Smallest, largest, mean and deviation of the values (..., C) it is shown."""

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

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, standard deviation, smallest and largest (C,), float32."""
        if self.low is None or self.high is None:
            raise ValueError("wanted values, came none")
        mean = self._sum / self._count
        deviation = (self._square / self._count - mean**2).clamp_min(0).sqrt()
        return mean.float(), deviation.float(), self.low.float(), self.high.float()


def flat_bound(bound: Sequence[float], field: Field) -> Tensor:
    """A bound of a field for each of its flat values (C,)."""
    return torch.tensor(bound, dtype=torch.float32).expand(field.shape).flatten()
