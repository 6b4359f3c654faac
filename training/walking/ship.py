"""Make a finished run of ``train.py`` the G1's shipped controller: copy it, walk the bar with it, write it all down.

python -m omnibody.training.walking.ship run=runs/g1-walk
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from omnibody.robots.g1 import CHECKPOINT, EMBODIMENT
from omnibody.training.config import parse
from omnibody.training.provenance import provenance
from omnibody.training.walking.measure import measure, table

FILES = ("weights.safetensors", "gait.safetensors", "training.yaml")


@dataclass
class ShipConfig:
    """Ship a run as the G1's walking controller."""

    run: str = MISSING  # folder that train.py wrote
    runs: int = 100  # walks of the bar
    seed: int = 0  # of the walks


def ship(cfg: ShipConfig) -> None:
    """Replace the checkpoint by the run and write ``meta.json``: how it was made and how well it walks."""
    run = Path(cfg.run)
    for name in FILES:
        shutil.copyfile(run / name, CHECKPOINT / name)
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    result = measure(EMBODIMENT, cfg.runs, seed=cfg.seed)
    meta = {
        "about": "G1 walking residual, see robots/g1_walk.py; gait tables recorded by training/walking/gait.py",
        "trained_by": "python -m omnibody.training.walking.train, settings in training.yaml",
        "steps": last["steps"],
        "training_log_end": last,
        "bar": result,
        **provenance(),
    }
    (CHECKPOINT / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    print(table([result]))


if __name__ == "__main__":
    ship(parse(ShipConfig, sys.argv[1:]))
