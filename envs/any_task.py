"""The environment of a body in a task, whichever simulator they want."""

from __future__ import annotations

from omnibody.envs.make import make_env
from omnibody.envs.metaworld import MetaWorldEnv
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.tabletop import TabletopEnv
from omnibody.envs.vec_env import VecEnv
from omnibody.robots.errors import UserError
from omnibody.robots.spec import Body, mobile
from omnibody.sim_tasks.metaworld import MetaWorldCfg
from omnibody.sim_tasks.push_t import PushTCfg
from omnibody.sim_tasks.tabletop import TabletopCfg
from omnibody.sim_tasks.task import TaskFactory

AnyTask = TaskFactory | PushTCfg | TabletopCfg | MetaWorldCfg


def make_task_env(body: Body, task: AnyTask, num_envs: int, tier: str = "best", rgb: int = 0) -> VecEnv:
    """Build ``num_envs`` worlds of a body in a task; ``tier`` and ``rgb`` as `make_env`, of a body with tiers."""
    if isinstance(task, PushTCfg):
        try:
            from omnibody.envs.push_t import PushTEnv
        except ImportError as error:
            raise UserError(f"push_t: its physics want pymunk, {error}; install omnibody[push-t]") from error
        return PushTEnv(task.build(body, num_envs), num_envs)
    if isinstance(task, TabletopCfg):
        return TabletopEnv(task.build(body, num_envs), num_envs)
    if isinstance(task, MetaWorldCfg):
        return MetaWorldEnv(task.build(body, num_envs), num_envs)
    return make_env(mobile(body), task, num_envs=num_envs, tier=tier, rgb=rgb)


def tier_of(env: VecEnv) -> str:
    """The fidelity that the environment simulates at."""
    return env.plant.tier if isinstance(env, MujocoEnv) else env.embodiment.best_tier
