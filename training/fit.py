"""The supervised loop: a policy's own loss over shuffled windows, on one CPU or many GPUs, resumable to the bit.

Every step is a pure function of the weights, the optimiser's moments and (seed, step): the order of the data, the noise
of the loss, dropout and the learning rate are computed from these, never carried along. So a run that was killed and
started again ends with the same bits as one that was not, and there is no generator or scheduler state to keep.

Files in the run folder: ``fit.json`` (what is trained on what), ``log.jsonl`` (one row per ``log_every`` steps and one
per epoch), ``steps/step-<n>/`` (to resume from; the newest only), and at the end ``policy/``, the checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from omnibody.policies.checkpoint import load_policy, policy_name, save_pretrained
from omnibody.policies.files import atomic_folder, write_text
from omnibody.policies.policy import Policy
from omnibody.robots.errors import UserError
from omnibody.training.average import Average
from omnibody.training.data.windows import order
from omnibody.training.optimizer_state import flat_moments, load_moments
from omnibody.training.run_folder import LOG, cut_log, refuse_another
from omnibody.training.threads import all_cores

POLICY, STEPS, IDENTITY = "policy", "steps", "fit.json"
OPTIMIZER, AVERAGE, PROGRESS = "optimizer.safetensors", "average.safetensors", "progress.json"
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25e4  # of the peak, as torch's OneCycleLR
FREE = ("checkpoint_every", "log_every")  # what a resumed run may change


class Batches(Protocol):
    """What ``fit`` learns from: `omnibody.training.data.windows.Windows`, or anything that works like it."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the content depends on, for JSON; a resumed run must find it unchanged."""

    def __len__(self) -> int:
        """How many samples there are."""

    def batch(self, indices: np.ndarray) -> Any:
        """The samples ``indices`` as an argument of the policy's loss, with a method ``to(device)``."""

    def split(self, fraction: float, seed: int) -> tuple[Any, Any]:
        """Two sources: to train on, and a ``fraction`` to hold out."""


@dataclass
class FitCfg:
    """The supervised loop."""

    epochs: int = 20  # passes over the windows
    batch_size: int = 32  # windows per step, over all processes
    learning_rate: float = 1e-3  # peak of AdamW's step size
    weight_decay: float = 0.01  # on matrices and convolution kernels only
    warmup: float = 0.2  # share of the steps until the peak
    grad_clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.0  # largest decay of the weights' moving average, which is what is kept; 0: the last weights
    held_out: float = 0.1  # share of the episodes kept for the held-out loss
    checkpoint_every: int = 500  # steps between resumable states
    log_every: int = 20  # steps between rows of the log
    seed: int = 0  # of the data order and of all noise

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "learning_rate", "grad_clip", "checkpoint_every", "log_every"):
            if getattr(self, key) <= 0:
                raise ValueError(f"{key}: wanted more than 0, came {getattr(self, key)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: wanted a decay in [0, 1), came {self.ema}")
        for key in ("warmup", "held_out"):
            if not 0 < getattr(self, key) < 1:
                raise ValueError(f"{key}: wanted a share between 0 and 1, came {getattr(self, key)}")


@dataclass(frozen=True)
class Fitted:
    """What came out: steps done in all, the last held-out loss and its parts, windows per second of this call."""

    steps: int
    held_out: dict[str, float]
    samples_per_second: float


def learning_rate(step: int, total: int, cfg: FitCfg) -> float:
    """One cycle: cosine from a 25th of the peak up to it, and down to a 250 000th (torch's OneCycleLR, no momentum)."""
    top = cfg.warmup * total - 1
    if step < top:
        share, start, end = step / top, ONE_CYCLE_START, 1.0
    else:
        share, start, end = (step - top) / (total - 1 - top), 1.0, ONE_CYCLE_END
    return cfg.learning_rate * (end + (start - end) * (1 + math.cos(math.pi * share)) / 2)


