"""The experiment files beside the code fit the training command and the windows their policy wants."""

from pathlib import Path

import pytest

from omnibody.policies.diffusion.policy import DiffusionCfg
from omnibody.training.config import parse
from omnibody.training.train import TrainCfg

FOLDER = Path(__file__).parents[3] / "policies" / "diffusion"


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.yaml")))
def test_every_experiment_file_parses(name: str) -> None:
    cfg = parse(TrainCfg, [f"experiment=policies/diffusion/{name}", "data=[d]", "out=o"])
    assert isinstance(cfg.policy, DiffusionCfg)
    assert (cfg.windows.obs_steps, cfg.windows.action_steps) == (1, cfg.policy.chunks * cfg.policy.chunk)
