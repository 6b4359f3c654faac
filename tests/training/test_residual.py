"""Residual RL: the frozen base in the loop, and what stable-baselines3 sees of it."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from omnibody.envs import make_env
from omnibody.policies.checkpoint import load_policy, save_pretrained
from omnibody.policies.compass.base import CompassBase, CompassBaseCfg
from omnibody.policies.compass.residual import CompassResidual, ResidualActorCfg
from omnibody.policies.policy import Context
from omnibody.robots.errors import UserError
from omnibody.sim_tasks.goal_nav import GoalNavCfg
from omnibody.training.rl.residual_env import ResidualEnv
from omnibody.training.rl.state import read_numbers
from omnibody.training.rl.train import STATE, RlCfg, build_ppo, train_residual

TASK = {"scene": "single_rack", "num_scenes": 4}
NUM = 4  # worlds


def tiny_base(robot: str = "carrier") -> CompassBase:
    env = make_env(robot, GoalNavCfg(**TASK), 1, "T0", threads=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = CompassBaseCfg.tiny().build(env.spec)
    env.close()
    return base.eval()


def residual_env(base: CompassBase, robot: str = "carrier", from_scratch: bool = False, **task: float) -> ResidualEnv:
    world = make_env(robot, GoalNavCfg(**TASK, **task), NUM, "T0", threads=1)
    return ResidualEnv(world, base, scale=1.0, seed=5, from_scratch=from_scratch)


def small_run(tmp_path, steps: int) -> RlCfg:
    """A specialist's training of a few rollouts on a tiny base, which is written to disk."""
    save_pretrained(tiny_base(), tmp_path / "base", {})
    cfg = RlCfg(
        base=str(tmp_path / "base"),
        robot="carrier",
        task=GoalNavCfg(**TASK),
        tier="T0",
        num_envs=NUM,
        steps=steps,
        actor=ResidualActorCfg(hidden=[16]),
        out=str(tmp_path / "run"),
    )
    cfg.ppo.rollout, cfg.ppo.batch_size = 32, 64
    return cfg


def drive(policy, robot: str, steps: int) -> np.ndarray:
    """Poses of the worlds under a policy, (steps, NUM, 3)."""
    env = make_env(robot, GoalNavCfg(**TASK), NUM, "T0", threads=1)
    state, obs, poses = policy.begin(Context(env.embodiment), NUM), env.reset(5), []
    for _ in range(steps):
        with torch.no_grad():
            action, state = policy.act(obs, state)
        obs = env.step(action[:, 0]).obs
        poses.append(env.world.position.numpy().copy())
    env.close()
    return np.array(poses)


def test_a_zero_residual_drives_as_the_base_alone():
    """COMPASS starts PPO from the base; the new first layer of its original made that start worthless."""
    base = tiny_base()
    env = residual_env(base)
    env.reset()
    poses = []
    for _ in range(12):
        env.step(np.zeros((NUM, 2), np.float32))
        poses.append(env.env.world.position.numpy().copy())
    np.testing.assert_allclose(np.array(poses), drive(base, "carrier", 12), atol=1e-3)
    # Negative control: a residual changes the way.
    env.reset()
    env.step(np.ones((NUM, 2), np.float32))
    assert np.abs(env.env.world.position.numpy() - poses[0]).max() > 0.01
    env.close()


def test_ppos_first_mean_action_is_no_residual_and_training_leaves_the_base_alone(tmp_path):
    cfg = small_run(tmp_path, 256)
    before = load_policy(cfg.base).state_dict()
    policy = CompassResidual.on(load_policy(cfg.base), cfg.actor)
    env = residual_env(policy.base)
    model = build_ppo(cfg, policy, env)
    action, _ = model.predict(env.reset(), deterministic=True)
    np.testing.assert_array_equal(action, 0.0)
    env.close()
    trained = train_residual(cfg)
    assert trained.actor.mean.weight.abs().max() > 0.0  # it learned something
    for key, value in trained.base.state_dict().items():
        assert torch.equal(value, before[key]), key
    # What is on disk acts as what was trained.
    loaded = load_policy(tmp_path / "run" / "policy")
    np.testing.assert_array_equal(drive(loaded, "carrier", 5), drive(trained, "carrier", 5))


def test_a_stopped_run_goes_on_with_its_weights_moments_and_steps(tmp_path):
    cfg = small_run(tmp_path, 128)
    first = {k: v.clone() for k, v in train_residual(cfg).actor.state_dict().items()}
    again = train_residual(cfg).actor.state_dict()  # nothing left to do
    assert all(torch.equal(first[k], again[k]) for k in first)
    cfg.steps = 256
    further = train_residual(cfg).actor.state_dict()
    assert not torch.equal(first["mean.weight"], further["mean.weight"])
    assert read_numbers(tmp_path / "run" / STATE)["steps"] == 256
    cfg.seed = 1
    with pytest.raises(UserError, match="seed=0, now seed=1"):
        train_residual(cfg)


