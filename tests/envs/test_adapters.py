import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from omnibody.envs import gym_adapter
from omnibody.envs.sb3_adapter import Sb3VecEnv
from omnibody.robots.table import ROBOTS
from omnibody.sim_tasks.table import TASKS

gym_adapter.register()
# The checkers warn of what is true and meant: metres are not images, a differential drive's vy is bounded by 0 and 0.
pytestmark = pytest.mark.filterwarnings("ignore:.*WARN", "ignore:We recommend", "ignore:It seems", "ignore:Your")
IDS = [gym_adapter.env_id(task, robot) for task in TASKS for robot in ROBOTS]


@pytest.mark.parametrize("name", IDS)
def test_the_checkers_of_gymnasium_and_sb3_pass_on_every_registered_env(name):
    env = gymnasium.make(name, scene="single_rack").unwrapped
    check_env(env, skip_render_check=True)
    sb3_check_env(env, skip_render_check=True)
    env.close()


def test_a_checker_notices_an_observation_outside_its_space(make):
    """Negative control of the test above."""
    env = gymnasium.make(IDS[0], scene="single_rack", tier="T1").unwrapped
    env.observation_space["goal"].high[:] = env.observation_space["goal"].low[:] + 1e-3
    with pytest.raises(AssertionError):
        check_env(env, skip_render_check=True)
    env.close()


def test_make_vec_steps_a_batch_and_keeps_the_final_observation():
    env = gymnasium.make_vec(IDS[0], num_envs=3, vectorization_mode="vector_entry_point", scene="office", tier="T0")
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    for _ in range(500):
        obs, _, terminated, truncated, infos = env.step(np.tile(np.float32([1.0, 0.0, 0.0]), (3, 1)))
        done = terminated | truncated
        if done.any():
            break
    row = int(np.argmax(done))
    assert infos["_final_obs"][row] and env.single_observation_space.contains(
        {key: value[row] for key, value in infos["final_obs"].items()}
    )
    assert not np.array_equal(infos["final_obs"]["route"][row], obs["route"][row])
    env.close()


def test_the_checker_passes_with_a_colour_picture():
    env = gymnasium.make(IDS[0], scene="single_rack", tier="T0", rgb=36).unwrapped
    assert env.observation_space["image"].shape == (36, 102, 3)
    check_env(env, skip_render_check=True)
    env.close()


def test_sb3_sees_time_limits_as_truncation_with_the_terminal_observation(make):
    env = Sb3VecEnv(make(num_envs=2, max_seconds=0.3))
    env.reset()
    for _ in range(3):
        obs, _, done, infos = env.step(np.zeros((2, 3), np.float32))
    assert done.all() and all(info["TimeLimit.truncated"] for info in infos)
    assert not np.array_equal(infos[0]["terminal_observation"]["route"], obs["route"][0])


def test_sb3_does_not_call_a_collision_a_time_limit(make):
    env = Sb3VecEnv(make(num_envs=2))
    env.reset()
    for _ in range(300):
        _, _, done, infos = env.step(np.tile(np.float32([1.0, 0.0, 0.0]), (2, 1)))
        if done.any():
            break
    assert done.any() and not infos[int(np.argmax(done))]["TimeLimit.truncated"]
