"""A small encoder of colour images, learned with the policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnibody.robots.spec import Field

CHANNELS = (32, 64, 64)  # each with half the resolution of the one before
POINTS = 32  # points of interest, of which the features are the places
FEATURES = 2 * POINTS  # of an image


def is_image(part: Field) -> bool:
    """Whether an observation is a colour image (H, W, 3) of bytes."""
    return part.dtype == "uint8" and len(part.shape) == 3 and part.shape[-1] == 3


class ImageEncoder(nn.Module):
    """Images (..., H, W, 3) uint8 -> (..., 64): where POINTS learned points are, x and y in [-1, 1].

    Group norm keeps a moving average of the weights valid (batch norm's statistics would not be averaged); places by
    spatial softmax, as in Diffusion Policy (arXiv 2303.04137).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *CHANNELS[:-1]), CHANNELS, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(CHANNELS[-1], POINTS, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        leading = images.shape[:-3]
        pixels = images.reshape(-1, *images.shape[-3:]).movedim(-1, 1).float() / 127.5 - 1
        maps = self.layers(pixels)
        weights = maps.flatten(2).softmax(-1).view_as(maps)
        rows, columns = (torch.linspace(-1, 1, size, device=maps.device) for size in maps.shape[-2:])
        x, y = (weights.sum(2) * columns).sum(-1), (weights.sum(3) * rows).sum(-1)
        return torch.cat([x, y], dim=-1).view(*leading, FEATURES)
