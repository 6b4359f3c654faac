"""The COMPASS base: a policy on the state of a world model, trained by imitation on one body and frozen afterwards.

Method: X-Mobility (arXiv 2410.17491) at a small size. Two choices differ from it and are options: the world model's
recurrence (see ``world_model``), and that the policy also sees the goal, since a route alone tells neither the wanted
heading nor that the goal is near.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from omnibody.policies.batch import Batch, mobile_part
from omnibody.policies.compass.commands import clip_twist, limit_state, normalise
from omnibody.policies.compass.nets import Fusion, RouteEncoder, mlp
from omnibody.policies.compass.world_model import (
    ACTION,
    SPEED_SCALE,
    Rollout,
    Window,
    WorldModel,
    WorldModelCfg,
    balanced_kl,
)
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec

ROUTE_SCALE = 5.0  # [m] of route and goal coordinates
PATH_SECONDS = (0.4, 0.8, 1.2, 1.6, 2.0)  # when the path head says where the body will be
PATH_SCALE = 3.0  # [m], the farthest the path head can say


@dataclass
class LossCfg:
    """Weights of the imitation loss."""

    action: float = 10.0  # L1 of the normalised command, summed over its axes
    path: float = 5.0  # squared error of the future positions / 3 m, summed over them
    kl: float = 0.01  # balanced KL [nat]; 0.001 in the original
    free_bits: float = 1.0  # KL below this has no gradient [nat]; 0 in the original
    semantics: float = 2.0  # weighted cross-entropy per pixel
    depth: float = 10.0  # L1 of logarithmic depth per pixel
    decode_every: int = 4  # of the frames of a batch every n-th is decoded, from a random one on; decoding is dear


@dataclass
class CompassBaseCfg:
    """Imitation base with a world model."""

    world: WorldModelCfg = field(default_factory=WorldModelCfg)  # the world model
    loss: LossCfg = field(default_factory=LossCfg)  # weights of the loss
    policy_width: int = 256  # width of the policy state
    goal_in_base: bool = True  # false in the original: the base sees the route only

    @staticmethod
    def compass_exact() -> CompassBaseCfg:
        """The original's modelling choices at this size."""
        world = WorldModelCfg(action_in_gru=False, backprop_through_time=False)
        return CompassBaseCfg(world=world, loss=LossCfg(kl=0.001, free_bits=0.0, decode_every=1), goal_in_base=False)

    @staticmethod
    def tiny() -> CompassBaseCfg:
        """An instance for tests."""
        return CompassBaseCfg(world=WorldModelCfg(hidden=24, latent=8, embed=16, channels=4), policy_width=16)

    def build(self, spec: IOSpec) -> CompassBase:
        """The untrained policy; its weights come from torch's global generator."""
        wanted = {"depth": 2, "velocity": 1, "route": 2, "goal": 1}
        # What a robot recorded tells no semantics: the world model then decodes depth alone.
        wanted |= {"semantics": 2} if "semantics" in spec.obs else {}
        for key, axes in wanted.items():
            if key not in spec.obs or len(spec.obs[key].shape) != axes:
                came = {k: f.shape for k, f in spec.obs.items()}
                raise UserError(f"compass_base: wanted observation {key!r} with {axes} axes, came {came}")
        if spec.action.shape != (ACTION,):
            raise UserError(f"compass_base: wanted a twist (vx, vy, wz) as action, came shape {spec.action.shape}")
        return CompassBase(self, spec)


