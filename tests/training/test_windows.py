"""Windows: the right rows, never another episode's, in an order that depends on seed and epoch alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omnibody.policies.batch import Batch, Lazy, fake_batch
from omnibody.robots.spec import DESCRIPTOR_NAMES, IOSpec
from omnibody.training.data.layout import DatasetError, Episode
from omnibody.training.data.reader import open_dataset
from omnibody.training.data.windows import Windows, order

Write = Callable[..., Path]


def coded(episodes: list[Episode], code: int = 0) -> list[Episode]:
    """Episodes whose goal, action, reward and pose say where they stand: (dataset, episode, step)."""
    result = []
    for number, episode in enumerate(episodes):
        steps = np.arange(len(episode.action) + 1)
        where = np.stack([np.full_like(steps, code), np.full_like(steps, number), steps], 1).astype(np.float32)
        goal = np.concatenate([where, where[:, 2:]], 1)
        values = {"action": where[:-1], "expert": -where[:-1], "reward": where[:-1, 2], "pose": where[:-1]}
        result.append(replace(episode, obs={**episode.obs, "goal": goal}, **values))
    return result


def naive(episodes: list[Episode], number: int, step: int, lead: int, obs_steps: int, action_steps: int) -> dict:
    """The definition of a window, row by row."""
    episode, last = episodes[number], len(episodes[number].action) - 1
    rows = [step - lead + j for j in range(max(obs_steps, action_steps))]
    inside = [min(max(row, 0), last) for row in rows]
    return {
        "goal": np.stack([episode.obs["goal"][row] for row in inside[:obs_steps]]),
        "next": np.stack([episode.obs["goal"][row + 1] for row in inside[:obs_steps]]),
        "action": np.stack([episode.action[row] for row in inside[:action_steps]]),
        "expert": np.stack([episode.expert[row] for row in inside[:action_steps]]),
        "before": np.stack([episode.action[row - 1] if row else np.zeros(3) for row in inside[:obs_steps]]),
        "reward": np.stack([episode.reward[row] for row in inside[:action_steps]]),
        "terminated": np.stack([episode.terminated[row] for row in inside[:action_steps]]),
        "pose": np.stack([episode.pose[row] for row in inside]),
        "pad": np.array([row != kept for row, kept in zip(rows, inside, strict=True)]),
    }


def fields(batch: Batch, k: int) -> dict:
    values = {"goal": batch.obs["goal"], "next": batch.next_obs["goal"], "before": batch.previous_action}
    same = ("action", "expert", "reward", "terminated", "pose", "pad")
    values |= {name: getattr(batch, name) for name in same}
    return {name: value[k].numpy() for name, value in values.items()}


SHAPES = [(16, 16, 0, 4), (2, 8, 1, 1), (1, 1, 0, 1), (4, 2, 3, 3), (3, 12, 0, 7)]


@pytest.mark.parametrize(("obs_steps", "action_steps", "lead", "stride"), SHAPES)
def test_windows_equal_their_definition(
    obs_steps: int, action_steps: int, lead: int, stride: int, tmp_path: Path, write: Write, episodes: list[Episode]
) -> None:
    episodes = coded(episodes)
    dataset = open_dataset(write(tmp_path / "data", episodes))
    windows = Windows.of([dataset], obs_steps, action_steps, lead, stride)
    anchors = [(number, step) for number, e in enumerate(episodes) for step in range(0, len(e.action), stride)]
    assert len(windows) == len(anchors)
    shuffled = np.random.default_rng(1).permutation(len(anchors))
    batch = windows.batch(shuffled)
    for k, index in enumerate(shuffled):
        wanted = naive(episodes, *anchors[index], lead, obs_steps, action_steps)
        for name, value in fields(batch, k).items():
            np.testing.assert_array_equal(value, wanted[name], err_msg=f"{name} of window {index}")
    # Negative control: the definition with another lead disagrees.
    other = naive(episodes, *anchors[-1], lead + 1, obs_steps, action_steps)
    assert not np.array_equal(fields(windows.batch(np.array([len(anchors) - 1])), 0)["pose"], other["pose"])


def test_no_window_crosses_an_episode(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    """Every row of a window, padding and successors included, carries the same episode number."""
    dataset = open_dataset(write(tmp_path / "data", coded(episodes)))
    windows = Windows.of([dataset], 16, 16, lead=5)
    batch = windows.batch(np.arange(len(windows)))
    for goal in (batch.obs["goal"], batch.next_obs["goal"]):
        assert (goal[:, :, 1] == goal[:, :1, 1]).all()
    raw = torch.from_numpy(dataset.arrays["obs.goal"][:, 1].copy()).unfold(0, 16, 1)
    assert (raw != raw[:, :1]).any()  # plain slices of the cache do cross
    real = ~batch.pad
    assert (batch.next_obs["goal"][:, :, 2] - batch.obs["goal"][:, :, 2])[real].eq(1).all()
    assert real.any(1).all()  # no window is all padding


def test_units_and_types(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    windows = Windows.of([open_dataset(write(tmp_path / "data", episodes))], 16, 16)
    batch = windows.batch(np.array([0, 3]))
    depth = torch.from_numpy(episodes[0].obs["depth"][:16])
    assert batch.obs["depth"].dtype == torch.float32
    torch.testing.assert_close(batch.obs["depth"][0], depth, atol=0.00051, rtol=0)
    assert batch.obs["semantics"].dtype == torch.uint8 and batch.terminated.dtype == torch.bool
    facts = dict(zip(DESCRIPTOR_NAMES, batch.descriptor[0].tolist(), strict=True))
    assert batch.velocity_high[1].tolist() == [facts["vx_high"], facts["vy_high"], facts["wz_high"]]


def test_what_some_data_do_not_tell_a_mixed_batch_does_not_hold(
    tmp_path: Path, write: Write, episodes: list[Episode]
) -> None:
    told = open_dataset(write(tmp_path / "told", episodes))
    untold = open_dataset(write(tmp_path / "untold", episodes, parts=("pose",)))
    assert "reward" not in untold.arrays and Windows.of([told], 4, 4).batch(np.arange(3)).reward is not None
    mixed = Windows.of([told, untold], 4, 4)
    batch = mixed.batch(np.array([0, len(mixed) - 1]))
    assert batch.reward is None and batch.to("cpu").reward is None and batch.expert.shape == (2, 4, 3)


def test_several_bodies_in_one_batch(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    """A mixed batch equals its rows read one by one, each with its own body's descriptor."""
    datasets = []
    for code in range(3):
        facts = tuple(code + 0.1 * k for k in range(len(DESCRIPTOR_NAMES)))
        path = write(tmp_path / f"{code}", coded(episodes, code), robot=f"body{code}", descriptor=facts)
        datasets.append(open_dataset(path))
    windows = Windows.of(datasets, 4, 6)
    indices = np.random.default_rng(2).integers(len(windows), size=64)
    batch = windows.batch(indices)
    assert (batch.obs["goal"][:, 0, 0] == batch.descriptor[:, 0]).all()
    assert len(batch.descriptor[:, 0].unique()) == 3
    for k, index in enumerate(indices):
        alone = fields(windows.batch(np.array([index])), 0)
        assert all(np.array_equal(value, alone[name]) for name, value in fields(batch, k).items())


