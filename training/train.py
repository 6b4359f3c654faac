"""``omnibody train``: a policy from a table, a dataset from ``omnibody collect``, and the supervised loop.

On many GPUs: ``accelerate launch -m omnibody.training.train <the same words>``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING

from omnibody.policies.policy import Policy
from omnibody.robots.spec import IOSpec
from omnibody.training.config import group, parse
from omnibody.training.data.hindsight import HindsightCfg
from omnibody.training.data.reader import open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.fit import POLICY, FitCfg, Fitted, fit

PRIVILEGED = "privileged"  # the observation that tasks make for critics
BLOCK = 4096  # windows at a time that a policy takes its statistics from


@dataclass
class WindowsCfg:
    """Which windows a policy learns from; the defaults are a world model's."""

    obs_steps: int = 16  # rows of observations
    action_steps: int = 16  # rows of actions
    lead: int = 0  # rows before the one a window is drawn for
    stride: int = 8  # steps between the windows of an episode
    pad_after: int | None = None  # most rows of padding behind an episode's end; null: as many as fit
    hindsight: HindsightCfg = field(default_factory=HindsightCfg)  # goals from a window's own future


@dataclass
class TrainCfg:
    """Train a policy on datasets; the same command goes on where it was stopped."""

    data: list[str] = MISSING  # dataset folders, of one or more bodies
    out: str = MISSING  # run folder; the checkpoint will be in its folder policy
    policy: Any = group("policy", "compass_base")  # what to train
    windows: WindowsCfg = field(default_factory=WindowsCfg)  # what a sample is
    fit: FitCfg = field(default_factory=FitCfg)  # how to train

    def __post_init__(self) -> None:
        if self.data != MISSING and not self.data:
            raise ValueError("data: wanted at least one dataset folder, came none")


def build_policy(cfg: Any, spec: IOSpec, seed: int) -> Policy:
    """The untrained policy of a config dataclass; its weights depend on ``seed`` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return cfg.build(spec)


def policy_spec(spec: IOSpec) -> IOSpec:
    """What a policy may rely on: everything but what only a simulator knows."""
    return dataclasses.replace(spec, obs={key: field for key, field in spec.obs.items() if key != PRIVILEGED})


def train(cfg: TrainCfg) -> Fitted:
    """Run what ``cfg`` says; the policy is in ``cfg.out``/policy afterwards."""
    shape = {part.name: getattr(cfg.windows, part.name) for part in dataclasses.fields(cfg.windows)}
    windows = Windows.of([open_dataset(path) for path in cfg.data], **shape)
    return train_on(windows, cfg.policy, cfg.fit, Path(cfg.out))[1]


def train_on(windows: Windows, policy_cfg: Any, fit_cfg: FitCfg, run: Path) -> tuple[Policy, Fitted]:
    """Build a policy, give it the statistics of ``windows`` and train it on them; ``run``/policy holds it as well."""
    policy = build_policy(policy_cfg, policy_spec(windows.spec), fit_cfg.seed)
    policy.fit_statistics(windows.blocks(BLOCK))
    return policy, fit(policy, windows, fit_cfg, run)


def main(argv: Sequence[str]) -> None:
    """``omnibody train data=[<dataset>] out=<run> policy=<name> ...``."""
    cfg = parse(TrainCfg, argv)
    fitted = train(cfg)
    held_out = ", ".join(f"{name} {value:.4g}" for name, value in fitted.held_out.items())
    print(f"{fitted.steps} steps, {fitted.samples_per_second:.0f} windows/s, held-out {held_out}")
    print(f"checkpoint: {Path(cfg.out) / POLICY}")


if __name__ == "__main__":
    main(sys.argv[1:])
