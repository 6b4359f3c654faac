"""What the COMPASS tests share: a spec with a small camera, bodies, and random observations."""

import pytest
import torch
from torch import Tensor

from omnibody.policies.batch import fake_batch
from omnibody.robots.spec import Embodiment, Field, IOSpec
from omnibody.robots.table import load_robot


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def carrier() -> Embodiment:
    """A body without vy."""
    return load_robot("carrier")


@pytest.fixture
def omni() -> Embodiment:
    """A body with vy."""
    return load_robot("omni")


@pytest.fixture(scope="session")
def spec() -> IOSpec:
    action = Field((3,), "float32", "m/s,m/s,rad/s", (-1.0,), (1.0,))
    obs = {
        "depth": Field((8, 32), "float32", "m", (0.0,), (10.0,)),
        "semantics": Field((8, 32), "uint8", "class", (0.0,), (5.0,)),
        "velocity": Field((3,), "float32", "m/s,m/s,rad/s", (-1.0,), (1.0,)),
        "route": Field((10, 4), "float32", "m", (-5.0,), (5.0,)),
        "goal": Field((4,), "float32", "m,m,1,1", (-1.0,), (1.0,)),
        "privileged": Field((2,), "float32", "m", (0.0,), (1.0,)),
    }
    return IOSpec(obs, action, 10.0)


@pytest.fixture(scope="session")
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture
def obs(spec: IOSpec, generator: torch.Generator) -> dict[str, Tensor]:
    """Observations of four environments."""
    return {key: value[:, 0] for key, value in fake_batch(spec, 4, 1, 1, generator).obs.items()}