def test_datasets_must_agree(tmp_path: Path, write: Write, spec: IOSpec, episodes: list[Episode]) -> None:
    one = open_dataset(write(tmp_path / "one", episodes))
    other = open_dataset(write(tmp_path / "other", episodes, spec=replace(spec, rate_hz=5.0)))
    with pytest.raises(DatasetError, match="rate_hz: wanted 10.0, came 5.0"):
        Windows.of([one, other], 4, 4)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert np.array_equal(order(1, 2, 1000), order(1, 2, 1000))
    assert sorted(order(1, 2, 1000)) == list(range(1000))
    orders = [order(seed, epoch, 1000) for seed, epoch in ((1, 2), (2, 1), (1, 3), (3, 2))]
    # Two random permutations of 1000 agree in about one place; in more than 20 with probability < 1e-19.
    assert all((a == b).sum() < 20 for i, a in enumerate(orders) for b in orders[:i])


def test_split_is_by_episode(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    dataset = open_dataset(write(tmp_path / "data", coded(episodes)))
    windows = Windows.of([dataset], 4, 4)
    train, held = windows.split(0.34, seed=0)
    sets = [set(part.batch(np.arange(len(part))).obs["goal"][:, :, 1].unique().tolist()) for part in (train, held)]
    assert sets[0] | sets[1] == set(range(len(episodes))) and not sets[0] & sets[1] and len(sets[1]) == 2
    assert len(train) + len(held) == len(windows)
    again = windows.split(0.34, seed=0)[1]
    assert np.array_equal(again.episodes, held.episodes)
    with pytest.raises(DatasetError, match="cannot hold out 6 of 6 episodes"):
        windows.split(1.0, seed=0)


def test_fake_batches_have_the_shapes_of_real_ones(
    tmp_path: Path, write: Write, spec: IOSpec, episodes: list[Episode]
) -> None:
    real = Windows.of([open_dataset(write(tmp_path / "data", episodes))], 3, 5).batch(np.arange(7))
    fake = fake_batch(spec, 7, 3, 5, torch.Generator().manual_seed(0))
    for name in Batch.__dataclass_fields__:
        ours, theirs = getattr(real, name), getattr(fake, name)
        pairs = [(ours[k], theirs[k]) for k in theirs] if isinstance(ours, Mapping) else [(ours, theirs)]
        assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs), name
    assert all(torch.equal(a, b) for a, b in zip(real.to("cpu").obs.values(), real.obs.values(), strict=True))


def test_observations_are_gathered_when_they_are_read(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    """A batch that nobody reads has read no observation; one that was read keeps it, also on its way to a device."""
    batch = Windows.of([open_dataset(write(tmp_path / "data", episodes))], 4, 4).batch(np.arange(3))
    assert isinstance(batch.obs, Lazy) and isinstance(batch.next_obs, Lazy) and not batch.obs._made
    goal = batch.to("cpu").obs["goal"]
    assert list(batch.obs._made) == ["goal"] and not batch.next_obs._made and batch.obs["goal"] is batch.obs["goal"]
    assert torch.equal(goal, batch.obs["goal"]) and "depth" in batch.obs and len(batch.obs) == len(list(batch.obs))
    with pytest.raises(KeyError, match="nothing"):
        batch.obs["nothing"]
