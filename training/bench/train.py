"""`omnibody bench train`: the supervised loop against the bare forward, backward and optimiser step on one batch."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.policy import Policy
from omnibody.training.bench.rows import Row, print_rows, rate
from omnibody.training.collect import CollectCfg, record
from omnibody.training.config import parse
from omnibody.training.data.reader import open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.fit import FitCfg, all_cores, fit, parameter_groups
from omnibody.training.train import build_policy

EPISODES = 24  # recorded for the purpose


@dataclass
class TrainBenchCfg:
    """Measure training on windows of 16 frames of a dataset."""

    data: str = ""  # dataset; empty: one is recorded for the purpose
    batch_size: int = 32  # windows per step
    seconds: float = 5.0  # how long each measurement of the bare loop lasts
    rounds: int = 3  # measurements of each contestant, in turn; medians are printed
    base: CompassBaseCfg = field(default_factory=CompassBaseCfg)  # the policy that learns
    json: bool = False  # print one JSON list of rows and nothing else


def train_rows(cfg: TrainBenchCfg, folder: Path) -> list[Row]:
    """Windows per second through ``fit`` beside the same network on one batch in memory, and of reading alone."""
    data = cfg.data or str(folder / "data")
    if not cfg.data:
        record(CollectCfg(robot="carrier", out=data, task="goal_nav/single_rack", tier="T0", episodes=EPISODES))
    windows = Windows.of([open_dataset(data)], 16, 36, stride=4)
    loop, bare = [], []
    for number in range(cfg.rounds):
        loop.append(_loop(cfg, windows, folder / f"run-{number}"))
        with all_cores():
            bare.append(rate(bare_step(build_policy(cfg.base, windows.spec, 0), windows, cfg.batch_size), cfg.seconds))
    reading = rate(_reading(cfg, windows), cfg.seconds)
    name = f"fit, batch {cfg.batch_size}, held-out loss included"
    return [
        Row(name, statistics.median(loop), "windows/s", statistics.median(bare)),
        Row("reading random windows", reading, "windows/s"),
    ]


def _loop(cfg: TrainBenchCfg, windows: Windows, run: Path) -> float:
    fit_cfg = FitCfg(epochs=1, batch_size=cfg.batch_size, held_out=0.05)
    return fit(build_policy(cfg.base, windows.spec, 0), windows, fit_cfg, run).samples_per_second


def bare_step(policy: Policy, windows: Windows, batch_size: int) -> Callable[[], int]:
    """Forward, backward and optimiser step, always on the same windows; returns their number."""
    optimizer = torch.optim.AdamW(parameter_groups(policy.train(), 0.01), lr=1e-3, fused=True)
    batch, generator = windows.batch(np.arange(batch_size)), torch.Generator().manual_seed(0)

    def work() -> int:
        loss, _ = policy.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return batch_size

    return work


def _reading(cfg: TrainBenchCfg, windows: Windows) -> Callable[[], int]:
    rng = np.random.default_rng(0)

    def work() -> int:
        windows.batch(rng.integers(len(windows), size=cfg.batch_size))
        return cfg.batch_size

    return work


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody bench train``."""
    cfg = parse(TrainBenchCfg, argv)
    with tempfile.TemporaryDirectory() as folder:
        print_rows(train_rows(cfg, Path(folder)), cfg.json)
