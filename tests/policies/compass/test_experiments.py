"""The experiment files beside the code fit the commands they are for, and differ from the defaults as they say."""

from pathlib import Path
from typing import Any

import pytest

from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.robots.errors import UserError
from omnibody.training.config import parse
from omnibody.training.distill.distill import DistillCfg
from omnibody.training.rl.train import RlCfg
from omnibody.training.train import TrainCfg

FOLDER = Path(__file__).parents[3] / "policies" / "compass"
NEEDED = {TrainCfg: ["data=[d]", "out=o"], RlCfg: ["out=o"], DistillCfg: ["teachers={go2:t}", "out=o"]}
KINDS = {"il": TrainCfg, "residual": RlCfg, "distil": DistillCfg}


def read(name: str) -> Any:
    kind = KINDS[name.split("_")[0]]
    return parse(kind, [f"experiment=policies/compass/{name}", *NEEDED[kind]])


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.yaml")))
def test_every_experiment_file_parses(name: str) -> None:
    assert isinstance(read(name), KINDS[name.split("_")[0]])


def test_the_imitation_presets_are_those_of_the_code() -> None:
    assert read("il").policy == CompassBaseCfg()
    assert read("il_exact").policy == CompassBaseCfg.compass_exact() != CompassBaseCfg()


def test_the_exact_presets_differ_where_the_original_does() -> None:
    ours, theirs = read("residual"), read("residual_exact")
    assert (ours.task.reward, theirs.task.reward) == ("geodesic", "compass_exact")
    assert (ours.task.route, theirs.task.route) == ("astar", "line")
    assert ours.ppo.normalise_reward and not theirs.ppo.normalise_reward
    assert (read("distil").student.code, read("distil_exact").student.code) == ("descriptor", "onehot")
    assert (read("distil").rounds, read("distil_exact").rounds) == (3, 1)


def test_a_file_for_another_command_is_refused() -> None:
    with pytest.raises(UserError, match="unknown key"):
        parse(RlCfg, ["experiment=policies/compass/il"])
