"""Playing a policy's chunks of actions, env by env, at once or while the next chunk is still being computed.

A policy is called every ``action_steps`` steps; in between it is shown what happens (``Policy.observe``). With a
``latency`` of d steps the call still sees the present, but its actions take effect d steps later: until then the rest
of the old chunk is played, and the first d rows of the new one are dropped. A policy whose state has ``committed`` is
told d, so that it can keep to what will be played anyway. The first call of an episode has nothing to play meanwhile
and is waited for.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from omnibody.policies.batch import random_values
from omnibody.policies.policy import Context, Obs, Policy, State, where_state
from omnibody.robots.errors import UserError

COMMITTED = "committed"


class Executor:
    """A policy with its state and its plans for N envs, which may begin and end episodes independently.

    The cost of a step does not depend on how many went before.
    """

    def __init__(self, policy: Policy, context: Context, num_envs: int, latency: int = 0) -> None:
        if not 0 <= latency <= policy.action_steps:
            raise UserError(f"latency: wanted 0 to {policy.action_steps} steps, the policy's chunk, came {latency}")
        self.policy, self.latency, self.num_envs = policy, latency, num_envs
        weight = next(policy.parameters(), None)
        self.device = torch.device("cpu") if weight is None else weight.device
        self._fresh = policy.begin(context, num_envs)
        self._state = self._fresh
        self._plan = torch.empty(0)  # (N, H, Da); made at the first call, when H is known
        self._coming = torch.empty(0)  # the same, of calls that have not come back
        self._row = torch.full((num_envs,), -1)  # of the plan to play next; -1 without a plan
        self._wait = torch.full((num_envs,), -1)  # steps until what is coming is there; -1 without such
        self.log = ExecutionLog(num_envs, policy.spec.rate_hz)

    @torch.inference_mode()
    def act(self, obs: Obs) -> Tensor:
        """The actions (N, Da) of this step."""
        obs = {key: value.to(self.device) for key, value in obs.items()}
        began = time.perf_counter()
        arrived = self._wait == 0
        if bool(arrived.any()):
            self._plan = torch.where(arrived[:, None, None], self._coming, self._plan)
            self._row = torch.where(arrived, self.latency, self._row)
            self._wait = torch.where(arrived, -1, self._wait)
        due = (self._row < 0) | ((self._row >= self.policy.action_steps) & (self._wait < 0))
        if bool(due.all()):
            chunk, self._state = self.policy.act(obs, self._announced(self._state))
            self._take(due, chunk.cpu())
        elif bool(due.any()):
            self._act_in_part(obs, due)
        else:
            self._state = self.policy.observe(obs, self._state)
        milliseconds = 1e3 * (time.perf_counter() - began)
        action = self._plan[torch.arange(self.num_envs), self._row]
        self.log.add(action, called=due, switched=(self._row == 0) | arrived, milliseconds=milliseconds)
        self._row, self._wait = self._row + 1, (self._wait - 1).clamp(min=-1)
        return action

    @torch.inference_mode()
    def restart(self, done: Tensor) -> None:
        """Begin anew where ``done`` (N,)."""
        self._state = where_state(done.to(self.device), self._fresh, self._state)
        self._row, self._wait = (torch.where(done, -1, count) for count in (self._row, self._wait))
        self.log.restart(done)

    def _act_in_part(self, obs: Obs, due: Tensor) -> None:
        """Call the policy for the rows that are ``due`` (N,) and show the step to the others."""
        called, shown = torch.nonzero(due)[:, 0], torch.nonzero(~due)[:, 0]
        chunk, after = self.policy.act(_rows(obs, called), self._announced(_rows(self._state, called), called))
        others = self.policy.observe(_rows(obs, shown), _rows(self._state, shown))
        back = torch.argsort(torch.cat([called, shown])).to(self.device)
        self._state = {key: torch.cat([after[key], others[key]])[back] for key in after}
        whole = torch.zeros_like(self._plan)
        whole[due] = chunk.cpu()
        self._take(due, whole)

    def _announced(self, state: State, rows: Tensor | None = None) -> State:
        """The state in which a policy that wants to know is told how many of its planned actions will be played."""
        if COMMITTED not in state:
            return state
        row = self._row if rows is None else self._row[rows]
        committed = torch.where(row < 0, 0, self.latency).unsqueeze(1)
        return {**state, COMMITTED: committed.to(state[COMMITTED])}

    def _take(self, due: Tensor, chunk: Tensor) -> None:
        """Note the chunks (N, H, Da) of the rows ``due``: to play now, or when the latency is over."""
        if self._plan.ndim != 3:
            need = self.policy.action_steps + self.latency
            if chunk.shape[1] < need:
                raise UserError(
                    f"latency: wanted chunks of action_steps + latency = {need} actions, came {chunk.shape[1]}"
                )
            self._plan, self._coming = torch.zeros_like(chunk), torch.zeros_like(chunk)
        now = due & ((self._row < 0) | (self.latency == 0))
        self._plan = torch.where(now[:, None, None], chunk, self._plan)
        self._row = torch.where(now, 0, self._row)
        self._coming = torch.where((due & ~now)[:, None, None], chunk, self._coming)
        self._wait = torch.where(due & ~now, self.latency, self._wait)


def _rows(tensors: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Some of the rows of all tensors."""
    return {key: value[rows.to(value.device)] for key, value in tensors.items()}


