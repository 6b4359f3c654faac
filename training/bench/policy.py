"""`omnibody bench policy`: a policy call against its bare networks, and a whole policy step with rays against 10 ms."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from omnibody.envs.make import make_env
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.policies.checkpoint import load_policy
from omnibody.policies.compass.base import CompassBase
from omnibody.policies.compass.export import CompassPolicy
from omnibody.policies.compass.generalist import CompassGeneralist
from omnibody.policies.policy import Context, Obs, Policy
from omnibody.robots.errors import UserError
from omnibody.training.bench.rows import Row, interleaved, print_rows
from omnibody.training.config import BODY, parse

STEP_BUDGET = 10.0  # whole policy step, rays included [ms]


@dataclass
class PolicyBenchCfg:
    """Measure policy calls on one core."""

    checkpoint: str = "assets/checkpoints/compass-generalist"  # the policy
    robot: str = field(default="go2", metadata=BODY)  # the body
    task: str = "goal_nav/single_rack"  # where it is
    seconds: float = 3.0  # how long each measurement lasts
    rounds: int = 3  # measurements of each contestant, in turn; medians are printed
    json: bool = False  # print one JSON list of rows and nothing else


def policy_rows(cfg: PolicyBenchCfg) -> list[Row]:
    """Calls per second at batch 1 and 16 beside the bare forward passes, and the whole step in milliseconds."""
    torch.set_num_threads(1)
    policy, rows = load_policy(cfg.checkpoint), []
    if not isinstance(policy, CompassPolicy):
        raise UserError(f"checkpoint: wanted a COMPASS policy, came a {type(policy).__name__} in {cfg.checkpoint}")
    for size in (1, 16):
        env = make_env(cfg.robot, cfg.task, num_envs=size, threads=1)
        obs = env.reset(seed=0)
        ours, bare = interleaved([_calls(policy, env, obs), _bare(policy, env, obs)], cfg.seconds, cfg.rounds)
        rows.append(Row(f"policy call, batch {size}", statistics.median(ours), "calls/s", statistics.median(bare)))
        if size == 1:
            rows.append(Row("policy step with rays", _step_time(policy, env), "ms", STEP_BUDGET))
        env.close()
    return rows


def _calls(policy: Policy, env: MujocoEnv, obs: Obs) -> Callable[[], int]:
    state = policy.begin(Context(env.embodiment), env.num_envs)

    @torch.no_grad()
    def work() -> int:
        policy.act(obs, state)
        return 1

    return work


def _bare(policy: CompassPolicy, env: MujocoEnv, obs: Obs) -> Callable[[], int]:
    """The same layers on tensors of the same shapes, without limits, dictionaries and scaling."""
    base = policy if isinstance(policy, CompassBase) else policy.base
    state = base.begin(Context(env.embodiment), env.num_envs)
    world, rssm, previous = base.world, base.world.rssm, state["previous_action"]
    head, width = _head(policy)
    features = torch.zeros(env.num_envs, width)

    @torch.no_grad()
    def work() -> int:
        embed = world.embed(obs["depth"], obs["velocity"])
        h = rssm.history(state["h"], state["z"], previous)
        z = rssm.posterior(h, embed, previous).mean
        base.command_head(base.fusion([torch.cat([h, z], -1), base.route_encoder(obs["route"]), obs["goal"]]))
        head(features)
        return 1

    return work


def _head(policy: CompassPolicy) -> tuple[nn.Module, int]:
    """What stands on the base, and the width of its input."""
    if isinstance(policy, CompassBase):
        return nn.Identity(), 1
    head = policy.student if isinstance(policy, CompassGeneralist) else policy.actor
    first = next(layer for layer in head.modules() if isinstance(layer, nn.Linear))
    return head, first.in_features


def _step_time(policy: Policy, env: MujocoEnv, steps: int = 100) -> float:
    """Median time of rays, task observation and policy call of one world [ms]; physics is not part of it."""
    state, times = policy.begin(Context(env.embodiment), 1), []
    for _ in range(steps):
        began = time.perf_counter()
        obs = env.look()
        with torch.no_grad():
            action, state = policy.act(obs, state)
        times.append(1e3 * (time.perf_counter() - began))
        env.step(action[:, 0])
    return statistics.median(times)


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody bench policy``."""
    cfg = parse(PolicyBenchCfg, argv)
    print_rows(policy_rows(cfg), cfg.json)
