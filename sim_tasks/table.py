"""The table of tasks: name -> "module:Class" of the task's configuration."""

from __future__ import annotations

import importlib

from omnibody.robots.errors import unknown
from omnibody.sim_tasks.families import ALL, FAMILIES
from omnibody.sim_tasks.task import TaskFactory

TASKS = {"goal_nav": "omnibody.sim_tasks.goal_nav:GoalNavCfg"}
SCENES = {"goal_nav": (*FAMILIES, ALL, "map")}  # what may follow the task's name after a slash


def task_names() -> list[str]:
    """All names ``task_config`` takes; "map" also wants the configuration's ``map``."""
    return [f"{task}/{scene}" for task in TASKS for scene in SCENES[task]]


def task_config(name: str, **settings: str | int | float) -> TaskFactory:
    """The configuration of a task by name, "goal_nav/office", with some of its fields set."""
    if name not in task_names():
        raise unknown("task", name, task_names())
    task, scene = name.split("/")
    module, cls = TASKS[task].split(":")
    return getattr(importlib.import_module(module), cls)(scene=scene, **settings)
