"""Random episodes of a spec, for tests and for measuring the reader."""

from __future__ import annotations

import numpy as np
import torch

from omnibody.policies.batch import random_values
from omnibody.robots.spec import Field, IOSpec
from omnibody.training.data.layout import Episode


def fake_episode(spec: IOSpec, steps: int, rng: np.random.Generator) -> Episode:
    """An episode of ``steps`` steps with uniform values within the bounds of ``spec``; it ends in success."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def values(field: Field, rows: int) -> np.ndarray:
        return random_values(field, (rows,), generator).numpy()

    ends = np.arange(steps) == steps - 1
    return Episode(
        obs={key: values(field, steps + 1) for key, field in spec.obs.items()},
        action=values(spec.action, steps),
        expert=values(spec.action, steps),
        reward=rng.standard_normal(steps).astype(np.float32),
        terminated=ends,
        truncated=np.zeros(steps, bool),
        success=ends,
        pose=rng.uniform(-3, 3, (steps, 3)).astype(np.float32),
    )