def parameter_groups(policy: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters for AdamW: decay on those with two or more axes, none on biases, gains and scalars."""
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    rest = [parameter for parameter in trained if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


@all_cores()
def fit(policy: Policy, windows: Batches, cfg: FitCfg, run: Path) -> Fitted:
    """Train ``policy`` in place on ``windows`` and write ``run``/policy; the same call goes on where it was stopped."""
    accelerator = Accelerator()
    _check_processes(accelerator, cfg)
    train, held = windows.split(cfg.held_out, cfg.seed)
    per_epoch = len(train) // cfg.batch_size
    if per_epoch == 0:
        raise UserError(f"batch_size: wanted at most the {len(train)} windows to train on, came {cfg.batch_size}")
    total = cfg.epochs * per_epoch
    _claim(run, policy, windows, cfg, accelerator)
    optimizer = torch.optim.AdamW(parameter_groups(policy, cfg.weight_decay), lr=cfg.learning_rate, fused=True)
    learner, optimizer = accelerator.prepare(_Learner(policy), optimizer)
    average = Average(policy, cfg.ema) if cfg.ema else None
    done, held_out = _resume(run, policy, optimizer, average)
    log, began, first = _Log(run, done, accelerator.is_main_process), time.monotonic(), done
    bar = tqdm(total=total, initial=done, desc="train", unit="step", delay=2, disable=not accelerator.is_main_process)
    for step in range(done, total):
        epoch, at = divmod(step, per_epoch)
        if step == first or at == 0:
            visit = order(cfg.seed, epoch, len(train))
        chosen = visit[at * cfg.batch_size : (at + 1) * cfg.batch_size]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, cfg)
        parts = _step(learner, optimizer, train.batch(_share(chosen, accelerator)), cfg, step, accelerator)
        if average:
            average.update(step)
        log.add(parts)
        bar.update()
        if (step + 1) % cfg.log_every == 0:
            log.write(step=step + 1, epoch=epoch, lr=learning_rate(step, total, cfg), samples=cfg.batch_size)
        if at + 1 == per_epoch:
            with average.applied() if average else nullcontext():
                held_out = held_out_loss(policy, held, cfg, accelerator)
            log.row(step=step + 1, epoch=epoch, held_out=held_out)
            bar.set_postfix(held_out=f"{held_out['loss']:.4g}", refresh=False)
        if (step + 1) % cfg.checkpoint_every == 0 and step + 1 < total:
            _save(run, policy, optimizer, average, step + 1, held_out, accelerator)
    bar.close()
    rate = (total - first) * cfg.batch_size / max(time.monotonic() - began, 1e-9)
    if average and first < total:
        policy.load_state_dict(average.values, strict=False)
    _finish(run, policy, cfg, total, held_out, accelerator)
    return Fitted(total, held_out, rate)


class _Learner(nn.Module):
    """The policy with its loss as ``forward``: what DistributedDataParallel and autocast hook into."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return self.policy.loss(batch, generator)


def _step(
    learner: nn.Module, optimizer: Any, batch: Any, cfg: FitCfg, step: int, accelerator: Accelerator
) -> dict[str, float]:
    """One update; returns the loss, the norm of its gradient before clipping, and the loss's parts."""
    learner.train()
    with _seeded(accelerator.device, cfg.seed, step, accelerator.process_index) as generator:
        loss, parts = learner(batch.to(accelerator.device), generator)
    optimizer.zero_grad()
    accelerator.backward(loss)
    norm = nn.utils.get_total_norm([gradient for p in learner.parameters() if (gradient := p.grad) is not None])
    value, grad_norm = torch.stack([loss.detach().float(), norm.float()]).tolist()
    if not math.isfinite(value + grad_norm):
        said = f"the loss is {value} and its gradient's norm {grad_norm} at step {step} ({parts})"
        raise UserError(f"{said}; lower learning_rate or look at the data")
    if grad_norm > cfg.grad_clip:  # else a pass over all gradients would multiply them by 1
        nn.utils.clip_grads_with_norm_(learner.parameters(), cfg.grad_clip, norm)
    optimizer.step()
    return {"loss": value, "grad_norm": grad_norm, **parts}


@contextmanager
def _seeded(device: torch.device, *numbers: int) -> Iterator[torch.Generator]:
    """Yield a generator that is a function of ``numbers``; so is torch's global one (dropout) inside the block."""
    seeds = np.random.SeedSequence(numbers).generate_state(2, np.uint64).tolist()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seeds[0])
        yield torch.Generator(device).manual_seed(seeds[1])


@torch.no_grad()
def held_out_loss(policy: Policy, held: Batches, cfg: FitCfg, accelerator: Accelerator) -> dict[str, float]:
    """Mean loss and parts over all held-out windows, with the same noise every time."""
    policy.eval()
    sums: dict[str, float] = {}
    for start in range(0, len(held), cfg.batch_size):
        mine = _share(np.arange(start, min(start + cfg.batch_size, len(held))), accelerator)
        if len(mine) == 0:
            continue
        with _seeded(accelerator.device, cfg.seed, start, accelerator.process_index, 1) as generator:
            loss, parts = policy.loss(held.batch(mine).to(accelerator.device), generator)
        for name, value in {"loss": loss.item(), **parts, "windows": 1.0}.items():
            sums[name] = sums.get(name, 0.0) + value * len(mine)
    names = sorted(sums)
    totals = torch.tensor([sums[name] for name in names], dtype=torch.float32, device=accelerator.device)
    reduced = dict(zip(names, accelerator.reduce(totals, "sum").tolist(), strict=True))
    count = reduced.pop("windows")
    return {name: value / count for name, value in reduced.items()}


