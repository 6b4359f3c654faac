"""The table of bodies, and the way from a name or a file to a body and its plant.

A plant reference is ``"module:attribute"`` or ``"path/to/file.py:attribute"``; what it names is called with the
embodiment and gives a ``Plant``. A body of one's own is a Python file that defines ``EMBODIMENT``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from omnibody.robots.errors import UserError, unknown
from omnibody.robots.plant import Plant
from omnibody.robots.spec import Embodiment

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


def load_robot(name_or_path: str) -> Embodiment:
    """The body of a name in ``ROBOTS`` or of a Python file; raises ``UserError`` for anything else."""
    if name_or_path in ROBOTS:
        return cast(Embodiment, _resolve(ROBOTS[name_or_path]))
    suffix = Path(name_or_path).suffix.lower()
    if suffix == ".py":
        embodiment = _resolve(f"{name_or_path}:EMBODIMENT")
        if not isinstance(embodiment, Embodiment):
            raise UserError(f"{name_or_path}: EMBODIMENT must be an Embodiment, came {type(embodiment).__name__}")
        return embodiment
    if suffix in (".xml", ".mjcf", ".urdf"):
        raise UserError(
            f"robot: {name_or_path} does not say how it drives; give a file bot.py with the lines "
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
