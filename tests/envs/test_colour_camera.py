"""Pictures from the body's camera: they show what its rays hit, belong to their episode, and cost nothing when off."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from omnibody.envs import make_env
from omnibody.envs.mujoco_env import MujocoEnv
from omnibody.envs.randomization import RandomizationCfg
from omnibody.envs.render import GraphicsError, graphics_backend
from omnibody.sim_tasks.task import SEMANTIC_CLASSES

RACK = SEMANTIC_CLASSES.index("rack")


def blue(pictures: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Where the racks are, in pictures (n, H, W, 3) seen through the pixel centres of a smaller image."""
    _, height, width, _ = pictures.shape
    row = (np.arange(rows) + 0.5) * height / rows
    column = (np.arange(columns) + 0.5) * width / columns
    red, _, blue = np.moveaxis(pictures[:, row.astype(int)][:, :, column.astype(int)].astype(int), -1, 0)
    return blue > 1.5 * red


def test_they_show_what_the_rays_hit(make: Callable[..., MujocoEnv]) -> None:
    """Also with a camera that is mounted wrong, on a body that tilts; the control is another world's picture."""
    wrong = RandomizationCfg(camera_pitch=0.2, camera_position=0.1)
    env = make("go2", 4, "T2", randomization=wrong, rgb=64)
    env.reset(3)
    for _ in range(8):
        obs = env.step(env.expert()).next_obs
    pictures, seen = obs["image"].numpy(), obs["semantics"].numpy() == RACK
    assert pictures.shape == (4, *env.spec.obs["image"].shape) == (4, 64, 182, 3)
    assert seen.mean() > 0.02
    found = blue(pictures, *seen.shape[1:])
    assert (found == seen).mean() > 0.98
    assert (found == np.roll(seen, 1, 0)).mean() < 0.95


def test_they_belong_to_their_episode_however_many_worlds_there_are(make: Callable[..., MujocoEnv]) -> None:
    """Also where an episode has ended: the picture to act on is the new one's, that of the others stays."""
    many, one = (make("carrier", num, "T0", rgb=32, max_seconds=0.4) for num in (3, 1))
    turn = torch.tensor([[0.0, 0.0, 1.0]])
    first = many.reset(5)["image"]
    for _ in range(3):
        many.step(turn.expand(3, 3))
    step = many.step(turn.expand(3, 3))
    assert step.truncated.all()
    assert not torch.equal(step.obs["image"], step.next_obs["image"])
    assert torch.equal(many.look()["image"], step.obs["image"])
    assert torch.equal(one.reset(5, first_episode=2)["image"][0], first[2])
    for _ in range(4):
        last = one.step(turn)
    assert torch.equal(last.next_obs["image"][0], step.next_obs["image"][2])
    assert not torch.equal(last.next_obs["image"][0], first[2])


def test_any_thread_may_ask_for_them(make: Callable[..., MujocoEnv]) -> None:
    env = make("carrier", 2, "T0", rgb=32)
    here = env.reset(1)["image"]
    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(env.reset, 1).result()["image"], here)


def test_without_opengl_it_says_so_and_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    graphics_backend.cache_clear()
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(GraphicsError, match="MUJOCO_GL: wanted one of egl, osmesa"):
        make_env("carrier", "goal_nav/single_rack", 1, "T0", rgb=32)
    env = make_env("carrier", "goal_nav/single_rack", 1, "T0")
    assert "image" not in env.reset(0) and "image" not in env.spec.obs
    env.close()
    monkeypatch.undo()
    graphics_backend.cache_clear()
