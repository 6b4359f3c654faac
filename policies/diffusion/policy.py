"""A policy that denoises chunks of actions: Diffusion Policy, flow, streaming, BESO, one step, by configuration.

Every call starts from noise; a streaming policy keeps the actions of later chunks half denoised in its state, and each
call brings the next one to zero noise (Streaming Diffusion Policy, arXiv 2406.04806).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from omnibody.policies.batch import Batch
from omnibody.policies.diffusion.conditioning import Conditioner
from omnibody.policies.diffusion.config import DiffusionCfg, Net, Objective
from omnibody.policies.diffusion.denoisers import Denoiser, ResMLP, TokenTransformer
from omnibody.policies.diffusion.levels import LevelMixture, staircase_rows, uniform_rows
from omnibody.policies.diffusion.objectives import SELF_SHARE, consistency_loss, shortcut_targets
from omnibody.policies.diffusion.parameterisation import input_scale, target, to_x0
from omnibody.policies.diffusion.processes import perturb
from omnibody.policies.diffusion.sampling import Network, Table
from omnibody.policies.diffusion.statistics import SIGMA_DATA, Moments, Spread, flat_bound
from omnibody.policies.diffusion.unet import UNet1d
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec

NOISES = 509  # draws of noise for calls without a generator; a prime, so that few steps per call do not repeat early
Past = tuple[Tensor, Tensor]  # executed actions (B, past, Da), and which of them there were, (B, past) bool


class Diffusion(Policy):
    """State, besides that of `Conditioner`: ``calls`` (B, 1) int64 of `act`. All actions in it are normalised.

    With ``relative_to``: ``origin`` (B, Da), that observation at the last call, from which actions are told.

    Streaming: ``buffer`` (B, T, Da), half denoised, and ``unplanned`` (B, 1) bool before the first call. With a prefix:
    ``plan`` (B, T, Da) of the last call and ``committed`` (B, 1) int64, which who executes sets to the number of first
    actions that are fixed already: they are the plan's, behind its first ``chunk``. With past actions: ``past``
    (B, past, Da) and ``known`` (B, past) bool.
    """

    def __init__(self, cfg: DiffusionCfg, spec: IOSpec) -> None:
        super().__init__()
        self.cfg, self.spec, self.action_steps = cfg, spec, cfg.chunk
        self.process = cfg.noise_process()
        self.obs_keys = tuple(dict.fromkeys([*cfg.seen(spec), *cfg.goal_keys, *filter(None, [cfg.relative_to])]))
        chunks = cfg.horizon // cfg.chunk if cfg.streaming else 1
        self._levels = LevelMixture(cfg.levels, cfg.density, cfg.horizon, chunks, cfg.prefix)
        self.actions = Spread([spec.action], SIGMA_DATA)
        self.conditioner = Conditioner(spec, cfg.seen(spec), cfg.goal_keys, cfg.obs_steps)
        self.low: Tensor
        self.high: Tensor
        for name in ("low", "high"):  # of actions
            self.register_buffer(name, flat_bound(getattr(spec.action, name), spec.action), persistent=False)
        rows = staircase_rows(cfg.steps, chunks, cfg.chunk) if cfg.streaming else uniform_rows(cfg.steps)
        self.rows: Tensor
        self.register_buffer("rows", rows, persistent=False)
        self.fixed_noise: Tensor
        self.dim = len(self.actions.centre)
        constant = torch.randn(NOISES, cfg.horizon, self.dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("fixed_noise", constant, persistent=False)
        self.net = _network(cfg, self.dim, self.conditioner.width)
        self._table: Table | None = None
        self.evaluations = self.table().evaluations * (1 if cfg.guidance == 1 else 2)
        self.register_load_state_dict_post_hook(_forget_table)

    def fit_statistics(self, batches: Iterable[Batch]) -> None:
        """Mean, spread and extremes of observations, goals and actions."""
        moments = {name: Moments() for name in ("observed", "wanted", "actions")}
        for batch in batches:
            self.conditioner.see(batch, moments)
            moments["actions"].add(self._told(batch))
        self.conditioner.fit(moments)
        self.actions.fit(moments["actions"])
        self._table = None

    def table(self) -> Table:
        """The sampler's weights: constants of the configuration and of the actions' extremes, made once."""
        if self._table is None or self._table.rows.device != self.rows.device:
            cfg = self.cfg
            bounds = (self.actions.low, self.actions.high)
            self._table = Table.of(self.rows, self.process, cfg.prediction, SIGMA_DATA, cfg.rule, cfg.eta, bounds)
        return self._table

    # --- training

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the prediction on windows of To observations and To - 1 + T actions.

        Padding behind an episode's end repeats its last action and is learned with the rest, as Diffusion Policy does.
        """
        cfg = self.cfg
        if batch.expert.shape[1] != (wanted := cfg.obs_steps - 1 + cfg.horizon):
            raise UserError(f"action_steps: wanted obs_steps - 1 + horizon = {wanted}, came {batch.expert.shape[1]}")
        actions = self.actions.normalise(self._told(batch))
        x0 = actions[:, cfg.obs_steps - 1 :]
        past = self._past_of(batch, actions) if cfg.past else None
        condition = self.conditioner.of_batch(batch, cfg.goal_dropout, generator)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        s = self._levels(len(x0), generator)
        if cfg.objective is Objective.SHORTCUT:
            return self._shortcut_loss(x0, noise, s, condition, generator)
        x = perturb(self.process, x0, noise, s)
        output = self._output(x, s, condition, past=past)
        error = (output - target(cfg.prediction, self.process, x0, noise, s, SIGMA_DATA)).square()
        error = error * (s > 0).unsqueeze(-1) if cfg.prefix else error
        loss = error.mean()
        parts = {"denoise": loss.item()}
        if cfg.objective is Objective.CONSISTENCY:
            jumps = consistency_loss(self._clean, self.process, x0, noise, condition, generator).mean()
            loss, parts = loss + jumps, {**parts, "consistency": jumps.item()}
        return loss, parts

    def _told(self, batch: Batch) -> Tensor:
        """The expert's actions (B, ., Da), from the present observation ``relative_to`` on if there is one."""
        actions, key = batch.expert.flatten(2), self.cfg.relative_to
        return actions - batch.obs[key][:, self.cfg.obs_steps - 1, None] if key else actions

    def _shortcut_loss(
        self, x0: Tensor, noise: Tensor, s: Tensor, condition: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        own = max(1, round(SELF_SHARE * len(x0)))
        x, to = perturb(self.process, x0, noise, s), s.clone()
        goal = target(self.cfg.prediction, self.process, x0, noise, s, SIGMA_DATA)
        first = shortcut_targets(self._velocity, x0[:own], noise[:own], condition[:own], generator)
        x, s, to, goal = (
            torch.cat([a.expand_as(b[:own]), b[own:]]) for a, b in zip(first, (x, s, to, goal), strict=True)
        )
        error = (self._output(x, s, condition, to=to) - goal).square()
        loss = error.mean()
        return loss, {"denoise": error[own:].mean().item(), "shortcut": error[:own].mean().item()}

    def _velocity(self, x: Tensor, s: Tensor, to: Tensor, condition: Tensor) -> Tensor:
        return self._output(x, s, condition, to=to)

    def _clean(self, x: Tensor, s: Tensor, to: Tensor, condition: Tensor) -> Tensor:
        output = self._output(x, s, condition, to=to)
        return to_x0(self.cfg.prediction, self.process, output, x, s, SIGMA_DATA)

    def _output(
        self, x: Tensor, s: Tensor, condition: Tensor, to: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """The network's output (B, T, D) at levels s (B, T) or (B, 1).

        A jumping one is told ``to``, or else that it denoises.
        """
        if self.cfg.objective is not Objective.DENOISE and to is None:
            to = s
        scale = input_scale(self.cfg.prediction, self.process, s.unsqueeze(-1), SIGMA_DATA)
        seen = x if scale is None else x * scale
        if past is None:
            return self.net(seen, s, condition, to)
        tokens, levels = self._past_tokens(past)
        levels = torch.cat([levels, s.expand(-1, self.cfg.horizon)], 1)
        return self.net(torch.cat([tokens, seen], 1), levels, condition, to)[:, self.cfg.past :]

    # --- acting

    def begin(self, context: Context, batch_size: int) -> State:
        """No observation seen, nothing planned."""
        cfg, centre = self.cfg, self.actions.centre
        state = self.conditioner.begin(batch_size)
        state["calls"] = torch.zeros(batch_size, 1, dtype=torch.int64, device=centre.device)
        if cfg.relative_to:
            state["origin"] = centre.new_zeros(batch_size, self.dim)
        if cfg.streaming:
            state["buffer"] = centre.new_zeros(batch_size, cfg.horizon, self.dim)
            state["unplanned"] = torch.ones(batch_size, 1, dtype=torch.bool, device=centre.device)
        if cfg.prefix:
            state["plan"] = centre.new_zeros(batch_size, cfg.horizon, self.dim)
            state["committed"] = torch.zeros(batch_size, 1, dtype=torch.int64, device=centre.device)
        if cfg.past:
            state["past"] = centre.new_zeros(batch_size, cfg.past, self.dim)
            state["known"] = torch.zeros(batch_size, cfg.past, dtype=torch.bool, device=centre.device)
        return state

    def observe(self, obs: Obs, state: State) -> State:
        """Keep the observation."""
        return self.conditioner.observe(obs, state)

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """Actions (B, horizon, Da), of which ``chunk`` are to be executed before the next call.

        Without a generator the noise is a function of the number of calls in the episode: always the same draws.
        """
        state = self._from_here(self.observe(obs, state), obs)
        condition, table = self.conditioner.condition(state, obs), self.table()
        noise = self._noise(state["calls"], generator)
        x = table.start * noise()
        fixed = None
        if self.cfg.streaming:
            shifted = torch.cat([state["buffer"][:, self.cfg.chunk :], x[:, -self.cfg.chunk :]], dim=1)
            x = torch.where(state["unplanned"].unsqueeze(-1), x, shifted)
        if self.cfg.prefix:
            fixed = self._committed(state)
            x = torch.where(fixed, state["plan"].roll(-self.cfg.chunk, dims=1), x)
        x, x0 = table.walk(self._bound(condition, state, fixed), x, noise, fixed)
        plan = x0 if fixed is None else torch.where(fixed, x, x0)
        action = self.actions.physical(plan)
        if self.cfg.relative_to:
            action = (action + obs[self.cfg.relative_to].unsqueeze(1)).clamp(self.low, self.high)
        return action.view(len(x), -1, *self.spec.action.shape), state | self._memory(state, x, plan)

    def _from_here(self, state: State, obs: Obs) -> State:
        """The state with what it keeps of earlier actions told from the present observation ``relative_to`` on.

        Half denoised ones shift by alpha of their level, as that is how much of the action is in them.
        """
        if not self.cfg.relative_to:
            return state
        origin = obs[self.cfg.relative_to]
        shift = ((state["origin"] - origin) / self.actions.scale).unsqueeze(1)
        moved = State(origin=origin)
        if self.cfg.streaming:
            moved["buffer"] = state["buffer"] + self.process.alpha(self.rows[-1].unsqueeze(-1)) * shift
        if self.cfg.prefix:
            moved["plan"] = state["plan"] + shift
        if self.cfg.past:
            moved["past"] = (state["past"] + shift) * state["known"].unsqueeze(-1)
        return state | moved

    def _bound(self, condition: Tensor, state: State, fixed: Tensor | None) -> Network:
        """The network with all that stays for a call worked out: the codes of the condition and of every level."""
        net, cfg, levels, tokens = self.net, self.cfg, self.rows.unsqueeze(1), None
        if fixed is not None:
            levels = torch.where(fixed.squeeze(-1), 0.0, levels)
        if cfg.past:
            tokens, known = self._past_tokens((state["past"], state["known"]))
            rows, batch = len(levels), len(known)
            levels = torch.cat([known.expand(rows, -1, -1), levels.expand(-1, batch, cfg.horizon)], dim=2)
        levels = net.level_code(levels.flatten(0, 1), self._aims()).unflatten(0, levels.shape[:2])
        code = net.condition_code(condition)
        is_guided = cfg.guidance != 1
        if is_guided:
            code = torch.cat([code, net.condition_code(self.conditioner.without_goal(condition))])
            levels = levels if levels.shape[1] == 1 else torch.cat([levels, levels], dim=1)
            tokens = None if tokens is None else torch.cat([tokens, tokens])

        def network(x: Tensor, row: int) -> Tensor:
            x = torch.cat([x, x]) if is_guided else x
            output = net.denoise(x if tokens is None else torch.cat([tokens, x], 1), levels[row], code)
            output = output[:, cfg.past :] if cfg.past else output
            if not is_guided:
                return output
            with_goal, without_goal = output.chunk(2)
            return torch.lerp(without_goal, with_goal, cfg.guidance)

        return network

    def _aims(self) -> Tensor | None:
        """The levels that a jumping network is told to reach from every row."""
        if self.cfg.objective is Objective.SHORTCUT:
            return torch.cat([self.rows[1:], self.rows[-1:]])
        return torch.zeros_like(self.rows) if self.cfg.objective is Objective.CONSISTENCY else None

    def _past_tokens(self, past: Past) -> tuple[Tensor, Tensor]:
        """Executed actions (B, past, Da) as the network sees them and their levels: 0, or 1 before the episode."""
        tokens, known = past
        levels = 1.0 - known.float()
        scale = input_scale(self.cfg.prediction, self.process, levels.new_zeros(()), SIGMA_DATA)
        return tokens if scale is None else tokens * scale, levels

    def _past_of(self, batch: Batch, actions: Tensor) -> Past:
        """The rows of a window's normalised actions right before the present one; 0 before the episode."""
        rows = slice(self.cfg.obs_steps - 1 - self.cfg.past, self.cfg.obs_steps - 1)
        known = ~batch.pad[:, rows]
        return actions[:, rows] * known.unsqueeze(-1), known

    def _committed(self, state: State) -> Tensor:
        """(B, T, 1) bool: actions that are fixed already."""
        if bool((state["committed"] > self.cfg.prefix).any()):
            raise UserError(
                f"committed: wanted at most prefix = {self.cfg.prefix}, came {int(state['committed'].max())}"
            )
        tokens = torch.arange(self.cfg.horizon, device=state["committed"].device)
        return (tokens < state["committed"]).unsqueeze(-1)

    def _noise(self, calls: Tensor, generator: torch.Generator | None) -> Callable[[], Tensor]:
        if generator is None:
            draws = itertools.count()
            first = calls.squeeze(1) * (self.cfg.steps + 1)
            return lambda: self.fixed_noise[(first + next(draws)) % NOISES]
        shape, device = (len(calls), self.cfg.horizon, self.dim), self.rows.device
        return lambda: torch.randn(shape, generator=generator, device=device)

    def _memory(self, state: State, x: Tensor, plan: Tensor) -> State:
        """What the next call needs of this one."""
        cfg, memory = self.cfg, State(calls=state["calls"] + 1)
        if cfg.streaming:
            memory |= {"buffer": x, "unplanned": torch.zeros_like(state["unplanned"])}
        if cfg.prefix:
            memory |= {"plan": plan, "committed": torch.zeros_like(state["committed"])}
        if cfg.past:
            done = plan[:, : cfg.chunk]
            known = torch.cat([state["known"], torch.ones_like(done[..., 0], dtype=torch.bool)], dim=1)
            memory |= {"past": torch.cat([state["past"], done], 1)[:, -cfg.past :], "known": known[:, -cfg.past :]}
        return memory


def _network(cfg: DiffusionCfg, dim: int, condition: int) -> Denoiser:
    """The untrained network."""
    tokens, jump = cfg.past + cfg.horizon, cfg.objective is not Objective.DENOISE
    if cfg.net is Net.RESMLP:
        return ResMLP(dim, tokens, condition, cfg.width, cfg.layers, jump)
    if cfg.net is Net.UNET:
        return UNet1d(dim, condition, cfg.width, cfg.layers, jump)
    return TokenTransformer(dim, tokens, condition, cfg.width, cfg.layers, cfg.heads, jump)


def _forget_table(policy: Diffusion, _: Any) -> None:
    policy._table = None
