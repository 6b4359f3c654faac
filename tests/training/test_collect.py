"""Collecting on the real environment: whoever resumes it, and in however many worlds, the same dataset comes out."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omnibody.envs import make_env
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.vec_env import Step
from omnibody.robots.spec import Limits
from omnibody.robots.table import load_robot
from omnibody.training.cli import main as omnibody
from omnibody.training.collect import CollectCfg, Collected, ExplorationCfg, Explorer, collect, origin
from omnibody.training.data.layout import Origin
from omnibody.training.data.reader import Dataset, open_dataset
from omnibody.training.data.writer import DatasetWriter

CFG = ExplorationCfg(random=0.3, bursts=0.5)
EPISODES = 7


@pytest.fixture(scope="module")
def envs() -> Iterator[Callable[[int], MujocoEnv]]:
    made: dict[int, MujocoEnv] = {}

    def get(num_envs: int) -> MujocoEnv:
        if num_envs not in made:
            made[num_envs] = make_env("carrier", "goal_nav/single_rack", num_envs, "T0", threads=1)
        return made[num_envs]

    yield get
    for env in made.values():
        env.close()


def source(env: MujocoEnv, seed: int = 5) -> Origin:
    cfg = CollectCfg(robot="carrier", out="", task="goal_nav/single_rack", tier="T0", seed=seed, exploration=CFG)
    return origin(cfg, env, env.task.instruction)


def record(path: Path, env: MujocoEnv, episodes: int = EPISODES, seed: int = 5) -> Collected:
    with DatasetWriter(path, source(env, seed), "revision") as writer:
        return collect(env, writer, episodes, CFG)


def assert_same(one: Dataset, other: Dataset) -> None:
    """Equal to the bit, but for rewards: torch's exp() of a row depends in its last bit on where the row stands."""
    assert one.length.tolist() == other.length.tolist()
    for name, values in one.arrays.items():
        tolerance = 1e-6 if name == "reward" else 0.0
        np.testing.assert_allclose(values, other.arrays[name], rtol=tolerance, atol=0.1 * tolerance, err_msg=name)


def test_the_number_of_worlds_and_a_stop_change_nothing(tmp_path: Path, envs: Callable[[int], MujocoEnv]) -> None:
    new = record(tmp_path / "four", envs(4))
    whole = open_dataset(tmp_path / "four")
    assert new.episodes == EPISODES and new.frames == whole.length.sum()
    record(tmp_path / "three", envs(3))
    assert_same(whole, open_dataset(tmp_path / "three"))
    assert record(tmp_path / "parts", envs(4), 2).episodes == 2
    assert record(tmp_path / "parts", envs(3), EPISODES).episodes == EPISODES - 2
    assert record(tmp_path / "parts", envs(3), EPISODES) == Collected(0, 0, 0, 0)
    assert_same(whole, open_dataset(tmp_path / "parts"))
    record(tmp_path / "other", envs(4), seed=6)
    with pytest.raises(AssertionError):
        assert_same(whole, open_dataset(tmp_path / "other"))


@dataclass
class Watched:
    """The environment, with everything that went in and came out kept by episode and step."""

    env: MujocoEnv

    def __post_init__(self) -> None:
        self.seen: dict[int, list[tuple[dict, dict, np.ndarray, float]]] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self.env, name)

    def reset(self, seed: int, first_episode: int = 0) -> dict:
        self.obs = self.env.reset(seed, first_episode)
        return self.obs

    def step(self, action: torch.Tensor) -> Step:
        step = self.env.step(action)
        executed = self.env.embodiment.limits.clip(action.numpy().astype(np.float64))
        for row, episode in enumerate(step.episode.tolist()):
            kept = [{key: values[row].clone() for key, values in obs.items()} for obs in (self.obs, step.next_obs)]
            self.seen.setdefault(episode, []).append((*kept, executed[row], float(step.reward[row])))
        self.obs = step.obs
        return step


def test_what_is_written_is_what_happened(tmp_path: Path, envs: Callable[[int], MujocoEnv]) -> None:
    """Every observation, its true successor, the action as executed and the reward, in the order of the episode."""
    watched = Watched(envs(4))
    record(tmp_path / "data", watched)
    dataset = open_dataset(tmp_path / "data")
    for episode in range(EPISODES):
        rows = np.arange(dataset.first[episode], dataset.first[episode] + dataset.length[episode])
        seen = watched.seen[episode][: len(rows)]
        for offset in (0, 1):  # the observation acted on, and the one it led to
            goal = torch.stack([step[offset]["goal"] for step in seen]).numpy()
            np.testing.assert_array_equal(dataset.arrays["obs.goal"][rows + offset], goal)
        depth = torch.stack([step[0]["depth"] for step in seen]).numpy()
        np.testing.assert_allclose(dataset.arrays["obs.depth"][rows] * 0.001, depth, atol=0.00051)
        executed = np.stack([step[2] for step in seen])
        np.testing.assert_allclose(dataset.arrays["action"][rows], executed, atol=1e-6)
        np.testing.assert_array_equal(dataset.arrays["reward"][rows], np.float32([step[3] for step in seen]))
        ends = dataset.arrays["terminated"][rows] | dataset.arrays["truncated"][rows]
        assert ends[-1] and not ends[:-1].any()
        moved = np.linalg.norm(np.diff(dataset.arrays["pose"][rows][:, :2], axis=0), axis=1)
        assert moved.max() < 0.15  # 1 m/s at 10 Hz: poses are of one episode, in order
    noisy = (dataset.arrays["action"] != dataset.arrays["expert"]).any(1)
    assert 0.1 < noisy.mean() < 0.9


