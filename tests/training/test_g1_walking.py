"""Training of the G1's walk: the gait fit, the mirrored policy and its export, the environment's endings, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from omnibody.robots.errors import UserError
from omnibody.robots.g1 import CHECKPOINT, EMBODIMENT
from omnibody.robots.g1_walk import (
    MIRROR_LEG,
    MIRROR_LEG_INDEX,
    MIRROR_OBS,
    MIRROR_OBS_INDEX,
    MIRROR_TWIST,
    G1Walk,
    Gait,
    gait_pose,
)
from omnibody.training.rl.state import load_state, read_numbers
from omnibody.training.walking.env import G1WalkEnv, WalkEnvConfig
from omnibody.training.walking.gait import RecordConfig, fit_table, record, standing_targets
from omnibody.training.walking.train import STATE, KLRate, Rate, TrainConfig, build, save, train

GAIT = Gait.load(CHECKPOINT / "gait.safetensors")
SMALL = TrainConfig(num_envs=4, rollout_steps=8, hidden=[16, 16])


def make_env(seed: int = 0, num_envs: int = 4, **settings: float) -> G1WalkEnv:
    return G1WalkEnv(WalkEnvConfig(num_envs=num_envs, **settings), GAIT, seed)


def test_fit_recovers_a_known_gait_from_one_leg_pair() -> None:
    """The shipped table, sampled without noise on random phases, comes back; unmirrored twists would not do."""
    rng = np.random.default_rng(0)
    phase, twist = rng.random(40_000), rng.uniform(-0.5, 0.5, (40_000, 3))
    legs = gait_pose(GAIT.pose, phase, twist)
    fitted = fit_table(phase, twist, legs, len(GAIT.pose))
    assert np.abs(fitted - GAIT.pose).max() < 0.06, "two smoothings and the bins' width"
    wrong = fit_table(phase, twist * MIRROR_TWIST, legs, len(GAIT.pose))
    assert np.abs(wrong - GAIT.pose).max() > 0.2


def test_standing_targets_are_the_shipped_ones_and_symmetric() -> None:
    np.testing.assert_allclose(standing_targets(), GAIT.stand, atol=1e-5)
    np.testing.assert_allclose(GAIT.stand[MIRROR_LEG_INDEX] * MIRROR_LEG, GAIT.stand, atol=0.02)


@pytest.mark.slow
def test_recording_gives_the_shipped_tables() -> None:
    phase, twist, legs, targets = record(RecordConfig())
    assert np.abs(fit_table(phase, twist, legs, 32) - GAIT.pose).mean() < 0.02
    assert np.abs(fit_table(phase, twist, targets, 32) - GAIT.target).mean() < 0.05
    assert np.abs(GAIT.target - GAIT.pose).mean() > 0.05, "control: targets are not poses"


def test_policy_is_symmetric_and_exported_as_it_is(tmp_path: Path) -> None:
    policy_of = build(SMALL, make_env())
    obs = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    other = obs[:, MIRROR_OBS_INDEX] * torch.as_tensor(MIRROR_OBS, dtype=torch.float32)
    torch.nn.init.normal_(policy_of.policy.action_net.weight)  # type: ignore[operator, arg-type]
    with torch.no_grad():
        mean = policy_of.policy.get_distribution(obs).get_actions(deterministic=True).numpy()
        mirrored = policy_of.policy.get_distribution(other).get_actions(deterministic=True).numpy()
        np.testing.assert_allclose(mirrored, mean[:, MIRROR_LEG_INDEX] * MIRROR_LEG, atol=1e-4)
        assert torch.allclose(policy_of.policy.predict_values(obs), policy_of.policy.predict_values(other), atol=1e-5)
    assert np.abs(mirrored - mean).max() > 0.1, "control: the mirrored action is another one"
    save(policy_of, tmp_path)
    (tmp_path / "gait.safetensors").write_bytes((CHECKPOINT / "gait.safetensors").read_bytes())
    shipped = G1Walk.load(tmp_path, 1, EMBODIMENT.limits.acceleration)
    np.testing.assert_allclose(shipped.network(obs.numpy()), mean, atol=1e-4)


def test_endings_are_told_apart() -> None:
    """A time limit is truncated and keeps its last observation; a fall is neither."""
    env = make_env(max_seconds=0.1)
    env.reset()
    for _ in range(5):
        env.step_async(np.zeros((4, 12)))
        _, _, done, infos = env.step_wait()
        for ended, info in zip(done, infos, strict=True):
            assert ended == info.get("TimeLimit.truncated", False)
            assert not ended or info["terminal_observation"].shape == (50,)
    env = make_env()
    env.reset()
    env.datas[2].qpos[2] = 0.3
    _, _, done, infos = env.step(np.zeros((4, 12)))
    assert done.tolist() == [False, False, True, False] and "TimeLimit.truncated" not in infos[2]


def test_same_seed_same_walk() -> None:
    def observations(seed: int) -> np.ndarray:
        env = make_env(seed)
        first = [env.reset()]
        return np.array(first + [env.step(np.full((4, 12), 0.1))[0] for _ in range(20)])

    np.testing.assert_array_equal(observations(3), observations(3))
    assert not np.array_equal(observations(3), observations(4))


def test_rate_follows_the_kl(tmp_path: Path) -> None:
    model = build(SMALL, make_env())
    rate = KLRate(0.01)
    model.learn(1)
    rate.init_callback(model)
    for kl, wanted in ((0.05, 1.0 / 1.5), (0.01, 1.0), (0.001, 1.5)):
        assert isinstance(model.learning_rate, Rate)
        before = model.learning_rate.value
        model.logger.record("train/approx_kl", kl)
        rate.on_rollout_start()
        assert model.learning_rate.value == pytest.approx(before * wanted)
        model._update_learning_rate(model.policy.optimizer)
        assert model.policy.optimizer.param_groups[0]["lr"] == model.learning_rate.value


def test_a_state_holds_all_that_the_next_update_hangs_on(tmp_path: Path) -> None:
    """Two models, one of them gone through a file, take the same step; without Adam's moments another one."""

    def step(model: PPO) -> torch.Tensor:
        model.policy.optimizer.zero_grad()
        sum((parameter**2).sum() for parameter in model.policy.parameters()).backward()
        model.policy.optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])

    first, second, forgetful = (build(SMALL, make_env()) for _ in range(3))
    first.learn(64)
    first.learning_rate.value = 1e-4
    save(first, tmp_path)
    numbers = load_state(second, tmp_path / STATE)
    assert numbers["rate"] == 1e-4 and second.num_timesteps == first.num_timesteps == 64
    forgetful.policy.load_state_dict(first.policy.state_dict())
    for model in (first, second, forgetful):
        model.policy.optimizer.param_groups[0]["lr"] = 1e-3
    steps = [step(model) for model in (first, second, forgetful)]
    assert torch.equal(steps[0], steps[1]) and not torch.equal(steps[0], steps[2])


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    cfg = replace(SMALL, run=str(tmp_path), rollout_steps=64, minutes=0.03)
    train(cfg)
    steps, weights = read_numbers(tmp_path / STATE)["steps"], (tmp_path / "weights.safetensors").read_bytes()
    train(cfg)
    assert read_numbers(tmp_path / STATE)["steps"] >= steps + 4 * 64 > 4 * 64
    assert (tmp_path / "weights.safetensors").read_bytes() != weights
    with pytest.raises(UserError, match="seed=0, now seed=1"):
        train(replace(cfg, seed=1))
