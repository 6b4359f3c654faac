"""The table of tasks: name -> "module:Class" of the task's configuration."""

from __future__ import annotations

import importlib

from omnibody.robots.errors import unknown
from omnibody.sim_tasks.families import ALL, FAMILIES
from omnibody.sim_tasks.figures import Figures
from omnibody.sim_tasks.metaworld_names import INSTRUCTIONS
from omnibody.sim_tasks.task import TaskFactory

TASKS = {"goal_nav": "omnibody.sim_tasks.goal_nav:GoalNavCfg"}  # of mobile bodies
TOOL_TASKS = {  # of one tool each
    "push_t": "omnibody.sim_tasks.push_t:PushTCfg",
    "push_t_two_goal": "omnibody.sim_tasks.push_t:TwoGoalPushTCfg",
    "block_push": "omnibody.sim_tasks.block_push:BlockPushCfg",
    "desk": "omnibody.sim_tasks.desk:DeskCfg",
    "metaworld": "omnibody.sim_tasks.metaworld:MetaWorldCfg",
}
# What follows a task's name after a slash; an empty name leaves the slash out.
SCENES = {
    "goal_nav": (*FAMILIES, ALL, "map"),
    "push_t": ("", "shifted"),
    "push_t_two_goal": ("",),
    "block_push": ("",),
    "desk": ("",),
    "metaworld": tuple(INSTRUCTIONS),
}

BODIES = {  # of tasks that only one body can do
    "push_t": "pusher",
    "push_t_two_goal": "pusher",
    "block_push": "tip",
    "desk": "gripper",
    "metaworld": "sawyer",
}
FIGURES = {
    "goal_nav": "omnibody.sim_tasks.goal_nav_figures:FIGURES",
    "push_t": "omnibody.sim_tasks.push_t_figures:FIGURES",
    "push_t_two_goal": "omnibody.sim_tasks.push_t_figures:FIGURES",
    "block_push": "omnibody.sim_tasks.block_push_figures:FIGURES",
    "desk": "omnibody.sim_tasks.desk_figures:FIGURES",
    "metaworld": "omnibody.sim_tasks.metaworld_figures:FIGURES",
}


def figures_of(task: str) -> Figures:
    """What an evaluation of the task of that name reports."""
    if task not in task_names():
        raise unknown("task", task, task_names())
    module, name = FIGURES[task.partition("/")[0]].split(":")
    return getattr(importlib.import_module(module), name)


def body_of(task: str) -> str | None:
    """The only body that can do the task of that name, None where many can."""
    return BODIES.get(task.partition("/")[0])


def task_names() -> list[str]:
    """All names ``task_config`` takes; "map" also wants the configuration's ``map``."""
    return [f"{task}/{scene}".removesuffix("/") for task in TASKS | TOOL_TASKS for scene in SCENES[task]]


def task_config(name: str, **settings: str | int | float) -> TaskFactory:
    """The configuration of a task by name, "goal_nav/office", with some of its fields set."""
    if name not in task_names():
        raise unknown("task", name, task_names())
    task, _, scene = name.partition("/")
    module, cls = (TASKS | TOOL_TASKS)[task].split(":")
    return getattr(importlib.import_module(module), cls)(scene=scene, **settings)
