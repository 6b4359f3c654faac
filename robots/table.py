"""The table of bodies, and the way from a name or a file to a body and its plant.

A plant reference is ``"module:attribute"`` or ``"path/to/file.py:attribute"``; what it names is called with the
embodiment and gives a ``Plant``. A body of one's own is a Python file that defines ``EMBODIMENT``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from omnibody.robots.errors import UserError, unknown
from omnibody.robots.plant import Plant
from omnibody.robots.spec import Body, Embodiment, mobile

ROBOTS = {
    "carrier": "omnibody.robots.carrier:EMBODIMENT",
    "omni": "omnibody.robots.omni:EMBODIMENT",
    "ackermann": "omnibody.robots.ackermann:EMBODIMENT",
    "go2": "omnibody.robots.go2:EMBODIMENT",
    "aliengo": "omnibody.robots.aliengo:EMBODIMENT",
    "go1": "omnibody.robots.go1:EMBODIMENT",
    "spot": "omnibody.robots.spot:EMBODIMENT",
    "g1": "omnibody.robots.g1:EMBODIMENT",
}

# Bodies without a base of their own to drive; each is for one kind of task.
TOOLS = {
    "pusher": "omnibody.robots.pusher:TOOL",
    "tip": "omnibody.robots.tip:TIP",
    "gripper": "omnibody.robots.gripper:GRIPPER",
    "sawyer": "omnibody.robots.sawyer:SAWYER",
}


def load_body(name_or_path: str) -> Body:
    """The body of a name in ``ROBOTS`` or ``TOOLS``, or as ``load_robot`` finds it."""
    return cast(Body, _resolve(TOOLS[name_or_path])) if name_or_path in TOOLS else load_robot(name_or_path)


def load_robot(name_or_path: str) -> Embodiment:
    """The body of a name in ``ROBOTS``, a Python file or a ``CustomRobotCfg.reference``; ``UserError`` if none."""
    if name_or_path in TOOLS:
        return mobile(load_body(name_or_path))
    if name_or_path in ROBOTS:
        return cast(Embodiment, _resolve(ROBOTS[name_or_path]))
    if name_or_path.startswith("{"):
        return _custom(name_or_path)
    suffix = Path(name_or_path).suffix.lower()
    if suffix == ".py":
        embodiment = _resolve(f"{name_or_path}:EMBODIMENT")
        if not isinstance(embodiment, Embodiment):
            raise UserError(f"{name_or_path}: EMBODIMENT must be an Embodiment, came {type(embodiment).__name__}")
        return embodiment
    if suffix in (".xml", ".mjcf", ".urdf"):
        raise UserError(
            f"robot: {name_or_path} does not say how it drives; say robot.mjcf={name_or_path} robot.base=differential "
            "robot.wheels=[left_wheel_joint,right_wheel_joint] on the command line, elsewhere give a file bot.py with "
            "`from omnibody.robots.custom import from_mjcf` and "
            f"`EMBODIMENT = from_mjcf({name_or_path!r}, 'differential', ('left_wheel_joint', 'right_wheel_joint'))`"
        )
    raise unknown("robot", name_or_path, ROBOTS)


def make_plant(embodiment: Embodiment, tier: str) -> Plant:
    """The plant that simulates the body at ``tier`` ("T0", "T1", "T2")."""
    if tier not in embodiment.plants:
        raise UserError(
            f"robot {embodiment.name!r} has no tier {tier!r}; it has {', '.join(sorted(embodiment.plants))}"
        )
    return cast(Plant, _resolve(embodiment.plants[tier])(embodiment))


@functools.cache
def _custom(reference: str) -> Embodiment:
    """Built once: to measure a body and to identify its lag takes a second."""
    try:
        cfg = _resolve("omnibody.robots.custom:CustomRobotCfg")(**json.loads(reference))
    except (ValueError, TypeError) as error:
        raise UserError(f"robot: wanted the JSON of a CustomRobotCfg, came {reference}: {error}") from error
    return cast(Embodiment, cfg.build())


def _resolve(reference: str) -> Any:
    """What ``module:attribute`` or ``file.py:attribute`` names."""
    source, _, attribute = reference.rpartition(":")
    module = _load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    if not hasattr(module, attribute):
        raise UserError(f"{source} defines no {attribute}")
    return getattr(module, attribute)


def _load_file(path: Path) -> ModuleType:
    """Run a Python file as a module, once per path."""
    path = path.expanduser().resolve()
    name = f"omnibody_robot_file:{path}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise UserError(f"robot: no file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while it runs.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
