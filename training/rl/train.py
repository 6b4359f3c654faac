"""`omnibody rl`: train a specialist, a residual over a frozen base, with stable-baselines3 PPO on one body."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize
from tqdm import tqdm

from omnibody.envs.make import make_env
from omnibody.envs.randomization import RandomizationCfg
from omnibody.policies.checkpoint import load_policy, save_pretrained
from omnibody.policies.compass.base import CompassBase
from omnibody.policies.compass.residual import CompassResidual, ResidualActorCfg
from omnibody.robots.errors import UserError
from omnibody.sim_tasks.goal_nav import GoalNavCfg
from omnibody.training.config import BODY, parse
from omnibody.training.fit import POLICY
from omnibody.training.rl.asymmetric_policy import AsymmetricPolicy
from omnibody.training.rl.residual_env import ResidualEnv
from omnibody.training.rl.state import load_state, save_state
from omnibody.training.run_folder import LOG, claim, cut_log

STATE = "resume.safetensors"  # in the run folder, see state.py
FREE = ("steps", "out")  # what a resumed run may change


@dataclass
class PpoCfg:
    """PPO's knobs; rewards are normalised by their running return, which COMPASS left out and paid for."""

    rollout: int = 128  # steps per environment and update
    batch_size: int = 1024  # transitions per gradient step
    epochs: int = 5  # passes over a rollout
    learning_rate: float = 5e-4  # of Adam
    gamma: float = 0.99  # discount per policy step
    gae_lambda: float = 0.95  # bias-variance of the advantage
    clip: float = 0.2  # of the probability ratio
    entropy: float = 0.0  # entropy bonus
    target_kl: float = 0.05  # an update stops beyond 1.5 times this
    normalise_reward: bool = True  # false in the original


@dataclass
class RlCfg:
    """Train a residual specialist for one body."""

    base: str = "assets/checkpoints/compass-base"  # checkpoint of the imitation base
    robot: str = field(default="go2", metadata=BODY)  # the body
    task: GoalNavCfg = field(default_factory=lambda: GoalNavCfg(scene="all"))  # scenes, reward, tolerances
    tier: str = "T1"  # fidelity to train in
    num_envs: int = 32  # worlds in the batch
    steps: int = 400_000  # environment steps in all
    seed: int = 0  # of everything random
    from_scratch: bool = False  # ablation: drop the base's command, keep its latent
    actor: ResidualActorCfg = field(default_factory=lambda: ResidualActorCfg(initial_std=0.2))  # the residual
    randomization: RandomizationCfg = field(default_factory=RandomizationCfg)  # domain randomisation
    ppo: PpoCfg = field(default_factory=PpoCfg)  # the learner
    out: str = "outputs/rl"  # run folder; the same command goes on where it stopped


class _Log(BaseCallback):
    """One JSON line per rollout, a progress bar, and a resumable state every ``every`` rollouts."""

    def __init__(self, run: Path, cfg: RlCfg, every: int = 10) -> None:
        super().__init__()
        self.run, self.cfg, self.every = run, cfg, every
        self.rollouts, self.began = 0, time.monotonic()
        self._ended: list[dict[str, Any]] = []

    def _on_training_start(self) -> None:
        self.bar = tqdm(total=self.cfg.steps, initial=self.num_timesteps, unit="step", desc="rl")

    def _on_step(self) -> bool:
        self._ended += [info for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts += 1
        self.bar.update(self.num_timesteps - self.bar.n)
        if self._ended:
            line = {
                "steps": self.num_timesteps,
                "seconds": round(time.monotonic() - self.began, 1),
                "episodes": len(self._ended),
                "success": float(np.mean([info["is_success"] for info in self._ended])),
                "timeout": float(np.mean([info["TimeLimit.truncated"] for info in self._ended])),
                "return": float(np.mean([info["episode"]["r"] for info in self._ended])),
                "length": float(np.mean([info["episode"]["l"] for info in self._ended])),
                "std": self.model.policy.log_std.exp().mean().item(),
            }
            with (self.run / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            self._ended = []
        # A kill between rollouts then costs at most this many of them.
        if self.rollouts % self.every == 0:
            save_state(self.model, self.run / STATE)

    def _on_training_end(self) -> None:
        self.bar.close()


def build_ppo(cfg: RlCfg, policy: CompassResidual, env: ResidualEnv) -> PPO:
    """SB3's PPO around the policy's own residual actor."""
    wrapped = VecNormalize(env, norm_obs=False, gamma=cfg.ppo.gamma) if cfg.ppo.normalise_reward else env
    return PPO(
        AsymmetricPolicy,
        wrapped,
        learning_rate=cfg.ppo.learning_rate,
        n_steps=cfg.ppo.rollout,
        batch_size=cfg.ppo.batch_size,
        n_epochs=cfg.ppo.epochs,
        gamma=cfg.ppo.gamma,
        gae_lambda=cfg.ppo.gae_lambda,
        clip_range=cfg.ppo.clip,
        ent_coef=cfg.ppo.entropy,
        target_kl=cfg.ppo.target_kl,
        seed=cfg.seed,
        device="auto" if torch.cuda.is_available() else "cpu",
        policy_kwargs={"actor": policy.actor, "active": env.active.tolist()},
    )


def train_residual(cfg: RlCfg) -> CompassResidual:
    """Train (or go on training) and write the specialist's checkpoint to ``cfg.out``/policy."""
    base = load_policy(cfg.base)
    if not isinstance(base, CompassBase):
        raise UserError(f"base: wanted a compass_base checkpoint, came a {type(base).__name__} in {cfg.base}")
    run = Path(cfg.out)
    claim(run, cfg, FREE)
    # The networks are small and the worlds use the cores: more threads only wait for each other.
    torch.set_num_threads(1)
    policy = CompassResidual.on(base, cfg.actor, cfg.from_scratch)
    env = ResidualEnv(
        make_env(cfg.robot, cfg.task, cfg.num_envs, cfg.tier, randomization=cfg.randomization),
        policy.base,
        cfg.actor.scale,
        cfg.seed,
        cfg.from_scratch,
    )
    model = build_ppo(cfg, policy, env)
    if (run / STATE).exists():
        load_state(model, run / STATE)
        # Every step can end at most one episode per world: no episode number is played twice.
        env.start_at(model.num_timesteps)
    cut_log(run / LOG, model.num_timesteps)
    if model.num_timesteps < cfg.steps:
        left = cfg.steps - model.num_timesteps
        model.learn(left, callback=_Log(run, cfg), reset_num_timesteps=False)
        save_state(model, run / STATE)
    model.policy.write_std()
    meta = {"stage": "residual", "config": asdict(cfg), "steps": model.num_timesteps}
    save_pretrained(policy, run / POLICY, meta)
    env.close()
    return policy


def main(argv: Sequence[str]) -> None:
    """Entry point of ``omnibody rl``."""
    cfg = parse(RlCfg, argv)
    train_residual(cfg)
    print(f"specialist written to {Path(cfg.out) / POLICY}")
