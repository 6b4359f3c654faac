"""The policy contract: a pure function of (observation, state); everything that lives across steps is in the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omnibody.robots.spec import Embodiment, IOSpec

Obs = dict[str, Tensor]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What stays fixed for an episode: the body, and where a policy takes them, an instruction and a goal."""

    embodiment: Embodiment
    instruction: str = ""
    goal: Tensor | None = None


class Policy(nn.Module):
    """Base of all policies. Observations (B, ...) as in ``spec.obs``; actions (B, Ta, Da) in physical units.

    No hidden state on modules: ``begin`` makes the state of B fresh episodes and ``act`` returns the next one, so that
    ``where(done, fresh, state)`` restarts single environments and an export has state in and state out.
    Statistics for normalisation are buffers. ``cfg`` is the dataclass the policy was built from.
    """

    spec: IOSpec
    cfg: Any

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Training loss of a batch, a scalar, and its parts for the log."""
        raise NotImplementedError

    def begin(self, context: Context, batch_size: int) -> State:
        """State of ``batch_size`` episodes that are about to start, tensors (B, ...)."""
        raise NotImplementedError

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """Actions (B, Ta, Da) and the next state. Without a generator: the mean action, deterministic."""
        raise NotImplementedError


def where_state(done: Tensor, fresh: State, state: State) -> State:
    """Rows of ``fresh`` where ``done`` (B,), of ``state`` elsewhere."""
    return {k: torch.where(done.reshape(-1, *[1] * (v.ndim - 1)), fresh[k], v) for k, v in state.items()}
