"""Imports: what stood in the recording stands in the dataset, seen through the task or as it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from omnibody.policies.batch import mobile_part
from omnibody.robots.errors import UserError
from omnibody.sim_tasks import tee
from omnibody.training.data.layout import DatasetError, Episode
from omnibody.training.data.reader import Dataset, open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.importing import ImportCfg, import_source

Write = Callable[..., Path]
LENGTHS = (7, 12, 3)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A replay buffer of Push-T; the angle is unwrapped."""
    rng, frames = np.random.default_rng(0), sum(LENGTHS)
    state = np.concatenate([rng.uniform(100, 400, (frames, 4)), rng.uniform(-15, 15, (frames, 1))], 1)
    action = rng.uniform(0, 512, (frames, 2))
    return {"state": state.astype(np.float32), "action": action.astype(np.float32), "episode_ends": np.cumsum(LENGTHS)}


def imported(out: Path, source: Path, task: str = "push_t", rate_hz: float | None = None) -> Dataset:
    assert import_source(ImportCfg(source=str(source), out=str(out), task=task, rate_hz=rate_hz)) == len(LENGTHS)
    return open_dataset(out)


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def test_push_t_is_seen_through_the_task(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    dataset = imported(tmp_path / "out", saved(tmp_path / "push_t.npz", arrays))
    assert dataset.length.tolist() == list(LENGTHS) and dataset.origin.spec.rate_hz == 10.0
    state = arrays["state"].astype(np.float64)
    second = slice(dataset.first[1], dataset.first[1] + LENGTHS[1])
    own = slice(LENGTHS[0], LENGTHS[0] + LENGTHS[1])
    np.testing.assert_array_equal(dataset.arrays["action"][second], arrays["action"][own])
    np.testing.assert_array_equal(dataset.arrays["obs.agent"][second], arrays["state"][own, :2])
    np.testing.assert_allclose(
        dataset.arrays["obs.corners"][second], tee.corners(state[own, 2:]).reshape(-1, 16), rtol=1e-5
    )
    block = dataset.arrays["obs.block"][second]
    np.testing.assert_allclose(np.exp(1j * state[own, 4]), block[:, 2] + 1j * block[:, 3], atol=1e-6)
    last = dataset.arrays["obs.agent"][second.stop]
    np.testing.assert_array_equal(last, arrays["state"][own, :2][-1])  # what came after the last action is not known
    assert dataset.arrays["truncated"][second].tolist() == [False] * (LENGTHS[1] - 1) + [True]


def test_zarr_holds_the_same(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    group = zarr.open_group(str(tmp_path / "push_t.zarr"), mode="w", zarr_format=2)
    for key, values in arrays.items():
        group.create_array(f"meta/{key}" if key == "episode_ends" else f"data/{key}", data=values)
    one = imported(tmp_path / "zarr", tmp_path / "push_t.zarr")
    other = imported(tmp_path / "npz", saved(tmp_path / "push_t.npz", arrays))
    assert all(np.array_equal(one.arrays[key], other.arrays[key]) for key in other.arrays)


def test_without_a_task_columns_are_taken_as_they_are(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    source = saved(tmp_path / "any.npz", arrays)
    with pytest.raises(UserError, match="rate_hz: wanted one rate, came none"):
        imported(tmp_path / "none", source, task="")
    dataset = imported(tmp_path / "out", source, task="", rate_hz=20.0)
    assert list(dataset.origin.spec.obs) == ["state"] and dataset.origin.spec.rate_hz == 20.0
    assert dataset.origin.spec.action.high == tuple(arrays["action"].max(0).tolist())


def test_lerobots_datasets_are_read(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    """One of our own, which is one of LeRobot's: all but pictures comes back."""
    path = write(tmp_path / "own", episodes)
    assert import_source(ImportCfg(source=str(path), out=str(tmp_path / "out"))) == len(episodes)
    ours, theirs = open_dataset(tmp_path / "out"), open_dataset(path)
    assert ours.origin.spec.rate_hz == 10.0 and ours.length.tolist() == theirs.length.tolist()
    rows = slice(theirs.first[2], theirs.first[2] + theirs.length[2])
    for key in ("action", "reward", "success", "obs.goal", "obs.semantics", "obs.depth"):
        np.testing.assert_array_equal(ours.arrays[key][rows], theirs.arrays[key][rows])


def test_windows_of_human_data(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Diffusion Policy's convention: To - 1 rows of padding before, Ta - 1 behind, and the action is the expert's."""
    dataset = imported(tmp_path / "out", saved(tmp_path / "push_t.npz", arrays))
    windows = Windows.of([dataset], obs_steps=2, action_steps=6, lead=1, pad_after=2)
    # An episode of L steps gives L - 6 + 1 windows without padding, one more before and two behind.
    assert len(windows) == sum(max(1, length - 6 + 1 + 1 + 2) for length in LENGTHS)
    batch = windows.batch(np.arange(len(windows)))
    assert batch.pad[:-1].sum(1).max() == 2 and batch.pad[0].tolist() == [True] + [False] * 5
    assert torch.equal(batch.obs["agent"][0, 0], batch.obs["agent"][0, 1])
    assert batch.expert is batch.action and batch.pose is None and batch.descriptor is None
    assert len(Windows.of([dataset], 2, 6, 1)) == sum(LENGTHS)
    with pytest.raises(UserError, match="wanted a dataset with pose"):
        mobile_part(batch.pose, "pose")
    moved = batch.to("cpu")
    assert moved.pose is None and torch.equal(moved.action, batch.action)


def test_data_with_and_without_a_body_do_not_mix(tmp_path: Path, write: Write, episodes: list[Episode]) -> None:
    one = open_dataset(write(tmp_path / "one", episodes))
    other = open_dataset(write(tmp_path / "other", episodes, parts=("expert",)))
    assert "pose" not in other.arrays
    with pytest.raises(DatasetError, match="only one of them has pose"):
        Windows.of([one, other], 4, 4)


BAD = {
    "wanted an .npz file": lambda arrays: None,
    "wants arrays episode_ends and action": lambda arrays: {"state": arrays["state"]},
    "must rise to the number of frames": lambda arrays: {**arrays, "episode_ends": np.array([5, 5, 22])},
    "wants a column state of 5": lambda arrays: {**arrays, "state": arrays["state"][:, :4]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_sources_are_refused(message: str, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    changed = BAD[message](arrays)
    source = tmp_path / "absent" if changed is None else saved(tmp_path / "bad.npz", changed)
    with pytest.raises(UserError, match=message):
        import_source(ImportCfg(source=str(source), out=str(tmp_path / "out"), task="push_t"))
    assert not (tmp_path / "out").exists()


def test_mirror_images_follow_their_episodes(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The canonical table is its own mirror image: nothing is cut, coverage stays, twice mirrored is the same."""
    source = saved(tmp_path / "push_t.npz", arrays)
    assert import_source(ImportCfg(source=str(source), out=str(tmp_path / "out"), task="push_t", mirror=True)) == 6
    dataset = open_dataset(tmp_path / "out")
    assert dataset.length.tolist() == [*LENGTHS, *LENGTHS]
    one, other = (slice(dataset.first[n], dataset.first[n] + LENGTHS[1]) for n in (1, 4))
    reward, action = dataset.arrays["reward"], dataset.arrays["action"]
    np.testing.assert_allclose(reward[one], reward[other], atol=1e-6)
    np.testing.assert_allclose(512 - action[one][:, ::-1], action[other], atol=1e-3)
    left, right = (dataset.arrays["obs.corners"][rows].reshape(-1, 8, 2) for rows in (one, other))
    swapped = [1, 0, 7, 6, 5, 4, 3, 2]  # which corner is which in the mirror
    np.testing.assert_allclose(512 - left[..., ::-1], right[:, swapped], atol=1e-3)
    assert np.abs(left - right).max() > 10  # they are two episodes
