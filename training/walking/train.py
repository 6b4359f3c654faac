"""Train the G1's walking residual with stable-baselines3 PPO, and export it.

    python -m omnibody.training.walking.train run=runs/g1-walk minutes=60

Stop it at any time and start it again with the same command: it goes on from the last checkpoint in ``run``.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.numpy import save_file
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from omnibody.policies.files import atomic_file
from omnibody.robots.g1 import CHECKPOINT
from omnibody.robots.g1_walk import Gait
from omnibody.training.config import parse
from omnibody.training.rl.state import load_state, read_numbers, save_state
from omnibody.training.run_folder import LOG, claim, cut_log
from omnibody.training.walking.env import G1WalkEnv, WalkEnvConfig
from omnibody.training.walking.mirror_policy import MirrorPolicy

CHECKPOINT_EVERY, LOG_EVERY = 20, 10  # rollouts
STATE = "resume.safetensors"  # in the run folder, see training/rl/state.py
FREE = ("run", "gait", "minutes")  # what a resumed run may change


@dataclass
class TrainConfig:
    """Train the G1's walking controller."""

    run: str = "runs/g1-walk"  # folder of the run; what is there is gone on with
    gait: str = str(CHECKPOINT / "gait.safetensors")  # table that gait.py recorded
    minutes: float = 60.0  # wall-clock of this process
    seed: int = 0  # of the network, the exploration and the environment
    num_envs: int = 64  # robots side by side
    rollout_steps: int = 48  # control periods between updates
    hidden: list[int] = field(default_factory=lambda: [256, 128])  # widths of the network
    learning_rate: float = 7e-4  # first step size; the KL moves it
    target_kl: float = 0.015  # wanted change of the policy in one update
    gamma: float = 0.98  # discount
    entropy: float = 0.002  # weight of the entropy bonus


class Rate:
    """A learning rate in SB3's form of a schedule, with a value that ``KLRate`` moves."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, progress_remaining: float) -> float:
        """The current value, whatever the progress."""
        return self.value


class KLRate(BaseCallback):
    """Raise the learning rate when the last update moved the policy too little, lower it when too much."""

    def __init__(self, target: float, low: float = 1e-5, high: float = 2e-3) -> None:
        super().__init__()
        self.target, self.low, self.high = target, low, high

    def _on_rollout_start(self) -> None:
        kl = self.logger.name_to_value.get("train/approx_kl")
        if kl is None:
            return
        rate = cast(Rate, self.model.learning_rate)
        if kl > 2.0 * self.target:
            rate.value = max(rate.value / 1.5, self.low)
        elif kl < 0.5 * self.target:
            rate.value = min(rate.value * 1.5, self.high)

    def _on_step(self) -> bool:
        return True


class Progress(BaseCallback):
    """Write one JSON line every ``LOG_EVERY`` rollouts, checkpoint every ``CHECKPOINT_EVERY``, stop in time."""

    def __init__(self, run: Path, minutes: float) -> None:
        super().__init__()
        self.run, self.deadline, self.rollouts = run, time.monotonic() + 60.0 * minutes, 0
        self.terms: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        self.terms.append(self.training_env.get_attr("terms")[0])
        return time.monotonic() < self.deadline

    def _on_rollout_end(self) -> None:
        self.rollouts += 1
        if self.rollouts % LOG_EVERY == 0:
            episodes = [episode["l"] for episode in self.model.ep_info_buffer or []]
            line = {
                "steps": self.num_timesteps,
                "episode_seconds": float(np.mean(episodes)) / 50.0 if episodes else 0.0,
                "learning_rate": cast(Rate, self.model.learning_rate).value,
                "std": float(cast(MirrorPolicy, self.model.policy).log_std.detach().exp().mean()),
            }
            line |= {name: float(np.mean([terms[name] for terms in self.terms])) for name in self.terms[0]}
            text = json.dumps({name: round(value, 5) for name, value in line.items()})
            with (self.run / LOG).open("a", encoding="utf-8") as log:
                log.write(text + "\n")
            print(text, flush=True)
            self.terms = []
        if self.rollouts % CHECKPOINT_EVERY == 0:
            save(cast(PPO, self.model), self.run)


def save(model: PPO, run: Path) -> None:
    """Write the resumable state and, beside it, the weights as they are shipped; each replaces the old one whole."""
    save_state(model, run / STATE, rate=cast(Rate, model.learning_rate).value)
    layers = [layer for layer in model.policy.mlp_extractor.policy_net if isinstance(layer, torch.nn.Linear)]
    layers.append(cast(torch.nn.Linear, model.policy.action_net))
    weights = {}
    for index, layer in enumerate(layers):
        weights[f"{index}.weight"] = layer.weight.detach().numpy().copy()
        weights[f"{index}.bias"] = layer.bias.detach().numpy().copy()
    with atomic_file(run / "weights.safetensors") as file:
        save_file(weights, file)


def build(cfg: TrainConfig, env: G1WalkEnv) -> PPO:
    """A fresh PPO; the first action is nearly the plain gait table."""
    return PPO(
        MirrorPolicy,
        env,
        learning_rate=Rate(cfg.learning_rate),
        n_steps=cfg.rollout_steps,
        batch_size=cfg.num_envs * cfg.rollout_steps // 4,
        n_epochs=5,
        gamma=cfg.gamma,
        gae_lambda=0.95,
        ent_coef=cfg.entropy,
        max_grad_norm=1.0,
        seed=cfg.seed,
        device="cpu",
        policy_kwargs={
            "net_arch": {"pi": list(cfg.hidden), "vf": [128, 128]},
            "activation_fn": torch.nn.ELU,
            "log_std_init": -0.5,
        },
    )


def train(cfg: TrainConfig) -> None:
    """Train for ``cfg.minutes`` or until interrupted, from the last checkpoint if there is one."""
    torch.set_num_threads(1)
    run = Path(cfg.run)
    claim(run, cfg, FREE)
    settings = {key: value for key, value in asdict(cfg).items() if key not in ("run", "gait")}  # paths say nothing
    OmegaConf.save(OmegaConf.create(settings), run / "training.yaml")
    shutil.copyfile(cfg.gait, run / "gait.safetensors")
    state = run / STATE
    steps = int(read_numbers(state)["steps"]) if state.exists() else 0
    # Another stream than the one already used, still a function of the seed and the place of the stop.
    env = G1WalkEnv(WalkEnvConfig(num_envs=cfg.num_envs), Gait.load(Path(cfg.gait)), cfg.seed + steps)
    model = build(cfg, env)
    if steps:
        cast(Rate, model.learning_rate).value = load_state(model, state)["rate"]
    cut_log(run / LOG, steps)
    try:
        model.learn(10**12, callback=[KLRate(cfg.target_kl), Progress(run, cfg.minutes)], reset_num_timesteps=False)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", flush=True)
    save(model, run)


if __name__ == "__main__":
    train(parse(TrainConfig, sys.argv[1:]))