@pytest.mark.parametrize(("robot", "dimensions"), [("carrier", [0, 2]), ("omni", [0, 1, 2])])
def test_only_the_dimensions_a_body_has_are_sampled_and_fed_back(robot, dimensions):
    """Defect 2 of the original: dead dimensions were sampled and reached the recurrent state."""
    base = tiny_base(robot)
    env = residual_env(base, robot)
    assert env.active.tolist() == dimensions and env.action_space.shape == (len(dimensions),)
    env.reset()
    env.step(np.ones((NUM, len(dimensions)), np.float32))
    fed_back = env._state["previous_action"]
    dead = [k for k in range(3) if k not in dimensions]
    assert (fed_back[:, dead] == 0.0).all() and (fed_back[:, dimensions] != 0.0).all()
    env.close()


def test_from_scratch_keeps_the_latent_and_drops_the_command():
    base = tiny_base()
    with torch.no_grad():
        base.command_head[-1].bias += 1.0  # a base that wants to drive
    scratch, residual = residual_env(base, from_scratch=True), residual_env(base)
    np.testing.assert_array_equal(scratch.reset()["actor"], residual.reset()["actor"])
    start = scratch.env.world.position.clone()
    scratch.step(np.zeros((NUM, 2), np.float32))
    residual.step(np.zeros((NUM, 2), np.float32))
    assert torch.equal(scratch.env.world.position, start)
    assert not torch.equal(residual.env.world.position, start)


def test_the_critics_bootstrap_sees_the_old_episodes_memory_and_the_actor_a_fresh_one():
    """Defect 3 of the original: time limits were stored but never bootstrapped from."""
    env = residual_env(tiny_base(), max_seconds=0.4)
    env.reset()
    for _ in range(4):
        obs, _, done, infos = env.step(np.full((NUM, 2), 0.5, np.float32))
    assert done.all() and all(info["TimeLimit.truncated"] for info in infos)
    assert not np.array_equal(infos[0]["terminal_observation"]["actor"], obs["actor"][0])
    fresh = residual_env(tiny_base(), max_seconds=0.4)
    fresh.start_at(NUM)
    np.testing.assert_allclose(obs["actor"], fresh.reset()["actor"], atol=1e-6)


def test_the_value_of_an_endless_task_is_that_of_bootstrapped_time_limits(tmp_path):
    """Closed form: one unit of reward a step for ever is worth 1 / (1 - gamma), however short the episodes are cut.

    Without the bootstrap it could be worth no more than the episode's length (the negative control)."""
    cfg = RlCfg(robot="carrier", task=GoalNavCfg(**TASK, max_seconds=0.5), actor=ResidualActorCfg(hidden=[8]))
    cfg.ppo.rollout, cfg.ppo.batch_size, cfg.ppo.gamma, cfg.ppo.epochs = 20, 80, 0.8, 1
    env = residual_env(tiny_base(), max_seconds=0.5)
    model = build_ppo(cfg, CompassResidual.on(tiny_base(), cfg.actor), env)
    wrapped = model.env
    assert isinstance(wrapped, VecNormalize)
    wrapped.norm_reward = False

    def constant(actions: np.ndarray) -> None:
        ResidualEnv.step_async(env, actions * 0)

    env.step_async = constant  # stand still: no goal, no collision
    plain = env.step_wait

    def one() -> tuple:
        obs, reward, done, infos = plain()
        return obs, np.ones_like(reward), done, infos

    env.step_wait = one
    value = model.policy.value_net
    with torch.no_grad():
        value.weight.zero_()
        value.bias.fill_(1.0 / (1.0 - 0.8))
    from stable_baselines3.common.callbacks import CallbackList

    callback = CallbackList([])
    model._setup_learn(1000, callback)
    callback.init_callback(model)
    model.collect_rollouts(wrapped, callback, model.rollout_buffer, 20)
    np.testing.assert_allclose(model.rollout_buffer.returns, 1.0 / (1.0 - 0.8), atol=1e-4)
    assert (model.rollout_buffer.returns > 5 * 0.9).all()  # an episode of 5 steps alone is worth 3.4 at most
    env.close()


def test_values_are_not_clipped_and_rewards_are_normalised():
    """Defect 1 of the original: rewards of 200 under a value clip of 0.2 froze the critic."""
    env = residual_env(tiny_base())
    cfg = RlCfg(robot="carrier", actor=ResidualActorCfg(hidden=[8]))
    cfg.ppo.rollout, cfg.ppo.batch_size = 16, 64
    model = build_ppo(cfg, CompassResidual.on(tiny_base(), cfg.actor), env)
    assert model.clip_range_vf is None and isinstance(model.env, VecNormalize) and model.env.norm_reward
    plain = residual_env(tiny_base())
    plain.step_async(np.zeros((NUM, 2), np.float32))
    _, raw, _, _ = plain.step_wait()
    model.env.reset()
    _, scaled, _, _ = model.env.step(np.zeros((NUM, 2), np.float32))
    assert not np.allclose(raw, scaled)  # the wrapper does something
    cfg.ppo.normalise_reward = False  # the original's choice
    assert not isinstance(build_ppo(cfg, CompassResidual.on(tiny_base(), cfg.actor), env).env, VecNormalize)
    env.close()
