"""Random windows out of memory-mapped datasets, as batches for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnibody.policies.batch import Batch
from omnibody.robots.spec import IOSpec
from omnibody.training.data import layout
from omnibody.training.data.layout import DatasetError
from omnibody.training.data.reader import Dataset


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order (count,) in which epoch ``epoch`` of a training with ``seed`` visits ``count`` windows."""
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class Windows:
    """All windows of some episodes of one or more datasets (of one body each).

    A window is anchored at every ``stride``-th step of an episode and begins ``lead`` rows before its anchor; it has
    ``obs_steps`` rows of observations and ``action_steps`` rows of actions. Rows outside the episode are padding. A
    world model takes (16, 16), a chunked policy with two observations (2, 16, lead=1).

    ``episodes`` (n, 2): pairs (dataset, episode); ``anchors`` (windows, 2): pairs (row of ``episodes``, step).
    """

    datasets: tuple[Dataset, ...]
    obs_steps: int
    action_steps: int
    lead: int
    stride: int
    episodes: np.ndarray
    anchors: np.ndarray

    @staticmethod
    def of(datasets: Sequence[Dataset], obs_steps: int, action_steps: int, lead: int = 0, stride: int = 1) -> Windows:
        """Windows over all episodes of ``datasets``."""
        if not 0 <= lead < obs_steps or action_steps < 1 or stride < 1:
            got = f"obs_steps {obs_steps}, action_steps {action_steps}, lead {lead}, stride {stride}"
            raise DatasetError(f"wanted 0 <= lead < obs_steps and positive action_steps and stride, came {got}")
        for dataset in datasets[1:]:
            if difference := datasets[0].origin.spec.mismatch(dataset.origin.spec):
                raise DatasetError(f"{dataset.path} does not go with {datasets[0].path}: {difference}")
        episodes = [(number, episode) for number, one in enumerate(datasets) for episode in range(one.num_episodes)]
        empty = Windows(tuple(datasets), obs_steps, action_steps, lead, stride, np.empty((0, 2)), np.empty((0, 2)))
        return empty._over(np.array(episodes))

    @property
    def spec(self) -> IOSpec:
        """The contract of the first dataset; the others have the same shapes and rate."""
        return self.datasets[0].origin.spec

    @property
    def identity(self) -> dict[str, Any]:
        """What the windows and their order depend on."""
        shape = {name: getattr(self, name) for name in ("obs_steps", "action_steps", "lead", "stride")}
        return {"digests": [dataset.digest for dataset in self.datasets], **shape}

    def __len__(self) -> int:
        return len(self.anchors)

    def split(self, fraction: float, seed: int) -> tuple[Windows, Windows]:
        """Windows of all other episodes, and of a random ``fraction`` of the episodes (at least one) to hold out."""
        count = len(self.episodes)
        held = max(1, round(fraction * count))
        if held >= count:
            raise DatasetError(f"cannot hold out {held} of {count} episodes; collect more")
        shuffled = np.random.default_rng([seed, count]).permutation(count)
        return self._over(self.episodes[np.sort(shuffled[held:])]), self._over(self.episodes[np.sort(shuffled[:held])])

    def batch(self, indices: np.ndarray) -> Batch:
        """The windows ``indices`` (B,), in that order."""
        row, step = self.anchors[indices].T
        which, episode = self.episodes[row].T
        used = np.unique(which)
        parts = [self._gather(number, episode[which == number], step[which == number]) for number in used]
        if len(parts) == 1:
            return parts[0]
        back = torch.from_numpy(np.argsort(np.concatenate([np.nonzero(which == number)[0] for number in used])))
        return _joined(parts, back)

    def _over(self, episodes: np.ndarray) -> Windows:
        steps = [np.arange(0, self.datasets[number].length[episode], self.stride) for number, episode in episodes]
        rows = np.repeat(np.arange(len(episodes)), [len(one) for one in steps])
        return replace(self, episodes=episodes, anchors=np.stack([rows, np.concatenate(steps)], 1))

    def _gather(self, number: int, episode: np.ndarray, step: np.ndarray) -> Batch:
        """Windows of one dataset that are anchored at ``step`` (B,) of ``episode`` (B,)."""
        dataset = self.datasets[number]
        first, length = dataset.first[episode, None], dataset.length[episode, None]
        offset = step[:, None] - self.lead + np.arange(max(self.obs_steps, self.action_steps))
        inside = np.clip(offset, 0, length - 1)
        rows, seen = first + inside, (first + inside)[:, : self.obs_steps]
        acted = rows[:, : self.action_steps]
        before = _take(dataset.arrays["action"], np.maximum(seen - 1, 0))
        before[inside[:, : self.obs_steps] == 0] = 0.0
        columns = layout.obs_columns(dataset.origin.spec)
        facts = torch.tensor(dataset.origin.descriptor, dtype=torch.float32)

        def observations(at: np.ndarray) -> dict[str, Tensor]:
            stored = {key: _take(dataset.arrays[f"obs.{key}"], at) for key in columns}
            return {key: torch.from_numpy(columns[key].physical(values)) for key, values in stored.items()}

        return Batch(
            obs=observations(seen),
            next_obs=observations(seen + 1),
            action=torch.from_numpy(_take(dataset.arrays["action"], acted)),
            expert=torch.from_numpy(_take(dataset.arrays["expert"], acted)),
            previous_action=torch.from_numpy(before),
            reward=torch.from_numpy(_take(dataset.arrays["reward"], acted)),
            terminated=torch.from_numpy(_take(dataset.arrays["terminated"], acted)),
            pad=torch.from_numpy(inside != offset),
            pose=torch.from_numpy(_take(dataset.arrays["pose"], rows)),
            descriptor=facts.expand(len(episode), -1),
        )


def _take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.take(array, rows, axis=0)


def _joined(parts: list[Batch], back: Tensor) -> Batch:
    """One batch of several, its rows put in the order ``back``."""
    values: dict[str, Any] = {}
    for name in Batch.__dataclass_fields__:
        every = [getattr(part, name) for part in parts]
        if isinstance(every[0], dict):
            values[name] = {key: torch.cat([one[key] for one in every])[back] for key in every[0]}
        else:
            values[name] = torch.cat(every)[back]
    return Batch(**values)
