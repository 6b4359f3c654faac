"""A recurrent state-space model of depth, semantics and speed that a mobile robot sees.

After X-Mobility (arXiv 2410.17491), made small: h 256, z 64 Gaussian. Two of the original's choices are options, so
that each is an ablation: it feeds the action to the prior and posterior heads but not to the recurrent unit, and it
cuts gradients between the steps of a window.

Depth is encoded, decoded and compared as log(1 + d) / log(1 + max_range): near obstacles need the resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnibody.policies.compass.nets import DepthEncoder, ImageDecoder, mlp

ACTION = 3  # vx, vy, wz
ACTION_EMBED = 64
SPEED_SCALE = 1.5  # [m/s] and [rad/s]
SPEED_EMBED = 16


@dataclass
class WorldModelCfg:
    """Sizes and recurrence of the world model."""

    hidden: int = 256  # width of the recurrent history h
    latent: int = 64  # width of the Gaussian sample z
    embed: int = 128  # width of the depth embedding
    channels: int = 24  # of the first convolution; later ones have up to 4 times as many
    action_in_gru: bool = True  # false in the original: the action reaches the prior and posterior heads only
    backprop_through_time: bool = True  # false in the original: no gradient from one step to the one before


@dataclass(frozen=True)
class Normal:
    """A Gaussian with independent axes: ``mean`` and ``std`` (..., Z)."""

    mean: Tensor
    std: Tensor

    def detach(self) -> Normal:
        """The same without gradient."""
        return Normal(self.mean.detach(), self.std.detach())


@dataclass(frozen=True)
class Rollout:
    """States of a window: ``h`` (B, T, H), ``z`` (B, T, Z), with the prior and posterior z was drawn under."""

    h: Tensor
    z: Tensor
    prior: Normal
    posterior: Normal

    @property
    def latent(self) -> Tensor:
        """(B, T, H + Z), what every head reads."""
        return torch.cat([self.h, self.z], dim=-1)


@dataclass(frozen=True)
class Prediction:
    """Imagined frames: ``depth`` (B, K, H, W) [m], ``logits`` (B, K, C, H, W), and the states they come from."""

    depth: Tensor
    logits: Tensor
    h: Tensor
    z: Tensor


def gaussian_kl(p: Normal, q: Normal) -> Tensor:
    """KL(p || q) per axis (..., Z) [nat]."""
    ratio = p.std / q.std
    return 0.5 * (ratio**2 + ((p.mean - q.mean) / q.std) ** 2 - 1.0) - ratio.log()


def balanced_kl(posterior: Normal, prior: Normal, free_bits: float) -> Tensor:
    """0.75 KL(sg(posterior) || prior) + 0.25 KL(posterior || sg(prior)) (...,), each at least ``free_bits`` [nat]."""
    to_prior = gaussian_kl(posterior.detach(), prior).sum(-1)
    to_posterior = gaussian_kl(posterior, prior.detach()).sum(-1)
    return 0.75 * to_prior.clamp_min(free_bits) + 0.25 * to_posterior.clamp_min(free_bits)


class Rssm(nn.Module):
    """Recurrent state-space model: history h' = GRU([z, a], h), prior z ~ p(h'), posterior z ~ q(h', embedding).

    With ``action_in_gru`` off: h' = GRU(z, h), and both heads read an embedding of the action beside h'.
    The action is the normalised command that was executed just before the frame.
    """

    def __init__(self, cfg: WorldModelCfg, embed: int) -> None:
        super().__init__()
        self.cfg = cfg
        extra = 0 if cfg.action_in_gru else ACTION_EMBED
        self.inlet = nn.Linear(cfg.latent + (ACTION if cfg.action_in_gru else 0), cfg.hidden)
        self.gru = nn.GRUCell(cfg.hidden, cfg.hidden)
        if not cfg.action_in_gru:
            self.prior_action = nn.Linear(ACTION, ACTION_EMBED)
            self.posterior_action = nn.Linear(ACTION, ACTION_EMBED)
        self.prior_head = mlp([cfg.hidden + extra, cfg.hidden, 2 * cfg.latent], nn.LeakyReLU)
        self.posterior_head = mlp([cfg.hidden + embed + extra, cfg.hidden, 2 * cfg.latent], nn.LeakyReLU)

    def history(self, h: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """The next h (B, H) from h, z and the normalised action (B, 3) taken in between."""
        if not self.cfg.backprop_through_time:
            h, z = h.detach(), z.detach()
        inlet = torch.cat([z, action], dim=-1) if self.cfg.action_in_gru else z
        return self.gru(F.leaky_relu(self.inlet(inlet)), h)

    def prior(self, h: Tensor, action: Tensor) -> Normal:
        """What z is expected to be before the frame is seen; leading axes are free."""
        extra = [] if self.cfg.action_in_gru else [F.leaky_relu(self.prior_action(action))]
        return _normal(self.prior_head(torch.cat([h, *extra], dim=-1)))

    def posterior(self, h: Tensor, embed: Tensor, action: Tensor) -> Normal:
        """What z is after the frame is seen."""
        extra = [] if self.cfg.action_in_gru else [F.leaky_relu(self.posterior_action(action))]
        return _normal(self.posterior_head(torch.cat([h, embed, *extra], dim=-1)))

    def observe(self, embed: Tensor, action: Tensor, restart: Tensor, generator: torch.Generator | None) -> Rollout:
        """Filter a window from a zero state: embeddings (B, T, E), previous actions (B, T, 3).

        The state before step t is zero where ``restart`` (B, T). Without a generator z is the posterior mean.
        """
        batch, steps = embed.shape[:2]
        h, z = embed.new_zeros(batch, self.cfg.hidden), embed.new_zeros(batch, self.cfg.latent)
        noise = embed.new_zeros(steps, batch, self.cfg.latent)
        if generator is not None:
            noise.normal_(generator=generator)
        states: list[tuple[Tensor, ...]] = []
        keep = (~restart).to(embed.dtype).unsqueeze(-1)
        for t in range(steps):
            h = self.history(h * keep[:, t], z * keep[:, t], action[:, t])
            q = self.posterior(h, embed[:, t], action[:, t])
            z = q.mean + q.std * noise[t]
            states.append((h, z, q.mean, q.std))
        history, sample, mean, std = (torch.stack(values, 1) for values in zip(*states, strict=True))
        return Rollout(history, sample, self.prior(history, action), Normal(mean, std))


def _normal(parameters: Tensor) -> Normal:
    mean, raw = parameters.chunk(2, dim=-1)
    return Normal(mean, 2.0 * torch.sigmoid(0.5 * raw) + 0.1)


class WorldModel(nn.Module):
    """Encoders of depth and speed, the recurrent state, and a decoder of depth and, with classes, of semantics."""

    def __init__(self, cfg: WorldModelCfg, image: tuple[int, int], max_range: float, num_classes: int) -> None:
        super().__init__()
        self.cfg, self.max_range, self.num_classes = cfg, max_range, num_classes
        self.latent_width = cfg.hidden + cfg.latent
        self.depth_encoder = DepthEncoder(*image, cfg.channels, cfg.embed)
        self.speed_encoder = nn.Sequential(mlp([ACTION, SPEED_EMBED, SPEED_EMBED]), nn.ReLU())
        self.rssm = Rssm(cfg, cfg.embed + SPEED_EMBED)
        self.decoder = ImageDecoder(*image, cfg.channels, self.latent_width, num_classes)

    def squash(self, depth: Tensor) -> Tensor:
        """Depth [m] -> [0, 1], logarithmic."""
        return torch.log1p(depth.clamp(0.0, self.max_range)) / math.log1p(self.max_range)

    def unsquash(self, squashed: Tensor) -> Tensor:
        """Inverse of ``squash``, limited to the camera's range."""
        return torch.expm1(squashed.clamp(0.0, 1.0) * math.log1p(self.max_range))

    def embed(self, depth: Tensor, velocity: Tensor) -> Tensor:
        """Depth (..., H, W) [m] and velocity (..., 3) [m/s, m/s, rad/s] -> (..., E)."""
        image = self.depth_encoder(self.squash(depth.float()).flatten(0, -3)).unflatten(0, depth.shape[:-2])
        return torch.cat([image, self.speed_encoder(velocity / SPEED_SCALE)], dim=-1)

    def reconstruction(self, latent: Tensor, depth: Tensor, semantics: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Per frame (N,): L1 of squashed depth, and cross-entropy with weights 1, 2, 5, 5... (things count most).

        Without ``semantics`` there is no second one.
        """
        decoded, logits = self.decoder(latent)
        distance = (decoded - self.squash(depth.float())).abs().flatten(1).mean(1)
        if semantics is None:
            return distance, None
        weight = logits.new_full((self.num_classes,), 5.0)
        weight[:2] = logits.new_tensor([1.0, 2.0])[: self.num_classes]
        target = semantics.long()
        entropy = F.cross_entropy(logits, target, weight, reduction="none").flatten(1).sum(1)
        return distance, entropy / weight[target].flatten(1).sum(1)

    @torch.no_grad()
    def imagine(self, h: Tensor, z: Tensor, actions: Tensor) -> Prediction:
        """Predict K frames from a state (B, H), (B, Z) under normalised actions (B, K, 3), by the prior mean."""
        hs, zs = [], []
        for k in range(actions.shape[1]):
            h = self.rssm.history(h, z, actions[:, k])
            z = self.rssm.prior(h, actions[:, k]).mean
            hs.append(h)
            zs.append(z)
        history, sample = torch.stack(hs, 1), torch.stack(zs, 1)
        depth, logits = self.decoder(torch.cat([history, sample], dim=-1).flatten(0, 1))
        shape = actions.shape[:2]
        return Prediction(self.unsquash(depth).unflatten(0, shape), logits.unflatten(0, shape), history, sample)


@dataclass(frozen=True)
class Window:
    """A batch of windows as the world model needs it.

    ``depth`` (B, T, H, W) [m], ``semantics`` (B, T, H, W) integers or None where nobody knows them, ``velocity``
    (B, T, 3), ``previous_action`` (B, T, 3) the normalised command executed before the frame, ``pad`` (B, T) bool.
    """

    depth: Tensor
    semantics: Tensor | None
    velocity: Tensor
    previous_action: Tensor
    pad: Tensor

    @property
    def restart(self) -> Tensor:
        """(B, T) bool: no history before this frame, as it or the one before is not part of the episode."""
        return F.pad(self.pad[:, :-1], (1, 0), value=True)


@torch.no_grad()
def prediction_quality(model: WorldModel, windows: Iterable[Window], horizon: int = 10) -> dict[str, list[float]]:
    """Depth L1 [m] and semantic mean IoU of frames imagined 1..horizon steps ahead, beside repeating the last frame.

    A window's first T - horizon frames are filtered, the rest is imagined under the actions that were executed; windows
    with padding are left out. Classes that occur in neither prediction nor truth are left out of the mean; windows
    without semantics give no IoU.
    """
    classes = model.num_classes
    error = torch.zeros(2, horizon, dtype=torch.float64)
    count = torch.zeros(horizon, dtype=torch.float64)
    confusion = torch.zeros(2, horizon, classes, classes, dtype=torch.float64)
    for window in windows:
        seen = window.depth.shape[1] - horizon
        if seen < 1:
            raise ValueError(f"prediction_quality: wanted windows longer than {horizon} frames, came {seen + horizon}")
        rows = ~window.pad.any(1)
        depth = window.depth[rows].float()
        embed = model.embed(depth[:, :seen], window.velocity[rows, :seen])
        action = window.previous_action[rows]
        state = model.rssm.observe(embed, action[:, :seen], window.restart[rows, :seen], None)
        guess = model.imagine(state.h[:, -1], state.z[:, -1], action[:, seen:])
        last = slice(seen - 1, seen)
        for i, metres in enumerate((guess.depth, depth[:, last].expand_as(guess.depth))):
            error[i] += (metres - depth[:, seen:]).abs().mean((2, 3)).sum(0)
        count += float(rows.sum())
        if window.semantics is None:
            continue
        truth = window.semantics[rows].long()
        for i, labels in enumerate((guess.logits.argmax(2), truth[:, last].expand_as(truth[:, seen:]))):
            for k in range(horizon):
                pairs = (truth[:, seen + k] * classes + labels[:, k]).flatten()
                confusion[i, k] += torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    figures = {"depth_l1_m": error[0] / count, "depth_l1_m_repeat": error[1] / count}
    figures |= {"miou": _mean_iou(confusion[0]), "miou_repeat": _mean_iou(confusion[1])} if confusion.any() else {}
    return {name: values.tolist() for name, values in figures.items()}


def _mean_iou(confusion: Tensor) -> Tensor:
    hit = confusion.diagonal(dim1=-2, dim2=-1)
    union = confusion.sum(-1) + confusion.sum(-2) - hit
    present = union > 0
    return (hit / union.clamp_min(1.0) * present).sum(-1) / present.sum(-1).clamp_min(1)
