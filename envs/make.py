"""From names to a running environment."""

from __future__ import annotations

import os

from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.randomization import RandomizationCfg
from omnibody.robots.spec import Embodiment
from omnibody.robots.table import load_robot, make_plant
from omnibody.sim_tasks.table import task_config
from omnibody.sim_tasks.task import TaskFactory


def make_env(
    robot: str | Embodiment,
    task: str | TaskFactory,
    num_envs: int = 16,
    tier: str = "best",
    threads: int | None = None,
    randomization: RandomizationCfg | None = None,
    rgb: int = 0,
) -> MujocoEnv:
    """Build ``num_envs`` worlds of a body in a task.

    ``robot`` is a name in the robot table, a path to a file that defines one, or an `Embodiment`; ``task`` a name such
    as "goal_nav/office" or a task configuration; ``tier`` "T0", "T1", "T2" or "best"; ``threads`` all cores by default.
    ``rgb`` > 0 adds the observation ``image`` (rgb, W, 3) uint8, drawn by OpenGL from the body's camera.
    """
    embodiment = load_robot(robot) if isinstance(robot, str) else robot
    factory: TaskFactory = task_config(task) if isinstance(task, str) else task
    plant = make_plant(embodiment, embodiment.best_tier if tier == "best" else tier)
    return MujocoEnv(
        embodiment,
        plant,
        factory.build(embodiment, num_envs),
        num_envs,
        threads or os.cpu_count() or 1,
        randomization or RandomizationCfg(),
        rgb,
    )
