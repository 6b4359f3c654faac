"""The policy contract: a pure function of (observation, state); everything that lives across steps is in the state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omnibody.robots.spec import Body, IOSpec

Obs = dict[str, Tensor]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What stays fixed for an episode: the body, and where a policy takes them, an instruction and a goal."""

    embodiment: Body
    instruction: str = ""
    goal: Tensor | None = None


class Policy(nn.Module):
    """Base of all policies. Observations (B, ...) as in ``spec.obs``; actions (B, Ta, Da) in physical units.

    No hidden state on modules: ``begin`` makes the state of B fresh episodes and ``act`` returns the next one, so that
    ``where(done, fresh, state)`` restarts single environments and an export has state in and state out.
    Statistics for normalisation are buffers. ``cfg`` is the dataclass the policy was built from. Of the Ta actions of a
    call the first ``action_steps`` are executed before the next call; later ones are a forecast. Row 0 belongs to the
    observation given. ``evaluations``: of the network, in a call. ``obs_keys``: the parts of ``spec.obs`` that acting
    needs, as others may be there for the loss only; empty: all of them.
    """

    spec: IOSpec
    cfg: Any
    action_steps: int = 1
    evaluations: int = 1
    obs_keys: tuple[str, ...] = ()

    @property
    def needs(self) -> IOSpec:
        """``spec`` with the observations that acting needs and no others."""
        keys = self.obs_keys or self.spec.obs
        return dataclasses.replace(self.spec, obs={key: self.spec.obs[key] for key in keys})

    def fit_statistics(self, batches: Iterable[Any]) -> None:
        """Take what normalisation needs from all training data, once, before training. The default needs nothing."""

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Training loss of a batch, a scalar, and its parts for the log."""
        raise NotImplementedError

    def begin(self, context: Context, batch_size: int) -> State:
        """State of ``batch_size`` episodes that are about to start, tensors (B, ...)."""
        raise NotImplementedError

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """Actions (B, Ta, Da) and the next state. Without a generator: the mean action, deterministic."""
        raise NotImplementedError

    def observe(self, obs: Obs, state: State) -> State:
        """Take in the observation of a step that needs no new actions: every step is shown to ``act`` or to this."""
        return state


def where_state(done: Tensor, fresh: State, state: State) -> State:
    """Rows of ``fresh`` where ``done`` (B,), of ``state`` elsewhere."""
    return {k: torch.where(done.reshape(-1, *[1] * (v.ndim - 1)), fresh[k], v) for k, v in state.items()}
