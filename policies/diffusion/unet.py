"""Diffusion Policy's 1-D U-Net (arXiv 2303.04137) with a noise level for every token: FiLM is local along the sequence.

Channels double with every resolution. The code of the levels is averaged to each resolution, so that equal levels give
exactly the U-Net of one global level, any number of tokens fits, and a level touches what is near it only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibody.policies.diffusion.level_features import FEATURES, level_features

KERNEL, GROUPS = 5, 8


class UNet1d(nn.Module):
    """Channels ``width`` * 2^i at ``layers`` resolutions; the last token is repeated to a multiple of 2^(layers-1)."""

    def __init__(self, dim: int, condition: int, width: int, layers: int, jump: bool = False) -> None:
        super().__init__()
        sizes, code = [width * 2**i for i in range(layers)], 4 * width
        self.multiple = 2 ** (layers - 1)
        self.level = nn.Sequential(nn.Linear(FEATURES * (1 + jump), code), nn.Mish(), nn.Linear(code, code))
        self.condition = nn.Linear(condition, code)
        self.down = nn.ModuleList(
            _Stage(before, after, code) for before, after in zip([dim, *sizes[:-1]], sizes, strict=True)
        )
        self.shrink = nn.ModuleList(nn.Conv1d(size, size, 3, stride=2, padding=1) for size in sizes[:-1])
        self.middle = _Stage(sizes[-1], sizes[-1], code)
        pairs = list(zip(sizes[-2::-1], sizes[:0:-1], strict=True))  # (channels above, channels below), coarse to fine
        self.grow = nn.ModuleList(nn.ConvTranspose1d(below, above, 4, stride=2, padding=1) for above, below in pairs)
        self.up = nn.ModuleList(_Stage(2 * above, above, code) for above, _ in pairs)
        last = nn.Conv1d(sizes[0], dim, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.head = nn.Sequential(_conv(sizes[0], sizes[0]), last)

    def level_code(self, s: Tensor, to: Tensor | None = None) -> Tensor:
        """(N, T) -> (N, T, code), as many levels as came."""
        return self.level(level_features(s, to))

    def condition_code(self, condition: Tensor) -> Tensor:
        """(B, C) -> (B, 1, code)."""
        return self.condition(condition).unsqueeze(1)

    def denoise(self, x: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """The output in the units of the prediction."""
        tokens = x.shape[1]
        padding = -tokens % self.multiple
        h, level = _repeated(x.transpose(1, 2), padding), level.transpose(1, 2)
        is_shared = level.shape[-1] == 1
        level = level if is_shared else _repeated(level, padding)
        control = condition.transpose(1, 2)
        kept = []
        for number, stage in enumerate(self.down):
            h = stage(h, F.mish(level + control))
            if number < len(self.shrink):
                kept.append((h, level))
                h, level = self.shrink[number](h), level if is_shared else F.avg_pool1d(level, 2)
        h = self.middle(h, F.mish(level + control))
        for grow, stage in zip(self.grow, self.up, strict=True):
            skip, level = kept.pop()
            h = stage(torch.cat([grow(h), skip], dim=1), F.mish(level + control))
        return self.head(h)[..., :tokens].transpose(1, 2)

    def forward(self, x: Tensor, s: Tensor, condition: Tensor, to: Tensor | None = None) -> Tensor:
        """All three parts."""
        return self.denoise(x, self.level_code(s, to), self.condition_code(condition))


class _Stage(nn.Module):
    """Two residual blocks under the control (B, code, T), or (B, code, 1) for all tokens."""

    def __init__(self, before: int, after: int, code: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block(before, after, code), _Block(after, after, code)])

    def forward(self, h: Tensor, control: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h, control)
        return h


class _Block(nn.Module):
    """Convolution, scale and shift per token, convolution, and a skip."""

    def __init__(self, before: int, after: int, code: int) -> None:
        super().__init__()
        self.first, self.second = _conv(before, after), _conv(after, after)
        self.film = nn.Conv1d(code, 2 * after, 1)
        self.skip = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, h: Tensor, control: Tensor) -> Tensor:
        scale, shift = self.film(control).chunk(2, dim=1)
        return self.second(torch.addcmul(shift, self.first(h), 1 + scale)) + self.skip(h)


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(before, after, KERNEL, padding=KERNEL // 2), nn.GroupNorm(min(GROUPS, after), after), nn.Mish()
    )


def _repeated(x: Tensor, count: int) -> Tensor:
    """(B, C, T) with the last token ``count`` times more."""
    return torch.cat([x, x[..., -1:].expand(-1, -1, count)], dim=-1) if count else x
