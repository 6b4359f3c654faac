"""`omnibody export`: write a policy as ONNX with explicit state, and check it against torch in closed loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING

from omnibody.envs.make import make_env
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.policies.checkpoint import load_policy
from omnibody.policies.compass.export import CompassPolicy, OnnxPolicy, export_onnx
from omnibody.policies.policy import Context, Policy
from omnibody.robots.errors import UserError
from omnibody.training.config import BODY, parse


@dataclass
class ExportCfg:
    """Export a COMPASS policy and check its commands on a running body."""

    checkpoint: str = MISSING  # folder of the policy
    out: str = MISSING  # the ONNX file to write
    robot: str = field(default="go2", metadata=BODY)  # body of the check; the file serves every body
    task: str = "goal_nav/single_rack"  # where the check is driven
    steps: int = 100  # policy steps of the check
    tolerance: float = 1e-4  # largest accepted difference of a command [m/s, rad/s]


@torch.no_grad()
def closed_loop_difference(driver: Policy, other: Policy, env: MujocoEnv, steps: int) -> float:
    """Largest difference of two policies' commands while ``driver`` acts, each on its own fed-back state."""
    context = Context(env.embodiment)
    states = [policy.begin(context, env.num_envs) for policy in (driver, other)]
    obs, worst = env.reset(seed=0), 0.0
    for _ in range(steps):
        action, states[0] = driver.act(obs, states[0])
        copied, states[1] = other.act(obs, states[1])
        worst = max(worst, float((action - copied).abs().max()))
        step = env.step(action[:, 0])
        if bool(step.done.any()):
            states = [policy.begin(context, env.num_envs) for policy in (driver, other)]
            obs = env.reset(seed=0, first_episode=int(env.episode.max()) + 1)
        else:
            obs = step.obs
    return worst


def export(cfg: ExportCfg) -> float:
    """Write the file; returns the largest difference seen. Raises `UserError` when it is over the tolerance."""
    policy = load_policy(cfg.checkpoint)
    if not isinstance(policy, CompassPolicy):
        raise UserError(f"checkpoint: wanted a COMPASS policy, came a {type(policy).__name__} in {cfg.checkpoint}")
    env = make_env(cfg.robot, cfg.task, num_envs=1)
    export_onnx(policy, Context(env.embodiment), Path(cfg.out))
    worst = closed_loop_difference(policy, OnnxPolicy(Path(cfg.out)), env, cfg.steps)
    env.close()
    if worst > cfg.tolerance:
        raise UserError(f"{cfg.out} differs from torch by {worst:.2g} over {cfg.steps} steps, wanted {cfg.tolerance:g}")
    return worst


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody export``."""
    cfg = parse(ExportCfg, argv)
    worst = export(cfg)
    size = Path(cfg.out).stat().st_size / 1e6
    print(f"{cfg.out}: {size:.1f} MB, differs from torch by at most {worst:.1e} over {cfg.steps} closed-loop steps")
