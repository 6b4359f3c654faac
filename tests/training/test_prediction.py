"""The measuring of predictions on real recordings."""

import pytest
import torch

from omnibody.policies.checkpoint import load_policy, save_pretrained
from omnibody.policies.compass.base import CompassBaseCfg
from omnibody.policies.compass.residual import CompassResidual, ResidualActorCfg
from omnibody.robots.errors import UserError
from omnibody.training.collect import CollectCfg, record
from omnibody.training.data.reader import open_dataset
from omnibody.training.prediction import PredictionCfg, measure_prediction


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of a few episodes and an untrained base."""
    folder = tmp_path_factory.mktemp("prediction")
    data = folder / "data"
    record(CollectCfg(robot="carrier", out=str(data), task="goal_nav/single_rack", tier="T0", episodes=4, num_envs=4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = CompassBaseCfg.tiny().build(open_dataset(data).origin.spec)
    save_pretrained(base, folder / "base", {})
    return folder


def test_an_untrained_model_foresees_worse_than_repeating_the_last_frame(made):
    figures = measure_prediction(PredictionCfg(str(made / "base"), str(made / "data"), horizon=3, held_out=0.5))
    assert [len(row) for row in figures.values()] == [3] * len(figures)
    assert figures["depth_l1_m"][0] > figures["depth_l1_m_repeat"][0] > 0.0
    # The world moves on: repeating gets worse with every step.
    assert figures["depth_l1_m_repeat"] == sorted(figures["depth_l1_m_repeat"])


def test_another_policy_is_refused(made):
    specialist = CompassResidual.on(load_policy(made / "base"), ResidualActorCfg(hidden=[8]))
    save_pretrained(specialist, made / "specialist", {})
    with pytest.raises(UserError, match="wanted a compass_base, came a CompassResidual"):
        measure_prediction(PredictionCfg(str(made / "specialist"), str(made / "data")))
