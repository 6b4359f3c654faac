"""LeRobot's own `LeRobotDataset` opens our datasets unchanged, and its windows are ours.

It needs LeRobot in an environment of its own, since its pins go with neither our torch nor our huggingface_hub.
"""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omnibody.robots.spec import Field, IOSpec
from omnibody.training.data.fake import fake_episode
from omnibody.training.data.layout import obs_columns, step_columns
from omnibody.training.data.reader import Dataset, open_dataset
from omnibody.training.data.windows import Windows
from omnibody.training.data.writer import DatasetWriter

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-lerobot/bin/python"
READER = ROOT / "tests/interop/lerobot_reader.py"
STEPS = 16
LENGTHS = (90, 3, 40, 150, 61)


def lerobot(dataset: Path, rows: list[int], folder: Path) -> dict[str, np.ndarray]:
    """Windows of ``STEPS`` from the ``rows``, as LeRobot reads them."""
    assert PYTHON.exists(), f"LeRobot is not installed in {PYTHON.parents[1]}; run make lerobot"
    words = [PYTHON, READER, dataset, folder / "out.npz", str(STEPS), ",".join(map(str, rows))]
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "out.npz"))


def ours(dataset: Dataset, windows: Windows, row: int) -> dict[str, np.ndarray]:
    """The same window by the names and in the types of the files."""
    batch = windows.batch(np.array([row]))
    obs, steps = obs_columns(dataset.origin.spec), step_columns(dataset.origin)
    found = {obs[key].name: values[0].numpy() for key, values in batch.obs.items()}
    found |= {steps[name].name: getattr(batch, name)[0].numpy() for name in ("action", "expert", "reward", "pose")}
    return {**found, "next.terminated": batch.terminated[0].numpy(), "pad": batch.pad[0].numpy()}


@pytest.mark.slow
def test_lerobot_reads_the_same_windows(
    tmp_path: Path, write: Callable[..., Path], full_spec: IOSpec, record_property: Callable[[str, object], None]
) -> None:
    """Bit for bit, padding included, at starts, ends, borders and random places; and how much faster ours are."""
    rng = np.random.default_rng(0)
    path = tmp_path / "data"
    episodes = [fake_episode(full_spec, length, rng) for length in LENGTHS]
    write(path, episodes[:3], spec=full_spec)
    write(path, episodes[3:], spec=full_spec)  # a second data file
    dataset = open_dataset(path)
    windows = Windows.of([dataset], STEPS, STEPS)
    borders = np.cumsum(LENGTHS)
    rows = sorted({0, *(borders - 1), *borders[:-1], *(borders - 5), *rng.integers(borders[-1], size=20)})
    theirs = lerobot(path, rows, tmp_path)
    assert (theirs["episodes"], theirs["frames"]) == (len(LENGTHS), sum(LENGTHS))
    for row in rows:
        mine = ours(dataset, windows, row)
        pad = mine.pop("pad")
        for name, values in mine.items():
            came = theirs[f"{name}/{row}"]
            if name == "observation.depth":
                came = came.astype(np.float32) * np.float32(0.001)
            np.testing.assert_array_equal(values, came, err_msg=f"{name} from row {row}")
            np.testing.assert_array_equal(pad, theirs[f"{name}/{row}/pad"], err_msg=f"{name} from row {row}")
        assert str(theirs[f"task/{row}"]) == dataset.origin.instruction
    assert not np.array_equal(ours(dataset, windows, rows[0])["pose"], theirs[f"pose/{rows[1]}"])
    assert _compare_speed(windows, float(theirs["seconds"]), record_property) > 50


def _compare_speed(windows: Windows, theirs: float, record_property: Callable[[str, object], None]) -> float:
    """How many times less processor time a window takes: LeRobot's median against ours, read in batches of 16."""
    draws = np.random.default_rng(1).integers(len(windows), size=(200, 16))
    times = []
    for indices in draws:
        start = time.process_time()
        windows.batch(indices)
        times.append((time.process_time() - start) / 16)
    mine = float(np.median(times))
    print(f"window of {STEPS}: ours {mine * 1e6:.0f} us, LeRobot {theirs * 1e6:.0f} us, ratio {theirs / mine:.0f}")
    record_property("ratio", theirs / mine)
    return theirs / mine


@pytest.mark.slow
def test_lerobot_decodes_our_video(tmp_path: Path, write: Callable[..., Path], spec: IOSpec) -> None:
    """Frames agree to two grey levels (two decoders' colour conversion), at the right time in the right episode."""
    colour = replace(spec, obs={"rgb": Field((32, 48, 3), "uint8", "1", (0.0,), (255.0,))})
    episodes = []
    for number, length in enumerate((30, 25)):
        grey = np.linspace(0, 100, 48)[:, None] + 40 * number + 4 * np.arange(length + 1)[:, None, None, None]
        rgb = (grey + np.zeros((32, 48, 3))).astype(np.uint8)
        episodes.append(replace(fake_episode(colour, length, np.random.default_rng(number)), obs={"rgb": rgb}))
    path = write(tmp_path / "data", episodes, spec=colour)
    dataset = open_dataset(path)
    windows = Windows.of([dataset], STEPS, STEPS)
    rows = [0, 7, 29, 30, 41]
    theirs = lerobot(path, rows, tmp_path)
    for row in rows:
        mine = ours(dataset, windows, row)["observation.images.rgb"].astype(float)
        came = np.moveaxis(theirs[f"observation.images.rgb/{row}"], 1, -1) * 255.0
        assert np.abs(mine - came).max() <= 2.0
    late = ours(dataset, windows, 8)["observation.images.rgb"].astype(float)
    assert np.abs(late - np.moveaxis(theirs["observation.images.rgb/7"], 1, -1) * 255.0).max() > 2.0


@pytest.mark.slow
def test_collected_data_open_too(tmp_path: Path) -> None:
    """What `omnibody collect` writes of a real run."""
    from omnibody.training.cli import main as omnibody

    words = ["robot=carrier", "tier=T0", "task=goal_nav/single_rack", "num_envs=4", "episodes=6"]
    assert omnibody(["collect", *words, f"out={tmp_path / 'data'}"]) == 0
    dataset = open_dataset(tmp_path / "data")
    theirs = lerobot(tmp_path / "data", [0, 20], tmp_path)
    mine = ours(dataset, Windows.of([dataset], STEPS, STEPS), 20)
    for name in ("action", "action.expert", "pose", "observation.route", "observation.semantics"):
        np.testing.assert_array_equal(mine[name], theirs[f"{name}/20"])
    with DatasetWriter(tmp_path / "data", dataset.origin, "another") as writer:
        assert writer.num_episodes == 6
