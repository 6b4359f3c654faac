"""What a resumed PPO run needs, as one safetensors file: it is either whole or the older one. No pickle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stable_baselines3 import PPO
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from omnibody.policies.files import atomic_file
from omnibody.training.optimizer_state import flat_moments, load_moments

POLICY, ADAM = "policy.", "adam."  # prefixes of the tensors


def save_state(model: PPO, path: Path, **numbers: float) -> None:
    """Write weights, Adam's moments, reward statistics, counts, and ``numbers`` of the caller's own."""
    tensors: dict[str, Tensor] = {f"{POLICY}{k}": v.detach().clone() for k, v in model.policy.state_dict().items()}
    tensors |= flat_moments(model.policy.optimizer, ADAM)
    numbers |= {"steps": model.num_timesteps, "updates": model._n_updates}
    if isinstance(model.env, VecNormalize):
        stats = model.env.ret_rms
        numbers |= {"mean": float(stats.mean), "var": float(stats.var), "count": float(stats.count)}
    with atomic_file(path) as file:
        save_file({k: v.contiguous() for k, v in tensors.items()}, file, {"numbers": json.dumps(numbers)})


def load_state(model: PPO, path: Path) -> dict[str, float]:
    """Put back what ``save_state`` wrote and give its numbers; the worlds begin new episodes.

    The exploration noise goes on with a stream of its own, a function of the seed and the place of the stop.
    """
    tensors, numbers = load_file(path), read_numbers(path)
    model.policy.load_state_dict({k.removeprefix(POLICY): v for k, v in tensors.items() if k.startswith(POLICY)})
    load_moments(model.policy.optimizer, tensors, ADAM)
    model.num_timesteps, model._n_updates = int(numbers["steps"]), int(numbers["updates"])
    if isinstance(model.env, VecNormalize):
        stats = model.env.ret_rms
        stats.mean, stats.var, stats.count = np.float64(numbers["mean"]), np.float64(numbers["var"]), numbers["count"]
    set_random_seed((model.seed or 0) + model.num_timesteps)
    return numbers


def read_numbers(path: Path) -> dict[str, float]:
    """The numbers in a state's file, ``steps`` among them."""
    with safe_open(path, "pt") as file:
        numbers: dict[str, float] = json.loads(file.metadata()["numbers"])
    return numbers
