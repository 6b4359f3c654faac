"""``omnibody list``: the bodies, tasks, policies and shipped checkpoints, as their tables and folders say."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnibody.policies.checkpoint import CONFIG, META, read_config, read_meta
from omnibody.policies.table import POLICIES
from omnibody.robots.table import ROBOTS, TOOLS, load_body, load_robot
from omnibody.sim_tasks.metaworld_names import INSTRUCTIONS
from omnibody.sim_tasks.table import TASKS, TOOL_TASKS, task_names
from omnibody.training.config import PACKAGE, load, parse

Row = dict[str, Any]


@dataclass
class ListCfg:
    """List robots, tasks, policies and checkpoints."""

    json: bool = False  # print one JSON object of lists and nothing else


def main(argv: list[str]) -> None:
    """Run the verb."""
    cfg = parse(ListCfg, argv)
    tables = {
        "robots": [*(_robot(name) for name in ROBOTS), *(_tool(name) for name in TOOLS)],
        "tasks": [_task(name) for name in task_names()],
        "policies": [_member(name, target) for name, target in POLICIES.items()],
        "checkpoints": checkpoints(PACKAGE / "assets" / "checkpoints"),
    }
    if cfg.json:
        print(json.dumps(tables, indent=1))
        return
    for title, rows in tables.items():
        print(f"{title}:")
        for line in _aligned(rows):
            print(f"  {line}")


def _robot(name: str) -> Row:
    """Fidelity tiers, drive and licence of a body."""
    body = load_robot(name)
    if body.limits.holonomic:
        drive = "holonomic"
    else:
        drive = "car" if body.limits.min_turning_radius else "turns in place"
    return {"name": name, "tiers": " ".join(sorted(body.plants)), "drive": drive, "licence": body.license}


def _tool(name: str) -> Row:
    body = load_body(name)
    return {"name": name, "tiers": body.best_tier, "drive": "a tool", "licence": body.license}


def _task(name: str) -> Row:
    task, _, scene = name.partition("/")
    row = _member(name, (TASKS | TOOL_TASKS)[task])
    return row | {"about": INSTRUCTIONS[scene]} if task == "metaworld" else row


def _member(name: str, target: str) -> Row:
    """A table's member and the first line of what its module says about it."""
    module = inspect.getmodule(load(target))
    return {"name": name, "about": (module and module.__doc__ or "").partition("\n")[0]}


def checkpoints(folder: Path) -> list[Row]:
    """The checkpoints in ``folder``: their policy, or "controller" for a body's own, and their size [MB]."""
    rows = []
    for path in sorted(meta.parent for meta in folder.glob(f"*/{META}")):
        policy = type(read_config(path)).__name__ if (path / CONFIG).is_file() else "controller"
        size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
        rows.append({"name": path.name, "policy": policy, "megabytes": round(size, 2), "from": _origin(path)})
    return rows


def _origin(path: Path) -> str:
    meta = read_meta(path)
    return " ".join(f"{key}={meta[key]}" for key in ("git", "seed") if key in meta)


def _aligned(rows: list[Row]) -> list[str]:
    table = [[str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
