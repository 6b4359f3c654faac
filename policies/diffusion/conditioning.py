"""What the network is told besides the noisy actions: a short history of vectors and images and, for some, a goal."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from omnibody.policies.batch import Batch
from omnibody.policies.diffusion.images import FEATURES, ImageEncoder, is_image
from omnibody.policies.diffusion.statistics import Moments, Spread
from omnibody.policies.policy import Obs, State
from omnibody.robots.spec import IOSpec


class Conditioner(nn.Module):
    """Observations (B, To * C), and behind them the goal (B, G) or the learned token for none.

    Of the C values of an observation the first are its vectors, normalised, the others the features of its images.
    Keys in the state: ``history`` (B, To, C), the latest last; ``unseen`` (B, 1) bool before the first
    observation, which fills the whole history, as windows at an episode's start repeat its first row.
    """

    def __init__(self, spec: IOSpec, keys: list[str], goal_keys: list[str], steps: int) -> None:
        super().__init__()
        self.keys = tuple(key for key in keys if not is_image(spec.obs[key]))
        self.goal_keys, self.steps = tuple(goal_keys), steps
        self.observed = Spread([spec.obs[key] for key in self.keys])
        self.images = nn.ModuleDict({key: ImageEncoder() for key in keys if key not in self.keys})
        self.wanted = Spread([spec.obs[key] for key in goal_keys])
        self.no_goal = nn.Parameter(torch.zeros(len(self.wanted.centre))) if goal_keys else None

    @property
    def width(self) -> int:
        """Of the condition."""
        return self.steps * self._size + len(self.wanted.centre)

    @property
    def _size(self) -> int:
        """Of one observation."""
        return len(self.observed.centre) + len(self.images) * FEATURES

    def begin(self, batch_size: int) -> State:
        """An empty history."""
        centre = self.observed.centre
        return {
            "history": centre.new_zeros(batch_size, self.steps, self._size),
            "unseen": torch.ones(batch_size, 1, dtype=torch.bool, device=centre.device),
        }

    def observe(self, obs: Obs, state: State) -> State:
        """The state with an observation (B, ...) more."""
        latest = self._seen(obs, 1).unsqueeze(1)
        if self.steps == 1:
            return state | {"history": latest, "unseen": torch.zeros_like(state["unseen"])}
        shifted = torch.cat([state["history"][:, 1:], latest], dim=1)
        history = torch.where(state["unseen"].unsqueeze(-1), latest, shifted)
        return state | {"history": history, "unseen": torch.zeros_like(state["unseen"])}

    def condition(self, state: State, obs: Obs) -> Tensor:
        """Of a state that has taken in ``obs``, with its goal."""
        return self._joined(state["history"], self._goal({key: obs[key] for key in self.goal_keys}, 1))

    def of_batch(self, batch: Batch, dropout: float, generator: torch.Generator) -> Tensor:
        """Of training windows, whose last observation is the present; a share of them without their goal."""
        history = self._seen({key: batch.obs[key][:, : self.steps] for key in (*self.keys, *self.images)}, 2)
        goal = self._goal({key: batch.obs[key][:, self.steps - 1] for key in self.goal_keys}, 1)
        if dropout and self.no_goal is not None:
            dropped = torch.rand(len(goal), 1, generator=generator, device=goal.device) < dropout
            goal = torch.where(dropped, self.no_goal, goal)
        return self._joined(history, goal)

    def without_goal(self, condition: Tensor) -> Tensor:
        """The same condition (B, C) with the token for no goal."""
        assert self.no_goal is not None
        seen = condition[:, : -len(self.no_goal)]
        return torch.cat([seen, self.no_goal.expand(len(seen), -1)], dim=-1)

    def see(self, batch: Batch, moments: dict[str, Moments]) -> None:
        """Add a batch's observations to the moments ``observed`` and ``wanted``."""
        if self.keys:
            moments["observed"].add(_flat(batch.obs, self.keys, 2))
        if self.goal_keys:
            moments["wanted"].add(_flat(batch.obs, self.goal_keys, 2))

    def fit(self, moments: dict[str, Moments]) -> None:
        """Normalise by what was seen."""
        self.observed.fit(moments["observed"])
        self.wanted.fit(moments["wanted"])

    def _seen(self, obs: Obs, leading: int) -> Tensor:
        """Observations with ``leading`` axes (B, ...) or (B, To, ...) as values (*leading axes, C)."""
        parts = [self.observed.normalise(_flat(obs, self.keys, leading))] if self.keys else []
        parts += [encoder(obs[key]) for key, encoder in self.images.items()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _goal(self, goal: Obs, leading: int) -> Tensor:
        return self.wanted.normalise(_flat(goal, self.goal_keys, leading)) if goal else torch.zeros(0)

    def _joined(self, history: Tensor, goal: Tensor) -> Tensor:
        seen = history.flatten(1)
        return torch.cat([seen, goal], dim=-1) if self.goal_keys else seen


def _flat(obs: Mapping[str, Tensor], keys: tuple[str, ...], leading: int) -> Tensor:
    """Values side by side (*leading axes, C), float32."""
    parts = [obs[key].flatten(leading) if obs[key].ndim > leading + 1 else obs[key] for key in keys]
    return parts[0].float() if len(parts) == 1 else torch.cat([part.float() for part in parts], dim=-1)
