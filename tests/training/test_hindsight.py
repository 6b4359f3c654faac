"""Goals in hindsight come from later in the same episode, evenly, and change with the batch only."""

from pathlib import Path

import numpy as np
import pytest
import torch

from omnibody.robots.errors import UserError
from omnibody.training.data.hindsight import HindsightCfg, goal_rows
from omnibody.training.data.reader import Dataset, open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.importing import ImportCfg, import_source

LENGTHS = (30, 4, 57)


@pytest.fixture
def datasets(tmp_path: Path) -> list[Dataset]:
    """Two of Push-T, with other goals; the T's x says at which of all frames it was, in the second from 1000 on."""
    rng, frames, made = np.random.default_rng(0), sum(LENGTHS), []
    for number, task in enumerate(("push_t", "push_t/shifted")):
        state = np.concatenate([rng.uniform(0, 512, (frames, 4)), rng.uniform(-9, 9, (frames, 1))], 1)
        state[:, 2] = 1000 * number + np.arange(frames)
        ends = np.cumsum(LENGTHS)
        np.savez(tmp_path / f"{number}.npz", state=state, action=rng.uniform(0, 512, (frames, 2)), episode_ends=ends)
        import_source(ImportCfg(source=str(tmp_path / f"{number}.npz"), out=str(tmp_path / f"{number}"), task=task))
        made.append(open_dataset(tmp_path / f"{number}"))
    return made


def test_goals_are_later_in_the_same_episode(datasets: list[Dataset]) -> None:
    windows = Windows.of(datasets, 2, 8, 1, hindsight=HindsightCfg("block", keep=0.3))
    plain = Windows.of(datasets, 2, 8, 1)
    indices = np.random.default_rng(1).permutation(len(windows))
    batch, before = windows.batch(indices), plain.batch(indices)
    goal, now = batch.obs["goal"][:, :, 0], batch.obs["block"][:, 1, 0]
    assert (goal[:, 0] == goal[:, 1]).all() and torch.equal(batch.next_obs["goal"][:, 0, 0], goal[:, 0])
    kept = (batch.obs["goal"] == before.obs["goal"]).all(-1).all(-1)
    assert kept.float().mean() == pytest.approx(0.3, abs=0.1)  # 182 windows: 3 sigma
    new, here = goal[~kept, 0], now[~kept]
    ends = torch.cat([torch.tensor(np.cumsum(LENGTHS) - 1) + 1000 * number for number in (0, 1)])
    last = ends[torch.searchsorted(ends, here.contiguous())]
    assert (new >= here).all() and (new <= last).all()  # the last frame follows itself
    assert (new > here)[here < last].all()
    share = ((new - here) / (last - here).clamp(min=1))[last - here > 10]
    assert share.mean() == pytest.approx(0.55, abs=0.1)
    for name in ("block", "agent", "corners"):
        assert torch.equal(batch.obs[name], before.obs[name])
    assert torch.equal(batch.action, before.action)


def test_goals_are_a_function_of_the_batch(datasets: list[Dataset]) -> None:
    windows = Windows.of(datasets, 1, 4, hindsight=HindsightCfg("block", keep=0.0))
    first = windows.batch(np.arange(50)).obs["goal"]
    assert torch.equal(windows.batch(np.arange(50)).obs["goal"], first)
    assert not torch.equal(windows.batch(np.arange(50)[::-1]).obs["goal"].flip(0), first)  # another epoch, another goal
    assert windows.identity["hindsight"] == {"key": "block", "keep": 0.0}
    assert "hindsight" not in Windows.of(datasets, 1, 4).identity


def test_rows_are_drawn_evenly() -> None:
    """Of 4 steps to come each is drawn a quarter of the time; 6 sigma."""
    step, length = np.full(20_000, 6), np.full(20_000, 10)
    new, later = goal_rows(step, length, 0.25, np.arange(20_000))
    assert new.mean() == pytest.approx(0.75, abs=0.02)
    counts = np.bincount(later, minlength=11)
    assert counts[:7].sum() == 0 and np.abs(counts[7:] / 20_000 - 0.25).max() < 0.02


def test_what_cannot_be_a_goal_is_refused(datasets: list[Dataset]) -> None:
    with pytest.raises(UserError, match="wanted observations goal and agent of one shape"):
        Windows.of(datasets, 1, 4, hindsight=HindsightCfg("agent"))
    with pytest.raises(UserError, match="wanted observations goal and nothing"):
        Windows.of(datasets, 1, 4, hindsight=HindsightCfg("nothing"))
    with pytest.raises(ValueError, match="keep: wanted a share"):
        HindsightCfg("block", keep=1.0)
