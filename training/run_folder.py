"""A run's folder: whose it is, and its log, both safe against a kill at any moment."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnibody.policies.files import write_text
from omnibody.robots.errors import UserError

CONFIG, LOG = "config.json", "log.jsonl"


def claim(run: Path, cfg: Any, free: Collection[str]) -> None:
    """Make the folder of the run that the dataclass ``cfg`` describes, or see that it is the same one's.

    Keys in ``free`` may change between two calls. Raises ``UserError`` if another does; nothing is changed then.
    """
    refuse_another(run / CONFIG, asdict(cfg), free)
    write_text(run / CONFIG, json.dumps(asdict(cfg), indent=1))


def refuse_another(path: Path, now: dict[str, Any], free: Collection[str] = ()) -> None:
    """Raise ``UserError`` if the file is there and says otherwise of this run, but for the keys in ``free``."""
    if not path.exists():
        return
    try:
        before = leaves(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; choose another out=") from error
    came = leaves(json.loads(json.dumps(now)))
    for key in sorted(came.keys() | before.keys()):
        if key.partition(".")[0] not in free and came.get(key) != before.get(key):
            was, is_now = before.get(key), came.get(key)
            raise UserError(f"{path.parent} holds a run with {key}={was}, now {key}={is_now}; choose another out=")


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of nested dicts."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def cut_log(path: Path, done: int, key: str = "steps") -> None:
    """Drop the rows of a JSON-lines log after step ``done`` (they are about to come again) and one cut by a kill."""
    if path.exists():
        rows = path.read_text(encoding="utf-8").split("\n")[:-1]
        write_text(path, "".join(f"{row}\n" for row in rows if json.loads(row)[key] <= done))
