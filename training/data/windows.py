"""Random windows out of memory-mapped datasets, as batches for training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnibody.policies.batch import Batch, Lazy
from omnibody.robots.spec import IOSpec
from omnibody.training.data import layout
from omnibody.training.data.hindsight import GOAL, HindsightCfg, goal_rows
from omnibody.training.data.layout import DatasetError, Origin
from omnibody.training.data.reader import Dataset


def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order (count,) in which epoch ``epoch`` of a training with ``seed`` visits ``count`` windows."""
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class Windows:
    """All windows of some episodes of one or more datasets (of one body each).

    A window is anchored at every ``stride``-th step of an episode and begins ``lead`` rows before its anchor; it has
    ``obs_steps`` rows of observations and ``action_steps`` rows of actions. Rows outside the episode are padding, at
    most ``pad_after`` of them behind its end (None: all that an anchor at the last step needs). A world model takes
    (16, 16); Diffusion Policy with two observations, of 16 actions 8 executed, (2, 16, lead=1, pad_after=7).

    ``episodes`` (n, 2): pairs (dataset, episode); ``anchors`` (windows, 2): pairs (row of ``episodes``, step).
    """

    datasets: tuple[Dataset, ...]
    obs_steps: int
    action_steps: int
    lead: int
    stride: int
    pad_after: int | None
    hindsight: HindsightCfg
    episodes: np.ndarray
    anchors: np.ndarray

    @staticmethod
    def of(
        datasets: Sequence[Dataset],
        obs_steps: int,
        action_steps: int,
        lead: int = 0,
        stride: int = 1,
        pad_after: int | None = None,
        hindsight: HindsightCfg | None = None,
    ) -> Windows:
        """Windows over all episodes of ``datasets``."""
        if not 0 <= lead < obs_steps or min(action_steps, stride) < 1 or (pad_after is not None and pad_after < 0):
            got = f"obs_steps {obs_steps}, action_steps {action_steps}, lead {lead}, stride {stride}"
            raise DatasetError(
                "wanted 0 <= lead < obs_steps, positive action_steps and stride and no negative pad_after,"
                f" came {got}, pad_after {pad_after}"
            )
        first = datasets[0].origin
        for dataset in datasets[1:]:
            difference = first.spec.mismatch(dataset.origin.spec) or _other_parts(first, dataset.origin)
            if difference:
                raise DatasetError(f"{dataset.path} does not go with {datasets[0].path}: {difference}")
        hindsight = hindsight or HindsightCfg()
        if hindsight.key:
            _check_goal(first.spec, hindsight.key)
        episodes = [(number, episode) for number, one in enumerate(datasets) for episode in range(one.num_episodes)]
        none = np.empty((0, 2))
        empty = Windows(tuple(datasets), obs_steps, action_steps, lead, stride, pad_after, hindsight, none, none)
        return empty._over(np.array(episodes))

    @property
    def spec(self) -> IOSpec:
        """The contract of the first dataset; the others have the same shapes and rate."""
        return self.datasets[0].origin.spec

    @property
    def identity(self) -> dict[str, Any]:
        """What the windows and their order depend on."""
        shape = {name: getattr(self, name) for name in ("obs_steps", "action_steps", "lead", "stride")}
        shape |= {} if self.pad_after is None else {"pad_after": self.pad_after}
        shape |= {"hindsight": asdict(self.hindsight)} if self.hindsight.key else {}
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
        if len(parts) > 1:
            back = torch.from_numpy(np.argsort(np.concatenate([np.nonzero(which == number)[0] for number in used])))
            parts = [_joined(parts, back)]
        return self._with_goals(parts[0], which, episode, step, indices) if self.hindsight.key else parts[0]

    def blocks(self, size: int) -> Iterator[Batch]:
        """All windows once, in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))

    def _over(self, episodes: np.ndarray) -> Windows:
        steps = [np.arange(0, self._anchored(self.datasets[n].length[episode]), self.stride) for n, episode in episodes]
        rows = np.repeat(np.arange(len(episodes)), [len(one) for one in steps])
        return replace(self, episodes=episodes, anchors=np.stack([rows, np.concatenate(steps)], 1))

    def _anchored(self, length: int) -> int:
        """How many steps at the beginning of an episode of ``length`` steps a window may be anchored at."""
        if self.pad_after is None:
            return length
        behind = max(self.obs_steps, self.action_steps) - 1 - self.lead  # rows of a window after its anchor
        return min(length, max(1, length - behind + self.pad_after))

    def _with_goals(
        self, batch: Batch, which: np.ndarray, episode: np.ndarray, step: np.ndarray, indices: np.ndarray
    ) -> Batch:
        """The batch with goals in hindsight, the same in all rows of a window."""
        used = [(self.datasets[number], which == number) for number in np.unique(which)]
        length, first = np.zeros(len(step), np.int64), np.zeros(len(step), np.int64)
        for dataset, mine in used:
            length[mine], first[mine] = dataset.length[episode[mine]], dataset.first[episode[mine]]
        new, later = goal_rows(step, length, self.hindsight.keep, indices)
        reached = torch.zeros(len(step), 1, batch.obs[GOAL].shape[-1])
        for dataset, mine in used:
            values = _take(dataset.arrays[f"obs.{self.hindsight.key}"], (first + later)[mine])
            reached[torch.from_numpy(mine), 0] = torch.from_numpy(values)
        chosen = torch.from_numpy(new)[:, None, None]

        def relabelled(part: Mapping[str, Tensor]) -> Lazy:
            return Lazy(part.keys(), lambda key: torch.where(chosen, reached, part[key]) if key == GOAL else part[key])

        return replace(batch, obs=relabelled(batch.obs), next_obs=relabelled(batch.next_obs))

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
        columns, arrays = layout.obs_columns(dataset.origin.spec), dataset.arrays
        facts = torch.tensor(dataset.origin.descriptor, dtype=torch.float32)
        action = torch.from_numpy(_take(arrays["action"], acted))

        def observations(at: np.ndarray) -> Lazy:
            return Lazy(columns, lambda key: torch.from_numpy(columns[key].physical(_take(arrays[f"obs.{key}"], at))))

        return Batch(
            obs=observations(seen),
            next_obs=observations(seen + 1),
            action=action,
            expert=torch.from_numpy(_take(arrays["expert"], acted)) if "expert" in arrays else action,
            previous_action=torch.from_numpy(before),
            reward=torch.from_numpy(_take(arrays["reward"], acted)) if "reward" in arrays else None,
            terminated=torch.from_numpy(_take(dataset.arrays["terminated"], acted)),
            pad=torch.from_numpy(inside != offset),
            pose=torch.from_numpy(_take(arrays["pose"], rows)) if "pose" in arrays else None,
            descriptor=facts.expand(len(episode), -1) if len(facts) else None,
        )


def _take(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.take(array, rows, axis=0)


def _joined(parts: list[Batch], back: Tensor) -> Batch:
    """One batch of several, its rows put in the order ``back``."""
    values: dict[str, Any] = {}
    for name in Batch.__dataclass_fields__:
        every = [getattr(part, name) for part in parts]
        if isinstance(every[0], Mapping):
            values[name] = Lazy(every[0].keys(), lambda key, of=every: torch.cat([one[key] for one in of])[back])  # type: ignore[misc]
        else:
            values[name] = None if any(one is None for one in every) else torch.cat(every)[back]
    return Batch(**values)


def _check_goal(spec: IOSpec, key: str) -> None:
    fields = {name: spec.obs[name].shape for name in (GOAL, key) if name in spec.obs}
    if len(set(fields.values())) != 1 or fields.keys() != {GOAL, key} or len(spec.obs[key].shape) != 1:
        raise DatasetError(f"hindsight.key: wanted observations {GOAL} and {key} of one shape (n,), came {fields}")


def _other_parts(wanted: Origin, came: Origin) -> str:
    """Which part of a batch only one of two datasets can give; expert actions they all can."""
    if ("pose" in wanted.parts) != ("pose" in came.parts):
        return "only one of them has pose"
    return "" if bool(wanted.descriptor) == bool(came.descriptor) else "only one of them has a descriptor"
