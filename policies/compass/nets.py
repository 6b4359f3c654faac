"""Small networks of the COMPASS family: depth encoder, image decoder, route encoder, fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Of the four convolutions the first halves the width only, so that 16 x 64 ends as 2 x 4.
STRIDES = ((1, 2), (2, 2), (2, 2), (2, 2))


def mlp(widths: list[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of the given widths with an activation between them, none after the last."""
    layers: list[nn.Module] = []
    for i, (width_in, width_out) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += [activation()] if i else []
        layers.append(nn.Linear(width_in, width_out))
    return nn.Sequential(*layers)


def coarse_size(height: int, width: int) -> tuple[int, int]:
    """Size of the smallest feature map of an image; refuses sizes the four strides do not divide."""
    if height % 8 or width % 16:
        raise ValueError(
            f"depth image: wanted a height divisible by 8 and a width divisible by 16, came {height} x {width}; "
            "set the camera's height and width accordingly"
        )
    return height // 8, width // 16


class DepthEncoder(nn.Module):
    """Four convolutions and a linear layer: (N, H, W) in [0, 1] -> (N, embed)."""

    def __init__(self, height: int, width: int, channels: int, embed: int) -> None:
        super().__init__()
        rows, columns = coarse_size(height, width)
        counts = [1, channels, 2 * channels, 2 * channels, 4 * channels]
        layers: list[nn.Module] = []
        for i, stride in enumerate(STRIDES):
            layers += [nn.Conv2d(counts[i], counts[i + 1], 3, stride, 1), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers)
        self.out = nn.Linear(counts[-1] * rows * columns, embed)

    def forward(self, image: Tensor) -> Tensor:
        """(N, H, W) -> (N, embed)."""
        # One channel as the fastest axis makes all convolutions work channels-last, twice as fast on a CPU.
        return self.out(self.convolutions(image.unsqueeze(-1).movedim(-1, 1)).flatten(1))


class ImageDecoder(nn.Module):
    """Transposed convolutions from a latent (N, L) to depth (N, H, W), unbounded, and class logits (N, C, H, W)."""

    def __init__(self, height: int, width: int, channels: int, latent: int, num_classes: int) -> None:
        super().__init__()
        self.coarse = coarse_size(height, width)
        counts = [4 * channels, 2 * channels, 2 * channels, channels]
        self.inlet = nn.Linear(latent, counts[0] * self.coarse[0] * self.coarse[1])
        layers: list[nn.Module] = [nn.SiLU()]
        for i in range(3):
            layers += [nn.ConvTranspose2d(counts[i], counts[i + 1], 4, 2, 1), nn.SiLU()]
        layers.append(nn.ConvTranspose2d(counts[3], 1 + num_classes, (3, 4), STRIDES[0], 1))
        self.convolutions = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L) -> depth (N, H, W), logits (N, C, H, W)."""
        coarse = self.inlet(latent).unflatten(1, (-1, *self.coarse))
        image = self.convolutions(coarse.contiguous(memory_format=torch.channels_last))
        return image[:, 0], image[:, 1:]


class RouteEncoder(nn.Module):
    """VectorNet subgraph: any number of segments (B, n, 4), in any order -> (B, 64).

    Each layer doubles the width by appending to every segment the maximum over all segments of what it computed.
    """

    width = 64

    def __init__(self, num_layers: int = 4, hidden: int = 64) -> None:
        super().__init__()
        widths = [4 * 2**i for i in range(num_layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(w, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, w)) for w in widths
        )

    def forward(self, segments: Tensor) -> Tensor:
        """(B, n, 4), scaled -> (B, 64)."""
        for layer in self.layers:
            own = layer(segments)
            segments = torch.cat([own, own.amax(1, keepdim=True).expand_as(own)], dim=-1)
        return segments.amax(1)


class Fusion(nn.Module):
    """One four-head self-attention layer over a few tokens of different widths -> (B, width)."""

    def __init__(self, widths: list[int], width: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.inlets = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(len(widths) * width, width)

    def forward(self, tokens: list[Tensor]) -> Tensor:
        """Tokens (B, widths[i]) -> (B, width)."""
        x = torch.stack([inlet(token) for inlet, token in zip(self.inlets, tokens, strict=True)], dim=1)
        parts = self.query_key_value(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]  # (B, heads, tokens, width / heads)
        weight = torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, dim=-1)
        attended = (weight @ value).transpose(1, 2).flatten(2)
        return self.out((x + self.mix(attended)).flatten(1))
