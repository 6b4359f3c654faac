"""What a policy learns from: B windows of consecutive rows, each out of one episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnibody.robots.errors import UserError
from omnibody.robots.spec import DESCRIPTOR_NAMES, Field, IOSpec

Obs = dict[str, Tensor]


class Lazy(Mapping[str, Tensor]):
    """Tensors by key, each made when it is first asked for: who learns pays only for what it reads."""

    def __init__(self, keys: Collection[str], make: Callable[[str], Tensor]) -> None:
        self._keys, self._make = keys, make
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        if key not in self._made:
            self._made[key] = self._make(key)
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(frozen=True)
class Batch:
    """B windows; row j of a window is the time step s + j of its episode, at the rate of the IOSpec.

    To observation rows, Ta action rows, R = max(To, Ta), K body facts. Values are in physical units (depth in metres),
    float32 unless said. Rows before the first or behind the last step of the episode repeat the nearest one and are
    marked in ``pad``; a window never sees another episode.

    ``obs`` {key: (B, To, ...)} as in ``IOSpec.obs``; ``next_obs`` the true successors, the last step's included;
    ``action`` (B, Ta, Da) what was executed; ``expert`` (B, Ta, Da) what the expert wanted in the same state;
    ``previous_action`` (B, To, Da) executed one step earlier, zero at an episode's first step; ``terminated`` (B, Ta)
    bool: ended for good, not by a time limit; ``pad`` (B, R) bool. None where the data do not tell it: ``reward``
    (B, Ta). Of a mobile body also, else None: ``pose`` (B, R, 3) ground pose x [m], y [m], yaw [rad] in the world;
    ``descriptor`` (B, K) facts about the body (``DESCRIPTOR_NAMES``).
    """

    obs: Mapping[str, Tensor]
    next_obs: Mapping[str, Tensor]
    action: Tensor
    expert: Tensor
    previous_action: Tensor
    terminated: Tensor
    pad: Tensor
    reward: Tensor | None = None
    pose: Tensor | None = None
    descriptor: Tensor | None = None

    @property
    def velocity_high(self) -> Tensor:
        """Upper limits (B, 3) of the body's twist (vx, vy, wz) [m/s, m/s, rad/s], out of its descriptor."""
        facts = mobile_part(self.descriptor, "descriptor")
        return facts[:, [DESCRIPTOR_NAMES.index(f"{axis}_high") for axis in ("vx", "vy", "wz")]]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                moved[field.name] = Lazy(value.keys(), lambda key, of=value: of[key].to(device))  # type: ignore[misc]
            else:
                moved[field.name] = None if value is None else value.to(device)
        return Batch(**moved)


def mobile_part(part: Tensor | None, name: str) -> Tensor:
    """A part of a batch that only data of mobile bodies has."""
    if part is None:
        raise UserError(f"data: wanted a dataset with {name} (of a mobile body), came one without")
    return part


def fake_batch(spec: IOSpec, size: int, obs_steps: int, action_steps: int, generator: torch.Generator) -> Batch:
    """A batch of ``size`` random windows within the bounds of ``spec``, for shape tests and warm-ups."""
    rows = max(obs_steps, action_steps)

    def values(field: Field, steps: int) -> Tensor:
        return random_values(field, (size, steps), generator)

    def numbers(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    return Batch(
        obs={key: values(field, obs_steps) for key, field in spec.obs.items()},
        next_obs={key: values(field, obs_steps) for key, field in spec.obs.items()},
        action=values(spec.action, action_steps),
        expert=values(spec.action, action_steps),
        previous_action=values(spec.action, obs_steps),
        reward=numbers(size, action_steps),
        terminated=numbers(size, action_steps) < 0.05,
        pad=torch.zeros(size, rows, dtype=torch.bool),
        pose=numbers(size, rows, 3),
        descriptor=numbers(size, len(DESCRIPTOR_NAMES)),
    )


def random_values(field: Field, leading: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform values (*leading, *field.shape) within the field's bounds, of its dtype."""
    low, high = torch.tensor(field.low, dtype=torch.float32), torch.tensor(field.high, dtype=torch.float32)
    dtype: torch.dtype = getattr(torch, field.dtype)
    unit = torch.rand(*leading, *field.shape, generator=generator)
    if dtype.is_floating_point:
        return (low + unit * (high - low)).to(dtype)
    return (low + torch.floor(unit * (high - low + 1))).clamp(max=high).to(dtype)
