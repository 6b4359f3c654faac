"""A navigation spec and datasets of random episodes for the tests of data, training and checkpoints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omnibody.robots.spec import DESCRIPTOR_NAMES, Field, IOSpec
from omnibody.training.data.fake import fake_episode
from omnibody.training.data.layout import Episode, Origin
from omnibody.training.data.writer import DatasetWriter

LENGTHS = (23, 5, 40, 1, 17, 31)


def navigation_spec(height: int, width: int) -> IOSpec:
    """The observations and the action of goal navigation, with images of any size."""
    obs = {
        "depth": Field((height, width), "float32", "m", (0.0,), (10.0,)),
        "semantics": Field((height, width), "uint8", "class", (0.0,), (5.0,)),
        "velocity": Field((3,), "float32", "m/s,m/s,rad/s", (-5.0,), (5.0,), ("vx", "vy", "wz")),
        "route": Field((10, 4), "float32", "m", (-20.0,), (20.0,)),
        "goal": Field((4,), "float32", "m,m,1,1", (-20.0,), (20.0,), ("x", "y", "cos", "sin")),
    }
    action = Field((3,), "float32", "m/s,m/s,rad/s", (-0.5, 0.0, -1.0), (1.0, 0.0, 1.0), ("vx", "vy", "wz"))
    return IOSpec(obs, action, 10.0)


@pytest.fixture
def spec() -> IOSpec:
    return navigation_spec(6, 8)


@pytest.fixture
def full_spec() -> IOSpec:
    """With images of the real size."""
    return navigation_spec(16, 64)


@pytest.fixture
def origin(spec: IOSpec) -> Origin:
    facts = tuple(0.1 * k for k in range(len(DESCRIPTOR_NAMES)))
    return Origin(spec, "goal_nav/office", "go to the goal", "carrier", "T1", facts, 3, {"random": 0.1})


@pytest.fixture
def episodes(spec: IOSpec) -> list[Episode]:
    rng = np.random.default_rng(0)
    return [fake_episode(spec, length, rng) for length in LENGTHS]


@pytest.fixture
def write(origin: Origin) -> Callable[..., Path]:
    """``write(path, episodes, **changes of the origin)`` makes a closed dataset."""

    def make(path: Path, episodes: list[Episode], **changes: object) -> Path:
        with DatasetWriter(path, replace(origin, **changes), "revision") as writer:
            for episode in episodes:
                writer.append(episode)
        return path

    return make
