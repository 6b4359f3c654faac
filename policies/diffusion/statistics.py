"""Normalisation by mean and spread: noise of unit variance must not drown values that mostly change little."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omnibody.robots.spec import Field

SIGMA_DATA = 0.5  # root mean square of normalised actions, as EDM supposes (arXiv 2206.00364, table 1)


class Spread(nn.Module):
    """Centre and scale (C,) of flat values, as buffers: so scaled, data have mean 0 and root mean square ``size``.

    Before data are seen, the bounds of the fields, side by side, become -1 and 1; an endless one counts as [-1, 1].
    ``low`` and ``high`` (C,) are the extremes of what was seen, scaled. A dimension that never changes keeps scale 1.
    """

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, fields: Sequence[Field], size: float = 1.0) -> None:
        super().__init__()
        self.size = size
        low = torch.cat([flat_bound(field.low, field) for field in fields]) if fields else torch.zeros(0)
        high = torch.cat([flat_bound(field.high, field) for field in fields]) if fields else torch.zeros(0)
        endless = ~(low.isfinite() & high.isfinite())
        for name in ("centre", "scale", "low", "high"):
            self.register_buffer(name, torch.zeros_like(low))
        low, high = torch.where(endless, -1.0, low), torch.where(endless, 1.0, high)
        self.set((low + high) / 2, (high - low) / 2, low, high)

    def set(self, centre: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> None:
        """Normalise by ``centre`` and ``scale`` data within ``low`` and ``high``, (C,) each, physical."""
        self.centre.copy_(centre)
        self.scale.copy_(torch.where(scale > 1e-6 * (1 + centre.abs()), scale, torch.ones_like(scale)))
        self.low.copy_(self.normalise(low))
        self.high.copy_(self.normalise(high))

    def fit(self, seen: Moments) -> None:
        """Take the statistics of what was seen; without any it keeps its own."""
        if seen.count:
            self.set(seen.mean, seen.deviation / self.size, seen.low, seen.high)

    def normalise(self, values: Tensor) -> Tensor:
        """Physical (..., C) -> scaled."""
        return (values - self.centre) / self.scale

    def physical(self, values: Tensor) -> Tensor:
        """Scaled (..., C) -> physical."""
        return torch.addcmul(self.centre, values, self.scale)


class Moments:
    """Count, extremes, mean and standard deviation (C,) of the values (..., C) it is shown."""

    def __init__(self) -> None:
        self.count = 0
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self._sum, self._square = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Take in values (..., C)."""
        flat = values.flatten(0, -2).double()
        self.low, self.high = torch.minimum(self.low, flat.amin(0)), torch.maximum(self.high, flat.amax(0))
        self.count += len(flat)
        self._sum, self._square = self._sum + flat.sum(0), self._square + (flat**2).sum(0)

    @property
    def mean(self) -> Tensor:
        """Of all values."""
        return self._sum / self.count

    @property
    def deviation(self) -> Tensor:
        """Standard deviation."""
        return (self._square / self.count - self.mean**2).clamp_min(0).sqrt()


def flat_bound(bound: Sequence[float], field: Field) -> Tensor:
    """A bound of a field for each of its flat values (C,)."""
    return torch.tensor(bound, dtype=torch.float32).expand(field.shape).flatten()
