"""A body, worlds at given poses, and a kinematic loop, without any simulator."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omnibody.robots.spec import Embodiment
from omnibody.robots.surrogate import respond
from omnibody.robots.table import load_robot
from omnibody.sim_tasks.goal_nav import GoalNav, GoalNavCfg
from omnibody.sim_tasks.ros_map import save_ros_map
from omnibody.sim_tasks.scene import Box, Scene
from omnibody.sim_tasks.task import World


@pytest.fixture
def body() -> Embodiment:
    return load_robot("carrier")


@pytest.fixture
def largest(body: Embodiment) -> Embodiment:
    from omnibody.sim_tasks.families import LARGEST

    return replace(body, footprint=LARGEST)


@pytest.fixture
def world() -> Callable[..., World]:
    """Makes the worlds of ground poses (N, 3); twists (N, 3) at rest and contacts (N,) none by default."""
    return make_world


@pytest.fixture
def hall() -> Callable[..., Scene]:
    """Makes a walled hall, 12 m by 10 m inside, with boxes in it."""
    return make_hall


@pytest.fixture
def nav(tmp_path: Path) -> Callable[..., GoalNav]:
    """Makes the task of a body in a scene of one's own, by way of a map file."""

    def make(body: Embodiment, scene: Scene, num_envs: int = 1, **settings: str | float) -> GoalNav:
        save_ros_map(scene, tmp_path / "map.yaml")
        return GoalNavCfg(scene="map", map=str(tmp_path / "map.yaml"), **settings).build(body, num_envs)

    return make


@pytest.fixture
def drive() -> Callable[..., np.ndarray]:
    """Runs one episode per env with the expert in the body's identified response; (N,) bool successes."""
    return run_episodes


def make_world(body: Embodiment, poses: np.ndarray, twist: np.ndarray | None = None, contact: bool = False) -> World:
    poses = np.asarray(poses, np.float64)
    num, yaw = len(poses), poses[:, 2]
    twist = np.zeros((num, 3)) if twist is None else np.asarray(twist, np.float64)
    zero = np.zeros(num)
    columns = {
        "time": zero,
        "position": np.stack((poses[:, 0], poses[:, 1], np.full(num, body.base_height)), 1),
        "quaternion": np.stack((np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)), 1),
        "yaw": yaw,
        "linear": np.stack((twist[:, 0], twist[:, 1], zero), 1),
        "angular": np.stack((zero, zero, twist[:, 2]), 1),
        "twist": twist,
    }
    tensors = {key: torch.from_numpy(value).float() for key, value in columns.items()}
    return World(**tensors, contact=torch.full((num,), contact))


def make_hall(*boxes: Box) -> Scene:
    walls = [Box("wall", x, 0.0, 0.2, 10.4, 2.0) for x in (-6.1, 6.1)]
    walls += [Box("wall", 0.0, y, 12.0, 0.2, 2.0) for y in (-5.1, 5.1)]
    return Scene("hall", (*walls, *boxes), (-6.2, -5.2), (6.2, 5.2))


def run_episodes(task: GoalNav, episodes: np.ndarray, seed: int) -> np.ndarray:
    num, body = task.num_envs, task.embodiment
    pose = np.array([start.pose for start in task.reset(np.arange(num), episodes, seed)])
    twist, history = np.zeros((num, 3)), [np.zeros((num, 3))] * 5
    reached, failed = np.zeros(num, bool), np.zeros(num, bool)
    for _ in range(round(task.max_seconds * body.rate_hz)):
        state = make_world(body, pose, twist)
        clear = task.measures(state)["clearance"].numpy()
        failed |= (clear < 0.0) & ~reached
        state = replace(state, twist=torch.from_numpy(np.mean(history, 0)).float())
        reached |= task.success(state).numpy() & ~failed
        if (reached | failed).all():
            break
        command = task.expert(state, np.random.default_rng(0)).numpy().astype(np.float64)
        for _ in range(5):
            twist = respond(body, twist, command, 0.02)
            middle = pose[:, 2] + 0.01 * twist[:, 2]
            c, s = np.cos(middle), np.sin(middle)
            pose[:, 0] += 0.02 * (c * twist[:, 0] - s * twist[:, 1])
            pose[:, 1] += 0.02 * (s * twist[:, 0] + c * twist[:, 1])
            pose[:, 2] += 0.02 * twist[:, 2]
        history = [*history[1:], twist]
    return reached
