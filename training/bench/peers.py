"""`omnibody bench peers`: the diffusion family beside LeRobot's diffusion policy, same data, U-Net, batch and computer.

LeRobot runs in an environment of its own (`make lerobot`), by its own training command and with as many threads. Speeds
are those on random states, as they do not depend on what is learned. With ``data``, both train on it for ``minutes``,
one after the other, and play the same starts. Limits are the bare network's: its training step on one batch, and as
many forward passes as a call takes.
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

from omnibody.envs.any_task import make_task_env
from omnibody.policies.diffusion.config import DiffusionCfg, Net, ProcessName
from omnibody.policies.diffusion.parameterisation import Prediction
from omnibody.policies.diffusion.policy import Diffusion
from omnibody.policies.policy import Context, Obs, Policy, State
from omnibody.robots.errors import UserError
from omnibody.robots.spec import IOSpec
from omnibody.robots.table import load_body
from omnibody.sim_tasks.table import task_config
from omnibody.training.bench.diffusion import call_times
from omnibody.training.bench.rows import Row, print_rows, rate
from omnibody.training.bench.train import bare_step
from omnibody.training.config import parse
from omnibody.training.data.reader import Dataset, open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.evaluate import evaluate
from omnibody.training.fit import FitCfg
from omnibody.training.importing import ImportCfg, import_source
from omnibody.training.run_folder import LOG
from omnibody.training.threads import THREADS, all_cores, training_threads
from omnibody.training.train import build_policy, train_on

ROOT = Path(__file__).resolve().parents[2]
PEER = Path(__file__).with_name("lerobot_peer.py")
KEYS = ("agent", "corners")
HELD_OUT, LOG_EVERY = 0.1, 10
LEARNING_RATE, BARE_SECONDS = 3e-4, 10.0
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # how threads wait, which `omnibody` sets for itself
EPISODES, STEPS = 60, 120  # of random data


@dataclass
class PeersBenchCfg:
    """Measure training, calls and reading beside LeRobot's diffusion policy."""

    data: str = ""  # dataset of Push-T to train on before both play; empty: only speeds are measured
    minutes: float = 25.0  # of that training, of each
    episodes: int = 50  # that each plays, of seed 1
    python: str = str(ROOT / ".venv-lerobot/bin/python")  # of LeRobot's environment
    batch_size: int = 64  # windows per step
    rounds: int = 3  # trainings of each, in turn; medians are printed
    steps: int = 60  # of LeRobot's; ours makes a pass over the data
    calls: int = 50  # of a policy
    width: int = 64  # of the U-Net's finest resolution; then twice and four times as many channels
    json: bool = False  # print one JSON list of rows and nothing else

    def __post_init__(self) -> None:
        if not Path(self.python).exists():
            raise ValueError(f"python: wanted LeRobot's environment, {self.python} is not there; run make lerobot")


def peers_rows(cfg: PeersBenchCfg, folder: Path) -> list[Row]:
    """Rows of ours with LeRobot's as the peer."""
    shown = open_dataset(cfg.data) if cfg.data else None
    if shown and (missing := [key for key in KEYS if key not in shown.origin.spec.obs]):
        raise UserError(f"data: wanted a dataset of push_t with {', '.join(KEYS)}, came one without {missing}")
    dataset = open_dataset(random_data(folder))
    peer = folder / "peer"
    theirs = _lerobot(cfg, ("measure", _recordings(dataset, peer), peer, cfg.calls, cfg.width), peer / "peer.json")
    windows = _windows(dataset)
    net = DiffusionCfg(
        obs_keys=list(KEYS),
        relative_to=KEYS[0],
        process=ProcessName.VP,
        prediction=Prediction.V,
        steps=8,
        net=Net.UNET,
        width=cfg.width,
    )
    speeds = [_speeds(cfg, net, windows, peer, folder / f"round-{number}") for number in range(cfg.rounds)]
    bare, speed, their_speed = (statistics.median(column) for column in zip(*speeds, strict=True))
    policy = build_policy(net, windows.spec, 0)
    torch.set_num_threads(1)
    times = call_times(policy.eval(), Context(load_body("pusher")), cfg.calls)
    calls = 1e3 / statistics.median(times)
    forward = _forward(policy, cfg.calls) / policy.evaluations
    reads = [_read(windows, cfg.batch_size) for _ in range(200)]
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    rows = [
        Row("parameters of the U-Net", parameters, "", peer=theirs["parameters"]),
        Row(f"training, batch {cfg.batch_size}", speed, "windows/s", bare, their_speed),
        Row("calls, 8 DDIM steps, batch 1", calls, "calls/s", forward, 1e3 / theirs["call_ms"]),
        Row("reading random windows", 1e3 / statistics.median(reads), "windows/s", peer=1e3 / theirs["window_ms"]),
    ]
    if shown:
        scores = (
            _ours_played(cfg, net, _windows(shown), speed, folder / "ours"),
            _theirs_played(cfg, shown, their_speed, folder / "theirs"),
        )
        rows.append(Row(f"coverage after {cfg.minutes:g} min", scores[0], "mean max", peer=scores[1]))
    return rows