class CompassBase(Policy):
    """World model, route encoder, fusion, command and path heads.

    State: ``h`` (B, H), ``z`` (B, Z), ``previous_action`` (B, 3) the normalised command last executed, and the body's
    ``velocity_low`` (B, 3), ``velocity_high`` (B, 3), ``turning_radius`` (B, 1).
    """

    obs_keys = ("depth", "velocity", "route", "goal")  # what acting needs; "semantics" is a target of the loss only

    def __init__(self, cfg: CompassBaseCfg, spec: IOSpec) -> None:
        super().__init__()
        self.cfg, self.spec = cfg, spec
        depth, width = spec.obs["depth"], cfg.policy_width
        classes = int(spec.obs["semantics"].high[0]) + 1 if "semantics" in spec.obs else 0
        self.world = WorldModel(cfg.world, (depth.shape[0], depth.shape[1]), depth.high[0], classes)
        self.route_encoder = RouteEncoder()
        goal = [spec.obs["goal"].shape[0]] if cfg.goal_in_base else []
        self.fusion = Fusion([self.world.latent_width, RouteEncoder.width, *goal], width)
        self.command_head = mlp([width, width, width // 2, ACTION])
        self.path_head = mlp([width, width, width // 2, 2 * len(PATH_SECONDS)])

    @property
    def feature_width(self) -> int:
        """Width F of what ``head_input`` returns."""
        return self.cfg.policy_width + self.spec.obs["goal"].shape[0] + ACTION

    def begin(self, context: Context, batch_size: int) -> State:
        """Zero history and previous action, and the limits of the body."""
        world = self.cfg.world
        widths = {"h": world.hidden, "z": world.latent, "previous_action": ACTION}
        state = {k: torch.zeros(batch_size, w) for k, w in widths.items()} | limit_state(context.embodiment, batch_size)
        device = next(self.parameters()).device
        return {k: v.to(device) for k, v in state.items()}

    def features(self, obs: Obs, state: State) -> tuple[Tensor, Tensor, State]:
        """Policy state (B, 256), base command (B, 3) in physical units and allowed, and the state after this frame.

        The next state still holds the old ``previous_action``: whoever acts adds it by ``executed``.
        """
        embed = self.world.embed(obs["depth"], obs["velocity"])
        h = self.world.rssm.history(state["h"], state["z"], state["previous_action"])
        z = self.world.rssm.posterior(h, embed, state["previous_action"]).mean
        policy_state = self._fuse(torch.cat([h, z], dim=-1), obs)
        command = torch.tanh(self.command_head(policy_state)) * state["velocity_high"]
        return policy_state, clip_twist(command, state), {**state, "h": h, "z": z}

    def executed(self, state: State, action: Tensor) -> State:
        """The state once ``action`` (B, 3) [m/s, m/s, rad/s] was sent to the body; limited, and 0 on missing axes."""
        return {**state, "previous_action": normalise(clip_twist(action, state), state["velocity_high"])}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[Tensor, State]:
        """The base command (B, 1, 3); it has no randomness."""
        _, action, state = self.features(obs, state)
        return action.unsqueeze(1), self.executed(state, action)

    def encode(self, batch: Batch, generator: torch.Generator | None) -> tuple[Rollout, Tensor]:
        """World-model states of a batch of windows, and the policy states (B, T, 256). No generator: posterior mean."""
        window = self.window(batch)
        embed = self.world.embed(window.depth, window.velocity)
        rollout = self.world.rssm.observe(embed, window.previous_action, window.restart, generator)
        flat = {k: batch.obs[k].flatten(0, 1) for k in ("route", "goal")}
        return rollout, self._fuse(rollout.latent.flatten(0, 1), flat).unflatten(0, window.pad.shape)

    def window(self, batch: Batch) -> Window:
        """The world model's view of a batch."""
        obs, steps = batch.obs, batch.previous_action.shape[1]
        previous = normalise(batch.previous_action, batch.velocity_high.unsqueeze(1))
        semantics = obs["semantics"] if self.world.num_classes else None
        return Window(obs["depth"], semantics, obs["velocity"], previous, batch.pad[:, :steps])

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum over real steps of command, path, KL, depth and semantics terms.

        Needs ``action`` windows at least as long as ``obs`` windows; what is longer serves the path head, which learns
        only where the body's position is known that far ahead.
        """
        steps = batch.previous_action.shape[1]
        if batch.expert.shape[1] < steps:
            raise UserError(f"compass_base: wanted action windows of at least {steps}, came {batch.expert.shape[1]}")
        rollout, policy_state = self.encode(batch, generator)
        real = (~batch.pad[:, :steps]).float()
        # Missing axes are trained to 0, so that a body that has them starts from 0 there.
        command = torch.tanh(self.command_head(policy_state))
        wanted = normalise(batch.expert[:, :steps], batch.velocity_high.unsqueeze(1))
        target, known = path_targets(mobile_part(batch.pose, "pose"), batch.pad, self.spec.rate_hz)
        path = torch.tanh(self.path_head(policy_state)).unflatten(-1, (-1, 2))
        path_error = ((path - target[:, :steps] / PATH_SCALE) ** 2).sum(-1)
        every = self.cfg.loss.decode_every
        some = slice(int(torch.randint(every, (), generator=generator, device=generator.device)), None, every)
        keys = ("depth", "semantics") if self.world.num_classes else ("depth",)
        frames = {key: batch.obs[key].flatten(0, 1)[some] for key in keys}
        latent, weight = rollout.latent.flatten(0, 1)[some], real.flatten(0, 1)[some]
        depth, semantics = self.world.reconstruction(latent, frames["depth"], frames.get("semantics"))
        parts = {
            "action": _mean((command - wanted).abs().sum(-1), real),
            "path": _mean(path_error, known[:, :steps].float()) * len(PATH_SECONDS),
            "kl": _mean(balanced_kl(rollout.posterior, rollout.prior, self.cfg.loss.free_bits), real),
            **({} if semantics is None else {"semantics": _mean(semantics, weight)}),
            "depth": _mean(depth, weight),
        }
        total = torch.stack([getattr(self.cfg.loss, name) * part for name, part in parts.items()]).sum()
        return total, {name: part.item() for name, part in parts.items()}

    def _fuse(self, latent: Tensor, obs: Obs) -> Tensor:
        tokens = [latent, self.route_encoder(obs["route"] / ROUTE_SCALE)]
        return self.fusion(tokens + ([scaled_goal(obs)] if self.cfg.goal_in_base else []))


def head_input(policy_state: Tensor, obs: Obs) -> Tensor:
    """(B, F): the policy state with the goal and the velocity appended, what residual and student read."""
    return torch.cat([policy_state, scaled_goal(obs), obs["velocity"] / SPEED_SCALE], dim=-1)


def scaled_goal(obs: Obs) -> Tensor:
    """Goal (..., 4): x, y in the heading frame in units of 5 m, cosine and sine of the heading error."""
    goal = obs["goal"]
    return torch.cat([goal[..., :2] / ROUTE_SCALE, goal[..., 2:]], dim=-1)


def path_targets(pose: Tensor, pad: Tensor, rate_hz: float) -> tuple[Tensor, Tensor]:
    """Where the body is ``PATH_SECONDS`` later, in its present heading frame [m], and whether the window knows.

    pose (B, R, 3), pad (B, R) -> (B, R, 5, 2), (B, R, 5) bool.
    """
    targets, valid = [], []
    for seconds in PATH_SECONDS:
        shift = round(seconds * rate_hz)
        later = F.pad(pose, (0, 0, 0, shift))[:, shift:]
        unknown = F.pad(pad, (0, shift), value=True)[:, shift:]
        offset = (later - pose)[..., :2]
        cos, sin = pose[..., 2].cos(), pose[..., 2].sin()
        ahead = cos * offset[..., 0] + sin * offset[..., 1]
        left = cos * offset[..., 1] - sin * offset[..., 0]
        targets.append(torch.stack([ahead, left], dim=-1))
        valid.append(~(pad | unknown))
    return torch.stack(targets, 2), torch.stack(valid, 2)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` where ``weight`` is 1."""
    return (values * weight).sum() / weight.sum().clamp_min(1.0)
