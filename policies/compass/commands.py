"""Twist commands in physical and in normalised units, per row of a batch with different bodies.

A normalised command is the physical one divided by the body's upper velocity limits. Where that limit is 0 (sideways
motion of a car) it is exactly 0 whatever was asked for, so an axis that a body does not have reaches neither the
recurrent state nor a loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnibody.policies.policy import State
from omnibody.robots.spec import Body, Limits, mobile


def normalise(twist: Tensor, high: Tensor) -> Tensor:
    """(..., 3) [m/s, m/s, rad/s] -> (..., 3) in units of the limits ``high`` (..., 3); 0 where the limit is 0."""
    return torch.where(high > 0.0, twist / high.clamp_min(1e-6), torch.zeros_like(twist))


def clip_twist(twist: Tensor, state: State) -> Tensor:
    """Nearest allowed twist (B, 3) -> (B, 3); the same rule as ``Limits.clip``, row by row."""
    twist = torch.minimum(torch.maximum(twist, state["velocity_low"]), state["velocity_high"])
    radius = state["turning_radius"]
    most = torch.where(radius > 0.0, twist[:, :1].abs() / radius.clamp_min(1e-6), torch.full_like(radius, 1e6))
    turn = torch.minimum(torch.maximum(twist[:, 2:], -most), most)
    return torch.cat([twist[:, :2], turn], dim=-1)


def limit_state(body: Body, batch_size: int) -> State:
    """The state entries that ``clip_twist`` and ``normalise`` read, for ``batch_size`` equal bodies."""
    limits: Limits = mobile(body).limits
    rows = {
        "velocity_low": limits.velocity_low,
        "velocity_high": limits.velocity_high,
        "turning_radius": (limits.min_turning_radius,),
    }
    return {k: torch.tensor(v, dtype=torch.float32).expand(batch_size, -1).clone() for k, v in rows.items()}