def _speeds(
    cfg: PeersBenchCfg, net: DiffusionCfg, windows: Windows, peer: Path, folder: Path
) -> tuple[float, float, float]:
    """Windows per second of the bare training step, of `fit` and of LeRobot's training, one after the other."""
    with all_cores():
        bare = rate(bare_step(build_policy(net, windows.spec, 0), windows, cfg.batch_size), BARE_SECONDS)
    how = FitCfg(epochs=1, batch_size=cfg.batch_size, ema=0.999, held_out=HELD_OUT, log_every=LOG_EVERY)
    train_on(windows, net, how, folder)
    log = [json.loads(row) for row in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    rates = [row["samples_per_second"] for row in log if "samples_per_second" in row]
    out = folder / "lerobot"
    theirs = _lerobot(cfg, ("train", peer, out, cfg.batch_size, cfg.steps, cfg.width), out.with_suffix(".json"))
    return bare, statistics.median(rates[1:]), theirs["samples_per_second"]  # the first rows left out, as LeRobot's


@torch.inference_mode()
def _forward(policy: Policy, count: int) -> float:
    """Forward passes of the network at batch 1 per second, from their median time."""
    assert isinstance(policy, Diffusion)
    x, s = torch.zeros(1, policy.cfg.horizon, policy.dim), torch.ones(1, 1)
    condition, times = torch.zeros(1, policy.conditioner.width), []
    for _ in range(policy.evaluations * count):
        began = time.perf_counter()
        policy.net(x, s, condition)
        times.append(time.perf_counter() - began)
    return 1 / statistics.median(times)


class LeRobotPolicy(Policy):
    """LeRobot's policy, one episode at a time, in the process ``peer``; state: ``calls`` (1, 1)."""

    def __init__(self, peer: subprocess.Popen[str], spec: IOSpec) -> None:
        super().__init__()
        self.spec = spec
        self._peer = peer

    def begin(self, context: Context, batch_size: int) -> State:
        """An episode that is about to start."""
        if batch_size != 1:
            raise UserError(f"LeRobot's policy: wanted one environment, came {batch_size}")
        return {"calls": torch.zeros(1, 1)}

    def act(self, obs: Obs, state: State, generator: torch.Generator | None = None) -> tuple[torch.Tensor, State]:
        """Ask the process."""
        assert self._peer.stdin is not None and self._peer.stdout is not None
        is_first = not bool(state["calls"].any())
        asked = {"begin": is_first, **{key: obs[key].flatten().tolist() for key in KEYS}}
        self._peer.stdin.write(json.dumps(asked) + "\n")
        self._peer.stdin.flush()
        if not (answer := self._peer.stdout.readline()):
            raise UserError(f"LeRobot's process ended with {self._peer.wait()}; its words are above")
        return torch.tensor(json.loads(answer)).view(1, 1, -1), {"calls": state["calls"] + 1}


def _steps(cfg: PeersBenchCfg, samples_per_second: float) -> int:
    """Steps of a training of ``minutes``."""
    return max(1, round(60 * cfg.minutes * samples_per_second / cfg.batch_size))


def _ours_played(cfg: PeersBenchCfg, net: DiffusionCfg, windows: Windows, speed: float, folder: Path) -> float:
    """Mean max coverage of ours, trained for whole passes over the data that take about ``minutes``."""
    epochs = max(1, round(_steps(cfg, speed) * cfg.batch_size / len(windows)))
    how = FitCfg(epochs=epochs, batch_size=cfg.batch_size, learning_rate=LEARNING_RATE, ema=0.999, held_out=HELD_OUT)
    policy, _ = train_on(windows, net, how, folder)
    return _coverage(policy.eval(), cfg.episodes)


def _theirs_played(cfg: PeersBenchCfg, dataset: Dataset, speed: float, folder: Path) -> float:
    """Mean max coverage of LeRobot's after ``minutes`` of its training."""
    words = ("play", _recordings(dataset, folder), folder, cfg.batch_size, _steps(cfg, speed), cfg.width)
    pipe, command = subprocess.PIPE, [cfg.python, str(PEER), *map(str, words)]
    with subprocess.Popen(command, env=_environment(folder), stdin=pipe, stdout=pipe, text=True) as peer:
        return _coverage(LeRobotPolicy(peer, dataset.origin.spec), cfg.episodes)


def _coverage(policy: Policy, episodes: int) -> float:
    env = make_task_env(load_body("pusher"), task_config("push_t"), 1)
    return float(evaluate(policy, env, episodes, 1)["mean_max_coverage"])


def random_data(folder: Path) -> Path:
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


def _windows(dataset: Dataset) -> Windows:
    return Windows.of([dataset], 2, 17, lead=1, pad_after=7)


def _recordings(dataset: Dataset, folder: Path) -> Path:
    """The dataset's arrays in a file of ``folder``, for LeRobot."""
    folder.mkdir()
    spans = zip(dataset.first, dataset.length, strict=True)
    rows = np.concatenate([np.arange(first, first + length) for first, length in spans])
    arrays = {"action": dataset.arrays["action"][rows], **{key: dataset.arrays[f"obs.{key}"][rows] for key in KEYS}}
    source = folder / "recordings.npz"
    np.savez(source, episode_ends=np.cumsum(dataset.length), **arrays)
    return source


def _lerobot(cfg: PeersBenchCfg, words: Sequence[object], result: Path) -> dict[str, Any]:
    """What LeRobot measures of itself."""
    command = [cfg.python, str(PEER), *map(str, words)]
    done = subprocess.run(command, env=_environment(result.parent), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"LeRobot failed: {' '.join((done.stdout + done.stderr).split())[-1500:]}")
    return json.loads(result.read_text(encoding="utf-8"))


def _environment(folder: Path) -> dict[str, str]:
    """LeRobot's: a home of its own, as many threads as ours, which wait for each other as torch's do of themselves."""
    inherited = {key: value for key, value in os.environ.items() if key not in WAITING}
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), THREADS: str(training_threads())}
    return {**inherited, **own}


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody bench peers``."""
    cfg = parse(PeersBenchCfg, argv)
    with tempfile.TemporaryDirectory() as folder:
        print_rows(peers_rows(cfg, Path(folder)), cfg.json)