def _share(indices: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    """This process's part of a batch."""
    return indices[accelerator.process_index :: accelerator.num_processes]


class _Log:
    """``log.jsonl``, without the rows of steps that are about to be done again."""

    def __init__(self, run: Path, done: int, is_main: bool) -> None:
        self.path, self.is_main = run / LOG, is_main
        self.sums: dict[str, float] = {}
        self.count, self.since = 0, time.monotonic()
        if is_main:
            cut_log(self.path, done, "step")

    def add(self, parts: dict[str, float]) -> None:
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def write(self, step: int, epoch: int, lr: float, samples: int) -> None:
        """A row with the means since the last one."""
        means = {name: value / self.count for name, value in self.sums.items()}
        rate = self.count * samples / (time.monotonic() - self.since)
        self.row(step=step, epoch=epoch, lr=lr, samples_per_second=round(rate, 1), **means)
        self.sums, self.count, self.since = {}, 0, time.monotonic()

    def row(self, **values: Any) -> None:
        if self.is_main:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")


def _check_processes(accelerator: Accelerator, cfg: FitCfg) -> None:
    if cfg.batch_size % accelerator.num_processes:
        raise UserError(
            f"batch_size: wanted a multiple of the {accelerator.num_processes} processes, came {cfg.batch_size}"
        )
    if accelerator.mixed_precision == "fp16":
        raise UserError("mixed_precision: wanted no or bf16, came fp16, whose loss scale a resumed run would lose")


def _claim(run: Path, policy: Policy, windows: Batches, cfg: FitCfg, accelerator: Accelerator) -> None:
    """Make the run folder, or see that it belongs to the same training."""
    settings = {key: value for key, value in dataclasses.asdict(cfg).items() if key not in FREE}
    model = OmegaConf.to_container(OmegaConf.structured(policy.cfg), enum_to_str=True)
    identity = {"fit": settings, "policy": {"name": policy_name(policy.cfg), "cfg": model}, "data": windows.identity}
    refuse_another(run / IDENTITY, identity)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not (run / IDENTITY).exists():
        write_text(run / IDENTITY, json.dumps(identity, indent=1))


def _save(
    run: Path,
    policy: Policy,
    optimizer: Any,
    average: Average | None,
    step: int,
    held_out: dict[str, float],
    accelerator: Accelerator,
) -> None:
    """Write ``steps/step-<n>`` and drop the older ones."""
    if not accelerator.is_main_process:
        return
    with atomic_folder(run / STEPS / f"step-{step:08d}") as folder:
        save_pretrained(policy, folder / POLICY, {"step": step, "held_out": held_out})
        save_file(flat_moments(optimizer), folder / OPTIMIZER)
        if average:
            save_file(average.values, folder / AVERAGE)
        (folder / PROGRESS).write_text(json.dumps({"step": step, "held_out": held_out}))
    for older in _states(run)[:-1]:
        shutil.rmtree(older)


def _states(run: Path) -> list[Path]:
    return sorted((run / STEPS).glob("step-*"))


def _resume(run: Path, policy: Policy, optimizer: Any, average: Average | None) -> tuple[int, dict[str, float]]:
    """Load the end or the newest state of the run, if it has one; returns the steps done and the held-out loss."""
    if (run / POLICY).exists():
        meta = json.loads((run / POLICY / "meta.json").read_text(encoding="utf-8"))
        policy.load_state_dict(load_policy(run / POLICY).state_dict())
        return meta["steps"], meta["held_out"]
    if not (states := _states(run)):
        return 0, {}
    policy.load_state_dict(load_policy(states[-1] / POLICY).state_dict())
    load_moments(optimizer, load_file(states[-1] / OPTIMIZER))
    if average:
        average.values = load_file(states[-1] / AVERAGE, device=str(next(policy.parameters()).device))
    progress = json.loads((states[-1] / PROGRESS).read_text(encoding="utf-8"))
    return progress["step"], progress["held_out"]


def _finish(
    run: Path, policy: Policy, cfg: FitCfg, steps: int, held_out: dict[str, float], accelerator: Accelerator
) -> None:
    policy.eval()
    if accelerator.is_main_process and not (run / POLICY).exists():
        meta = {"stage": "fit", "steps": steps, "held_out": held_out, "config": dataclasses.asdict(cfg)}
        save_pretrained(policy, run / POLICY, meta)
    if accelerator.is_main_process:
        shutil.rmtree(run / STEPS, ignore_errors=True)
    accelerator.wait_for_everyone()