@torch.inference_mode()
def longest_latency(policy: Policy, context: Context) -> int:
    """The most steps that a call of the policy may take: its chunks reach so far, and it can keep to so many."""
    generator = torch.Generator().manual_seed(0)
    obs = {key: random_values(part, (1,), generator) for key, part in policy.spec.obs.items()}
    state = policy.begin(context, 1)
    chunk, state = policy.act(obs, state)
    for latency in range(min(policy.action_steps, chunk.shape[1] - policy.action_steps), 0, -1):
        told = {**state, COMMITTED: torch.full_like(state[COMMITTED], latency)} if COMMITTED in state else state
        try:
            policy.act(obs, told)
        except UserError:
            continue
        return latency
    return 0


class ExecutionLog:
    """What executing cost and how smooth it was, of each env's episode so far."""

    def __init__(self, num_envs: int, rate_hz: float) -> None:
        self._rate = rate_hz
        self._last = np.zeros((3, num_envs, 0))  # the last three actions, newest first
        self._steps, self._calls, self._switches = (np.zeros(num_envs, np.int64) for _ in range(3))
        self._jump, self._jerk = np.zeros(num_envs), np.zeros(num_envs)
        self._milliseconds: list[list[float]] = [[] for _ in range(num_envs)]

    def add(self, action: Tensor, called: Tensor, switched: Tensor, milliseconds: float) -> None:
        """Note a step: its actions (N, Da), which envs the policy was called for and which began another chunk."""
        now = action.numpy().astype(np.float64)
        if self._last.shape[2] == 0:
            self._last = np.zeros((3, *now.shape))
        one, two, three = self._last
        later = switched.numpy() & (self._steps > 0)
        self._jump += np.where(later, np.linalg.norm(now - one, axis=1), 0.0)
        third = np.linalg.norm(now - 3 * one + 3 * two - three, axis=1) * self._rate**3
        self._jerk += np.where(self._steps >= 3, third, 0.0)
        self._switches += later
        self._calls += called.numpy()
        self._steps += 1
        self._last = np.stack([now, one, two])
        for row in torch.nonzero(called)[:, 0].tolist():
            self._milliseconds[row].append(milliseconds)

    def restart(self, done: Tensor) -> None:
        """Forget the episodes that are ``done`` (N,)."""
        rows = done.numpy()
        for values in (self._steps, self._calls, self._switches, self._jump, self._jerk):
            values[rows] = 0
        for row in np.flatnonzero(rows):
            self._milliseconds[row] = []

    def measures(self, row: int, evaluations: int) -> dict[str, float]:
        """Of the episode in env ``row``: network evaluations per action played, of ``evaluations`` a call; the mean
        step of the action where a chunk follows another [its units], and its mean third derivative [units/s^3]."""
        steps = max(int(self._steps[row]), 1)
        return {
            "nfe_per_action": evaluations * float(self._calls[row]) / steps,
            "chunk_jump": float(self._jump[row]) / max(int(self._switches[row]), 1),
            "jerk": float(self._jerk[row]) / max(steps - 3, 1),
        }

    def milliseconds(self, row: int) -> list[float]:
        """Times of the policy's batched calls that env ``row`` took part in [ms]."""
        return self._milliseconds[row]
