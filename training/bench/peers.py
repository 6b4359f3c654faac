"""`omnibody bench peers`: the diffusion family beside LeRobot's diffusion policy, same data, U-Net, batch and computer.

LeRobot runs in an environment of its own (`make lerobot`), by its own training command and with as many threads.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnibody.policies.diffusion.config import DiffusionCfg, Net, ProcessName
from omnibody.policies.diffusion.parameterisation import Prediction
from omnibody.policies.policy import Context
from omnibody.robots.errors import UserError
from omnibody.robots.table import load_body
from omnibody.training.bench.diffusion import call_times
from omnibody.training.bench.rows import Row, print_rows
from omnibody.training.config import parse
from omnibody.training.data.reader import Dataset, open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.fit import FitCfg, fit
from omnibody.training.importing import ImportCfg, import_source
from omnibody.training.provenance import usable_cores
from omnibody.training.run_folder import LOG
from omnibody.training.train import build_policy

ROOT = Path(__file__).resolve().parents[2]
PEER = Path(__file__).with_name("lerobot_peer.py")
KEYS = ("agent", "corners")
HELD_OUT, LOG_EVERY = 0.1, 10
EPISODES, STEPS = 60, 120  # of random data


@dataclass
class PeersBenchCfg:
    """Measure training, calls and reading beside LeRobot's diffusion policy."""

    data: str = ""  # dataset of Push-T; empty: one of random states, as speed does not depend on what is learned
    python: str = str(ROOT / ".venv-lerobot/bin/python")  # of LeRobot's environment
    batch_size: int = 64  # windows per step
    steps: int = 60  # of LeRobot's training; ours makes a pass over the data
    calls: int = 50  # of a policy
    width: int = 64  # of the U-Net's finest resolution; then twice and four times as many channels
    json: bool = False  # print one JSON list of rows and nothing else

    def __post_init__(self) -> None:
        if not Path(self.python).exists():
            raise ValueError(f"python: wanted LeRobot's environment, {self.python} is not there; run make lerobot")


def peers_rows(cfg: PeersBenchCfg, folder: Path) -> list[Row]:
    """Rows of ours with LeRobot's as the peer."""
    dataset = open_dataset(cfg.data or _random_data(folder))
    if missing := [key for key in KEYS if key not in dataset.origin.spec.obs]:
        raise UserError(f"data: wanted a dataset of push_t with {', '.join(KEYS)}, came one without {missing}")
    theirs = _lerobot(cfg, dataset, folder)
    windows = Windows.of([dataset], 2, 17, lead=1, pad_after=7)
    net = DiffusionCfg(
        obs_keys=list(KEYS), process=ProcessName.VP, prediction=Prediction.V, steps=8, net=Net.UNET, width=cfg.width
    )
    policy = build_policy(net, dataset.origin.spec, 0)
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    policy.fit_statistics(windows.blocks(4096))
    how = FitCfg(epochs=1, batch_size=cfg.batch_size, ema=0.999, held_out=HELD_OUT, log_every=LOG_EVERY)
    fit(policy, windows, how, folder / "fit")
    rows = [json.loads(row) for row in (folder / "fit" / LOG).read_text(encoding="utf-8").splitlines()]
    rates = [row["samples_per_second"] for row in rows if "samples_per_second" in row]
    speed = statistics.median(rates[1:])  # of the log's rows after the first, as LeRobot's figure
    torch.set_num_threads(1)
    calls = call_times(policy.eval(), Context(load_body("pusher")), cfg.calls)
    reads = [_read(windows, cfg.batch_size) for _ in range(200)]
    return [
        Row("parameters of the U-Net", parameters, "", peer=theirs["parameters"]),
        Row(f"training, batch {cfg.batch_size}", speed, "windows/s", peer=theirs["samples_per_second"]),
        Row("calls, 8 DDIM steps, batch 1", 1e3 / statistics.median(calls), "calls/s", peer=1e3 / theirs["call_ms"]),
        Row("reading random windows", 1e3 / statistics.median(reads), "windows/s", peer=1e3 / theirs["window_ms"]),
    ]


def _random_data(folder: Path) -> Path:
    """A dataset of Push-T with random states and actions."""
    rng, source = np.random.default_rng(0), folder / "random.npz"
    state = rng.uniform(100, 400, (EPISODES * STEPS, 5)).astype(np.float32)
    action = rng.uniform(0, 512, (EPISODES * STEPS, 2)).astype(np.float32)
    np.savez(source, state=state, action=action, episode_ends=STEPS * np.arange(1, EPISODES + 1))
    import_source(ImportCfg(source=str(source), out=str(folder / "random"), task="push_t"))
    return folder / "random"


def _read(windows: Windows, size: int) -> float:
    """Time per window of a random batch [ms]."""
    chosen = np.random.default_rng(0).integers(len(windows), size=size)
    began = time.perf_counter()
    batch = windows.batch(chosen)
    for key in KEYS:
        batch.obs[key]
    return 1e3 * (time.perf_counter() - began) / size


def _lerobot(cfg: PeersBenchCfg, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """What LeRobot measures of itself on the same recordings."""
    spans = zip(dataset.first, dataset.length, strict=True)
    rows = np.concatenate([np.arange(first, first + length) for first, length in spans])
    arrays = {"action": dataset.arrays["action"][rows], **{key: dataset.arrays[f"obs.{key}"][rows] for key in KEYS}}
    source = folder / "recordings.npz"
    np.savez(source, episode_ends=np.cumsum(dataset.length), **arrays)
    words = [cfg.python, PEER, source, folder / "peer", cfg.batch_size, cfg.steps, cfg.calls, cfg.width]
    (folder / "peer").mkdir()
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": str(usable_cores()),
    }
    done = subprocess.run([str(word) for word in words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"LeRobot failed: {' '.join((done.stdout + done.stderr).split())[-1500:]}")
    return json.loads((folder / "peer" / "peer.json").read_text(encoding="utf-8"))


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody bench peers``."""
    cfg = parse(PeersBenchCfg, argv)
    with tempfile.TemporaryDirectory() as folder:
        print_rows(peers_rows(cfg, Path(folder)), cfg.json)
