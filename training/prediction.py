"""How well a world model foresees: depth error and semantic IoU 1 to 10 steps ahead, on episodes it did not learn from.

    python -m omnibody.training.prediction checkpoint=<base> data=<dataset it was trained on>

The episodes are those that ``fit`` with the same ``held_out`` and ``seed`` kept aside.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import MISSING

from omnibody.policies.checkpoint import load_policy
from omnibody.policies.compass.base import CompassBase
from omnibody.policies.compass.world_model import prediction_quality
from omnibody.robots.errors import UserError
from omnibody.training.config import parse
from omnibody.training.data.reader import open_dataset
from omnibody.training.data.windows import Windows

FILTERED, BATCH = 8, 64  # frames seen before the model imagines; windows at a time


@dataclass
class PredictionCfg:
    """Measure a world model's predictions."""

    checkpoint: str = MISSING  # a compass_base
    data: str = MISSING  # the dataset it was trained on
    horizon: int = 10  # steps ahead
    held_out: float = 0.1  # as in its training
    seed: int = 0  # as in its training
    out: str = ""  # JSON file to write; empty: none


def measure_prediction(cfg: PredictionCfg) -> dict[str, list[float]]:
    """Figures per step ahead, beside those of repeating the last frame seen."""
    policy = load_policy(cfg.checkpoint)
    if not isinstance(policy, CompassBase):
        raise UserError(f"checkpoint: wanted a compass_base, came a {type(policy).__name__} in {cfg.checkpoint}")
    length = FILTERED + cfg.horizon
    windows = Windows.of([open_dataset(cfg.data)], length, length, stride=length)
    held = windows.split(cfg.held_out, cfg.seed)[1]
    starts = range(0, len(held), BATCH)
    batches = (held.batch(np.arange(start, min(start + BATCH, len(held)))) for start in starts)
    return prediction_quality(policy.world, (policy.window(batch) for batch in batches), cfg.horizon)


def main(argv: Sequence[str]) -> None:
    """Print one row per step ahead."""
    cfg = parse(PredictionCfg, argv)
    figures = measure_prediction(cfg)
    print("steps ahead" + "".join(f"{name:>20}" for name in figures))
    for step, row in enumerate(zip(*figures.values(), strict=True)):
        print(f"{step + 1:11}" + "".join(f"{value:20.3f}" for value in row))
    if cfg.out:
        Path(cfg.out).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
