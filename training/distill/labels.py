"""Teachers' labels on states that a teacher or the student drives to: what distillation learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.policies.compass.commands import clip_twist
from omnibody.policies.compass.generalist import CompassGeneralist
from omnibody.policies.compass.residual import CompassResidual
from omnibody.policies.policy import Context, where_state


@dataclass(frozen=True)
class Labels:
    """n labelled moments; a `DistilBatch` is a selection of them.

    ``features`` (n, F), ``code`` (n, C) of the body, ``mean`` and ``std`` (n, 3) of the teacher's normalised command,
    ``active`` (n, 3) bool: the twist axes the body has. It is what ``fit`` calls `Batches`.
    """

    features: Tensor
    code: Tensor
    mean: Tensor
    std: Tensor
    active: Tensor

    def __len__(self) -> int:
        return len(self.features)

    @property
    def identity(self) -> dict[str, Any]:
        """Enough of the content for ``fit`` to notice other labels in a resumed run."""
        return {"moments": len(self), "sum": float(self.mean.double().sum()), "code": float(self.code.double().sum())}

    def batch(self, indices: np.ndarray) -> Labels:
        """The moments ``indices`` (B,), in that order."""
        rows = torch.from_numpy(indices)
        return Labels(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def to(self, device: torch.device | str) -> Labels:
        """The same labels on another device."""
        return Labels(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))

    def split(self, fraction: float, seed: int) -> tuple[Labels, Labels]:
        """All other moments, and a random ``fraction`` of them to hold out."""
        shuffled = np.random.default_rng([seed, len(self)]).permutation(len(self))
        held = max(1, round(fraction * len(self)))
        return self.batch(np.sort(shuffled[held:])), self.batch(np.sort(shuffled[:held]))

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({field.name: getattr(self, field.name).contiguous() for field in dataclasses.fields(self)}, part)
        part.replace(path)

    @staticmethod
    def load(path: Path) -> Labels:
        """Read what ``save`` wrote."""
        return Labels(**load_file(path))

    @staticmethod
    def joined(parts: Sequence[Labels]) -> Labels:
        """All moments of several sets."""
        names = [field.name for field in dataclasses.fields(Labels)]
        return Labels(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@torch.no_grad()
def collect_labels(
    teacher: CompassResidual,
    student: CompassGeneralist,
    env: MujocoEnv,
    steps: int,
    student_drives: bool,
    seed: int,
    first_episode: int,
    generator: torch.Generator,
) -> Labels:
    """Label ``steps`` policy steps of every env with the teacher's command distribution.

    The teacher drives with its own exploration noise, or the student drives and the teacher only watches (DAgger, Ross
    et al. 2011). Both stand on the same frozen base, so one recurrent state serves both; it is fed with the command
    that was executed.
    """
    fresh = teacher.begin(Context(env.embodiment), env.num_envs)
    code = student.code(env.embodiment).expand(env.num_envs, -1)
    active = (fresh["velocity_high"] > 0.0).clone()
    state, obs, rows = fresh, env.reset(seed, first_episode), []
    for _ in range(steps):
        features, mean, std, state = teacher.distribution(obs, state)
        rows.append(Labels(features, code, mean, std, active))
        if student_drives:
            command = student.student_mean(features, code)
        else:
            command = mean + std * torch.empty_like(mean).normal_(generator=generator)
        action = clip_twist(command * state["velocity_high"], state)
        step = env.step(action)
        state = where_state(step.done, fresh, teacher.executed(state, action))
        obs = step.obs
    return Labels.joined(rows)
