"""A small environment per body and tier, shared by the tests of a file."""

from collections.abc import Callable, Iterator

import pytest

from omnibody.envs import make_env
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.randomization import RandomizationCfg
from omnibody.sim_tasks.goal_nav import GoalNavCfg

Maker = Callable[..., MujocoEnv]


@pytest.fixture
def make() -> Iterator[Maker]:
    """Makes environments in few scenes and closes them after the test."""
    made: list[MujocoEnv] = []

    def maker(
        robot: str = "carrier",
        num_envs: int = 4,
        tier: str = "T1",
        threads: int = 2,
        randomization: RandomizationCfg | None = None,
        rgb: int = 0,
        **task: str | int | float,
    ) -> MujocoEnv:
        cfg = GoalNavCfg(**{"scene": "single_rack", "num_scenes": 4} | task)
        made.append(make_env(robot, cfg, num_envs, tier, threads, randomization, rgb))
        return made[-1]

    yield maker
    for env in made:
        env.close()