def run(cfg: ExplorationCfg, steps: int, episode: int = 0, expert: float = 0.3) -> tuple[np.ndarray, Explorer]:
    limits = Limits((-0.5, 0.0, -1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 1.0))
    explorer = Explorer(cfg, limits, 0.1, 0, episode)
    return np.array([explorer.execute(np.array([expert, 0.0, 0.0])) for _ in range(steps)]), explorer


def test_bursts_last_and_come_as_often_as_said() -> None:
    """20 000 s: about 2500 bursts, so shares are known to a few per cent (10 % is more than 4 standard deviations)."""
    cfg = ExplorationCfg(random=0.0, bursts=0.2, burst=1.0)
    commands, explorer = run(cfg, 200_000)
    assert not explorer.is_random
    noisy = (commands != [0.3, 0.0, 0.0]).any(1)
    starts = (noisy[1:] & ~noisy[:-1]).sum()
    assert noisy.sum() / starts * 0.1 == pytest.approx(1.0, rel=0.1)
    assert starts / ((~noisy).sum() * 0.1) == pytest.approx(0.2, rel=0.1)
    assert commands[:, 0].min() >= -0.5 and commands[:, 0].max() <= 1.0 and not commands[:, 1].any()
    calm, _ = run(replace(cfg, bursts=0.0), 1000)
    assert (calm == [0.3, 0.0, 0.0]).all()


def test_random_episodes_ignore_the_expert() -> None:
    cfg = ExplorationCfg(random=1.0, hold=0.5)
    one, explorer = run(cfg, 5000, expert=0.3)
    other, _ = run(cfg, 5000, expert=-0.2)
    assert explorer.is_random and np.array_equal(one, other)
    changes = (np.diff(one, axis=0) != 0).any(1).sum()
    assert 500.0 / changes == pytest.approx(0.5, rel=0.15)
    assert abs(one[:, 0].mean() - 0.25) < 0.1 and one[:, 0].min() < -0.45 and one[:, 0].max() > 0.95
    share = np.mean([Explorer(CFG, explorer.limits, 0.1, 0, k).is_random for k in range(2000)])
    assert share == pytest.approx(0.3, abs=0.05)  # 5 standard deviations


def test_another_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["robot=carrier", "tier=T0", "task=goal_nav/single_rack", "num_envs=2", f"out={tmp_path / 'data'}"]
    assert omnibody(["collect", *words, "episodes=1"]) == 0
    assert omnibody(["collect", *words, "episodes=2", "exploration.random=0.5"]) == 2
    assert "recipe.exploration.random: wanted 0.15, came 0.5" in capsys.readouterr().err
    assert omnibody(["collect", *words, "episodes=2", "seed=1"]) == 2
    assert "seed: wanted 0, came 1" in capsys.readouterr().err
    assert open_dataset(tmp_path / "data").num_episodes == 1
    assert omnibody(["collect", *words, "exploration.size=7"]) == 2
    assert "size: wanted 0.0 to 1.0, came 7.0" in capsys.readouterr().err


def test_pictures_become_video_and_belong_to_their_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["robot=carrier", "tier=T0", "task=goal_nav/single_rack", "episodes=2", f"out={tmp_path / 'data'}"]
    assert omnibody(["collect", *words, "num_envs=2", "rgb=32"]) == 0
    data = open_dataset(tmp_path / "data")
    env = make_env("carrier", "goal_nav/single_rack", 2, "T0", threads=1, rgb=32)
    drawn = env.reset(0)["image"].numpy().astype(float)
    env.close()
    stored = data.arrays["obs.image"][data.first].astype(float)
    assert stored.shape == (2, 32, 92, 3) and len(data.arrays["obs.image"]) == (data.length + 1).sum()
    assert np.abs(stored - drawn).mean((1, 2, 3)).max() < 5.0 < np.abs(stored - np.roll(drawn, 1, 0)).mean()
    assert omnibody(["collect", *words]) == 2
    assert "observation 'image': wanted, but only" in capsys.readouterr().err


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    words = ["robot=carrier", "tier=T0", "task=goal_nav/single_rack", "num_envs=4", "episodes=24"]
    command = [sys.executable, "-m", "omnibody.training.collect", *words]
    subprocess.run([*command, f"out={tmp_path / 'whole'}"], check=True, capture_output=True)
    rng, staged = np.random.default_rng(), tmp_path / "killed/.staging"
    for least in (1, 6, 12):
        process = subprocess.Popen(
            [*command, f"out={tmp_path / 'killed'}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(staged.glob("[0-9]*"))) < least:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, f"out={tmp_path / 'killed'}"], check=True, capture_output=True)
    assert_same(open_dataset(tmp_path / "whole"), open_dataset(tmp_path / "killed"))
    assert load_robot("carrier").name == open_dataset(tmp_path / "killed").origin.robot
